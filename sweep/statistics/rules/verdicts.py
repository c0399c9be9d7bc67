"""Verdicts: which rules of design help, hurt, are free, or stay undecided, at each scale.

In: the tables of a sweep, or contrasts (comparisons.py) of cohorts from anywhere. Out: a `Verdict` for each rule
between two spaces and each scale, from all networks at one and the same budget, or from those of like complexity where
the study wants them matched. Stands for the comparisons of DDS, sections 3.2 (AnyNet A to E) and 3.3 (RegNet), with
what they lack:

* the error rate of the claims: all comparisons of a sweep, rules × scales, are corrected together (Holm 1979), the
  claims of a difference in one family and those of equivalence in another;
* "costs nothing" as a claim to be shown (two tests against a stated margin), not as the absence of a difference;
* "undecided" as a verdict, with the number of networks that would decide.

The verdict is on the mean error. Beside it stand the effects on the median, on the best tenth and on how often the rule
wins, each with a decision of its own: the same correction over rules × scales, one family a measure and budget.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from sweep.records import Tables
from sweep.spaces import rule_pairs
from sweep.statistics.bootstrap import StudentisedDifference, significance
from sweep.statistics.cohorts import cohorts_of
from sweep.statistics.rules.comparisons import Budget, Comparison, Contrast, at_rung, compare
from sweep.statistics.rules.effects import Effect, Measure
from sweep.statistics.tables import shared_rung, study_of
from sweep.studies import Study
from sweep.studies.study import Match

Decision = Literal["helps", "free", "hurts", "undecided"]


@dataclass(frozen=True)
class Terms:
    """By what is judged: `Judging` of a study, and its seed. Raises `ValueError` naming the field and the remedy."""

    margin_pct: float
    confidence: float
    num_bootstrap: int
    seed: int
    match: Match = "none"
    match_strata: int = 0

    def __post_init__(self) -> None:
        if not self.margin_pct >= 0:
            raise ValueError(
                f"margin_pct: {self.margin_pct} is no margin; give points of error, 0 or more, such as 0.5"
            )
        significance(self.confidence)
        if self.match not in get_args(Match):
            raise ValueError(
                f"match: {self.match!r} is no measure of complexity; choose one of {', '.join(get_args(Match))}"
            )
        if self.match_strata < 0:
            raise ValueError(
                f"match_strata: {self.match_strata} is no number of strata; give 1 or more, or 0 for as many as fit"
            )

    @classmethod
    def of(cls, study: Study) -> "Terms":
        judging = study.judging
        return cls(
            judging.margin_pct,
            judging.confidence,
            judging.num_bootstrap,
            study.seed,
            judging.match,
            judging.match_strata,
        )


@dataclass(frozen=True)
class MeasureVerdict:
    """What a rule does to a measure other than the mean error (effects.py), `effect` in points of error, for
    superiority in probability; negative means that the rule helps. `verdict` None where only looks decide
    (looks.py)."""

    measure: Measure
    without: float | None
    with_: float | None
    effect: float | None
    low: float | None
    high: float | None
    p_value: float | None
    p_holm: float | None
    verdict: Decision | None


@dataclass(frozen=True)
class Verdict:
    """What a sweep says of one rule at one scale.

    `budget`: "rung", of all networks after `rung_epochs` epochs, or "full": after as many as the study trains at most,
    of all networks whether they were trained so far or not, estimated from the `num_known_without` and
    `num_known_with` whose error is known (full_budget.py). Errors in percent; `effect_pct` is the mean error with the
    rule minus the mean without, in points: negative means that the rule helps. `ci_low_pct` to `ci_high_pct` is its
    interval at `confidence`, for this rule alone; `p_value` belongs to it, `p_holm` is corrected for all comparisons
    of the sweep and decides. So an interval may exclude 0, or lie within ±`margin_pct`, and the verdict still be
    undecided. `trials_to_decide` further trials in each space would decide if effect and spread stayed as seen. None
    where the data cannot say.

    Of a sweep that is judged while it runs (sweep/statistics/rules/looks.py) `looks_taken` were taken so far, and
    `decided_at_look` tells which decided; p-values and interval are then those of all looks together. None of others.

    Of `n_without` and `n_with` networks at this budget, `num_matched_without` and `num_matched_with` are compared: all
    if `matched_on` is "none", else those with counterparts of like flops, params or activations
    (sweep/statistics/rules/matching.py). `share_outside`, 0 to 1, is what that leaves out; means and effect are then
    the weighted ones of matched networks.
    """

    rule: str
    claim: str
    space_without: str
    space_with: str
    scale: str
    budget: Budget
    rung_epochs: int
    n_without: int
    n_with: int
    num_known_without: int
    num_known_with: int
    mean_without_pct: float | None
    mean_with_pct: float | None
    effect_pct: float | None
    standard_error_pct: float | None
    ci_low_pct: float | None
    ci_high_pct: float | None
    confidence: float
    p_value: float | None
    p_holm: float | None
    margin_pct: float
    verdict: Decision
    trials_to_decide: int | None
    matched_on: Match
    num_matched_without: int
    num_matched_with: int
    share_outside: float | None
    looks_taken: int | None
    decided_at_look: int | None
    others: tuple[MeasureVerdict, ...]

    @property
    def is_estimated(self) -> bool:
        """Of networks that early stopping kept from this budget, too."""
        return (self.num_known_without, self.num_known_with) != (self.n_without, self.n_with)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, in the order of the fields."""
        return asdict(self) | {"others": [asdict(other) for other in self.others]}


