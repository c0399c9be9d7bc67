"""Spaces of AnyNet: what their stages share, how widths and depths run, whether the widths are on a quantised line.

In: five traits. Out: a `Space` with membership, exact sizes, degrees of freedom and draws (draws.py).

Deviations from Radosavovic et al. 2020: a network whose group width does not divide its bottleneck belongs to no space
(the paper's code changes its widths until it does); and RegNet X keeps all rules of AnyNet E, so that it adds one rule
alone, where the published RegNetX lets a stage, mostly the last, be shallower than the one before.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import comb, prod
from typing import ClassVar, Literal

import numpy as np

from sweep.spaces.architecture import Architecture
from sweep.spaces.draws import AnyNetDraws, draw_anynet, draw_regnet
from sweep.spaces.network import Network
from sweep.spaces.orders import HAS_ORDER, HAS_SHARING, Order, Sharing
from sweep.spaces.ranges import Ranges
from sweep.spaces.regnet import follows_line, line_grid, num_on_lines
from sweep.spaces.space import Space


@dataclass(frozen=True, kw_only=True)
class AnyNetSpace(Space):
    """`bottleneck_ratios` and `group_widths` say what the stages share or must not share; `widths` and `depths` how
    they run from the first stage to the last; `line` whether the widths are those of a quantised line ("on"), must not
    be ("off"), or may be anything.
    """

    RANGES: ClassVar[type] = Ranges
    TABLE: ClassVar[str] = "ranges"

    bottleneck_ratios: Sharing = "free"
    group_widths: Sharing = "free"
    widths: Order = "free"
    depths: Order = "free"
    line: Literal["free", "on", "off"] = "free"

    def contains(self, network: Network, ranges: Ranges) -> bool:
        """The quantised line is sought on the grid of the ranges, which `RULES` by itself does not know."""
        ranges = self.within(ranges)
        if not (isinstance(network, Architecture) and ranges.has_parts_of(network)):
            return False
        groups = (0,) if ranges.one_group else network.group_widths
        return (
            HAS_SHARING[self.bottleneck_ratios](network.bottleneck_ratios)
            and HAS_SHARING[self.group_widths](groups)
            and self.has_order(network)
            and (self.line == "free" or is_on_a_line(network, ranges) == (self.line == "on"))
        )

    def has_order(self, network: Network) -> bool:
        assert isinstance(network, Architecture)
        return HAS_ORDER[self.widths](network.widths) and HAS_ORDER[self.depths](network.depths)

    def degrees_of_freedom(self, ranges: Ranges) -> int:
        """Per stage or shared d, w, b, g (for RegNet d, w_0, w_a, w_m, b, g), and the parts with several values."""
        ranges = self.within(ranges)
        num_parts = sum(isinstance(value, tuple) for value in ranges.parts().values())
        if self.line == "on":
            return 6 + num_parts
        shared = [self.bottleneck_ratios == "shared", self.group_widths == "shared"]
        shared += [self.widths == "equal", self.depths == "equal"]
        return sum(1 if one else ranges.num_stages for one in shared) + num_parts

    def size(self, ranges: Ranges, *, compatible: bool = True) -> int:
        """How many networks the space holds, exactly.

        For RegNet: how many settings of (d, w_0, w_a, w_m, b, g) the grid of the ranges has. Several settings may
        give one network, and many give none (another number of stages); the paper's 64^4 · 18 counts likewise, with
        64 values for each of the first four. `num_networks` counts the networks. `compatible=False` counts as the
        paper does, without asking that group widths divide bottlenecks.
        """
        ranges = self.within(ranges)
        num_templates = len(ranges.templates)
        if self.line == "on":
            num_pairs = len(ranges.pairs) if compatible else len(ranges.bottleneck_ratios) * len(ranges.group_widths)
            return num_templates * num_pairs * _num_lines(ranges)
        fitting = _fitting(ranges, compatible)
        on_lines = 0
        if self.line == "off":
            on_lines = self.size_of_line(ranges)
        return num_templates * (_num_depths(self.depths, ranges) * _num_widths(self, ranges, fitting) - on_lines)

    def num_networks(self, ranges: Ranges) -> int:
        ranges = self.within(ranges)
        return len(ranges.templates) * self.size_of_line(ranges) if self.line == "on" else self.size(ranges)

    def size_of_line(self, ranges: Ranges) -> int:
        """Networks on a line that share b and g, in one template of the ranges."""
        return _num_on_lines(ranges, self.depths == "up")

    def draw(self, ranges: Ranges, rng: np.random.Generator, num: int) -> AnyNetDraws:
        ranges = self.within(ranges)
        if self.line == "on":
            return draw_regnet(ranges, rng, num)
        draws = draw_anynet(
            ranges,
            rng,
            num,
            bottleneck_ratios=self.bottleneck_ratios,
            group_widths=self.group_widths,
            widths=self.widths,
            depths=self.depths,
        )
        return draws.off_the_line() if self.line == "off" else draws


def is_on_a_line(network: Architecture, ranges: Ranges) -> bool:
    """Whether some parameters that the ranges allow give the network's widths and depths."""
    return network.depth in ranges.regnet_depths and follows_line(network, line_grid(ranges))


