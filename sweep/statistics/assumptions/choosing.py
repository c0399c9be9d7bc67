"""How good is, at large scale, what small scale would have chosen? Top-k recall and regret, beside those of chance.

In: the errors of the same networks at a small scale and at a large one, or after few epochs and after all. Out: for
each share of networks that is chosen at small scale (the best 1, 5, 10 %), three answers:

* **recall**: how many of the chosen are truly among as many best at large scale. Its interval is Wilson's (1927), of a
  share of so many chosen, or of their effective number where they carry weights (Korn and Graubard 1998). A
  percentile bootstrap of it held the recall of the space in 22 to 99 % of cases; Wilson's in 94 to 100 %.
* **typical regret**: by how many points the median of the chosen is worse than the median of the truly best. Its
  interval is Student's, with the standard error of a bootstrap over networks: 95 to 100 % coverage from four chosen on.
  Medians, because a mean rests on whether a network that diverges at large scale alone was drawn: 20 to 80 %.
* **best regret**: by how many points the best of the chosen is worse than the best of all. It is a fact of these
  networks, without an interval: both are extremes of one sample, for which no bootstrap is consistent (Bickel and
  Freedman 1981); percentile intervals held its expectation in 2 to 97 % of cases.

Chance gives each of the three its baseline: as many networks drawn blindly, on average.

Weights are inverse inclusion probabilities (sweep/statistics/assumptions/ranks.py): a share is then a share of the
space, of which a network may fill more or less than one place. Networks that were stopped cannot be chosen; the
lottery's stand for them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from sweep.statistics.bootstrap import Floats, significance
from sweep.statistics.intervals import UNKNOWN, IntervalEstimate, wilson_estimate
from sweep.statistics.resampling import finished, resampled_weights

FEWEST_CHOSEN = 4
"""The median of fewer has no interval."""

NUM_BOOTSTRAP = 1000
"""Enough for a standard error: Efron and Tibshirani (1993, section 6.4) take 200."""

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Choice:
    """What choosing the best `share` of networks at small scale gives at large scale.

    `num_chosen` places (one at least) of `num_pairs` networks with both errors, of `num_networks`. Recall from 0 to 1,
    regrets in points of error, 0 or more; the `random_` ones are what a blind choice of as many gives on average.
    None where there is no pair; the interval of `typical_regret_pct` needs four chosen.
    """

    share: float
    num_networks: int
    num_pairs: int
    num_chosen: int
    recall: IntervalEstimate
    random_recall: float | None
    typical_regret_pct: IntervalEstimate
    random_typical_regret_pct: float | None
    best_regret_pct: float | None
    random_best_regret_pct: float | None
    confidence: float


def choices(
    small: Floats,
    large: Floats,
    *,
    shares: Sequence[float] = (0.01, 0.05, 0.1),
    weights: Floats | None = None,
    confidence: float,
    rng: np.random.Generator,
) -> list[Choice]:
    """One for each of `shares`, from the errors `small` and `large` of the same networks in percent, shape (n,) each.

    NaN marks what a network has no error for, because it was stopped before; `weights` are then inverse inclusion
    probabilities, shape (n,). Ties at the border of the choice share its places. Raises `ValueError` as
    `finished` does, if a large error is infinite, or if a share is not between 0 and 1.
    """
    pairs = _Pairs(*finished(small, large, weights=weights))
    if np.isinf(pairs.y).any():
        raise ValueError("large: some errors are infinite; count a network that diverged at chance level")
    if not all(0 < share < 1 for share in shares):
        raise ValueError(f"shares: {list(shares)}; give shares of the networks between 0 and 1, such as 0.05")
    return [_choice(pairs, share, len(small), confidence, rng) for share in shares]


@dataclass(frozen=True)
class _Pairs:
    """Small and large errors of the networks that have both, and their weights; shape (n,) each."""

    x: Floats
    y: Floats
    weights: Floats


@dataclass(frozen=True)
class _Ranking:
    """The best networks by one error, in its order: as many as can ever be chosen, and a few more.

    Ties with network i lie from `start[i]` to before `end[i]`.
    """

    order: NDArray[np.intp]
    start: NDArray[np.intp]
    end: NDArray[np.intp]


def _choice(pairs: _Pairs, share: float, num_networks: int, confidence: float, rng: np.random.Generator) -> Choice:
    y, weights = pairs.y, pairs.weights
    if not len(y):
        return Choice(share, num_networks, 0, 0, UNKNOWN, None, UNKNOWN, None, None, None, confidence)
    num_chosen = max(1, round(share * weights.sum()))
    by_x, by_y = (_ranking(errors, weights, num_chosen) for errors in (pairs.x, y))
    chosen, best = (_filled(ranking, weights[None], np.array([[num_chosen]])) for ranking in (by_x, by_y))
    as_good = y <= y[by_y.order][best[0] > 0].max()
    typical, median = _median(y[by_x.order], chosen)[0], _median(y[by_y.order], best)[0]
    seen, effective = _effective_places(weights, (by_x, chosen[0]), (by_y, best[0]))
    error = _standard_error(pairs, by_x, by_y, num_chosen / weights.sum(), num_networks, rng)
    return Choice(
        share=share,
        num_networks=num_networks,
        num_pairs=len(y),
        num_chosen=num_chosen,
        recall=wilson_estimate(chosen[0] @ as_good[by_x.order] / chosen.sum(), effective, confidence=confidence),
        random_recall=float(weights @ as_good / weights.sum()),
        typical_regret_pct=_regret(float(typical - median), error * math.sqrt(seen / effective), effective, confidence),
        random_typical_regret_pct=float(_median(y, weights[None])[0] - median),
        best_regret_pct=_expected_best(y[by_x.order], chosen[0] / weights[by_x.order]) - float(y.min()),
        random_best_regret_pct=_expected_best_of_random(y, weights, num_chosen) - float(y.min()),
        confidence=confidence,
    )


def _ranking(errors: Floats, weights: Floats, num_places: int) -> _Ranking:
    order = np.argsort(errors, kind="stable")
    start, end = (np.searchsorted(errors[order], errors[order], side=side) for side in ("left", "right"))
    # In a bootstrap sample the places reach further than here, but hardly ever twice as far and 30 networks more.
    reach = min(len(order), int(np.searchsorted(np.cumsum(weights[order]), 2 * num_places)) + 30)
    reach = end[reach - 1]  # ties share places, so none may be cut off
    return _Ranking(order[:reach], start[:reach], end[:reach])


def _filled(ranking: _Ranking, weights_SN: Floats, places_S1: Floats) -> Floats:
    """How many of a sample's places each network of `ranking` fills, shape (samples, networks of the ranking)."""
    weights = weights_SN[:, ranking.order]
    before = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(weights, axis=1)], axis=1)
    ahead = before[:, ranking.start]
    tied = before[:, ranking.end] - ahead
    return weights * np.clip((places_S1 - ahead) / np.where(tied > 0, tied, 1.0), 0.0, 1.0)