@dataclass(frozen=True)
class Evidence:
    """What a comparison is judged by, before the correction: the p-values of no difference and of one beyond the
    margin, and the confidence of the interval that goes with them, None where there is none to give.

    The others are of a sweep that is judged while it runs; `is_spent`: further trials could decide nothing any more.
    """

    p_different: float
    p_equivalent: float
    confidence: float | None
    looks_taken: int | None = None
    look_different: int | None = None
    look_equivalent: int | None = None
    is_spent: bool = False


def judge(
    tables: Tables,
    *,
    rung_epochs: int | Mapping[str, int] | None = None,
    margin_pct: float,
    confidence: float,
    num_bootstrap: int,
    seed: int,
    match: Match = "none",
    match_strata: int = 0,
    evidence_of: Callable[[Comparison], Evidence] | None = None,
) -> list[Verdict]:
    """A verdict for each scale and each rule between two spaces of the study, scale by scale; repeats of a scale, which
    train its networks once more, are left out.

    `rung_epochs` None compares at each scale's shared rung. A lower one may be asked for, at all scales or by scale; a
    higher one is refused, because only survivors are there. `match` compares networks of like complexity, in
    `match_strata` strata (0: as many as there are networks for). More than `num_bootstrap` resamples are drawn where
    the correction needs them; otherwise the interval of a pair of spaces does not depend on what else the study holds.
    `evidence_of` a comparison is what it shows by itself unless given. Raises `ValueError` naming the argument, its
    value and the remedy.
    """
    terms = Terms(margin_pct, confidence, num_bootstrap, seed, match, match_strata)
    rungs = {
        scale.name: _rung_to_judge(tables, scale.name, _asked(rung_epochs, scale.name))
        for scale in study_of(tables).judged_scales
    }
    return judge_contrasts(contrasts_at(tables, rungs, terms), terms, evidence_of=evidence_of)


def contrasts_at(tables: Tables, rungs: Mapping[str, int], terms: Terms) -> list[Contrast]:
    """Each pair of spaces that differ by a rule, at each scale of `rungs` after so many epochs, scale by scale."""
    cohorts, pairs = cohorts_of(tables), rule_pairs(study_of(tables).design_spaces)
    return [
        at_rung(cohorts, pair, scale, rung, match=terms.match, match_strata=terms.match_strata)
        for scale, rung in rungs.items()
        for pair in pairs
    ]


