"""Draws from a space as arrays: thousands of networks at once, before any of them is weighed or built.

In: a space, its ranges, a NumPy generator. Out: `Draws`. What is drawn:

* AnyNet A: for each stage on its own a pair (b, g), every pair that some width fits being equally likely; a width
  log-uniformly among those that the pair fits; a depth log-uniformly. Log-uniform: v has a chance proportional to 1/v.
  (Rejecting (b, g, w) that do not fit would all but remove wide groups where they are shared, since all stages must
  fit: g = 16 would fall from one sixth of AnyNet C to under 1 %. The rule of sharing would then be judged by a change
  of group widths that is not its own.)
* AnyNet B and C: exactly A given that b, or b and g, are the same in all stages.
* AnyNet D and E: C with the widths, or the widths and the depths, of every network put in rising order. So the order is
  all that the rule changes: the mix of b, g and sizes stays that of C. (Rejecting the networks of C that break the rule
  would favour equal stages, by up to num_stages!, and with them the pairs (b, g) that few widths fit.)
* RegNet X: (b, g) as in C; d, w_0, w_a and w_m log-uniformly on the grid of the ranges (pycls draws d evenly, from 12
  to 28), given that the network is a member. The draws that are none are marked with the reason.

A band of flops is applied later (sampling.py) and bends all of this, as it must.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sweep.spaces.complexity import StageArrays
from sweep.spaces.ranges import MULTIPLIERS_PER_UNIT, SLOPES_PER_UNIT, Ranges
from sweep.spaces.regnet import compatible_widths, level_starts, level_widths
from sweep.spaces.space import Space

_GUIDES = 1 << 14  # a power of two: a product with it is exact
MEMBER = 0  # the code of a draw that is a member; others index REASONS
REASONS = (
    "member",
    "another number of stages",
    "group width above the bottleneck width",
    "width outside the ranges",
    "depth outside the ranges",
    "depths decrease",
)


@dataclass(frozen=True)
class Draws:
    """Whole numbers of shape (num, num_stages), and for each draw a code, (num,): `MEMBER` or an index of REASONS.

    `pairs` index `ranges.pairs`. Only the rows of members are networks, and only they are filled in.
    """

    depths: np.ndarray
    widths: np.ndarray
    pairs: np.ndarray
    reasons: np.ndarray

    def rows(self, indices: np.ndarray) -> "Draws":
        return Draws(self.depths[indices], self.widths[indices], self.pairs[indices], self.reasons[indices])

    def key(self, index: int) -> bytes:
        """Equal for equal networks of the same ranges."""
        return b"".join(column[index].tobytes() for column in (self.depths, self.widths, self.pairs))


def draw(space: Space, ranges: Ranges, rng: np.random.Generator, num: int) -> Draws:
    """The next `num` draws of the generator."""
    if space.has_rule("quantised_widths"):
        return _draw_regnet(ranges, rng, num)
    return _draw_anynet(space, ranges, rng, num)


def stage_arrays(draws: Draws, ranges: Ranges) -> list[StageArrays]:
    """What `batch_complexity` reads, one entry a stage."""
    ratios, group_widths = (np.array(column) for column in zip(*ranges.pairs))
    bottlenecks = (draws.widths / ratios[draws.pairs]).astype(np.int64)
    columns = (draws.depths, draws.widths, bottlenecks, group_widths[draws.pairs])
    return [StageArrays(*(column[:, stage] for column in columns)) for stage in range(ranges.num_stages)]


def _draw_anynet(space: Space, ranges: Ranges, rng: np.random.Generator, num: int) -> Draws:
    pairs = _draw_pairs(space, ranges, rng, num)
    widths = _draw_widths(pairs, ranges, rng)
    depths = _log_uniform(ranges.depths, rng.random(pairs.shape))
    if space.has_rule("widths_up"):
        widths.sort(axis=1)
    if space.has_rule("depths_up"):
        depths.sort(axis=1)
    return Draws(depths, widths, pairs, np.full(num, MEMBER))


def _draw_pairs(space: Space, ranges: Ranges, rng: np.random.Generator, num: int) -> np.ndarray:
    """Indices of `ranges.pairs`, shape (num, num_stages)."""
    shape = (num, ranges.num_stages)
    if space.has_rule("shared_group_width"):
        return np.repeat(rng.integers(len(ranges.pairs), size=(num, 1)), ranges.num_stages, axis=1)
    if not space.has_rule("shared_bottleneck_ratio"):
        return rng.integers(len(ranges.pairs), size=shape)
    # A given equal ratios: a ratio with f fitting group widths comes up in all stages with a chance of f^num_stages.
    ratios = [ratio for ratio, _ in ranges.pairs]
    distinct = list(dict.fromkeys(ratios))
    counts = np.array([ratios.count(ratio) for ratio in distinct])
    firsts = np.array([ratios.index(ratio) for ratio in distinct])
    chosen = _Choice(counts.astype(float) ** ranges.num_stages).indices(rng.random((num, 1)))
    return firsts[chosen] + rng.integers(counts[chosen], size=shape)


def _draw_widths(pairs: np.ndarray, ranges: Ranges, rng: np.random.Generator) -> np.ndarray:
    uniform = rng.random(pairs.shape)
    widths = np.empty(pairs.shape, dtype=np.int64)
    for index, pair in enumerate(ranges.pairs):
        here = pairs == index
        widths[here] = _log_uniform(ranges.widths_for(*pair), uniform[here])
    return widths


def _draw_regnet(ranges: Ranges, rng: np.random.Generator, num: int) -> Draws:
    stages = ranges.num_stages
    pair = rng.integers(len(ranges.pairs), size=num)
    uniform = rng.random((4, num))
    total = _log_uniform(ranges.regnet_depths, uniform[0])
    w_0 = _log_uniform(ranges.regnet_first_widths, uniform[1]).astype(float)
    w_a = _log_uniform(ranges.regnet_slopes, uniform[2]) / SLOPES_PER_UNIT
    w_m = _log_uniform(ranges.regnet_multipliers, uniform[3]) / MULTIPLIERS_PER_UNIT

    starts = level_starts(w_0, w_a, w_m, stages)
    ends = np.minimum(starts, total[:, None])
    # A level is skipped, or there is one more: so end most draws, and of those nothing else is worked out.
    faulty = (starts[:, -1] < total) | (ends[:, 0] < 1)
    for stage in range(1, stages):
        faulty |= ends[:, stage] <= ends[:, stage - 1]
    reasons = np.where(faulty, 1, MEMBER)
    whole = np.flatnonzero(reasons == MEMBER)
    depths = np.diff(ends[whole], axis=1, prepend=0).astype(np.int64)
    fitting = _fit(depths, level_widths(w_0[whole], w_m[whole], stages, ranges.width_step), pair[whole], ranges)
    reasons[whole] = fitting.reasons
    columns = np.zeros((3, num, stages), dtype=np.int64)
    columns[:, whole] = fitting.depths, fitting.widths, fitting.pairs
    return Draws(columns[0], columns[1], columns[2], reasons)


def _fit(depths: np.ndarray, on_line: np.ndarray, pair: np.ndarray, ranges: Ranges) -> Draws:
    """The networks of the levels' depths and widths (whole floats), with what speaks against each."""
    ratios, group_widths = (np.array(column)[pair][:, None] for column in zip(*ranges.pairs))
    widths, groups = compatible_widths(on_line, ratios, group_widths)
    reasons = _first_reason(
        np.diff(on_line, axis=1) <= 0,  # two levels have one width
        groups < group_widths,
        _outside(widths, ranges.widths),
        _outside(depths, ranges.depths),
        np.diff(depths, axis=1) < 0,
    )
    return Draws(depths, widths, np.repeat(pair[:, None], ranges.num_stages, axis=1), reasons)


