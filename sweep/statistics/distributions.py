"""Error distributions: the empirical distribution function (EDF) of a sample of networks, with a band.

In: the errors of the networks of one space at one budget, in percent. Out: the share of networks with an error of at
most e, as DDS draws it (section 3.1, after NDS), and what that share may be in the whole space.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainccinv, betaincinv

from sweep.statistics.bootstrap import Floats


def edf(errors: Floats) -> tuple[Floats, Floats]:
    """The sorted errors, and the share of networks at or below each: a step up at each error, to 1 at the last."""
    return np.sort(errors), np.arange(1, len(errors) + 1) / max(1, len(errors))


def edf_band(errors: Floats, grid: Floats, *, confidence: float) -> tuple[Floats, Floats]:
    """Lowest and highest share of the space at or below each error of `grid`, from 0 to 1.

    Pointwise: at each single error the band holds the true share with at least `confidence`; it does not promise to
    hold the whole curve at once. Binomial limits rather than a bootstrap, whose band shrinks to nothing beyond the
    best and the worst network seen. The band of an empty sample is 0 to 1.
    """
    num_below = np.searchsorted(np.sort(errors), grid, side="right")
    return share_interval(num_below, len(errors), confidence=confidence)


def share_interval(counts: NDArray[np.int_], num: int, *, confidence: float) -> tuple[Floats, Floats]:
    """Exact limits of a share seen as each of `counts` out of `num` (Clopper and Pearson 1934), from 0 to 1."""
    tail = (1 - confidence) / 2
    low = np.where(counts > 0, betaincinv(counts, num - counts + 1, tail), 0.0)
    high = np.where(counts < num, betainccinv(counts + 1, num - counts, tail), 1.0)
    return low, high
