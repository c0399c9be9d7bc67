"""What a space is like at its full budget: mean and quantiles of the error over all its networks, with intervals.

In: a cohort. Out: a `SpaceEstimate`: where early stopping kept networks from the full budget, the model-assisted
estimate from those that the audit lottery kept (full_budget.py), the plain weighted ones beside it, and what holds
whatever the lottery. The survivors' own mean is told by that name alone: it is no estimate of the space (DESIGN,
section 4.1).
"""

import zlib
from dataclasses import dataclass

import numpy as np

from sweep.statistics.bootstrap import mean_interval
from sweep.statistics.cohorts import Cohort
from sweep.statistics.full_budget import Bounds, FullBudget, Method, bounds, full_budget
from sweep.statistics.intervals import IntervalEstimate
from sweep.statistics.rules.effects import quantile_interval
from sweep.statistics.rules.verdicts import Terms
from sweep.statistics.samples import Sample

QUANTILES = {"q10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75}


@dataclass(frozen=True)
class SpaceEstimate:
    """A space at a scale after `epochs` epochs, in percent of validation error.

    `estimator`: "all" if every network was trained so far, "model_assisted" if not, None where neither can be told:
    trials are still to train, or too few were audited. Of `num_networks`, `num_known` were trained so far; the rule
    wanted to end `num_wanted_to_end`, of which the lottery kept `num_audited`. `standard_error` is the closed form of
    the mean's. `hajek` and `horvitz_thompson`: mean and standard error of the plain weighted estimates.
    `survivors_mean_pct`: of those that the rule let live, which are no sample of the space. `bounds`: of the mean,
    with no lottery at all.
    """

    scale: str
    space: str
    epochs: int
    confidence: float
    estimator: str | None
    num_networks: int
    num_known: int
    num_wanted_to_end: int
    num_audited: int
    mean: IntervalEstimate | None
    standard_error: float | None
    quantiles: dict[str, IntervalEstimate]
    hajek: tuple[float, float] | None
    horvitz_thompson: tuple[float, float] | None
    survivors_mean_pct: float | None
    bounds: Bounds | None


def estimate_space(cohort: Cohort, terms: Terms) -> SpaceEstimate:
    """Seeded by the cohort's name, so that another space in the study leaves it as it is."""
    ended = cohort.take(~cohort.is_cancelled)
    sample = full_budget(cohort)
    is_plain = sample is None or not isinstance(sample, FullBudget)
    survivors = ended.final_errors[ended.is_certain & ended.is_finished]
    return SpaceEstimate(
        scale=cohort.scale,
        space=cohort.space,
        epochs=cohort.full_budget,
        confidence=terms.confidence,
        estimator=None if sample is None else "all" if is_plain else "model_assisted",
        num_networks=len(ended),
        num_known=int(np.count_nonzero(ended.is_finished)),
        num_wanted_to_end=int(np.count_nonzero(~ended.is_certain)),
        num_audited=int(np.count_nonzero(ended.is_finished & ~ended.is_certain)),
        mean=None if sample is None else _mean(sample, cohort, terms),
        standard_error=None if sample is None else _closed_form(sample)[1],
        quantiles={} if sample is None else _quantiles(sample, terms.confidence),
        hajek=None if is_plain else _weighted(cohort, "hajek"),
        horvitz_thompson=None if is_plain else _weighted(cohort, "horvitz_thompson"),
        survivors_mean_pct=float(survivors.mean()) if len(survivors) and len(survivors) < len(ended) else None,
        bounds=bounds(cohort) if len(survivors) < len(ended) else None,
    )


def _mean(sample: Sample, cohort: Cohort, terms: Terms) -> IntervalEstimate:
    rng = np.random.default_rng([terms.seed, zlib.crc32(f"{cohort.space}\0{cohort.scale}".encode())])
    limits = mean_interval(sample, confidence=terms.confidence, num_bootstrap=terms.num_bootstrap, rng=rng)
    return IntervalEstimate(sample.mean, *(limits or (None, None)))


def _quantiles(sample: Sample, confidence: float) -> dict[str, IntervalEstimate]:
    space = [(1.0, sample)]
    return {
        name: IntervalEstimate(*quantile_interval(space, level, confidence=confidence))
        for name, level in QUANTILES.items()
    }


def _weighted(cohort: Cohort, method: Method) -> tuple[float, float] | None:
    sample = full_budget(cohort, method)
    assert sample is not None
    mean, error = _closed_form(sample)
    return None if error is None else (mean, error)


def _closed_form(sample: Sample) -> tuple[float, float | None]:
    mean, squared_error = sample.means(sample.values[:, None])
    return float(mean[0]), float(squared_error[0] ** 0.5) if np.isfinite(squared_error[0]) else None
