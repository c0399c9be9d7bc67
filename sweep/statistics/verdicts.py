"""Verdicts: which rules of design help, hurt, are free, or stay undecided, at each scale.

In: the tables of a sweep. Out: a `Verdict` for each rule between two spaces of the study and each scale, from all
networks at one and the same budget, or from those of like complexity where the study wants them matched. Stands for
the comparisons of DDS, sections 3.2 (AnyNet A to E) and 3.3 (RegNet), with what they lack:

* the error rate of the claims: all comparisons of a sweep, rules × scales, are corrected together (Holm 1979), the
  claims of a difference in one family and those of equivalence in another;
* "costs nothing" as a claim to be shown (two tests against a stated margin), not as the absence of a difference;
* "undecided" as a verdict, with the number of networks that would decide.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from sweep.records import Tables
from sweep.spaces import RulePair, rule_pairs
from sweep.statistics.bootstrap import (
    Floats,
    Stratum,
    StudentisedDifference,
    significance,
    studentised_difference,
    unmatched,
)
from sweep.statistics.errors import (
    chance_error_pct,
    complexity_by_trial,
    errors_by_trial,
    shared_rung,
    study_of,
)
from sweep.statistics.matching import matched
from sweep.studies.study import Match

Decision = Literal["helps", "free", "hurts", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """What a sweep says of one rule at one scale.

    Errors in percent after `rung_epochs` epochs; `effect_pct` is the mean error with the rule minus the mean without,
    in points: negative means that the rule helps. `ci_low_pct` to `ci_high_pct` is its interval at `confidence`, for
    this rule alone; `p_value` belongs to it, `p_holm` is corrected for all comparisons of the sweep and decides. So an
    interval may exclude 0, or lie within ±`margin_pct`, and the verdict still be undecided. `trials_to_decide`
    further trials in each space would decide if effect and spread stayed as seen. None where the data cannot say.

    Of `n_without` and `n_with` networks at this budget, `num_matched_without` and `num_matched_with` are compared: all
    if `matched_on` is "none", else those with counterparts of like flops, params or activations
    (sweep/statistics/matching.py). `share_outside`, 0 to 1, is what that leaves out; means and effect are then the
    weighted ones of matched networks.
    """

    rule: str
    claim: str
    space_without: str
    space_with: str
    scale: str
    rung_epochs: int
    n_without: int
    n_with: int
    mean_without_pct: float | None
    mean_with_pct: float | None
    effect_pct: float | None
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

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, in the order of the fields."""
        return asdict(self)


@dataclass(frozen=True)
class _Sample:
    """The networks that a rule at a scale is judged by: how many are at the rung, and the strata that compare them."""

    pair: RulePair
    scale: str
    rung_epochs: int
    n_without: int
    n_with: int
    matched_on: Match
    strata: list[Stratum]


@dataclass(frozen=True)
class _Comparison:
    """A sample compared, before the correction; `difference` is None where the data cannot say."""

    sample: _Sample
    difference: StudentisedDifference | None


def judge(
    tables: Tables,
    *,
    rung_epochs: int | None = None,
    margin_pct: float,
    confidence: float,
    num_bootstrap: int,
    seed: int,
    match: Match = "none",
    match_strata: int = 0,
) -> list[Verdict]:
    """A verdict for each scale and each rule between two spaces of the study, scale by scale; repeats of a scale, which
    train its networks once more, are left out.

    `rung_epochs` None compares at each scale's shared rung. A lower one may be asked for; a higher one is refused,
    because only survivors are there. `match` compares networks of like complexity, in `match_strata` strata (0: as many
    as there are networks for). More than `num_bootstrap` resamples are drawn where the correction needs them;
    otherwise the interval of a pair of spaces does not depend on what else the study holds. Raises `ValueError`
    naming the argument, its value and the remedy.
    """
    if not margin_pct >= 0:
        raise ValueError(f"margin_pct: {margin_pct} is no margin; give points of error, 0 or more, such as 0.5")
    if match not in get_args(Match):
        raise ValueError(f"match: {match!r} is no measure of complexity; choose one of {', '.join(get_args(Match))}")
    if match_strata < 0:
        raise ValueError(
            f"match_strata: {match_strata} is no number of strata; give 1 or more, or 0 for as many as fit"
        )
    study = study_of(tables)
    pairs = rule_pairs(study.design_spaces)
    num_comparisons = len(pairs) * len(study.judged_scales)
    num_bootstrap = max(num_bootstrap, _fewest_resamples(confidence, num_comparisons))
    rungs = {scale.name: _rung_to_judge(tables, scale.name, rung_epochs) for scale in study.judged_scales}
    comparisons = [
        _compare(sample, confidence=confidence, num_bootstrap=num_bootstrap, seed=seed)
        for scale, rung in rungs.items()
        for pair in pairs
        for sample in [_sample(tables, pair, scale, rung, match=match, match_strata=match_strata)]
    ]
    p_different = [c.difference.p_value() if c.difference else 1.0 for c in comparisons]
    p_equivalent = [c.difference.p_equivalence(margin_pct) if c.difference else 1.0 for c in comparisons]
    corrected = zip(comparisons, p_different, holm(p_different), holm(p_equivalent))
    return [
        _verdict(*row, num_comparisons=num_comparisons, margin_pct=margin_pct, confidence=confidence)
        for row in corrected
    ]


