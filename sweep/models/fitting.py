"""Whether a state dict is that of an AnyNet: names and shapes, before anything is taken from it.

In: an architecture, its channels and classes, and a state dict. Out: shapes by name, or a ValueError that names
tensors.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from sweep.models.anynet import AnyNet
from sweep.spaces import Architecture


def shapes_of(architecture: Architecture, *, channels: int, classes: int) -> dict[str, torch.Size]:
    """Of each tensor of the network's state dict."""
    with torch.device("meta"):
        network = AnyNet(architecture, channels=channels, classes=classes)
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def num_classes(state: Mapping[str, Tensor], bias: str) -> int:
    """As many as the head has biases; one where that tensor is missing, which `check_state` then says."""
    return max(1, state[bias].numel()) if bias in state else 1


def check_state(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    """Raises ValueError naming the tensors that are missing, not known, or of another shape."""
    missing = [name for name in shapes if name not in state]
    unknown = [name for name in state if name not in shapes]
    misfits = [
        f"{name} of {tuple(state[name].shape)} instead of {tuple(shape)}"
        for name, shape in shapes.items()
        if name in state and state[name].shape != shape
    ]
    found = {"missing": missing, "not known": unknown, "of another shape": misfits}
    problems = [f"{len(names)} {problem} ({_some(names)})" for problem, names in found.items() if names]
    if problems:
        raise ValueError(f"state: tensors {', '.join(problems)}; give the state dict of this very architecture")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
