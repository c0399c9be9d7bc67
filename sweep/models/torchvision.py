"""Weights of torchvision's RegNets under our names, and ours under theirs.

In: an `Architecture` that torchvision can build too, and the state dict of one side. Out: that of the other, with the
same tensors; the two ways are each other's exact inverse. Only names are mapped, so torchvision itself is not needed.
In the zoo, its networks are `torchvision:regnet_x_400mf` and the like.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sweep.models.fitting import check_state, num_channels, num_classes, shapes_of
from sweep.spaces import ZOO, Architecture
from sweep.spaces.checks import nearest, refusal
from sweep.spaces.parts import Parts
from sweep.spaces.zoo import TORCHVISION_PREFIX

_IN_A_BLOCK = {
    "conv1": "f.a.0",
    "norm1": "f.a.1",
    "conv2": "f.b.0",
    "norm2": "f.b.1",
    "se.squeeze": "f.se.fc1",
    "se.excite": "f.se.fc2",
    "conv3": "f.c.0",
    "norm3": "f.c.1",
    "skip.0": "proj.0",
    "skip.1": "proj.1",
}
_BLOCK = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.(.+)\.(\w+)")
_FREE_PARTS = ("stem_width", "se_ratio", "dropout", "stochastic_depth", "initialisation")
"""Torchvision's RegNet takes the first two; the others change no name, and nothing that trained weights compute."""

_STEM = "stem.0.weight"  # on both sides


def from_torchvision(architecture: Architecture, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict from torchvision's, for any number of channels and classes.

    Raises ValueError where the architecture is not of torchvision's kind, or where names or shapes do not fit it.
    """
    _check_kind(architecture)
    shapes = shapes_of(architecture, channels=num_channels(state, _STEM), classes=num_classes(state, "fc.bias"))
    names = {_theirs(ours): ours for ours in shapes}
    check_state(state, {theirs: shapes[ours] for theirs, ours in names.items()})
    return {ours: state[theirs] for theirs, ours in names.items()}


def to_torchvision(architecture: Architecture, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `from_torchvision`, with the same errors."""
    _check_kind(architecture)
    shapes = shapes_of(architecture, channels=num_channels(state, _STEM), classes=num_classes(state, "head.2.bias"))
    check_state(state, shapes)
    return {_theirs(ours): state[ours] for ours in shapes}


def torchvision_weights(name: str, path: str | Path) -> dict[str, Tensor]:
    """Our state dict for the zoo's network `name` from a `.pth` file that torchvision published; runs no code of it.

    Raises ValueError where the name is none of torchvision's in the zoo, or where the file is no state dict of it.
    """
    known = [known for known in ZOO if known.startswith(TORCHVISION_PREFIX)]
    architecture = ZOO[name] if name in known else None
    if not isinstance(architecture, Architecture):
        raise refusal("name", name, "is not one of torchvision's networks", nearest(name, known))
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # whatever torch and pickle raise for a file that is none of theirs
        problem = f"holds no weights that can be read without running code ({type(error).__name__})"
        raise refusal("path", str(path), problem, "give a state dict's .pth") from error
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise refusal("path", str(path), "holds no state dict", "save a network's state_dict(), not the network")
    try:
        return from_torchvision(architecture, state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _theirs(ours: str) -> str:
    found = _BLOCK.fullmatch(ours)
    if not found:  # the stem has the same names
        return ours.replace("head.2.", "fc.")
    stage, layer = int(found[1]) + 1, _IN_A_BLOCK[found[3]]
    return f"trunk_output.block{stage}.block{stage}-{found[2]}.{layer}.{found[4]}"


def _check_kind(architecture: Architecture) -> None:
    default, given = Parts().parts(), architecture.parts()
    for part, value in given.items():
        if part not in _FREE_PARTS and value != default[part]:
            raise refusal(part, value, "is not what torchvision builds", f"use {default[part]!r}")
