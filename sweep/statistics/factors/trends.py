"""Parameter trends: which values the best networks have, and whether a parameter, or a line's fit, goes with error.

In: parameters of networks by name (depth, b, w_m, …), their errors, and a complexity to be taken out of the errors
where wished. Out: for each parameter the likely range of the best value, and its rank correlation with error.

The range is the empirical bootstrap of Radosavovic et al. 2020 (section 3.1): draw a quarter of the networks with
replacement, note the parameter of the best one, repeat; the median of those, and the range that holds most of them.
Deviation: nothing is drawn. The best of m draws from n networks is the k-th best with the chance
((n − k + 1) / n)^m − ((n − k) / n)^m, so the limit of infinitely many repetitions is a weighted median, exact and the
same for everybody. The range tells where the best networks lie; it is no interval for an optimum, and narrows with the
share drawn as much as with the number of networks.

Complexity goes out of the errors by a straight line of error on its logarithm (NDS controls for it by weights): the
line of Theil and Sen (Sen 1968), which a few diverged networks do not tilt. What is left is ranked.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sweep.statistics.assumptions.ranks import rank_agreement
from sweep.statistics.bootstrap import Floats, significance
from sweep.statistics.intervals import IntervalEstimate

FEWEST_NETWORKS = 8
"""A quarter of them are two networks, the better of which is not telling: below this the trends are None."""

SHARE_DRAWN = 0.25


@dataclass(frozen=True)
class Trend:
    """The values of one parameter that the best networks have.

    `best` is the median over draws of a share `share_drawn` of the networks, with the range that holds `confidence`
    of them; `value_of_best` that of the single best network. `lowest` and `highest` are all that was seen.
    `with_error` is Spearman's rank correlation of the parameter with error, after complexity where that is taken out,
    and its interval at `confidence`: negative where larger values are better.
    """

    parameter: str
    num_networks: int
    best: IntervalEstimate
    value_of_best: float
    lowest: float
    highest: float
    with_error: IntervalEstimate
    without_complexity: bool
    share_drawn: float
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, in the order of the fields."""
        return asdict(self)


def trends(
    parameters: Mapping[str, ArrayLike],
    errors: Floats,
    *,
    confidence: float,
    complexity: Floats | None = None,
    share_drawn: float = SHARE_DRAWN,
) -> list[Trend] | None:
    """The trend of each parameter, a number for each network, of shape (n,) as `errors` and `complexity` (above 0).

    None below `FEWEST_NETWORKS`. Raises `ValueError` naming the parameter whose shape differs or that lacks values, a
    complexity that is not above 0, or a share outside 0 to 1.
    """
    values = {name: np.asarray(given, dtype=np.float64) for name, given in parameters.items()}
    for name, given in {**values, "errors": errors}.items():
        if given.shape != errors.shape or given.ndim != 1 or not np.isfinite(given).all():
            raise ValueError(f"{name}: give one finite number for each of {len(errors)} networks, or leave some out")
    if not 0 < share_drawn <= 1:
        raise ValueError(f"share_drawn: {share_drawn} is no share of the networks; give 0.25 as the paper, at most 1")
    significance(confidence)
    if len(errors) < FEWEST_NETWORKS:
        return None
    ranked = errors if complexity is None else without_complexity(errors, complexity)
    chances = _chances_best(ranked, max(1, round(share_drawn * len(errors))))
    return [
        Trend(
            parameter=name,
            num_networks=len(errors),
            best=_weighted_range(given, chances, confidence),
            value_of_best=float(given[np.argmin(ranked)]),
            lowest=float(given.min()),
            highest=float(given.max()),
            with_error=rank_agreement(given, ranked, confidence=confidence).spearman,
            without_complexity=complexity is not None,
            share_drawn=share_drawn,
            confidence=confidence,
        )
        for name, given in values.items()
    ]


def without_complexity(errors: Floats, complexity: Floats) -> Floats:
    """The errors less what their line on log complexity adds to them beyond the median complexity, in points.

    Raises `ValueError` for complexities that are not above 0 or of another shape.
    """
    if complexity.shape != errors.shape or not np.all((complexity > 0) & np.isfinite(complexity)):
        raise ValueError(f"complexity: give a number above 0 for each of {len(errors)} networks, such as flops")
    logs = np.log(complexity)
    if np.ptp(logs) == 0:
        return errors
    first, second = np.triu_indices(len(errors), 1)
    apart = logs[second] - logs[first]
    slopes = (errors[second] - errors[first])[apart != 0] / apart[apart != 0]
    return errors - np.median(slopes) * (logs - np.median(logs))


def _chances_best(errors: Floats, num_drawn: int) -> Floats:
    """The chance of each network to be the best of `num_drawn` drawn with replacement; equal errors share theirs."""
    num = len(errors)
    _, place, counts = np.unique(errors, return_inverse=True, return_counts=True)
    no_better = (
        1 - np.concatenate([[0], np.cumsum(counts)]) / num
    )  # the share of networks that are not among the first k
    return (-np.diff(no_better**num_drawn) / counts)[place]


def _weighted_range(values: Floats, chances: Floats, confidence: float) -> IntervalEstimate:
    """The median, and the middle that holds `confidence`, of values that come with these chances."""
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(chances[order])
    tail = significance(confidence) / 2
    # Dust of the sum must not push a quantile to the next value.
    places = np.searchsorted(cumulative, np.array([0.5, tail, 1 - tail]) - 1e-12)
    return IntervalEstimate(*(float(values[order[min(place, len(values) - 1)]]) for place in places))
