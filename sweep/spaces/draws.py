"""Draws from a space of AnyNet as arrays: thousands of networks at once, before any of them is weighed or built.

In: what a space demands, its ranges, a NumPy generator. Out: `AnyNetDraws`. What is drawn:

* AnyNet A: for each stage on its own a pair (b, g), every pair that some width fits being equally likely; a width
  log-uniformly among those that the pair fits; a depth log-uniformly. Log-uniform: v has a chance proportional to 1/v.
  (Rejecting (b, g, w) that do not fit would all but remove wide groups where they are shared, since all stages must
  fit: g = 16 would fall from one sixth of AnyNet C to under 1 %. The rule of sharing would then be judged by a change
  of group widths that is not its own.)
* AnyNet B and C: exactly A given that b, or b and g, are the same in all stages.
* AnyNet D and E: C with the widths, or the widths and the depths, of every network put in rising order. So the order is
  all that the rule changes: the mix of b, g and sizes stays that of C. (Rejecting the networks of C that break the rule
  would favour equal stages, by up to num_stages!, and with them the pairs (b, g) that few widths fit.)
* Widths or depths that go down: sorted the other way, and those that are equal in all stages rejected; equal ones: the
  first stage's, for all.
* b (or g) that must differ: g (or b) as in C, then for each stage one of the values that go with it, evenly; networks
  in which all are equal are rejected. Where widths are put in order, each takes its b and g along.
* RegNet X: (b, g) as in C; d, w_0, w_a and w_m log-uniformly on the grid of the ranges (pycls draws d evenly, from 12
  to 28), given that the network is a member. The draws that are none are marked with the reason.

Where a part has several values (`Ranges`), every combination of them is equally likely, whatever the rest. A band of
flops is applied later (sampling.py) and bends all of this, as it must.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from sweep.spaces.architecture import Architecture, Stage
from sweep.spaces.choice import Choice, log_uniform
from sweep.spaces.complexity import StageArrays, batch_complexity
from sweep.spaces.cost import Cost, Image
from sweep.spaces.orders import Order, Sharing
from sweep.spaces.ranges import MULTIPLIERS_PER_UNIT, SLOPES_PER_UNIT, Ranges
from sweep.spaces.regnet import (
    compatible_widths,
    follows_line,
    level_bounds,
    level_starts,
    level_widths,
    line_grid,
    may_follow_line,
)
from sweep.spaces.space import MEMBER, Draws


@dataclass(frozen=True)
class AnyNetDraws(Draws):
    """Whole numbers of shape (num, num_stages), and for each draw a template and a code, (num,).

    `pairs` index `ranges.pairs`, `templates` `ranges.templates`. Only the rows of members are filled in.
    """

    REASONS: ClassVar[tuple[str, ...]] = (
        "member",
        "another number of stages",
        "group width above the bottleneck width",
        "width outside the ranges",
        "depth outside the ranges",
        "depths decrease",
        "all stages are equal in what the rule would have them share or raise",
        "widths on a quantised line",
    )

    ranges: Ranges
    depths: np.ndarray
    widths: np.ndarray
    pairs: np.ndarray
    templates: np.ndarray
    reasons: np.ndarray
    _stages: dict[tuple[int, int, int], Stage] = field(default_factory=dict, repr=False)

    def weigh(self, rows: np.ndarray, image: Image) -> Cost:
        stages, templates = self._stage_arrays(rows), self.templates[rows]
        columns = np.zeros((3, len(rows)), dtype=np.int64)
        for number, parts in enumerate(self.ranges.templates):
            here = templates == number
            cost = batch_complexity([StageArrays(*(c[here] for c in stage)) for stage in stages], parts, image)
            columns[:, here] = np.stack(cost)
        return Cost(*columns)

    def _stage_arrays(self, rows: np.ndarray) -> list[StageArrays]:
        ratios, group_widths = (np.array(column) for column in zip(*self.ranges.pairs))
        pairs, widths = self.pairs[rows], self.widths[rows]
        bottlenecks = (widths / ratios[pairs]).astype(np.int64)
        groups = bottlenecks if self.ranges.one_group else group_widths[pairs]
        columns = (self.depths[rows], widths, bottlenecks, groups)
        return [StageArrays(*(column[:, stage] for column in columns)) for stage in range(self.ranges.num_stages)]

    def key(self, row: int) -> bytes:
        return b"".join(column[row].tobytes() for column in (self.depths, self.widths, self.pairs, self.templates))

    def network(self, row: int) -> Architecture:
        columns = self.depths[row].tolist(), self.widths[row].tolist(), self.pairs[row].tolist()
        stages = tuple(self._stage(*stage) for stage in zip(*columns))
        return Architecture(stages, **self._parts[self.templates[row]])

    @cached_property
    def _parts(self) -> list[dict[str, Any]]:
        return [template.parts() for template in self.ranges.templates]

    @cached_property
    def _pairs(self) -> tuple[tuple[float, int], ...]:
        return self.ranges.pairs

    def _stage(self, depth: int, width: int, pair: int) -> Stage:
        """Networks of a space share their stages: thousands of networks, hundreds of stages."""
        key = depth, width, pair
        if key not in self._stages:
            ratio, group_width = self._pairs[pair]
            self._stages[key] = Stage(depth, width, group_width or int(width / ratio), ratio)
        return self._stages[key]

    def off_the_line(self) -> "AnyNetDraws":
        """The same draws, those whose widths and depths are on a line rejected."""
        reasons, grid = self.reasons.copy(), line_grid(self.ranges)
        members = np.flatnonzero(reasons == MEMBER)
        place = self.pairs[members], self.widths[members] // self.ranges.width_step
        low, high = (bounds[place] for bounds in level_bounds(self.ranges))
        depths = self.depths[members]
        may = may_follow_line(depths, low, high, grid) & (depths.sum(axis=1) <= self.ranges.regnet_depths[-1])
        for row in members[may].tolist():
            if follows_line(self.network(row), grid):
                reasons[row] = _ON_A_LINE
        return replace(self, reasons=reasons)


_ALL_EQUAL, _ON_A_LINE = 6, 7


def draw_anynet(
    ranges: Ranges,
    rng: np.random.Generator,
    num: int,
    *,
    bottleneck_ratios: Sharing,
    group_widths: Sharing,
    widths: Order,
    depths: Order,
) -> AnyNetDraws:
    """The next `num` draws of the generator."""
    pairs = _draw_pairs(ranges, rng, num, bottleneck_ratios, group_widths)
    drawn_widths = _draw_widths(pairs, ranges, rng)
    drawn_depths = log_uniform(ranges.depths, rng.random(pairs.shape))
    templates = _draw_templates(ranges, rng, num)
    order = _order(drawn_widths, widths)
    drawn_widths, pairs = (np.take_along_axis(column, order, axis=1) for column in (drawn_widths, pairs))
    drawn_depths = np.take_along_axis(drawn_depths, _order(drawn_depths, depths), axis=1)
    ratios, groups = (np.array(column)[pairs] for column in zip(*ranges.pairs))
    equal = np.zeros(num, dtype=bool)
    for column, broken in (
        (ratios, bottleneck_ratios == "differ"),
        (groups, group_widths == "differ"),
        (drawn_widths, widths == "down"),
        (drawn_depths, depths == "down"),
    ):
        if broken:
            equal |= (column == column[:, :1]).all(axis=1)
    return AnyNetDraws(ranges, drawn_depths, drawn_widths, pairs, templates, np.where(equal, _ALL_EQUAL, MEMBER))


def _order(values: np.ndarray, order: Order) -> np.ndarray:
    """For each row, which of its stages comes first, second, …"""
    if order == "up":
        return values.argsort(axis=1, kind="stable")
    if order == "down":
        return values.argsort(axis=1, kind="stable")[:, ::-1]
    stages = np.zeros(values.shape[1], dtype=np.intp) if order == "equal" else np.arange(values.shape[1])
    return np.broadcast_to(stages, values.shape)


def _draw_templates(ranges: Ranges, rng: np.random.Generator, num: int) -> np.ndarray:
    """Indices of `ranges.templates`, (num,). Without a choice nothing is drawn, so that populations stay."""
    num_templates = len(ranges.templates)
    return rng.integers(num_templates, size=num) if num_templates > 1 else np.zeros(num, dtype=np.int64)


def _draw_pairs(ranges: Ranges, rng: np.random.Generator, num: int, ratios: Sharing, groups: Sharing) -> np.ndarray:
    """Indices of `ranges.pairs`, shape (num, num_stages)."""
    shape = (num, ranges.num_stages)
    if "differ" in (ratios, groups):
        return _draw_differing_pairs(ranges, rng, shape, shared=0 if groups == "differ" else 1)
    if groups == "shared":
        return np.repeat(rng.integers(len(ranges.pairs), size=(num, 1)), ranges.num_stages, axis=1)
    if ratios == "free":
        return rng.integers(len(ranges.pairs), size=shape)
    # A given equal ratios: a ratio with f fitting group widths comes up in all stages with a chance of f^num_stages.
    ratio_of = [ratio for ratio, _ in ranges.pairs]
    distinct = list(dict.fromkeys(ratio_of))
    counts = np.array([ratio_of.count(ratio) for ratio in distinct])
    firsts = np.array([ratio_of.index(ratio) for ratio in distinct])
    chosen = Choice(counts.astype(float) ** ranges.num_stages).indices(rng.random((num, 1)))
    return firsts[chosen] + rng.integers(counts[chosen], size=shape)


def _draw_differing_pairs(
    ranges: Ranges, rng: np.random.Generator, shape: tuple[int, int], *, shared: int
) -> np.ndarray:
    """The `shared` half of the pair (0: b, 1: g) as in AnyNet C, the other stage by stage among those that suit it."""
    of_all = rng.integers(len(ranges.pairs), size=shape[0])
    values = [pair[shared] for pair in ranges.pairs]
    alike = [np.flatnonzero([other == value for other in values]) for value in values]
    table = np.zeros((len(values), max(map(len, alike))), dtype=np.int64)
    for row, indices in enumerate(alike):
        table[row, : len(indices)] = indices
    counts = np.array([len(indices) for indices in alike])
    return table[of_all[:, None], rng.integers(counts[of_all][:, None], size=shape)]


def _draw_widths(pairs: np.ndarray, ranges: Ranges, rng: np.random.Generator) -> np.ndarray:
    uniform = rng.random(pairs.shape)
    widths = np.empty(pairs.shape, dtype=np.int64)
    for index, pair in enumerate(ranges.pairs):
        here = pairs == index
        widths[here] = log_uniform(ranges.widths_for(*pair), uniform[here])
    return widths


def draw_regnet(ranges: Ranges, rng: np.random.Generator, num: int) -> AnyNetDraws:
    """The next `num` draws of the generator, of which many are no members."""
    stages = ranges.num_stages
    pair = rng.integers(len(ranges.pairs), size=num)
    uniform = rng.random((4, num))
    total = log_uniform(ranges.regnet_depths, uniform[0])
    w_0 = log_uniform(ranges.regnet_first_widths, uniform[1]).astype(float)
    w_a = log_uniform(ranges.regnet_slopes, uniform[2]) / SLOPES_PER_UNIT
    w_m = log_uniform(ranges.regnet_multipliers, uniform[3]) / MULTIPLIERS_PER_UNIT

    starts = level_starts(w_0, w_a, w_m, stages)
    ends = np.minimum(starts, total[:, None])
    # A level is skipped, or there is one more: so end most draws, and of those nothing else is worked out.
    faulty = (starts[:, -1] < total) | (ends[:, 0] < 1)
    for stage in range(1, stages):
        faulty |= ends[:, stage] <= ends[:, stage - 1]
    reasons = np.where(faulty, 1, MEMBER)
    whole = np.flatnonzero(reasons == MEMBER)
    depths = np.diff(ends[whole], axis=1, prepend=0).astype(np.int64)
    on_line = level_widths(w_0[whole], w_m[whole], stages, ranges.width_step)
    widths, reasons[whole] = _fit(depths, on_line, pair[whole], ranges)
    columns = np.zeros((3, num, stages), dtype=np.int64)
    columns[:, whole] = depths, widths, np.repeat(pair[whole, None], stages, axis=1)
    templates = _draw_templates(ranges, rng, num)
    return AnyNetDraws(ranges, columns[0], columns[1], columns[2], templates, reasons)


def _fit(depths: np.ndarray, on_line: np.ndarray, pair: np.ndarray, ranges: Ranges) -> tuple[np.ndarray, np.ndarray]:
    """The stages' widths, from those of the levels (whole floats), and what speaks against each network."""
    ratios, group_widths = (np.array(column)[pair][:, None] for column in zip(*ranges.pairs))
    group_widths = np.maximum(group_widths, 1)  # one group: every width suits
    widths, groups = compatible_widths(on_line, ratios, group_widths)
    reasons = _first_reason(
        np.diff(on_line, axis=1) <= 0,  # two levels have one width
        groups < group_widths,
        _outside(widths, ranges.widths),
        _outside(depths, ranges.depths),
        np.diff(depths, axis=1) < 0,
    )
    return widths, reasons


def _first_reason(*faults: np.ndarray) -> np.ndarray:
    """For each draw, a row, the code of the first fault that it has anywhere, in the order of the reasons."""
    return np.select([fault.any(axis=1) for fault in faults], range(1, len(faults) + 1), default=MEMBER)


def _outside(values: np.ndarray, allowed: range) -> np.ndarray:
    return (values < allowed[0]) | (values > allowed[-1]) | ((values - allowed[0]) % allowed.step > 0)
