"""Costs and the formulas of single layers, counted as pycls counts.

Flops are multiply-adds of convolutions and linear layers, with the biases of both, and of attention's two products;
norms, activations, additions and pooling cost none. Parameters count two for each channel of a norm. Activations are
the outputs of convolutions, linear layers and max-pooling, squeeze-and-excitation included.

The formulas take whole numbers or NumPy arrays alike, so a single network and a batch share them.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Complexity:
    """`flops` are multiply-adds for one image."""

    flops: int
    params: int
    activations: int


@dataclass(frozen=True)
class LayerRow:
    """One part of a network; `output_shape` is (channels, height, width), for the head (classes,)."""

    name: str
    output_shape: tuple[int, ...]
    flops: int
    params: int
    activations: int


class Image(NamedTuple):
    """What a network sees, pixels a side and channels, and how many classes it tells apart."""

    resolution: int
    channels: int
    classes: int


class Cost(NamedTuple):
    """Whole numbers, or arrays of shape (num,)."""

    flops: Any
    params: Any
    activations: Any

    def plus(self, *others: "Cost") -> "Cost":
        columns = zip(self, *others)
        return Cost(*(sum(column[1:], start=column[0]) for column in columns))

    def times(self, count: Any) -> "Cost":
        return Cost(self.flops * count, self.params * count, self.activations * count)


NOTHING = Cost(0, 0, 0)


def conv(fan_channels: Any, width: Any, size: int, *, kernel: int, bias: bool) -> Cost:
    """`fan_channels` is the number of input channels that one output channel sees; `size` that of the output."""
    params = (kernel * kernel * fan_channels + bias) * width
    return Cost(flops=params * size * size, params=params, activations=width * size * size)


def linear(width_in: Any, width: Any, *, bias: bool = True, times: int = 1) -> Cost:
    """One layer, applied to `times` vectors."""
    params = (width_in + bias) * width
    return Cost(flops=params * times, params=params, activations=width * times)


def norm(width: Any, kind: str = "batch") -> Cost:
    return Cost(flops=0, params=0 * width if kind == "none" else 2 * width, activations=0)


def max_pool(width: Any, size: int) -> Cost:
    """`size` is that of the output."""
    return Cost(flops=0, params=0, activations=width * size * size)
