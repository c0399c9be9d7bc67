"""The quantised linear rule of RegNet: from (d, w_0, w_a, w_m, g, b) to widths and depths, and back.

In: the parameters of Radosavovic et al. 2020 (section 3.3), one set or arrays of them. Out: an `Architecture`, arrays,
or the answer whether a network's widths and depths come from any parameters of a grid.

    u_j = w_0 + w_a · j                     block j = 0, 1, …, d - 1 on a line
    u_j = w_0 · w_m^s_j                     solved for s_j, which is rounded half to even: the block's level
    w_j = w_0 · w_m^s_j                     rounded to a multiple of 8; the blocks of one width form a stage

Each width is then made compatible with the group width as pycls does it: the bottleneck goes to the nearest multiple of
the group width. Deviations from pycls: where a level begins is found without logarithms, so that ties are ties and
every machine agrees; and in the *space* (not in `regnet`) a group width above the bottleneck width is refused, where
pycls narrows it, since the stages would no longer share it.
"""

import math
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sweep.spaces.architecture import Architecture, Stage
from sweep.spaces.checks import positive_int, positive_number, refusal
from sweep.spaces.ranges import MULTIPLIERS_PER_UNIT, SLOPES_PER_UNIT, Ranges

_BLUR = 1e-6  # of a grid step: more than floating point may shift the ends of an interval


class LineGrid(NamedTuple):
    """Where parameters are sought: w_0 among the multiples of `width_step` up to `first_width_max`.

    `slopes` (w_a) in tenths and `multipliers` (w_m) in thousandths: the lowest and the highest. With `one_group` a
    stage's convolutions are plain, and no width has to suit a group width.
    """

    width_step: int
    first_width_max: float
    slopes: tuple[float, float]
    multipliers: tuple[int, int]
    one_group: bool = False


# The rule by itself, whatever a study's ranges: any first width, any slope, the paper's multipliers.
ANY_LINE = LineGrid(8, np.inf, (1, np.inf), (1500, 3000))


def line_grid(ranges: Ranges) -> LineGrid:
    """The parameters that the ranges of a study allow."""
    slopes, multipliers = ranges.regnet_slopes, ranges.regnet_multipliers
    return LineGrid(
        ranges.width_step,
        ranges.regnet_first_widths[-1],
        (slopes[0], slopes[-1]),
        (multipliers[0], multipliers[-1]),
        ranges.one_group,
    )


def level_starts(w_0: np.ndarray, w_a: np.ndarray, w_m: np.ndarray, num_levels: int) -> np.ndarray:
    """The first block at or above level 1, 2, …, `num_levels`: whole floats, (num, num_levels).

    Only sums, products, quotients and square roots, which IEEE 754 rounds alike everywhere.
    """
    crossing = (_thresholds(w_0, w_m, num_levels) - w_0[:, None]) / w_a[:, None]
    # A tie between two levels goes to the even one: into an odd level the line must rise above the threshold.
    odd = np.arange(1, num_levels + 1) % 2 == 1
    return np.where(odd, np.floor(crossing) + 1, np.ceil(crossing))


def _thresholds(w_0: np.ndarray, w_m: np.ndarray, num_levels: int) -> np.ndarray:
    """Half-way points (in the exponent) below levels 1, 2, …: (num, num_levels)."""
    return (w_0 * np.sqrt(w_m))[:, None] * _powers(w_m, num_levels)


def level_widths(w_0: np.ndarray, w_m: np.ndarray, num_levels: int, width_step: int) -> np.ndarray:
    """Levels 0, 1, …: w_0 · w_m^s rounded to a multiple of `width_step`: whole floats, (num, num_levels)."""
    return np.rint(w_0[:, None] * _powers(w_m, num_levels) / width_step) * width_step


def _powers(base: np.ndarray, count: int) -> np.ndarray:
    """base^0 … base^(count-1) as running products: powers differ in the last bit between machines."""
    factors = np.repeat(base[:, None], count, axis=1)
    factors[:, 0] = 1
    return np.multiply.accumulate(factors, axis=1)


