"""SGD with momentum: torch's own step, without the class around it.

`torch.optim.SGD` imports torch's compiler before it does anything, only to keep out of its way: 1.7 s of a core in each
worker that trains, and in each new one after a fault.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd


class SGD:
    """Steps of `torch.optim.SGD`, bit for bit. Each parameter must have a gradient when a step is taken."""

    def __init__(self, parameters: Iterable[Tensor], *, momentum: float, nesterov: bool, weight_decay: float):
        self._parameters = list(parameters)
        self._buffers: list[Tensor | None] = [None] * len(self._parameters)
        self._momentum, self._nesterov, self._weight_decay = momentum, nesterov, weight_decay

    def zero_grad(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        gradients: Any = [parameter.grad for parameter in self._parameters]
        sgd(
            self._parameters,
            gradients,
            self._buffers,
            foreach=True,
            lr=learning_rate,
            momentum=self._momentum,
            nesterov=self._nesterov,
            weight_decay=self._weight_decay,
            dampening=0.0,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Any]:
        """The momentum of each parameter, None before the first step and without momentum."""
        return {"momentum": self._buffers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises `ValueError` where the state has another number of parameters."""
        pairs = zip(state["momentum"], self._parameters, strict=True)
        self._buffers = [None if saved is None else saved.to(own.device, copy=True) for saved, own in pairs]
