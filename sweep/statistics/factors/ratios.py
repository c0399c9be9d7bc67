"""Ratios of sums over networks, with intervals: shares of variance, and what a model explains of networks unseen.

In: what each network adds to a numerator and to a denominator (a squared deviation, a squared error of prediction), for
one ratio or several over the same networks. Out: the ratios, their intervals, and the resamples, which rank the ratios
against each other.

The interval is the symmetric bootstrap-t of `sweep/statistics/bootstrap.py` over networks (Hall 1988), with the
linearised standard error of a ratio (Cochran 1977, *Sampling Techniques*, section 2.11). Where the numerators come from
cross-validation, that is the interval of Bayle et al. 2020, “Cross-validation confidence intervals for test error”:
predictions of networks held out count as given, because what training on other networks would have changed is of
second order. `widen` makes good what is not: the square root of n over the degrees of freedom that a fit leaves.
"""

import math
from dataclasses import dataclass

import numpy as np

from sweep.statistics.bootstrap import Floats, num_beyond
from sweep.statistics.intervals import IntervalEstimate

_BLOCK_VALUES = 4_000_000  # weights of resamples held at once


@dataclass(frozen=True, eq=False)
class Ratios:
    """K ratios with their intervals, arrays of shape (K,), and their resamples, (resamples, K)."""

    values: Floats
    lows: Floats
    highs: Floats
    resampled: Floats

    def share(self, place: int) -> IntervalEstimate:
        """The ratio at `place` as a share: a limit, or an estimate, below 0 or above 1 is one at 0 or 1."""
        return self._within(place, 0.0, 1.0)

    def explained(self, place: int) -> IntervalEstimate:
        """The ratio at `place` as an R²: below 0 where a model predicts worse than the mean does."""
        return self._within(place, -math.inf, 1.0)

    def _within(self, place: int, lowest: float, highest: float) -> IntervalEstimate:
        limits = self.lows[place], self.highs[place]
        value = float(np.clip(self.values[place], lowest, highest))
        if not np.isfinite(limits).all():
            return IntervalEstimate(value, None, None)
        low, high = np.clip(limits, lowest, highest)
        return IntervalEstimate(value, float(low), float(high))


def ratios(
    numerators_NK: Floats,
    denominators_NK: Floats,
    *,
    confidence: float,
    num_bootstrap: int,
    rng: np.random.Generator,
    widen: float = 1.0,
) -> Ratios | None:
    """The ratios Σ numerators / Σ denominators of each column; None unless every denominator is above 0.

    `widen` stretches the intervals. Raises `ValueError` if `confidence` asks for more resamples than `num_bootstrap`.
    """
    num = len(numerators_NK)
    rank = num_beyond(confidence, num_bootstrap)
    sums = _Sums(numerators_NK, denominators_NK)
    values, errors, whole = sums.weighted(np.full((1, num), 1 / num))
    if not whole.all():
        return None
    block = max(1, _BLOCK_VALUES // num)
    sizes = [min(block, num_bootstrap - start) for start in range(0, num_bootstrap, block)]
    drawn = [sums.weighted(rng.multinomial(num, np.full(num, 1 / num), size=size) / num) for size in sizes]
    resampled = np.concatenate([value for value, _, _ in drawn])
    spread = np.concatenate([error for _, error, _ in drawn])
    # A resample without spread, or whose denominator vanishes, could lie anywhere.
    distances = np.full(resampled.shape, np.inf)
    usable = (spread > 0) & np.concatenate([whole for _, _, whole in drawn])
    np.divide(np.abs(resampled - values), spread, out=distances, where=usable)
    reach = np.sort(distances, axis=0)[-rank] * widen
    # No spread at all is no doubt at all: a factor that no prediction uses explains nothing of any resample.
    reach = np.multiply(reach, errors[0], out=np.zeros_like(reach), where=errors[0] > 0)
    return Ratios(values[0], values[0] - reach, values[0] + reach, resampled)


class _Sums:
    """Weighted ratios and their standard errors, from products that are formed once."""

    def __init__(self, numerators_NK: Floats, denominators_NK: Floats) -> None:
        self.num, num_ratios = numerators_NK.shape
        below = np.broadcast_to(denominators_NK, numerators_NK.shape)
        # Centred at the ratio itself: a difference of large squares would leave rounding for a standard error.
        self.centre = numerators_NK.sum(axis=0) / np.where(below.sum(axis=0) > 0, below.sum(axis=0), 1.0)
        above = numerators_NK - self.centre * below
        self.parts = np.concatenate([above, below, above**2, above * below, below**2], axis=1)
        self.num_ratios = num_ratios

    def weighted(self, weights_BN: Floats) -> tuple[Floats, Floats, np.ndarray]:
        """Ratios and standard errors under each row of weights, and whether their denominators are above 0."""
        above, below, above_2, product, below_2 = np.split(weights_BN @ self.parts, 5, axis=1)
        whole = below > 0
        safe = np.where(whole, below, 1.0)
        rise = above / safe
        squares = np.maximum(above_2 - 2 * rise * product + rise**2 * below_2, 0.0)
        return self.centre + rise, np.sqrt(squares / self.num) / safe, whole
