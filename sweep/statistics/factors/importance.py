"""Which factor matters most: what each explains of the errors of networks that no fit has seen, with intervals.

In: what fits say of networks held out (crossfit.py). Out: for each factor its main effect and its total effect
(that and all interactions it is in) as shares of the variance of error, ranked. Stands for exercise 3 of d2l.ai 8.8.

fanova.py decomposes a forest; this asks how much of it is true. Of each network held out, the prediction of fits that
have not seen it (crossfit.py) is compared with the same prediction

* without the factor, averaged over all its values: by how much the squared error rises is its total effect;
* and the sum of all main effects with the same sum less the factor's own: its main effect.

Where factors are independent these are the Sobol indices (1993) of the function that makes the errors, less what the
fits have not learnt, by the one-step estimator of Williamson, Gilbert, Carone and Simon 2023, “A general framework
for inference on algorithm-agnostic variable importance” (JASA 118): what a fit gets wrong about an effect is of
second order, and a factor that does nothing gets about 0, not the share of noise that it has in a forest. Where factors
depend on each other, as depth and width within a band of flops, it is what predictions lose.

**Intervals** are those of ratios.py, widened for the coefficients of the additive fit. In simulations (8 factors, 80
and 400 networks, noise of 0 to 100 % of the variance, 20 samples each) they held main effects in 95 %. Total effects
are lower bounds where factors interact: the noisier the errors and the fewer the networks, the less of an interaction
is learnt, a fifth of it in the worst case there; that of factors which do not interact was held in 93 %.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sweep.statistics.bootstrap import Floats
from sweep.statistics.factors.crossfit import NUM_FOLDS, CrossFit
from sweep.statistics.factors.ratios import Ratios, ratios
from sweep.statistics.intervals import IntervalEstimate


@dataclass(frozen=True)
class Importance:
    """Shares of the variance of error, 0 to 1, with intervals. `rank` is by `total`, 1 the most important.

    `rank_low` to `rank_high` holds the rank in the space at the same confidence; `chance_first` is in how many
    resamples of the networks the factor came first, 0 to 1.
    """

    factor: str
    main: IntervalEstimate
    total: IntervalEstimate
    rank: int
    rank_low: int
    rank_high: int
    chance_first: float


@dataclass(frozen=True)
class Importances:
    """All factors, the most important first.

    `explained` is what the fits explain of networks held out, `main_effects` what the sum of their main effects does:
    shares of the variance of error, `variance_pct2` in points², noise included. Where the lower limit of `explained` is
    below 0 nothing has been shown to matter.
    """

    num_networks: int
    variance_pct2: float
    explained: IntervalEstimate
    main_effects: IntervalEstimate
    factors: tuple[Importance, ...]
    num_bootstrap: int
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, in the order of the fields."""
        return asdict(self)


def importances(fit: CrossFit, *, confidence: float, num_bootstrap: int, rng: np.random.Generator) -> Importances:
    """The importance of each factor. Raises `ValueError` if `confidence` wants more resamples than `num_bootstrap`."""
    num = len(fit.factors.factors)
    variance = fit.squared_deviations
    found = ratios(
        _explained(fit),
        variance[:, None],
        confidence=confidence,
        num_bootstrap=num_bootstrap,
        rng=rng,
        widen=math.sqrt(len(fit.errors) / fit.spare_networks),
    )
    assert found is not None, "errors differ, so their variance is above 0"
    ranks = _ranked(found, slice(2 + num, None), confidence)
    rows = [
        Importance(name, found.share(2 + place), found.share(2 + num + place), *ranks[place])
        for place, name in enumerate(fit.factors.names)
    ]
    return Importances(
        num_networks=len(fit.errors),
        variance_pct2=float(variance.mean()),
        explained=found.explained(0),
        main_effects=found.explained(1),
        factors=tuple(sorted(rows, key=lambda row: row.rank)),
        num_bootstrap=num_bootstrap,
        confidence=confidence,
    )


def _explained(fit: CrossFit) -> Floats:
    """What each network adds to what is explained, in points²: by all that the fits say, by all main effects, by each
    factor's main effect, and by each factor in all; (N, 2 + 2F)."""
    of_additive, of_mains, of_interactions = fit.weights
    mains_VF = of_additive * fit.additive + of_mains * fit.forest_mains
    missed_by_mains_V = fit.held_out_errors - mains_VF.sum(axis=1)
    missed_V = missed_by_mains_V - of_interactions * fit.interactions
    missed_without_VF = missed_by_mains_V[:, None] + mains_VF - of_interactions * fit.interactions_without
    alone = fit.squared_deviations[:, None] - fit.by_network(np.stack([missed_V, missed_by_mains_V], axis=1) ** 2)
    by_main = fit.by_network((missed_by_mains_V[:, None] + mains_VF) ** 2 - missed_by_mains_V[:, None] ** 2)
    by_total = fit.by_network(missed_without_VF**2 - missed_V[:, None] ** 2)
    num_fitted = len(fit.errors) * (1 - 1 / NUM_FOLDS)
    # What a main effect loses because its coefficients were estimated: their share of the error of prediction.
    lost = of_additive * fit.by_network(missed_V**2)[:, None] * fit.coefficients / num_fitted
    return np.concatenate([alone, by_main + lost, by_total + lost], axis=1)


def _ranked(found: Ratios, columns: slice, confidence: float) -> list[tuple[int, int, int, float]]:
    """For each of these ratios its rank, the lowest and the highest in most resamples, and how often it is first."""
    values, resampled = found.values[columns], found.resampled[:, columns]
    ranks = 1 + np.argsort(np.argsort(-values, kind="stable"), kind="stable")
    drawn = 1 + np.argsort(np.argsort(-resampled, axis=1, kind="stable"), axis=1, kind="stable")
    tail = (1 - confidence) / 2
    limits = np.quantile(drawn, [tail, 1 - tail], axis=0, method="inverted_cdf")
    first = np.mean(drawn == 1, axis=0)
    return [
        (int(rank), int(min(low, rank)), int(max(high, rank)), float(chance))
        for rank, low, high, chance in zip(ranks, *limits, first)
    ]