def _effective_places(weights: Floats, *sides: tuple[_Ranking, Floats]) -> tuple[float, float]:
    """How many places of one network each say as much: as seen, on the side that says less, and as is to be feared.

    One of the lottery's heavy networks more could be among the chosen and happened not to be: it is counted as if it
    were. Without it, coverage of recall falls to 88 % where 18 networks of 200 are the lottery's.
    """

    def effective(filled: Floats, heaviness: Floats) -> float:
        return float(filled.sum() ** 2 / (filled @ heaviness))

    seen = min(effective(filled, weights[ranking.order]) for ranking, filled in sides)
    ranking, chosen = sides[0]
    unseen = weights.max() if weights.max() > 1 else 0.0
    return seen, min(seen, effective(np.append(chosen, unseen), np.append(weights[ranking.order], unseen)))


def _standard_error(
    pairs: _Pairs, by_x: _Ranking, by_y: _Ranking, share: float, num_networks: int, rng: np.random.Generator
) -> float:
    """Of the typical regret, over bootstrap samples of all networks."""
    regrets = []
    for sample_SN in resampled_weights(pairs.weights, num_networks, num_bootstrap=NUM_BOOTSTRAP, rng=rng):
        places = share * sample_SN.sum(axis=1, keepdims=True)
        chosen, best = (_median(pairs.y[by.order], _filled(by, sample_SN, places)) for by in (by_x, by_y))
        regrets.append(chosen - best)
    return float(np.concatenate(regrets).std(ddof=1))


def _regret(regret: float, error: float, num_places: float, confidence: float) -> IntervalEstimate:
    if num_places < FEWEST_CHOSEN - _ROUNDING or not error > 0:
        return IntervalEstimate(regret, None, None)
    reach = float(stdtrit(num_places - 1, 1 - significance(confidence) / 2)) * error
    return IntervalEstimate(regret, max(0.0, regret - reach), regret + reach)


def _median(values: Floats, weights_SN: Floats) -> Floats:
    """Weighted medians, midway between two values where half the weight lies on either side."""
    order = np.argsort(values)
    below = np.cumsum(weights_SN[:, order], axis=1)
    half = below[:, -1:] / 2
    low, high = (below >= half * (1 - _ROUNDING)).argmax(axis=1), (below > half * (1 + _ROUNDING)).argmax(axis=1)
    return (values[order][low] + values[order][high]) / 2


def _expected_best(errors: Floats, chances: Floats) -> float:
    """The lowest of `errors` if each is chosen with its chance; those with chance 1 always are."""
    order = np.argsort(errors)
    passed_over = np.concatenate([[1.0], np.cumprod(1 - chances[order])[:-1]])
    is_best = chances[order] * passed_over
    return float(errors[order] @ is_best / is_best.sum())


def _expected_best_of_random(errors: Floats, weights: Floats, num: int) -> float:
    """The lowest of `num` errors drawn by their weights, on average."""
    order = np.argsort(errors)
    worse = 1 - np.concatenate([[0.0], np.cumsum(weights[order]) / weights.sum()])
    none_better = np.clip(worse, 0.0, 1.0) ** num
    return float(errors[order] @ (none_better[:-1] - none_better[1:]))
