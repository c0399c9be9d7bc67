"""Group-sequential tests: a hypothesis that is looked at several times, with one error rate for all looks together.

In: the two-sided p-values of a hypothesis at its looks, and the share of the planned trials that each look rests on.
Out: the boundary that a look's statistic has to cross, and the *sequential p-value* after the looks so far.

* The error rate is spent over the looks as Lan and DeMets (*Discrete sequential boundaries for clinical trials*,
  Biometrika 70, 1983) have it, by their function of the O'Brien-Fleming type, half of it on either side: next to
  nothing early on, nearly all of it at the end. How many looks there are, and when, need not be known before.
* The boundaries follow by the recursion of Armitage, McPherson and Rowe (*Repeated significance tests on accumulating
  data*, JRSS A 132, 1969): the statistic of a look is taken to be normal, the increments of its score to be independent
  and as large as the share of trials that they come from.
* The sequential p-value (Liu and Anderson, *On adaptive extensions of group sequential trials*, JASA 103, 2008) is the
  least level at which some look so far would have rejected. Whatever corrects p-values for being several can be
  applied to it, Holm's method too (Maurer and Bretz, *Multiple testing in group sequential trials using graphical
  approaches*, Statistics in Biopharmaceutical Research 5, 2013), for a lower level never rejects what a higher one
  does not.

More trials than planned: the fraction goes on growing beyond 1 where increments are counted, the spending stops at 1.
So all of the error rate may have been spent by then, and the boundary is infinite. Fewer: what they would have spent
stays unspent.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator
from scipy.special import ndtr, ndtri

Floats = NDArray[np.float64]

LOWEST_LEVEL = 1e-12
_NUM_LEVELS = 128
_FARTHEST = 9.0  # standard deviations: what lies beyond is less than the rounding
_MIN_NODES, _MAX_NODES = 32, 256
_MAX_STEPS = 60


def spent(level: ArrayLike, fraction: ArrayLike) -> Floats:
    """How much of the two-sided error rate `level` may have been spent after `fraction` of the planned trials."""
    share = np.sqrt(np.clip(fraction, 0.0, 1.0))
    with np.errstate(divide="ignore"):
        return 4 * ndtr(-_quantile(level) / share)


def boundaries(level: float, fractions: Sequence[float]) -> Floats:
    """What |z| has to reach at each look to reject at the two-sided `level`; infinite where nothing is left to spend.

    Raises `ValueError` if the level is not above 0 and at most 1, or if fractions are not above 0 and rising.
    """
    if not 0 < level <= 1:
        raise ValueError(f"level: {level} is no error rate; give one above 0 and up to 1, such as 0.05")
    return _boundaries(np.array([level]), _checked(fractions))[0]


def nominal_p(level: float, fractions: Sequence[float]) -> Floats:
    """The two-sided p-value that a look must not exceed to reject at `level`: `boundaries` as probabilities."""
    return 2 * ndtr(-boundaries(level, fractions))


def sequential_p(p_values: ArrayLike, fractions: Sequence[float]) -> tuple[Floats, NDArray[np.int_]]:
    """The sequential p-value of each hypothesis, and the number of the look, from 0, that it is owed to.

    `p_values`: two-sided, looks × hypotheses; `fractions`: one for each look. The result is no lower than 1e-12, and 1
    with look 0 where no look would reject at any level. Raises `ValueError` as `boundaries` does.
    """
    known = _checked(fractions)
    found = np.atleast_2d(np.asarray(p_values, dtype=np.float64))
    if found.shape[0] != len(known):
        raise ValueError(f"p_values: {found.shape[0]} looks, and {len(known)} fractions; give one for each look")
    levels = np.stack([level_of(-ndtri(p / 2)) for p, level_of in zip(found, _level_functions(known))])
    return levels.min(axis=0), levels.argmin(axis=0)


def _checked(fractions: Sequence[float]) -> tuple[float, ...]:
    known = tuple(map(float, fractions))
    if not known or known[0] <= 0 or any(late <= early for early, late in itertools.pairwise(known)):
        raise ValueError(f"fractions: {list(known)} must be above 0 and rise from look to look; leave out empty looks")
    return known


def _quantile(level: ArrayLike) -> Floats:
    """The normal quantile of a side's half of `level`: what the last of one look would have to reach is a bit less."""
    return -ndtri(np.asarray(level, dtype=np.float64) / 4)


