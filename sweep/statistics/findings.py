"""All that a sweep, or curves from anywhere, say about rules and spaces: one value, which prints as one JSON document.

In: the tables of a sweep, or cohorts and the pairs of spaces to compare. Out: `Findings`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sweep.records import Tables
from sweep.spaces import SPACES, RulePair, rule_pairs
from sweep.spaces.checks import nearest
from sweep.statistics.assumptions.assume import (
    Assumptions,
    assume,
    pairings_of_curves,
    pairings_of_tables,
    seeds_of_tables,
)
from sweep.statistics.cohorts import cohorts_of
from sweep.statistics.factors.findings import FactorFindings, find_factors
from sweep.statistics.rules.comparisons import Cohorts, Contrast, at_full_budget, at_rung
from sweep.statistics.rules.looks import judge_study
from sweep.statistics.rules.verdicts import Terms, Verdict, judge_contrasts
from sweep.statistics.space_estimates import SpaceEstimate, estimate_space
from sweep.statistics.tables import study_of


@dataclass(frozen=True)
class Findings:
    """`verdicts`: of each rule at each scale, first those at the budget that all networks reached, then, where early
    stopping kept networks from it, those at the full budget; either is a family of its own for Holm's correction.
    `estimates`: each space at its full budget. `assumptions`: what cheap searches rest on. `factors`: which parts of a
    network matter; none of curves, whose networks are not known."""

    verdicts: tuple[Verdict, ...]
    estimates: tuple[SpaceEstimate, ...]
    assumptions: Assumptions
    factors: tuple[FactorFindings, ...] = ()

    @property
    def at_rungs(self) -> tuple[Verdict, ...]:
        """The verdicts at the budget that all networks reached."""
        return tuple(verdict for verdict in self.verdicts if not verdict.is_estimated)

    @property
    def at_full_budget(self) -> tuple[Verdict, ...]:
        """Those that early stopping leaves to be estimated; none where the others are at the full budget."""
        return tuple(verdict for verdict in self.verdicts if verdict.is_estimated)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
            "estimates": [asdict(estimate) for estimate in self.estimates],
            "assumptions": asdict(self.assumptions),
            "factors": [asdict(found) for found in self.factors],
        }


def find_in_tables(tables: Tables, verdicts: Sequence[Verdict] | None = None) -> Findings:
    """As the study of the tables wants it judged, repeats of a scale left out; `verdicts` at the shared rungs, if they
    are known already."""
    study = study_of(tables)
    every, terms = cohorts_of(tables), Terms.of(study)
    judged = {scale.name for scale in study.judged_scales}
    cohorts = {place: cohort for place, cohort in every.items() if place[0] in judged}
    at_rungs = judge_study(tables) if verdicts is None else verdicts
    assumptions = assume(cohorts, at_rungs, terms, pairings_of_tables(tables, every), seeds_of_tables(tables, every))
    return Findings(
        verdicts=(*at_rungs, *_at_full_budget(cohorts, rule_pairs(study.design_spaces), terms)),
        estimates=_estimates(cohorts, terms),
        assumptions=assumptions,
        factors=find_factors(tables, cohorts, at_rungs, terms, _seed_noise(assumptions)),
    )


def _seed_noise(assumptions: Assumptions) -> dict[str, float]:
    """By scale, the standard deviation of an error over seeds: the root mean square over its spaces."""
    found: dict[str, list[float]] = {}
    for noise in assumptions.seeds:
        if noise.reliability.seed_sd_pct is not None:
            found.setdefault(noise.scale, []).append(noise.reliability.seed_sd_pct)
    return {scale: float(np.sqrt(np.mean(np.square(values)))) for scale, values in found.items()}


def find_in_cohorts(cohorts: Cohorts, pairs: Sequence[RulePair], terms: Terms) -> Findings:
    """Pairs are compared at every scale at which both spaces are. Compared at the highest budget that early stopping
    kept no network of the scale from, and at the full budget."""
    contrasts = [
        at_rung(cohorts, pair, scale, rung, match=terms.match, match_strata=terms.match_strata)
        for scale, rung in _shared_rungs(cohorts).items()
        for pair in pairs
        if rung and _has_both(cohorts, pair, scale)
    ]
    at_rungs = judge_contrasts(contrasts, terms)
    return Findings(
        verdicts=(*at_rungs, *_at_full_budget(cohorts, pairs, terms)),
        estimates=_estimates(cohorts, terms),
        assumptions=assume(cohorts, at_rungs, terms, pairings_of_curves(cohorts)),
    )


def pairs_of(cohorts: Cohorts, named: Sequence[str] = ()) -> list[RulePair]:
    """The pairs to compare: those `named` as "WITHOUT:WITH"; else those that differ by a rule, of spaces that ship;
    else, of two spaces, the second against the first. Raises `ValueError` for a space that the curves do not hold."""
    spaces = list(dict.fromkeys(space for _, space in cohorts))
    if named:
        return [_named_pair(text, spaces) for text in named]
    if known := rule_pairs([SPACES[space] for space in spaces if space in SPACES]):
        return known
    return [_pair(*spaces)] if len(spaces) == 2 else []


def _named_pair(text: str, spaces: Sequence[str]) -> RulePair:
    found = [(text[:i], text[i + 1 :]) for i, letter in enumerate(text) if letter == ":"]
    both = [pair for pair in found if pair[0] in spaces and pair[1] in spaces]
    if not found:
        raise ValueError(f"--pairs: {text!r} is not WITHOUT:WITH; name two spaces with a colon between them")
    if not both:
        missing = next(space for space in found[0] if space not in spaces)
        raise ValueError(f"--pairs: the curves hold no space {missing!r}; {nearest(missing, spaces)}")
    if both[0][0] == both[0][1]:
        raise ValueError(f"--pairs: {text!r} compares a space with itself; name two spaces")
    return _pair(*both[0])


def _pair(without: str, with_: str) -> RulePair:
    return RulePair(rule=f"{with_} against {without}", claim="", space_without=without, space_with=with_)


def _shared_rungs(cohorts: Cohorts) -> dict[str, int]:
    rungs: dict[str, int] = {}
    for (scale, _), cohort in cohorts.items():
        rungs[scale] = min(rungs.get(scale, cohort.shared_rung), cohort.shared_rung)
    return rungs


def _has_both(cohorts: Cohorts, pair: RulePair, scale: str) -> bool:
    return (scale, pair.space_without) in cohorts and (scale, pair.space_with) in cohorts


def _at_full_budget(cohorts: Cohorts, pairs: Sequence[RulePair], terms: Terms) -> list[Verdict]:
    """Where early stopping kept networks from it; else the verdicts at the rung say it already."""
    scales = dict.fromkeys(scale for scale, _ in cohorts)
    contrasts = [
        at_full_budget(cohorts, pair, scale, match=terms.match, match_strata=terms.match_strata)
        for scale in scales
        for pair in pairs
        if _has_both(cohorts, pair, scale)
    ]
    return judge_contrasts([contrast for contrast in contrasts if _is_told(contrast)], terms)


def _is_told(contrast: Contrast) -> bool:
    return contrast.is_estimated and bool(contrast.strata)


def _estimates(cohorts: Cohorts, terms: Terms) -> tuple[SpaceEstimate, ...]:
    return tuple(estimate_space(cohort, terms) for cohort in cohorts.values() if len(cohort))
