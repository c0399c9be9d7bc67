"""Are good networks many? The share of a space near its best, and how many random draws find such a network.

In: the errors of networks of one space at one budget, in percent. Out: the share of the space with an error within x
points of a reference, and the number of draws that reach it, with intervals. Stands for the seed document's first
assumption: in such spaces good networks are many, so that about 32 random ones hold a good one.

**The reference.** The best error of a space of 10^18 networks cannot be known from 100 of them, and the best seen
falls as more are seen, so that the share near it shrinks with the size of the sample: two sweeps of different size
would answer differently about the same space. The default is therefore the border of the best twentieth, the 5 %
quantile: a property of the space that 40 networks can tell. The 1 % quantile lies nearer to the best, but is the very
best seen of 100 networks; at least two networks, by weight, must lie at or below a quantile for the interval to be
given. `None` as `reference_share` takes the best seen, for a sweep's own accounts; the share is then of the space near
that network.

**Intervals.** For a quantile, percentiles of a bootstrap over all networks, in which the reference is estimated anew in
each sample: 91 to 100 % coverage for 40 to 1,000 networks, all or a tenth to a fifth of the stopped ones finished, for
shares of 0.1 to 0.6 and four shapes of tail. (At the 1 %
quantile of 100 networks it would be 77 to 97 %.) For the best seen, which stays what it is, Wilson's (1927) with the
effective number of networks (Korn and Graubard 1998). Draws follow from the share: a share s is missed by n draws with
probability (1 − s)^n.

Weights are inverse inclusion probabilities (sweep/statistics/assumptions/ranks.py).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sweep.statistics.bootstrap import Floats, num_beyond
from sweep.statistics.intervals import UNKNOWN, IntervalEstimate, wilson_estimate
from sweep.statistics.resampling import effective_number, finished, resampled_weights

FEWEST_AT_REFERENCE = 2
"""Fewer networks at or below a quantile do not say where it is."""

_ROUNDING = 1e-9  # points: 0.8 is within 0.1 of 0.7, also in binary


@dataclass(frozen=True)
class NearBest:
    """The share of a space, 0 to 1, with an error within `within_pct` points of `reference_pct`.

    `reference_pct` is the quantile `reference_share` of the errors, or the best seen where that is None. `draws` random
    networks of the space hold one that near with probability `probability`. Intervals at `confidence`: None where the
    reference is not known well enough.
    """

    num_networks: int
    num_finished: int
    within_pct: float
    reference_share: float | None
    reference_pct: float | None
    share: IntervalEstimate
    draws: IntervalEstimate
    probability: float
    confidence: float


def share_near_best(
    errors: Floats,
    *,
    within_pct: float,
    weights: Floats | None = None,
    reference_share: float | None = 0.05,
    probability: float = 0.95,
    confidence: float,
    num_bootstrap: int,
    rng: np.random.Generator,
) -> NearBest:
    """From `errors` in percent, shape (n,); NaN where early stopping kept a network from this budget.

    `weights`, shape (n,), are inverse inclusion probabilities. Raises `ValueError` as `finished` does, or if an
    argument is out of its range.
    """
    _check(within_pct, reference_share, probability)
    num_beyond(confidence, num_bootstrap)
    values, kept = finished(errors, weights=weights)
    order = np.argsort(values)
    values, kept = values[order], kept[order]
    reference, share = None, UNKNOWN
    if len(values) and reference_share is None:
        reference, share = float(values[0]), _near_seen_best(values, kept, within_pct, confidence)
    elif len(values) and reference_share is not None:
        samples = resampled_weights(kept, len(errors), num_bootstrap=num_bootstrap, rng=rng)
        reference, share = _near_quantile(values, kept, reference_share, within_pct, samples, confidence)
    return NearBest(
        num_networks=len(errors),
        num_finished=len(values),
        within_pct=within_pct,
        reference_share=reference_share,
        reference_pct=reference,
        share=share,
        draws=IntervalEstimate(*(_draws(end, probability) for end in (share.value, share.high, share.low))),
        probability=probability,
        confidence=confidence,
    )


def _check(within_pct: float, reference_share: float | None, probability: float) -> None:
    if not within_pct >= 0:
        raise ValueError(f"within_pct: {within_pct} is no distance; give points of error, 0 or more, such as 1.0")
    if reference_share is not None and not 0 < reference_share < 1:
        raise ValueError(f"reference_share: {reference_share}; give a share between 0 and 1, or None for the best seen")
    if not 0 < probability < 1:
        raise ValueError(f"probability: {probability}; give one between 0 and 1, such as 0.95")


def _near_quantile(
    ordered: Floats,
    weights: Floats,
    reference_share: float,
    within_pct: float,
    samples: Iterable[Floats],
    confidence: float,
) -> tuple[float, IntervalEstimate]:
    """The quantile of `ordered` errors, and the share near it; its interval from the weights in bootstrap `samples`."""
    references, shares = _shares_near(ordered, weights[None], reference_share, within_pct)
    reference, share = float(references[0]), float(shares[0])
    if (effective_number(weights[ordered <= reference]) or 0) < FEWEST_AT_REFERENCE - _ROUNDING:
        return reference, IntervalEstimate(share, None, None)
    drawn = np.concatenate([_shares_near(ordered, sample, reference_share, within_pct)[1] for sample in samples])
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return reference, IntervalEstimate(share, float(low), float(high))


def _shares_near(
    ordered: Floats, weights_SN: Floats, reference_share: float, within_pct: float
) -> tuple[Floats, Floats]:
    """In each sample: the quantile of `ordered` errors, and the share at most `within_pct` above it."""
    below = np.cumsum(weights_SN, axis=1)
    total = below[:, -1]
    references = ordered[(below >= reference_share * (1 - _ROUNDING) * total[:, None]).argmax(axis=1)]
    last = np.searchsorted(ordered, references + within_pct + _ROUNDING, side="right") - 1
    return references, below[np.arange(len(below)), last] / total


def _near_seen_best(ordered: Floats, weights: Floats, within_pct: float, confidence: float) -> IntervalEstimate:
    near = ordered <= ordered[0] + within_pct + _ROUNDING
    total = weights.sum()
    share = float(weights @ near / total)
    squared_error = float(np.square(weights * (near - share)).sum() / total**2)
    effective = share * (1 - share) / squared_error if squared_error > 0 else total**2 / np.square(weights).sum()
    return wilson_estimate(share, effective, confidence=confidence)


def _draws(share: float | None, probability: float) -> float | None:
    """So many that at least one of them is among `share` of the space with `probability`."""
    if share is None:
        return None
    return 1 if share >= probability else math.ceil(math.log1p(-probability) / math.log1p(-share) * (1 - _ROUNDING))