def _first_reason(*faults: np.ndarray) -> np.ndarray:
    """For each draw, a row, the code of the first fault that it has anywhere, in the order of REASONS."""
    return np.select([fault.any(axis=1) for fault in faults], range(1, len(faults) + 1), default=MEMBER)


def _outside(values: np.ndarray, allowed: range) -> np.ndarray:
    return (values < allowed[0]) | (values > allowed[-1]) | ((values - allowed[0]) % allowed.step > 0)


def _log_uniform(values: range | tuple[int, ...], uniform: np.ndarray) -> np.ndarray:
    """Values with chances proportional to 1/value; `uniform` holds numbers in [0, 1)."""
    grid, choice = _log_uniform_grid(values)
    return grid[choice.indices(uniform)]


@lru_cache(maxsize=64)
def _log_uniform_grid(values: range | tuple[int, ...]) -> "tuple[np.ndarray, _Choice]":
    grid = np.array(values)
    return grid, _Choice(1 / grid)


class _Choice:
    """Indices with chances proportional to the weights; running sums are the same on every machine.

    The index is the first whose running sum is above uniform × total. A table says where to begin to look (the guide
    table of Chen and Asau 1974), which takes a fifth of the time of `numpy.searchsorted`; a test compares the two.
    """

    def __init__(self, weights: np.ndarray):
        self._cumulative = np.cumsum(weights)
        self._total = self._cumulative[-1]
        self._cumulative[-1] = np.inf  # so that a product that is rounded up to the total stays inside
        starts = np.arange(_GUIDES) / _GUIDES * self._total
        self._guide = np.searchsorted(self._cumulative, starts, side="right")

    def indices(self, uniform: np.ndarray) -> np.ndarray:
        flat = uniform.ravel()
        target = flat * self._total
        found = self._guide[(flat * _GUIDES).astype(np.intp)]
        short = np.flatnonzero(self._cumulative[found] <= target)
        while short.size:
            found[short] += 1
            short = short[self._cumulative[found[short]] <= target[short]]
        return found.reshape(uniform.shape)