def judge_contrasts(
    contrasts: Sequence[Contrast], terms: Terms, *, evidence_of: Callable[[Comparison], Evidence] | None = None
) -> list[Verdict]:
    """All of them as one family; see `judge`."""
    comparisons = compare_all(contrasts, terms)
    evidence = [
        evidence_of(comparison) if evidence_of else Evidence(*comparison.p_values(terms.margin_pct), terms.confidence)
        for comparison in comparisons
    ]
    p_holm, p_equivalence_holm = holm([e.p_different for e in evidence]), holm([e.p_equivalent for e in evidence])
    others = _others(comparisons, terms, is_decided=evidence_of is None)
    return [
        _verdict(*row, terms=terms, num_comparisons=len(comparisons))
        for row in zip(comparisons, evidence, p_holm, p_equivalence_holm, others)
    ]


def compare_all(contrasts: Sequence[Contrast], terms: Terms) -> list[Comparison]:
    """More than `num_bootstrap` resamples are drawn where the correction for so many comparisons needs them."""
    num_bootstrap = max(terms.num_bootstrap, _fewest_resamples(terms.confidence, len(contrasts)))
    return [
        compare(contrast, confidence=terms.confidence, num_bootstrap=num_bootstrap, seed=terms.seed)
        for contrast in contrasts
    ]


def _others(comparisons: Sequence[Comparison], terms: Terms, *, is_decided: bool) -> list[tuple[MeasureVerdict, ...]]:
    """Of each comparison its other measures, each corrected over all comparisons."""
    found = [c.other_effects(confidence=terms.confidence, margin_pct=terms.margin_pct) for c in comparisons]
    by_measure = [_measured(effects, significance(terms.confidence), is_decided) for effects in zip(*found)]
    return list(zip(*by_measure)) if by_measure else []


