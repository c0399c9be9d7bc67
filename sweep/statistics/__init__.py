"""What a sweep says: error distributions with bands, differences with intervals, verdicts on rules. Never torch."""

from sweep.statistics.accounts import CohortSummary, Cost, best_trials, cost, summarise
from sweep.statistics.assumptions.assume import Assumptions
from sweep.statistics.assumptions.choosing import Choice, choices
from sweep.statistics.assumptions.heterogeneity import Heterogeneity, effect_heterogeneity, paired_effect_heterogeneity
from sweep.statistics.assumptions.near_best import NearBest, share_near_best
from sweep.statistics.assumptions.pairs import repeats_of, scale_pairs
from sweep.statistics.assumptions.ranks import RankAgreement, rank_agreement
from sweep.statistics.assumptions.seed_noise import CorrectedAgreement, Reliability, corrected_agreement, reliability
from sweep.statistics.bootstrap import Interval, difference_interval
from sweep.statistics.cohorts import Cohort, cohorts_of, errors_at, errors_by_trial
from sweep.statistics.distributions import edf, edf_band, share_interval
from sweep.statistics.factors.additive import MainEffectsShare, main_effects_share
from sweep.statistics.factors.crossfit import CrossFit, cross_fit
from sweep.statistics.factors.factor_agreement import FactorAgreement, RuleEffect, factor_agreement, rule_effects
from sweep.statistics.factors.factors import Factors, factors_from_columns, factors_of
from sweep.statistics.factors.fanova import Fanova, fanova
from sweep.statistics.factors.importance import Importances, importances
from sweep.statistics.factors.line_fit import fit_errors
from sweep.statistics.factors.trends import Trend, trends
from sweep.statistics.findings import Findings, find_in_cohorts, find_in_tables, pairs_of
from sweep.statistics.full_budget import FullBudget, edf_bounds, full_budget
from sweep.statistics.intervals import IntervalEstimate
from sweep.statistics.reading import read_curves
from sweep.statistics.reruns.paired import Difference, ensemble_gain, paired_difference
from sweep.statistics.reruns.seeds import Estimate, estimates, flattery_pct, over_images, over_seeds
from sweep.statistics.rules.effects import share_below
from sweep.statistics.rules.looks import Look, due_look, ended_early_by, judge_study, looks_taken, num_not_needed
from sweep.statistics.rules.verdicts import MeasureVerdict, Terms, Verdict, holm, judge
from sweep.statistics.space_estimates import SpaceEstimate, estimate_space
from sweep.statistics.tables import (
    chance_error_pct,
    cohort,
    shared_rung,
    study_of,
)

__all__ = [
    "Assumptions",
    "Choice",
    "Cohort",
    "CohortSummary",
    "CorrectedAgreement",
    "Cost",
    "CrossFit",
    "Difference",
    "Estimate",
    "FactorAgreement",
    "Factors",
    "Fanova",
    "Findings",
    "FullBudget",
    "Heterogeneity",
    "Importances",
    "Interval",
    "IntervalEstimate",
    "Look",
    "MainEffectsShare",
    "MeasureVerdict",
    "NearBest",
    "RankAgreement",
    "Reliability",
    "RuleEffect",
    "SpaceEstimate",
    "Terms",
    "Trend",
    "Verdict",
    "best_trials",
    "chance_error_pct",
    "choices",
    "cohort",
    "cohorts_of",
    "corrected_agreement",
    "cost",
    "cross_fit",
    "difference_interval",
    "due_look",
    "edf",
    "edf_band",
    "edf_bounds",
    "effect_heterogeneity",
    "ended_early_by",
    "ensemble_gain",
    "errors_at",
    "errors_by_trial",
    "estimate_space",
    "estimates",
    "factor_agreement",
    "factors_from_columns",
    "factors_of",
    "fanova",
    "find_in_cohorts",
    "find_in_tables",
    "fit_errors",
    "flattery_pct",
    "full_budget",
    "holm",
    "importances",
    "judge",
    "judge_study",
    "looks_taken",
    "main_effects_share",
    "num_not_needed",
    "over_images",
    "over_seeds",
    "paired_difference",
    "paired_effect_heterogeneity",
    "pairs_of",
    "rank_agreement",
    "read_curves",
    "reliability",
    "repeats_of",
    "rule_effects",
    "scale_pairs",
    "share_below",
    "share_interval",
    "share_near_best",
    "shared_rung",
    "study_of",
    "summarise",
    "trends",
]