@lru_cache(maxsize=256)
def _level_functions(fractions: tuple[float, ...]) -> list[Callable[[Floats], Floats]]:
    """For each look, from |z| to the least level at which it is on the boundary.

    Tabulated over levels from 1e-12 to 1. Over the quantile of the level boundaries are nearly straight lines, so that
    interpolation is exact to four digits of the level where anything may depend on it, at levels up to 0.1.
    """
    quantiles = np.linspace(_quantile(1.0), _quantile(LOWEST_LEVEL), _NUM_LEVELS)
    table = _boundaries(4 * ndtr(-quantiles), fractions)
    return [_level_function(quantiles, table[:, look]) for look in range(len(fractions))]


def _level_function(quantiles: Floats, heights: Floats) -> Callable[[Floats], Floats]:
    # A higher level may not ask for more: so says the theory, and where two looks are close, rounding does not.
    heights = np.maximum.accumulate(np.where(np.isfinite(heights), heights, -1.0))
    rises = np.diff(heights, prepend=-1.0) > 0
    if np.count_nonzero(rises) < 2:  # nothing is left to spend
        return np.ones_like
    quantile_of = PchipInterpolator(heights[rises], quantiles[rises])
    lowest, highest = heights[rises][[0, -1]]
    return lambda z: np.where(z < lowest, 1.0, 4 * ndtr(-quantile_of(np.clip(z, lowest, highest))))


# -- the recursion -------------------------------------------------------------------------------------------------


def _boundaries(levels: Floats, fractions: tuple[float, ...]) -> Floats:
    """Levels × looks."""
    total = np.stack([spent(levels, fraction) for fraction in fractions], axis=-1)
    to_spend = np.diff(total, axis=-1, prepend=0.0)
    found = np.empty_like(total)
    found[:, 0] = -ndtri(to_spend[:, 0] / 2)
    points, weights = _nodes(_num_nodes(fractions))
    # The density of the score, where no look has rejected yet: at `scores`, folded (it is even), times their weights.
    scores = _scores(found[:, 0], fractions[0], points)
    mass = _density(scores, fractions[0]) * weights * scores[:, -1:] / points[-1]
    for look, (before, now) in enumerate(itertools.pairwise(fractions), start=1):
        found[:, look] = _solved(to_spend[:, look], scores, mass, before, now)
        ahead = _scores(found[:, look], now, points)
        density = _density(ahead[:, :, None] - scores[:, None, :], now - before)
        density += _density(ahead[:, :, None] + scores[:, None, :], now - before)
        mass = np.einsum("lij,lj->li", density, mass) * weights * ahead[:, -1:] / points[-1]
        scores = ahead
    return found


def _num_nodes(fractions: tuple[float, ...]) -> int:
    """So many that even the smallest increment is smooth between two of them."""
    steps = [late - early for early, late in itertools.pairwise(fractions)]
    widest = 2.5 * _quantile(LOWEST_LEVEL) / math.sqrt(min(steps, default=1.0))
    return min(max(math.ceil(widest), _MIN_NODES), _MAX_NODES)


def _nodes(num: int) -> tuple[Floats, Floats]:
    """Gauss and Legendre's, from 0 to 1."""
    points, weights = np.polynomial.legendre.leggauss(num)
    return (points + 1) / 2, weights / 2


def _scores(boundary: Floats, fraction: float, points: Floats) -> Floats:
    """Levels × nodes, from 0 to the boundary."""
    return (np.minimum(boundary, _FARTHEST) * math.sqrt(fraction))[:, None] * points


def _density(score: Floats, variance: float) -> Floats:
    return np.exp(-0.5 * score * score / variance) / math.sqrt(2 * math.pi * variance)


def _solved(to_spend: Floats, scores: Floats, mass: Floats, before: float, now: float) -> Floats:
    """The |z| that is exceeded with the probability `to_spend` by what no earlier look has rejected.

    Newton's method on the logarithm of that probability, which is concave: from where the last look alone would spend
    as much it comes down to the boundary, and never falls below.
    """
    step, scale = math.sqrt(now - before), math.sqrt(now)
    is_left = to_spend > 0
    z = np.where(is_left, -ndtri(np.where(is_left, to_spend, 1.0) / 2), 0.0)
    for _ in range(_MAX_STEPS):
        edge = (z * scale)[:, None]
        exceeded = 2 * np.sum(mass * (ndtr((scores - edge) / step) + ndtr((-scores - edge) / step)), axis=-1)
        slope = (
            2 * scale * np.sum(mass * (_density(edge - scores, step**2) + _density(edge + scores, step**2)), axis=-1)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            back = np.where(is_left, np.log(to_spend / exceeded) * exceeded / slope, 0.0)
        back = np.where(np.isfinite(back), back, 0.0)
        z = z - back
        if np.max(np.abs(back)) < 1e-13:
            break
    return np.where(is_left, z, np.inf)
