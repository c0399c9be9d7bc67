"""What a sweep says: error distributions with bands, differences with intervals, verdicts on rules. Never torch."""

from sweep.statistics.accounts import CohortSummary, Cost, best_trials, cost, summarise
from sweep.statistics.assumptions import Assumptions
from sweep.statistics.bootstrap import Interval, difference_interval
from sweep.statistics.cohorts import Cohort, cohorts_of
from sweep.statistics.distributions import edf, edf_band, share_interval
from sweep.statistics.effects import share_below
from sweep.statistics.errors import (
    chance_error_pct,
    cohort,
    errors_at,
    errors_by_trial,
    shared_rung,
    study_of,
)
from sweep.statistics.findings import Findings, find_in_cohorts, find_in_tables, pairs_of
from sweep.statistics.full_budget import FullBudget, edf_bounds, full_budget
from sweep.statistics.looks import Look, due_look, ended_early_by, judge_study, looks_taken, num_not_needed
from sweep.statistics.paired import Difference, ensemble_gain, paired_difference
from sweep.statistics.pairs import repeats_of, scale_pairs
from sweep.statistics.reading import read_curves
from sweep.statistics.seeds import Estimate, estimates, flattery_pct, over_images, over_seeds
from sweep.statistics.space_estimates import SpaceEstimate, estimate_space
from sweep.statistics.verdicts import MeasureVerdict, Terms, Verdict, holm, judge

__all__ = [
    "Assumptions",
    "Cohort",
    "CohortSummary",
    "Cost",
    "Difference",
    "Estimate",
    "Findings",
    "FullBudget",
    "Interval",
    "Look",
    "MeasureVerdict",
    "SpaceEstimate",
    "Terms",
    "Verdict",
    "best_trials",
    "chance_error_pct",
    "cohort",
    "cohorts_of",
    "cost",
    "difference_interval",
    "due_look",
    "edf",
    "edf_band",
    "edf_bounds",
    "ended_early_by",
    "ensemble_gain",
    "errors_at",
    "errors_by_trial",
    "estimate_space",
    "estimates",
    "find_in_cohorts",
    "find_in_tables",
    "flattery_pct",
    "full_budget",
    "holm",
    "judge",
    "judge_study",
    "looks_taken",
    "num_not_needed",
    "over_images",
    "over_seeds",
    "paired_difference",
    "pairs_of",
    "read_curves",
    "repeats_of",
    "scale_pairs",
    "share_below",
    "share_interval",
    "shared_rung",
    "study_of",
    "summarise",
]