_num_on_lines = lru_cache(maxsize=64)(lambda ranges, depths_up: num_on_lines(ranges, depths_up=depths_up))


def _num_depths(order: Order, ranges: Ranges) -> int:
    num, stages = len(ranges.depths), ranges.num_stages
    return _num_in_order(order, num, stages)


def _num_in_order(order: Order, num: int, stages: int) -> int:
    """Sequences of `stages` out of `num` values."""
    if order == "free":
        return num**stages
    if order == "equal":
        return num
    in_order = comb(num + stages - 1, stages)
    return in_order if order == "up" else in_order - num


def _fitting(ranges: Ranges, compatible: bool) -> dict[tuple[float, int], frozenset[int]]:
    """The widths that suit each pair of bottleneck ratio and group width."""
    every = frozenset(ranges.widths)
    return {
        (ratio, group_width): frozenset(ranges.widths_for(ratio, group_width)) if compatible else every
        for ratio in ranges.bottleneck_ratios
        for group_width in ranges.group_widths
    }


def _num_widths(space: AnyNetSpace, ranges: Ranges, fitting: dict[tuple[float, int], frozenset[int]]) -> int:
    """Choices of all stages' widths, bottleneck ratios and group widths together.

    Those in which b, or g, differ are all in which it is free, less those in which it is shared.
    """

    def count(b: Sharing, g: Sharing) -> int:
        if b == "differ":
            return count("free", g) - count("shared", g)
        if g == "differ":
            return count(b, "free") - count(b, "shared")
        lots: dict[tuple[float, int], list[frozenset[int]]] = {}
        for (ratio, group_width), widths in fitting.items():
            lot = (ratio if b == "shared" else 0, group_width if g == "shared" else 0)
            lots.setdefault(lot, []).append(widths)
        return sum(_num_sequences(space.widths, lot, ranges) for lot in lots.values())

    return count(space.bottleneck_ratios, space.group_widths)


def _num_sequences(order: Order, lot: list[frozenset[int]], ranges: Ranges) -> int:
    """Sequences of stages, each a width with one of the pairs of the lot that it suits, whose widths have the order."""
    weights = [num for width in ranges.widths if (num := sum(width in widths for widths in lot))]
    if len(set(weights)) == 1 and weights[0] == 1:
        return _num_in_order(order, len(weights), ranges.num_stages)
    if order == "free":
        return sum(weights) ** ranges.num_stages
    equal = sum(weight**ranges.num_stages for weight in weights)
    if order == "equal":
        return equal
    rising = _complete_homogeneous(weights, ranges.num_stages)
    return rising if order == "up" else rising - equal


def _complete_homogeneous(weights: list[int], degree: int) -> int:
    """The sum, over all non-decreasing sequences of that length, of the products of their weights."""
    sums = [1] + [0] * degree
    for weight in weights:
        for power in range(1, degree + 1):
            sums[power] += weight * sums[power - 1]
    return sums[degree]


def _num_lines(ranges: Ranges) -> int:
    """Settings of d, w_0, w_a and w_m."""
    axes = ranges.regnet_depths, ranges.regnet_first_widths, ranges.regnet_slopes, ranges.regnet_multipliers
    return prod(len(axis) for axis in axes)