def judge_study(tables: Tables) -> list[Verdict]:
    """Judge as the study of the tables wants it judged."""
    study = study_of(tables)
    judging = study.judging
    return judge(
        tables,
        margin_pct=judging.margin_pct,
        confidence=judging.confidence,
        num_bootstrap=judging.num_bootstrap,
        seed=study.seed,
        match=judging.match,
        match_strata=judging.match_strata,
    )


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


def _sample(
    tables: Tables, pair: RulePair, scale: str, rung_epochs: int, *, match: Match, match_strata: int
) -> _Sample:
    chance = chance_error_pct(study_of(tables))
    spaces = (pair.space_without, pair.space_with)
    by_trial = [
        errors_by_trial(tables, scale=scale, space=s, epoch=rung_epochs, chance_error_pct=chance) for s in spaces
    ]
    without, with_ = (np.array(list(errors.values()), dtype=np.float64) for errors in by_trial)
    if match == "none":
        strata = unmatched(without, with_)
    else:
        measured = [complexity_by_trial(tables, scale=scale, space=space, measure=match) for space in spaces]
        complexities = [np.array([known[trial_id] for trial_id in errors]) for known, errors in zip(measured, by_trial)]
        strata = matched(without, with_, *complexities, num_strata=match_strata)
    return _Sample(pair, scale, rung_epochs, len(without), len(with_), match, strata)


def _compare(sample: _Sample, *, confidence: float, num_bootstrap: int, seed: int) -> _Comparison:
    pair, scale = sample.pair, sample.scale
    # Seeded by what is compared, not by its place in the list: another space in the study leaves it as it is.
    key = zlib.crc32("\0".join((pair.space_without, pair.space_with, scale)).encode())
    rng = np.random.default_rng([seed, key])
    difference = studentised_difference(sample.strata, num_bootstrap=num_bootstrap, rng=rng)
    if difference is not None and not all(map(math.isfinite, difference.interval(confidence))):
        difference = None
    return _Comparison(sample, difference)


def _verdict(
    comparison: _Comparison,
    p_value: float,
    p_holm: float,
    p_equivalence_holm: float,
    *,
    num_comparisons: int,
    margin_pct: float,
    confidence: float,
) -> Verdict:
    sample, difference = comparison.sample, comparison.difference
    strata = sample.strata
    mean_without = _mean([(s.without, s.weight) for s in strata])
    mean_with = _mean([(s.with_, s.weight) for s in strata])
    effect = None if mean_without is None or mean_with is None else mean_with - mean_without
    low, high = difference.interval(confidence) if difference else (None, None)
    decision = _decide(effect, p_holm, p_equivalence_holm, significance(confidence))
    missing = (
        trials_to_decide(
            difference,
            sample.n_without,
            sample.n_with,
            margin_pct=margin_pct,
            confidence=confidence,
            num_comparisons=num_comparisons,
        )
        if difference and decision == "undecided"
        else None
    )
    num_matched = sum(len(s.without) for s in strata), sum(len(s.with_) for s in strata)
    num = sample.n_without + sample.n_with
    return Verdict(
        rule=sample.pair.rule,
        claim=sample.pair.claim,
        space_without=sample.pair.space_without,
        space_with=sample.pair.space_with,
        scale=sample.scale,
        rung_epochs=sample.rung_epochs,
        n_without=sample.n_without,
        n_with=sample.n_with,
        mean_without_pct=mean_without,
        mean_with_pct=mean_with,
        effect_pct=effect,
        ci_low_pct=low,
        ci_high_pct=high,
        confidence=confidence,
        p_value=p_value if difference else None,
        p_holm=p_holm if difference else None,
        margin_pct=margin_pct,
        verdict=decision,
        trials_to_decide=missing,
        matched_on=sample.matched_on,
        num_matched_without=num_matched[0],
        num_matched_with=num_matched[1],
        share_outside=(num - sum(num_matched)) / num if num else None,
    )


def _decide(effect: float | None, p_holm: float, p_equivalence_holm: float, alpha: float) -> Decision:
    if effect is not None and p_holm < alpha:
        return "helps" if effect < 0 else "hurts"
    return "free" if p_equivalence_holm < alpha else "undecided"


def _mean(weighted: Sequence[tuple[Floats, float]]) -> float | None:
    """The weighted mean of the strata's means; None if there is nothing in them."""
    if not weighted or not all(len(errors) for errors, _ in weighted):
        return None
    return float(sum(weight * np.mean(errors) for errors, weight in weighted))
