"""SGD, Adam and AdamW: torch's own steps, without the classes around them.

In: a recipe and the parameters of a network. Out: an optimiser whose steps are those of `torch.optim.SGD`, `Adam` and
`AdamW`, bit for bit. Those classes import torch's compiler before they do anything, only to keep out of its way: 1.7 s
of a core in each worker that trains, and in each new one after a fault.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from sweep.studies import Recipe

_ADAM_EPS = 1e-8  # torch's


class Optimizer(ABC):
    """Each parameter must have a gradient when a step is taken."""

    def __init__(self, parameters: Iterable[Tensor], *, gradient_clip: float = 0.0, l1_decay: float = 0.0):
        self._parameters = list(parameters)
        self._gradient_clip, self._l1_decay = gradient_clip, l1_decay

    def zero_grad(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Clips the gradients, adds the L1 penalty's, and lets the optimiser add or decouple its L2 penalty."""
        if self._gradient_clip:
            clip_grad_norm_(self._parameters, self._gradient_clip)
        gradients: Any = [parameter.grad for parameter in self._parameters]
        if self._l1_decay:
            for gradient, parameter in zip(gradients, self._parameters):
                gradient.add_(parameter.sign(), alpha=self._l1_decay)
        self._update(gradients, learning_rate)

    @abstractmethod
    def _update(self, gradients: list[Tensor], learning_rate: float) -> None: ...

    @abstractmethod
    def state_dict(self) -> dict[str, Any]: ...

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises `ValueError` where the state has another number of parameters."""

    def _copied(self, saved: list[Tensor | None]) -> list[Tensor | None]:
        """One saved tensor for each parameter, beside it."""
        pairs = zip(saved, self._parameters, strict=True)
        return [None if one is None else one.to(parameter.device, copy=True) for one, parameter in pairs]


class SGD(Optimizer):
    """Steps of `torch.optim.SGD`."""

    def __init__(
        self, parameters: Iterable[Tensor], *, momentum: float, nesterov: bool, weight_decay: float, **options: float
    ):
        super().__init__(parameters, **options)
        self._buffers: list[Tensor | None] = [None] * len(self._parameters)
        self._momentum, self._nesterov, self._weight_decay = momentum, nesterov, weight_decay

    def _update(self, gradients: list[Tensor], learning_rate: float) -> None:
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
        self._buffers = self._copied(state["momentum"])


class Adam(Optimizer):
    """Steps of `torch.optim.Adam`; with `is_decoupled`, of `AdamW`."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        beta1: float,
        beta2: float,
        weight_decay: float,
        is_decoupled: bool,
        **options: float,
    ):
        super().__init__(parameters, **options)
        self._means: list[Any] = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._squares: list[Any] = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._num_steps = 0
        self._beta1, self._beta2 = beta1, beta2
        self._weight_decay, self._is_decoupled = weight_decay, is_decoupled

    def _update(self, gradients: list[Tensor], learning_rate: float) -> None:
        adam(
            self._parameters,
            gradients,
            self._means,
            self._squares,
            [],
            # torch counts the steps of each parameter in a tensor of its own, and here they are all the same.
            [torch.tensor(float(self._num_steps)) for _ in self._parameters],
            foreach=True,
            decoupled_weight_decay=self._is_decoupled,
            amsgrad=False,
            beta1=self._beta1,
            beta2=self._beta2,
            lr=learning_rate,
            weight_decay=self._weight_decay,
            eps=_ADAM_EPS,
            maximize=False,
        )
        self._num_steps += 1

    def state_dict(self) -> dict[str, Any]:
        """The steps taken, and for each parameter the running means of its gradient and of that one's square."""
        return {"num_steps": self._num_steps, "means": self._means, "squares": self._squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._means, self._squares = self._copied(state["means"]), self._copied(state["squares"])
        self._num_steps = state["num_steps"]


def optimizer_of(recipe: Recipe, parameters: Iterable[Tensor]) -> Optimizer:
    shared = {
        "weight_decay": recipe.weight_decay,
        "gradient_clip": recipe.gradient_clip,
        "l1_decay": recipe.l1_decay,
    }
    if recipe.optimizer == "sgd":
        nesterov = recipe.nesterov and recipe.momentum > 0
        return SGD(parameters, momentum=recipe.momentum, nesterov=nesterov, **shared)
    is_decoupled = recipe.optimizer == "adamw"
    return Adam(parameters, beta1=recipe.momentum, beta2=recipe.beta2, is_decoupled=is_decoupled, **shared)