def compatible_widths(
    widths: np.ndarray, bottleneck_ratio: np.ndarray | float, group_width: np.ndarray | int
) -> tuple[np.ndarray, np.ndarray]:
    """Each width, moved until the group width divides its bottleneck; and the group width, no wider than that.

    The arguments broadcast. Half-even rounding; a ratio is whole or one over a whole number.
    """
    bottleneck = np.maximum(1, np.floor(widths / bottleneck_ratio))
    groups = np.minimum(group_width, bottleneck).astype(np.int64)
    expansion = np.maximum(1, np.rint(1 / np.asarray(bottleneck_ratio))).astype(np.int64)  # of an inverted bottleneck
    multiple = np.lcm(groups, expansion)
    bottleneck = np.maximum(multiple, np.rint(bottleneck / multiple) * multiple)
    return np.rint(bottleneck * bottleneck_ratio).astype(np.int64), groups


def torchvision_widths(
    widths: np.ndarray, bottleneck_ratio: np.ndarray | float, group_width: np.ndarray | int
) -> tuple[np.ndarray, np.ndarray]:
    """As `compatible_widths`, rounded as torchvision does: half up, and never down by a tenth or more."""
    bottleneck = np.maximum(1, np.floor(widths / bottleneck_ratio)).astype(np.int64)
    groups = np.minimum(group_width, bottleneck).astype(np.int64)
    rounded = np.maximum(groups, (bottleneck + groups // 2) // groups * groups)
    rounded = np.where(rounded < 0.9 * bottleneck, rounded + groups, rounded)
    return (rounded * bottleneck_ratio).astype(np.int64), groups


Compatibility = Callable[[np.ndarray, float, int], tuple[np.ndarray, np.ndarray]]


def regnet(
    d: int,
    w0: int,
    wa: float,
    wm: float,
    g: int,
    *,
    b: float = 1,
    se_ratio: float = 0.0,
    stem_width: int = 32,
    num_stages: int | None = None,
    compatible: Compatibility = compatible_widths,
) -> Architecture:
    """The network of these parameters, exactly as pycls builds it, with as many stages as the line gives.

    `compatible` is how widths are made to suit the groups; `torchvision_widths` for torchvision's networks.

    Raises ValueError naming the parameter outside the rule's domain, or `num_stages` where that number is demanded and
    the line gives another.
    """
    w_0, w_a, w_m = _checked_line(d, w0, wa, wm)
    ratio, group_width = positive_number("b", b), positive_int("g", g)
    num_levels = int(math.log1p(wa * d / w0) / math.log(wm)) + 2
    levels = np.searchsorted(level_starts(w_0, w_a, w_m, num_levels)[0], np.arange(d), side="right")
    widths, depths = np.unique(level_widths(w_0, w_m, num_levels + 1, 8)[0][levels], return_counts=True)
    if num_stages is not None and len(widths) != num_stages:
        raise refusal("num_stages", num_stages, f"is not what the line gives, {len(widths)}", "change d, wa or wm")
    fitting, groups = compatible(widths, ratio, group_width)
    stages = zip(depths.tolist(), fitting.tolist(), groups.tolist())
    return Architecture(
        tuple(Stage(depth, width, group, ratio) for depth, width, group in stages),
        stem_width=stem_width,
        se_ratio=se_ratio,
    )


def _checked_line(d: int, w0: int, wa: float, wm: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """w_0, w_a and w_m as arrays of one."""
    positive_int("d", d)
    if positive_int("w0", w0) % 8:
        raise refusal("w0", w0, "is not a multiple of 8", f"use {-(-w0 // 8) * 8}")
    if positive_number("wm", wm) < 1.01:
        raise refusal("wm", wm, "makes stages less than 1 % wider", "use more; the paper has 1.5 to 3")
    return np.array([w0], dtype=float), np.array([positive_number("wa", wa)]), np.array([wm], dtype=float)


def follows_line(architecture: Architecture, grid: LineGrid = ANY_LINE) -> bool:
    """Whether some (w_0, w_a, w_m) of the grid give these widths and depths, stage i being level i of the line.

    As in pycls' sampler, no level may be skipped and no two may have one width. For each (w_0, w_m) that gives the
    widths, the w_a that give the depths are an interval; its first grid points are tried with the very functions that
    the sampler draws with, so that floating point cannot part the two. A few milliseconds at most.
    """
    bounds = _width_bounds(architecture, grid)
    if bounds is None:
        return False
    w_0, w_m = _lines_through(*bounds, grid)
    ends = np.cumsum(architecture.depths)
    low, high = _slope_interval(w_0, w_m, ends)
    first = np.ceil(np.maximum(low * SLOPES_PER_UNIT, grid.slopes[0]) - _BLUR)
    last = np.minimum(high * SLOPES_PER_UNIT, grid.slopes[1]) + _BLUR
    # The blur may let in a first point that is just outside, never a second.
    return any(_gives(w_0, w_m, point / SLOPES_PER_UNIT, ends, point <= last) for point in (first, first + 1))


def _width_bounds(architecture: Architecture, grid: LineGrid) -> tuple[np.ndarray, np.ndarray] | None:
    """For each stage the narrowest and the widest level that compatibility turns into the stage's width."""
    bounds = []
    for stage in architecture.stages:
        levels = np.arange(grid.width_step, 2 * stage.width + grid.width_step, grid.width_step)
        group_width = 1 if grid.one_group else stage.group_width
        widths, groups = compatible_widths(levels, stage.bottleneck_ratio, group_width)
        fitting = levels[(widths == stage.width) & (groups == group_width)]
        if not fitting.size:
            return None
        bounds.append((fitting[0], fitting[-1]))
    low, high = np.array(bounds, dtype=float).T
    return low, high


def _lines_through(low: np.ndarray, high: np.ndarray, grid: LineGrid) -> tuple[np.ndarray, np.ndarray]:
    """All (w_0, w_m) of the grid whose levels differ and lie within the bounds, stage by stage."""
    first_widths = np.arange(low[0], min(high[0], grid.first_width_max) + 1, grid.width_step)
    w_m_low, w_m_high = (
        bound[0, 0] * MULTIPLIERS_PER_UNIT for bound in _multiplier_bounds(low[None], high[None], grid)
    )
    multipliers = np.arange(np.floor(w_m_low), np.ceil(w_m_high) + 1) / MULTIPLIERS_PER_UNIT
    w_0, w_m = (axis.ravel() for axis in np.meshgrid(first_widths, multipliers))
    levels = level_widths(w_0, w_m, len(low), grid.width_step)
    fits = ((levels >= low) & (levels <= high)).all(axis=1) & (np.diff(levels, axis=1) > 0).all(axis=1)
    return w_0[fits], w_m[fits]


def _slope_interval(w_0: np.ndarray, w_m: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The w_a, up to rounding, for which each level but the last ends at its block, and the last not before."""
    rises = _thresholds(w_0, w_m, len(ends)) - w_0[:, None]
    low = (rises / ends)[:, :-1].max(axis=1, initial=0)
    with np.errstate(divide="ignore"):  # a level that ends after one block does so however steep the line is
        high = (rises / (ends - 1)).min(axis=1)
    return low, high


def _gives(w_0: np.ndarray, w_m: np.ndarray, w_a: np.ndarray, ends: np.ndarray, candidates: np.ndarray) -> bool:
    starts = level_starts(w_0[candidates], w_a[candidates], w_m[candidates], len(ends))
    return bool(((starts[:, :-1] == ends[:-1]).all(axis=1) & (starts[:, -1] >= ends[-1])).any())


def may_follow_line(depths: np.ndarray, low: np.ndarray, high: np.ndarray, grid: LineGrid) -> np.ndarray:
    """For many networks at once, (num, num_stages): False only where `follows_line` surely says no.

    `low` and `high` bound the levels that compatibility with groups turns into the stages' widths (`level_bounds`).
    Interval arithmetic over w_0 and w_m instead of their grids; `follows_line` then decides what it lets pass.
    """
    first_low, first_high = low[:, :1], high[:, :1]
    w_m_low, w_m_high = _multiplier_bounds(low, high, grid)
    powers = np.arange(depths.shape[1]) + 0.5
    rise_low, rise_high = first_low * (w_m_low**powers - 1), first_high * (w_m_high**powers - 1)
    ends = np.cumsum(depths, axis=1)
    slope_low = (rise_low / ends)[:, :-1].max(axis=1, initial=grid.slopes[0] / SLOPES_PER_UNIT)
    with np.errstate(divide="ignore"):  # a level that ends after one block does so however steep the line is
        slope_high = (rise_high / (ends - 1)).min(axis=1)
    slope_high = np.minimum(slope_high, grid.slopes[1] / SLOPES_PER_UNIT)
    reachable = (low <= high).all(axis=1) & (first_low[:, 0] <= grid.first_width_max)
    return reachable & (w_m_low <= w_m_high * (1 + _BLUR))[:, 0] & (slope_low <= slope_high * (1 + _BLUR))


def _multiplier_bounds(low: np.ndarray, high: np.ndarray, grid: LineGrid) -> tuple[np.ndarray, np.ndarray]:
    """Between what w_m can lie for the levels to lie within their bounds, (num, 1) each."""
    stages, half = np.arange(1, low.shape[1]), grid.width_step / 2
    flattest = ((low[:, 1:] - half) / high[:, :1]) ** (1 / stages)
    steepest = ((high[:, 1:] + half) / low[:, :1]) ** (1 / stages)
    w_m_low = flattest.max(axis=1, initial=grid.multipliers[0] / MULTIPLIERS_PER_UNIT)
    w_m_high = steepest.min(axis=1, initial=grid.multipliers[1] / MULTIPLIERS_PER_UNIT)
    return w_m_low[:, None], w_m_high[:, None]


def level_bounds(ranges: Ranges) -> tuple[np.ndarray, np.ndarray]:
    """For each pair of the ranges and each width, counted in steps: the narrowest and the widest level that becomes it.

    Two arrays of shape (pairs, widths); where no level does, the first is above the second.
    """
    step = ranges.width_step
    num = ranges.width_max // step + 1
    levels = np.arange(step, 2 * ranges.width_max + step, step)
    low, high = np.full((len(ranges.pairs), num), np.inf), np.zeros((len(ranges.pairs), num))
    for row, (ratio, group_width) in enumerate(ranges.pairs):
        widths, groups = compatible_widths(levels, ratio, group_width or 1)
        fits = (groups == (group_width or 1)) & (widths <= ranges.width_max) & (widths % step == 0)
        np.minimum.at(low[row], widths[fits] // step, levels[fits])
        np.maximum.at(high[row], widths[fits] // step, levels[fits])
    return low, high


def num_on_lines(ranges: Ranges, *, depths_up: bool) -> int:
    """How many distinct networks the lines of the ranges' grid give, each within the ranges. Exact; some seconds.

    A line of (w_0, w_a, w_m) fixes where levels begin; d, the blocks of all stages, only cuts the last level short. So
    for each widths and first blocks of all levels but the last, the networks are counted by the longest last level.
    """
    longest = _longest_last_levels(ranges)
    levels = np.arange(0, longest[:, : ranges.num_stages].max(initial=0) + 1, ranges.width_step)
    # Many pairs move no width, or the same ones alike: what a pair does to every level is all that tells them apart.
    alike = Counter(_widths_of_levels(ranges, levels, *pair).tobytes() for pair in ranges.pairs)
    return sum(
        count * _num_of_widths(ranges, longest, np.frombuffer(moved, dtype=np.int64), depths_up)
        for moved, count in alike.items()
    )


def _widths_of_levels(ranges: Ranges, levels: np.ndarray, ratio: float, group_width: int) -> np.ndarray:
    """The width that each level becomes; 0 where the groups, or the ranges, do not allow it."""
    widths, groups = compatible_widths(levels, ratio, group_width or 1)
    allowed = (groups == (group_width or 1)) & np.isin(widths, np.array(ranges.widths)) & (levels > 0)
    return np.where(allowed, widths, 0)


def _longest_last_levels(ranges: Ranges) -> np.ndarray:
    """Distinct rows (level widths …, ends of all levels but the last …, greatest end of the last): whole numbers."""
    found = []
    for first_width in ranges.regnet_first_widths:
        for multipliers in np.array_split(_narrow_enough(ranges, first_width), 8):
            w_m, w_a = _telling_lines(ranges, first_width, multipliers)
            found.append(_greatest_last(_levels_and_ends(ranges, np.full(len(w_m), float(first_width)), w_a, w_m)))
    return _greatest_last(np.concatenate(found))


def _narrow_enough(ranges: Ranges, first_width: int) -> np.ndarray:
    """The w_m whose last level is not wider than twice what is allowed: groups take less than that from a width."""
    w_m = np.array(ranges.regnet_multipliers) / MULTIPLIERS_PER_UNIT
    widest = level_widths(np.full(len(w_m), float(first_width)), w_m, ranges.num_stages, ranges.width_step)[:, -1]
    return w_m[widest <= 2 * ranges.width_max]


def _telling_lines(ranges: Ranges, first_width: int, w_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(w_m, w_a) of the grid, with every w_a at which some level begins elsewhere than a tenth before.

    Level i begins at block k where the slope is its rise over k: between two such slopes nothing changes. Left out are
    those on which the last level surely begins behind the deepest network, or too early for all levels to have a block.
    """
    stages, grid = ranges.num_stages, ranges.regnet_slopes
    rises = _thresholds(np.full(len(w_m), float(first_width)), w_m, stages) - first_width
    blocks = np.arange(1, ranges.regnet_depths[-1] + 2)
    turns = np.floor(
        (rises[:, :, None] / blocks).reshape(len(w_m), rises.shape[1] * len(blocks)) * SLOPES_PER_UNIT + _BLUR
    )
    points = np.concatenate([turns, turns + 1, np.full((len(w_m), 1), float(grid[0]))], axis=1)
    low, high = np.full(len(w_m), grid[0]), np.full(len(w_m), grid[-1])
    if stages > 1:
        last_rise = rises[:, -2] * SLOPES_PER_UNIT
        low = np.maximum(low, last_rise / ranges.regnet_depths[-1] - 1)
        high = np.minimum(high, last_rise / max(stages - 2, _BLUR) + 1)
    multiplier, column = np.nonzero((points >= low[:, None]) & (points <= high[:, None]))
    return w_m[multiplier], points[multiplier, column] / SLOPES_PER_UNIT


def _levels_and_ends(ranges: Ranges, w_0: np.ndarray, w_a: np.ndarray, w_m: np.ndarray) -> np.ndarray:
    """The rows of the lines whose levels differ and all have blocks; ends beyond the deepest network are cut there."""
    stages, deepest = ranges.num_stages, ranges.regnet_depths[-1]
    starts = np.minimum(level_starts(w_0, w_a, w_m, stages), deepest + 1)
    rising = (np.diff(starts, axis=1, prepend=0) > 0).all(axis=1) & (starts[:, :-1] < deepest).all(axis=1)
    levels = level_widths(w_0[rising], w_m[rising], stages, ranges.width_step)
    rows = np.concatenate([levels, starts[rising]], axis=1)
    return rows[(np.diff(levels, axis=1) > 0).all(axis=1)].astype(np.int32)


def _greatest_last(rows: np.ndarray) -> np.ndarray:
    """One row for each beginning, with the greatest last number."""
    if not len(rows):
        return rows
    rows = rows[np.lexsort(rows.T[::-1])]
    last_of_its_kind = np.append((rows[1:, :-1] != rows[:-1, :-1]).any(axis=1), True)
    return rows[last_of_its_kind]


def _num_of_widths(ranges: Ranges, longest: np.ndarray, width_of_level: np.ndarray, depths_up: bool) -> int:
    stages = ranges.num_stages
    widths = width_of_level[longest[:, :stages] // ranges.width_step]
    ends = longest[:, stages:]
    fits = (widths > 0).all(axis=1)
    before = np.diff(ends[:, :-1], axis=1, prepend=0)  # depths of all stages but the last
    fits &= ((before >= ranges.depth_min) & (before <= ranges.depth_max)).all(axis=1)
    if depths_up:
        fits &= (np.diff(before, axis=1) >= 0).all(axis=1)
    rows = _greatest_last(np.concatenate([widths, ends], axis=1)[fits])
    start = rows[:, -2] if stages > 1 else np.zeros(len(rows), dtype=np.int64)
    shallowest = np.full(len(rows), ranges.depth_min)
    if depths_up and stages > 1:
        shallowest = np.maximum(shallowest, start - (rows[:, -3] if stages > 2 else 0))
    lowest = np.maximum(start + shallowest, ranges.regnet_depths[0])
    highest = np.minimum(np.minimum(rows[:, -1], start + ranges.depth_max), ranges.regnet_depths[-1])
    return int(np.maximum(highest - lowest + 1, 0).sum())
