"""What a sweep says: error distributions with bands, differences with intervals, verdicts on rules. Never torch."""

from sweep.statistics.accounts import CohortSummary, Cost, best_trials, cost, summarise
from sweep.statistics.bootstrap import Interval, difference_interval
from sweep.statistics.distributions import edf, edf_band, share_interval
from sweep.statistics.errors import (
    chance_error_pct,
    cohort,
    errors_at,
    errors_by_trial,
    shared_rung,
    study_of,
)
from sweep.statistics.looks import Look, due_look, ended_early_by, judge_study, looks_taken, num_not_needed
from sweep.statistics.paired import Difference, ensemble_gain, paired_difference
from sweep.statistics.pairs import repeats_of, scale_pairs
from sweep.statistics.seeds import Estimate, estimates, flattery_pct, over_images, over_seeds
from sweep.statistics.verdicts import Verdict, holm, judge

__all__ = [
    "CohortSummary",
    "Cost",
    "Difference",
    "Estimate",
    "Interval",
    "Look",
    "Verdict",
    "best_trials",
    "chance_error_pct",
    "cohort",
    "cost",
    "difference_interval",
    "due_look",
    "edf",
    "edf_band",
    "ended_early_by",
    "ensemble_gain",
    "errors_at",
    "errors_by_trial",
    "estimates",
    "flattery_pct",
    "holm",
    "judge",
    "judge_study",
    "looks_taken",
    "num_not_needed",
    "over_images",
    "over_seeds",
    "paired_difference",
    "repeats_of",
    "scale_pairs",
    "share_interval",
    "shared_rung",
    "study_of",
    "summarise",
]