def _measured(effects: Sequence[Effect], alpha: float, is_decided: bool) -> list[MeasureVerdict]:
    """One measure in all comparisons."""
    p_holm = holm([1.0 if effect.p_value is None else effect.p_value for effect in effects])
    p_equivalent = holm([1.0 if effect.p_equivalence is None else effect.p_equivalence for effect in effects])
    return [
        MeasureVerdict(
            effect.measure,
            effect.without,
            effect.with_,
            effect.effect,
            effect.low,
            effect.high,
            effect.p_value,
            None if effect.p_value is None else corrected,
            _decide(effect.effect, corrected, equivalent, alpha) if is_decided else None,
        )
        for effect, corrected, equivalent in zip(effects, p_holm, p_equivalent)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for being several (Holm 1979), in the order given; each at most 1."""
    num = len(p_values)
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(np.array(p_values, dtype=np.float64)[order] * np.arange(num, 0, -1))
    corrected = np.empty(num)
    corrected[order] = np.minimum(1.0, stepped)
    return corrected.tolist()


def trials_to_decide(
    difference: StudentisedDifference,
    num_without: int,
    num_with: int,
    *,
    margin_pct: float,
    confidence: float,
    num_comparisons: int = 1,
) -> int | None:
    """Further trials in each of the two spaces, of `num_without` and `num_with`, that would end indecision; at least 1.

    Effect and spread are taken to stay as seen, as is the share of networks that matching leaves out, and the
    correction to be the strictest step of Holm's. With so many trials the chance to decide is about even. None if no
    number would do (effect and margin both 0), or if so few networks cannot say.
    """
    gap = max(abs(difference.effect), margin_pct - abs(difference.effect))
    if gap == 0:
        return None
    # The reach in standard errors, which skewness makes longer than that of a normal error, is taken to stay as well.
    distance = difference.reach(confidence, num_comparisons) / difference.standard_error
    if not math.isfinite(distance):
        return None
    squared_error = (gap / distance) ** 2
    # Solve var_without / n + var_with / (n + surplus) = squared_error for n, the trials of the space without.
    surplus = num_with - num_without
    var_without = difference.squared_error_without * num_without
    var_with = difference.squared_error_with * num_with
    half = (var_without + var_with - squared_error * surplus) / (2 * squared_error)
    num = half + math.sqrt(half**2 + var_without * surplus / squared_error)
    return max(1, math.ceil(num - num_without))


def _fewest_resamples(confidence: float, num_comparisons: int) -> int:
    """So many that the strictest step of the correction still rests on ten of them: fewer could decide nothing."""
    return math.ceil(10 * num_comparisons / significance(confidence))


def _asked(rung_epochs: int | Mapping[str, int] | None, scale: str) -> int | None:
    return rung_epochs.get(scale) if isinstance(rung_epochs, Mapping) else rung_epochs


def _rung_to_judge(tables: Tables, scale: str, asked: int | None) -> int:
    shared = shared_rung(tables, scale)
    if asked is None:
        return shared
    if not 1 <= asked <= shared:
        raise ValueError(
            f"rung_epochs: after {asked} epochs only survivors of early stopping can be compared at scale {scale!r}, "
            f"if anything; ask for 1 to {shared} epochs"
        )
    return asked


def _verdict(
    comparison: Comparison,
    evidence: Evidence,
    p_holm: float,
    p_equivalence_holm: float,
    others: tuple[MeasureVerdict, ...],
    *,
    terms: Terms,
    num_comparisons: int,
) -> Verdict:
    contrast, difference, confidence = comparison.contrast, comparison.difference, terms.confidence
    mean_without, mean_with = comparison.means_pct
    effect = comparison.effect_pct
    low, high = difference.interval(evidence.confidence) if difference and evidence.confidence else (None, None)
    decision = _decide(effect, p_holm, p_equivalence_holm, significance(confidence))
    missing = (
        trials_to_decide(
            difference,
            contrast.n_without,
            contrast.n_with,
            margin_pct=terms.margin_pct,
            confidence=confidence,
            num_comparisons=num_comparisons,
        )
        if difference and decision == "undecided" and not evidence.is_spent
        else None
    )
    can_say = difference is not None and evidence.looks_taken != 0
    num_matched = sum(s.without.num for s in contrast.strata), sum(s.with_.num for s in contrast.strata)
    num = contrast.n_without + contrast.n_with
    return Verdict(
        rule=contrast.pair.rule,
        claim=contrast.pair.claim,
        space_without=contrast.pair.space_without,
        space_with=contrast.pair.space_with,
        scale=contrast.scale,
        budget=contrast.budget,
        rung_epochs=contrast.epochs,
        n_without=contrast.n_without,
        n_with=contrast.n_with,
        num_known_without=contrast.num_known_without,
        num_known_with=contrast.num_known_with,
        mean_without_pct=mean_without,
        mean_with_pct=mean_with,
        effect_pct=effect,
        standard_error_pct=difference.standard_error if difference else None,
        # Errors lie between 0 and 100 %, so whatever few networks leave open, their difference lies within 100 points.
        ci_low_pct=None if low is None else max(low, -100.0),
        ci_high_pct=None if high is None else min(high, 100.0),
        confidence=confidence,
        p_value=evidence.p_different if can_say else None,
        p_holm=p_holm if can_say else None,
        margin_pct=terms.margin_pct,
        verdict=decision,
        trials_to_decide=missing,
        matched_on=contrast.matched_on,
        num_matched_without=num_matched[0],
        num_matched_with=num_matched[1],
        share_outside=(num - sum(num_matched)) / num if num else None,
        looks_taken=evidence.looks_taken,
        decided_at_look=_look_of(evidence, decision),
        others=others,
    )


def _decide(effect: float | None, p_holm: float, p_equivalence_holm: float, alpha: float) -> Decision:
    if effect is not None and p_holm < alpha:
        return "helps" if effect < 0 else "hurts"
    return "free" if p_equivalence_holm < alpha else "undecided"


def _look_of(evidence: Evidence, decision: Decision) -> int | None:
    if decision == "undecided":
        return None
    return evidence.look_equivalent if decision == "free" else evidence.look_different
