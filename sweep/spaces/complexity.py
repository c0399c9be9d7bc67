"""What a network costs, in closed form: multiply-adds, parameters and activations (cost.py says how they count).

In: a network (or arrays that hold many of AnyNet) and the size of its images. Out: a `Complexity`, a table by layer, or
arrays.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from sweep.spaces.architecture import Architecture
from sweep.spaces.checks import positive_int
from sweep.spaces.cost import NOTHING, Complexity, Cost, Image, LayerRow, conv, max_pool, norm
from sweep.spaces.mlp import Mlp, mlp_layers
from sweep.spaces.network import Network
from sweep.spaces.parts import Parts, squeeze_width
from sweep.spaces.vit import Vit, vit_layers


class StageArrays(NamedTuple):
    """One stage of many networks: whole-number arrays of shape (num,)."""

    depth: Any
    width: Any
    bottleneck_width: Any
    group_width: Any


_Named = Iterator[tuple[str, tuple[Any, ...], Cost]]


def complexity(network: Network, *, resolution: int = 224, channels: int = 3, classes: int = 1000) -> Complexity:
    """The exact cost for one image of `channels` × `resolution` × `resolution` pixels."""
    rows = layer_table(network, resolution=resolution, channels=channels, classes=classes)
    return Complexity(
        flops=sum(row.flops for row in rows),
        params=sum(row.params for row in rows),
        activations=sum(row.activations for row in rows),
    )


def layer_table(network: Network, *, resolution: int = 224, channels: int = 3, classes: int = 1000) -> list[LayerRow]:
    """A row for the stem, each stage (or hidden layer, or transformer block) and the head; they add up to `complexity`.

    Raises ValueError where the network cannot take such images.
    """
    image = Image(
        positive_int("resolution", resolution), positive_int("channels", channels), positive_int("classes", classes)
    )
    return [LayerRow(name, shape, *map(int, cost)) for name, shape, cost in _layers(network, image)]


def _layers(network: Network, image: Image) -> _Named:
    if isinstance(network, Mlp):
        return mlp_layers(network, image)
    if isinstance(network, Vit):
        return vit_layers(network, image)
    assert isinstance(network, Architecture)
    stages = [StageArrays(s.depth, s.width, s.bottleneck_width, s.group_width) for s in network.stages]
    return _anynet_layers(stages, network, image)


def batch_complexity(stages: list[StageArrays], parts: Parts, image: Image) -> Cost:
    """Flops, parameters and activations of many networks at once: int64 arrays of shape (num,)."""
    costs = [cost for _, _, cost in _anynet_layers(stages, parts, image)]
    return costs[0].plus(*costs[1:])


def _anynet_layers(stages: list[StageArrays], parts: Parts, image: Image) -> _Named:
    """Name, output shape and cost of the stem, each stage, and the head."""
    size, width = -(-image.resolution // parts.stem_stride), parts.stem_width
    stem = conv(image.channels, width, size, kernel=parts.stem_kernel, bias=parts.conv_bias)
    stem = stem.plus(norm(width if parts.stem_order == "post" else image.channels, parts.norm))
    if parts.stem_pool:
        size = -(-size // 2)
        stem = stem.plus(max_pool(width, size))
    yield "stem", (width, size, size), stem
    width_in: Any = width
    for number, stage in enumerate(stages, start=1):
        size_in, size = size, -(-size // 2)
        first = _first_block(width_in, stage, size_in, size, parts)
        others = _block(stage.width, stage, size, size, parts)
        width_in = stage.width
        yield f"stage {number}", (width_in, size, size), first.plus(others.times(stage.depth - 1))
    head = conv(width_in, image.classes, size=1, kernel=1, bias=True)
    if parts.activation_order == "pre":  # what the last block leaves is neither normed nor activated
        head = head.plus(norm(width_in, parts.norm))
    yield "head", (image.classes,), head


def _first_block(width_in: Any, stage: StageArrays, size_in: int, size: int, parts: Parts) -> Cost:
    """The block that halves the resolution, with the projection beside it, or the pooling before it."""
    projection = conv(width_in, stage.width, size, kernel=1, bias=parts.conv_bias)
    if parts.activation_order == "post":
        projection = projection.plus(norm(stage.width, parts.norm))
    if parts.downsampling == "stride":
        return _block(width_in, stage, size_in, size, parts).plus(projection)
    pooled = max_pool(width_in, size).plus(_block(width_in, stage, size, size, parts))
    return pooled.plus(projection.times(1 * (width_in != stage.width)))


def _block(width_in: Any, stage: StageArrays, size_in: int, size: int, parts: Parts) -> Cost:
    """The residual branch."""
    bias, kernel, bottleneck = parts.conv_bias, parts.kernel_size, stage.bottleneck_width
    if parts.block == "basic":
        convs = conv(width_in, bottleneck, size, kernel=kernel, bias=bias).plus(
            conv(bottleneck, stage.width, size, kernel=kernel, bias=bias)
        )
        inner = bottleneck
    else:
        convs = conv(width_in, bottleneck, size_in, kernel=1, bias=bias).plus(
            conv(stage.group_width, bottleneck, size, kernel=kernel, bias=bias),
            conv(bottleneck, stage.width, size, kernel=1, bias=bias),
        )
        inner = 2 * bottleneck
    outer = stage.width if parts.activation_order == "post" else width_in
    return convs.plus(norm(inner + outer, parts.norm), _squeeze_excitation(width_in, bottleneck, parts.se_ratio))


def _squeeze_excitation(width_in: Any, width: Any, se_ratio: float) -> Cost:
    if not se_ratio:
        return NOTHING
    squeezed = _squeeze_widths(width_in, se_ratio)
    return conv(width, squeezed, size=1, kernel=1, bias=True).plus(conv(squeezed, width, size=1, kernel=1, bias=True))


def _squeeze_widths(width: Any, se_ratio: float) -> Any:
    if isinstance(width, np.ndarray):
        return np.rint(width * se_ratio).astype(np.int64)  # half-even, as round() in squeeze_width
    return squeeze_width(width, se_ratio)
