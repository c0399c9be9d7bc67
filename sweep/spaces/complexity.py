"""What a network costs, in closed form: multiply-adds, parameters and activations, counted as pycls counts.

In: an `Architecture` (or arrays that hold many of them) and the size of its images. Out: a `Complexity`, a table by
layer, or arrays. Flops are multiply-adds of convolutions and linear layers, with the biases of both; batch norm, ReLU,
additions and pooling cost none. Parameters count two for each channel of batch norm. Activations are the outputs of
convolutions and linear layers, squeeze-and-excitation included.

The formulas below take whole numbers or NumPy arrays alike, so a single network and a batch share them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sweep.spaces.architecture import Architecture, squeeze_width
from sweep.spaces.checks import positive_int


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


class StageArrays(NamedTuple):
    """One stage of many networks: whole-number arrays of shape (num,)."""

    depth: Any
    width: Any
    bottleneck_width: Any
    group_width: Any


class _Cost(NamedTuple):
    flops: Any
    params: Any
    activations: Any

    def plus(self, *others: "_Cost") -> "_Cost":
        columns = zip(self, *others)
        return _Cost(*(sum(column[1:], start=column[0]) for column in columns))

    def times(self, count: Any) -> "_Cost":
        return _Cost(self.flops * count, self.params * count, self.activations * count)


class _Fixed(NamedTuple):
    """What all networks of a batch share."""

    stem_width: int
    stem_stride: int
    se_ratio: float
    conv_bias: bool
    resolution: int
    channels: int
    classes: int


def complexity(
    architecture: Architecture, *, resolution: int = 224, channels: int = 3, classes: int = 1000
) -> Complexity:
    """The exact cost for one image of `channels` × `resolution` × `resolution` pixels."""
    rows = layer_table(architecture, resolution=resolution, channels=channels, classes=classes)
    return Complexity(
        flops=sum(row.flops for row in rows),
        params=sum(row.params for row in rows),
        activations=sum(row.activations for row in rows),
    )


def layer_table(
    architecture: Architecture, *, resolution: int = 224, channels: int = 3, classes: int = 1000
) -> list[LayerRow]:
    """A row for the stem, each stage and the head; the columns add up to `complexity`."""
    fixed = _fixed(architecture, resolution, channels, classes)
    stages = [StageArrays(s.depth, s.width, s.bottleneck_width, s.group_width) for s in architecture.stages]
    return [LayerRow(name, shape, *cost) for name, shape, cost in _parts(stages, fixed)]


def batch_complexity(
    stages: list[StageArrays],
    *,
    stem_width: int,
    stem_stride: int,
    se_ratio: float,
    conv_bias: bool,
    resolution: int,
    channels: int,
    classes: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flops, parameters and activations of many networks at once: int64 arrays of shape (num,)."""
    fixed = _Fixed(stem_width, stem_stride, se_ratio, conv_bias, resolution, channels, classes)
    costs = [cost for _, _, cost in _parts(stages, fixed)]
    flops, params, activations = costs[0].plus(*costs[1:])
    return flops, params, activations


def _fixed(architecture: Architecture, resolution: int, channels: int, classes: int) -> _Fixed:
    return _Fixed(
        architecture.stem_width,
        architecture.stem_stride,
        architecture.se_ratio,
        architecture.conv_bias,
        positive_int("resolution", resolution),
        positive_int("channels", channels),
        positive_int("classes", classes),
    )


def _parts(stages: list[StageArrays], fixed: _Fixed) -> Iterator[tuple[str, tuple[Any, ...], _Cost]]:
    """Name, output shape and cost of the stem, each stage, and the head."""
    size = -(-fixed.resolution // fixed.stem_stride)
    width = fixed.stem_width
    stem = _conv(fixed.channels, width, size, kernel=3, bias=fixed.conv_bias).plus(_batch_norm(width))
    yield "stem", (width, size, size), stem
    for number, stage in enumerate(stages, start=1):
        cost = _block(width, stage, size, fixed, first=True)
        size, width = -(-size // 2), stage.width
        others = _block(width, stage, size, fixed, first=False)
        yield f"stage {number}", (width, size, size), cost.plus(others.times(stage.depth - 1))
    yield "head", (fixed.classes,), _conv(width, fixed.classes, size=1, kernel=1, bias=True)


def _block(width_in: Any, stage: StageArrays, size_in: int, fixed: _Fixed, *, first: bool) -> _Cost:
    """A residual bottleneck block; the first of a stage has stride 2 and a projection."""
    size, bias, bottleneck = -(-size_in // 2) if first else size_in, fixed.conv_bias, stage.bottleneck_width
    cost = _conv(width_in, bottleneck, size_in, kernel=1, bias=bias).plus(
        _conv(stage.group_width, bottleneck, size, kernel=3, bias=bias),
        _conv(bottleneck, stage.width, size, kernel=1, bias=bias),
        _batch_norm(2 * bottleneck + stage.width),
    )
    if first:
        cost = cost.plus(_conv(width_in, stage.width, size, kernel=1, bias=bias), _batch_norm(stage.width))
    if fixed.se_ratio:
        squeezed = _squeeze_widths(width_in, fixed.se_ratio)
        cost = cost.plus(
            _conv(bottleneck, squeezed, size=1, kernel=1, bias=True),
            _conv(squeezed, bottleneck, size=1, kernel=1, bias=True),
        )
    return cost


def _conv(fan_channels: Any, width: Any, size: int, *, kernel: int, bias: bool) -> _Cost:
    """`fan_channels` is the number of input channels that one output channel sees; `size` that of the output."""
    params = (kernel * kernel * fan_channels + bias) * width
    return _Cost(flops=params * size * size, params=params, activations=width * size * size)


def _batch_norm(width: Any) -> _Cost:
    return _Cost(flops=0, params=2 * width, activations=0)


def _squeeze_widths(width: Any, se_ratio: float) -> Any:
    if isinstance(width, np.ndarray):
        return np.rint(width * se_ratio).astype(np.int64)  # half-even, as round() in squeeze_width
    return squeeze_width(width, se_ratio)
