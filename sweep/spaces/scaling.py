"""The same network, wider and deeper: what makes a pair of a small and a large one.

In: a network, its space and ranges, a factor for widths and one for depths. Out: the scaled network, of the same family
and with the same parts.

* AnyNet: each stage's depth goes to the nearest whole number, halves up, one at least; each width to the nearest
  multiple, halves up, that the ranges' `width_step` and the stage's (b, g) allow. That is what pycls does to make the
  widths of a RegNet compatible (`compatible_widths`), with the step in the same rounding. b, g and the number of stages
  stay. So does the stem: the published RegNets have 32 channels there from 200 MF to 32 GF, and it is one of the parts
  in which the networks of a space do not differ.
* Perceptron: widths to the nearest multiple of the ranges' `width_step`; the profile of widths is stretched over the
  new number of layers, each of which has the width of the old layer at its place (of two layers that become three, the
  second is there twice).
* Transformer: heads of the same width, as many more as the width asks for (DeiT: 3, 6 and 12 of 64 channels).

What a rule says of order and sharing survives: stages of one width keep one width, wider ones stay as wide or wider,
and so for depths; only factors below 1 can make all equal what had to differ, which is refused. Conditions of a user's
own (`[[space]]`) speak of what was drawn and are not asked again.

RegNet's line survives up to rounding: a line times a factor is a line, but its levels, and the blocks at which they
begin, are rounded anew. Of 150 RegNets X (ranges of the paper, seed 0) the blocks' widths are off the nearest line, by
the mean of |log ratio|, by 1.5 % in the median and 4.8 % in the worst tenth with widths × 2, by 5.7 and 11.7 % with
depths × 1.5 as well; themselves by 0.0 and 4.1 %, for the sake of their groups; 150 networks of AnyNet E by 17.9 and
43.7 %. Of RegNets with three blocks a stage at most (those of the quickstart) little is left where depths are scaled:
8.5 and 15.8 %, against 8.8 and 28.3 % (tests/benchmarks/scaled_lines.py). Scale their widths alone.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import floor, lcm
from typing import Any

from sweep.spaces.architecture import Architecture, Stage
from sweep.spaces.checks import positive_number
from sweep.spaces.mlp import Mlp
from sweep.spaces.network import Network
from sweep.spaces.ranges import Ranges
from sweep.spaces.space import Space
from sweep.spaces.vit import Vit


def scaled(network: Network, space: Space, ranges: Any, *, width_factor: float, depth_factor: float) -> Network:
    """`ranges` are those of the network's own scale; what the result costs, or whether a band holds it, is not asked.

    Raises ValueError where a factor is no positive number, or where the result is none or lacks the order that its
    space demands.
    """
    width_factor = positive_number("width_factor", width_factor)
    depth_factor = positive_number("depth_factor", depth_factor)
    ranges = space.within(ranges)
    found: Network
    if isinstance(network, Mlp):
        found = _mlp(network, ranges.width_step, width_factor, depth_factor)
    elif isinstance(network, Vit):
        found = _vit(network, width_factor, depth_factor)
    else:
        assert isinstance(network, Architecture)
        found = _anynet(network, ranges, width_factor, depth_factor)
    if not space.has_order(found):
        raise ValueError(
            f"width_factor = {width_factor:g} and depth_factor = {depth_factor:g} leave no difference where "
            f"{space.name} demands one ({network.to_json()} became {found.to_json()}); raise them, or drop the space"
        )
    return found


def _anynet(network: Architecture, ranges: Ranges, width_factor: float, depth_factor: float) -> Architecture:
    one_group = ranges.one_group or network.block == "basic"
    widths = _scaled_widths(network.stages, ranges.width_step, width_factor, one_group)
    stages = []
    for stage, width in zip(network.stages, widths):
        group_width = int(width / stage.bottleneck_ratio) if one_group else stage.group_width
        stages.append(Stage(_nearest(stage.depth, depth_factor), width, group_width, stage.bottleneck_ratio))
    return replace(network, stages=tuple(stages))


def _scaled_widths(stages: Sequence[Stage], width_step: int, factor: float, one_group: bool) -> list[int]:
    """From the narrowest width up: those of one width go together, none gets narrower than a narrower one became."""
    if factor == 1:  # also where a listed network is on no grid
        return [stage.width for stage in stages]
    became: dict[int, int] = {}
    last = 0
    for width in sorted({stage.width for stage in stages}):
        unit = lcm(*(_unit(stage, width_step, one_group) for stage in stages if stage.width == width))
        last = max(_nearest(width, factor, unit), -(-last // unit) * unit)
        became[width] = last
    return [became[stage.width] for stage in stages]


def _unit(stage: Stage, width_step: int, one_group: bool) -> int:
    """The widths of which it is a divisor are on the grid, and have a whole bottleneck that the group width divides."""
    group_width = 1 if one_group else stage.group_width
    return lcm(width_step, (Fraction(stage.bottleneck_ratio).limit_denominator() * group_width).numerator)


def _mlp(network: Mlp, width_step: int, width_factor: float, depth_factor: float) -> Mlp:
    num, num_before = _nearest(network.depth, depth_factor), network.depth
    widths = [network.widths[(2 * layer + 1) * num_before // (2 * num)] for layer in range(num)]
    if width_factor != 1:
        widths = [_nearest(width, width_factor, width_step) for width in widths]
    return replace(network, widths=tuple(widths))


def _vit(network: Vit, width_factor: float, depth_factor: float) -> Vit:
    num_heads = _nearest(network.num_heads, width_factor)
    head_width = network.width // network.num_heads
    return replace(
        network,
        width=num_heads * head_width,
        num_heads=num_heads,
        num_blocks=_nearest(network.num_blocks, depth_factor),
    )


def _nearest(value: int, factor: float, unit: int = 1) -> int:
    """The multiple of the unit, one at least, that is nearest to the product; halves go up."""
    return max(1, floor(value * factor / unit + 0.5)) * unit
