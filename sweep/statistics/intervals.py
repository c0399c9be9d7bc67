"""A number that was estimated, with its interval; the intervals of correlations and of shares.

In: an estimate and its standard error. Out: plain floats, ready for JSON; None where the data cannot say.
"""

import math
from dataclasses import dataclass

from scipy.special import ndtri, stdtrit

from sweep.statistics.bootstrap import significance


@dataclass(frozen=True)
class IntervalEstimate:
    """An estimate and the interval of what it estimates.

    `value` is None where there is nothing to estimate from, `low` and `high` where the data cannot bound it.
    """

    value: float | None
    low: float | None
    high: float | None


UNKNOWN = IntervalEstimate(None, None, None)

_ROUNDING = 1e-12  # a correlation this near to 1 is 1


def fisher_estimate(
    correlation: float, standard_error: float, degrees_of_freedom: float, *, confidence: float
) -> IntervalEstimate:
    """A correlation with limits symmetric on Fisher's scale, artanh(r), by Student's quantile.

    No limits if it has no spread, is 1 in size, or leaves no degree of freedom.
    """
    correlation, quantile_at = float(correlation), 1 - significance(confidence) / 2
    if degrees_of_freedom <= 0 or abs(correlation) > 1 - _ROUNDING or not standard_error > 0:
        return IntervalEstimate(correlation, None, None)
    reach = float(stdtrit(degrees_of_freedom, quantile_at)) * standard_error / (1 - correlation**2)
    middle = math.atanh(correlation)
    return IntervalEstimate(correlation, math.tanh(middle - reach), math.tanh(middle + reach))


def wilson_estimate(share: float, num: float, *, confidence: float) -> IntervalEstimate:
    """A share of `num`, which may be an effective number of independent ones, with Wilson's limits (1927)."""
    share, num = float(share), float(num)
    squared = float(ndtri(1 - significance(confidence) / 2)) ** 2 / num
    middle = (share + squared / 2) / (1 + squared)
    reach = math.sqrt(squared * share * (1 - share) + squared**2 / 4) / (1 + squared)
    return IntervalEstimate(share, max(0.0, middle - reach), min(1.0, middle + reach))
