"""One rule at several scales: tests that are the textbook's, decisions by hand, and how often they are wrong."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from scipy.stats import chi2, norm, ttest_ind, ttest_rel

from sweep.statistics import effect_heterogeneity, paired_effect_heterogeneity

NAN = np.nan


def decided(effects, errors, *, margin_pct: float = 1.0) -> str:
    return effect_heterogeneity(effects, errors, margin_pct=margin_pct, confidence=0.95).decision


def test_two_independent_scales_are_welchs_t_test():
    rng = np.random.default_rng(1)
    small, large = rng.normal(-3, 2, size=14), rng.normal(-1, 4, size=25)
    found = effect_heterogeneity(
        [small.mean(), large.mean()],
        [sample.std(ddof=1) / math.sqrt(len(sample)) for sample in (small, large)],
        degrees_of_freedom=[13, 24],
        margin_pct=0.5,
        confidence=0.9,
    )
    welch = ttest_ind(large, small, equal_var=False)
    low, high = welch.confidence_interval(0.9)
    assert found.p_value == pytest.approx(welch.pvalue)
    assert found.cochran_q == pytest.approx(welch.statistic**2)
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high))
    assert found.difference.value == pytest.approx(large.mean() - small.mean())


def test_known_errors_give_cochrans_q():
    effects, errors = [-3.0, -1.0, -2.0, 0.5], [0.5, 1.0, 0.8, 0.6]
    weights = 1 / np.square(errors)
    q = (weights * (effects - np.average(effects, weights=weights)) ** 2).sum()
    found = effect_heterogeneity(effects, errors, margin_pct=1, confidence=0.95)
    assert found.cochran_q == pytest.approx(q)
    assert found.p_value == pytest.approx(chi2.sf(q, 3))
    assert found.i_squared == pytest.approx((q - 3) / q)
    assert found.difference.value == pytest.approx(3.5)
    assert found.effects[2].high == pytest.approx(-2 + norm.ppf(0.975) * 0.8)


def test_pairs_are_the_paired_t_test_and_hotellings():
    rng = np.random.default_rng(2)
    pairs = rng.normal(size=(20, 3)) + rng.normal(size=(20, 1)) + [0, 0.5, 0.2]
    two = paired_effect_heterogeneity(pairs[:, :2], margin_pct=1, confidence=0.95)
    student = ttest_rel(pairs[:, 1], pairs[:, 0])
    assert two.p_value == pytest.approx(student.pvalue)
    assert (two.difference.low, two.difference.high) == pytest.approx(tuple(student.confidence_interval(0.95)))
    three = paired_effect_heterogeneity(pairs, margin_pct=1, confidence=0.95)
    steps = np.diff(pairs, axis=1)
    t_squared = 20 * steps.mean(axis=0) @ np.linalg.inv(np.cov(steps.T)) @ steps.mean(axis=0)
    assert three.cochran_q == pytest.approx(t_squared)
    assert (three.num_pairs, three.num_scales) == (20, 3)


def test_pairs_know_more_than_independent_scales():
    rng = np.random.default_rng(3)
    pairs = 3 * rng.normal(size=(30, 1)) + 0.3 * rng.normal(size=(30, 2))
    errors = pairs.std(axis=0, ddof=1) / math.sqrt(30)
    paired = paired_effect_heterogeneity(pairs, margin_pct=1, confidence=0.95)
    assert paired.decision == "same size"
    assert decided(pairs.mean(axis=0), errors) == "undecided"
    assert paired.effects[0].value == pytest.approx(pairs[:, 0].mean())


@pytest.mark.parametrize(
    ("effects", "errors", "decision"),
    [
        ([-3.0, -3.2], [0.2, 0.2], "same size"),
        ([0.2, -0.2], [0.05, 0.05], "same size"),  # a sign within the margin is of no matter
        ([-3.0, -6.0], [0.5, 0.5], "same sign"),
        ([-3.0, -3.0], [0.5, 0.5], "same sign"),  # equal, but not known well enough
        ([-3.0, 3.0], [0.5, 0.5], "changes sign"),
        ([-3.0, 0.5], [0.5, 0.5], "undecided"),
        ([-3.0, -3.1, -2.9], [0.1, 0.1, 0.1], "same size"),
        ([-3.0, -3.1, -1.0], [0.1, 0.1, 0.1], "same sign"),
        ([-3.0, -3.1, 1.0], [0.1, 0.1, 0.1], "changes sign"),
        # 2.1 standard errors from 0 are enough beside one other scale, not beside two.
        ([-3.0, 2.1], [0.1, 1.0], "changes sign"),
        ([-3.0, 2.1, 0.0], [0.1, 1.0, 1.0], "undecided"),
    ],
)
def test_decisions(effects, errors, decision):
    assert decided(effects, errors) == decision


@pytest.mark.parametrize(
    ("truth", "claim"),
    [((0.0, 1.0), "same_size"), ((-9.0, 0.0, 0.0, 0.0), "changes_sign"), ((-9.0, -9.0, 0.0), "same_sign")],
)
def test_no_claim_is_wrong_too_often(truth, claim):
    """At the worst truth of each claim, with standard errors that are estimated from 20 networks."""
    rng = np.random.default_rng(4)
    repetitions, num = 1000, 20
    wrong = 0
    for _ in range(repetitions):
        drawn = rng.normal(truth, math.sqrt(num) * 0.2, size=(num, len(truth)))
        found = effect_heterogeneity(
            drawn.mean(axis=0),
            drawn.std(axis=0, ddof=1) / math.sqrt(num),
            degrees_of_freedom=[num - 1] * len(truth),
            margin_pct=1,
            confidence=0.95,
        )
        wrong += getattr(found, claim)
    assert 0.005 <= wrong / repetitions <= 0.05


@pytest.mark.parametrize("paired", [False, True])
def test_where_all_effects_are_one_few_are_found_to_differ(paired):
    rng = np.random.default_rng(5)
    found = []
    for _ in range(600):
        pairs = rng.normal(size=(15, 3)) + (rng.normal(size=(15, 1)) if paired else 0)
        if paired:
            found.append(paired_effect_heterogeneity(pairs, margin_pct=1, confidence=0.95))
        else:
            errors = pairs.std(axis=0, ddof=1) / math.sqrt(15)
            freedom = [14, 14, 14]
            found.append(
                effect_heterogeneity(
                    pairs.mean(axis=0), errors, degrees_of_freedom=freedom, margin_pct=1, confidence=0.95
                )
            )
    assert np.mean([one.p_value < 0.05 for one in found]) == pytest.approx(0.05, abs=0.027)
    assert np.mean([one.difference.low <= 0 <= one.difference.high for one in found]) == pytest.approx(0.95, abs=0.027)


@pytest.mark.parametrize(
    ("effects", "errors"), [([], []), ([1.0], [0.1]), ([1.0, NAN], [0.1, 0.1]), ([1.0, 2.0], [0.1, 0.0])]
)
def test_an_unknown_scale_decides_nothing(effects, errors):
    found = effect_heterogeneity(effects, errors, margin_pct=1, confidence=0.95)
    assert (found.decision, found.p_value, found.difference.value) == ("undecided", None, None)
    assert found.num_scales == len(effects)
    json.dumps(asdict(found), allow_nan=False)


@pytest.mark.parametrize("shape", [(0, 2), (1, 2), (2, 2), (3, 3), (9, 1), (9, 0)])
def test_too_few_pairs_decide_nothing(shape):
    found = paired_effect_heterogeneity(np.random.default_rng(6).normal(size=shape), margin_pct=1, confidence=0.95)
    assert (found.decision, found.cochran_q) == ("undecided", None)
    json.dumps(asdict(found), allow_nan=False)


def test_pairs_that_lack_a_scale_are_left_out_and_a_difference_without_spread_shows_nothing():
    effects = np.column_stack([np.arange(8.0), np.arange(8.0) + 0.5])
    effects[7, 1] = NAN
    found = paired_effect_heterogeneity(effects, margin_pct=1, confidence=0.95)
    assert (found.num_pairs, found.difference.value, found.difference.low) == (7, pytest.approx(0.5), None)
    assert (found.cochran_q, found.same_size) == (None, False)


def test_what_is_wrong_is_named():
    with pytest.raises(ValueError, match="standard_errors: 1 and 2 degrees of freedom beside 2 effects"):
        effect_heterogeneity([1.0, 2.0], [0.1], margin_pct=1, confidence=0.95)
    with pytest.raises(ValueError, match="margin_pct: -1"):
        effect_heterogeneity([1.0, 2.0], [0.1, 0.1], margin_pct=-1, confidence=0.95)
    with pytest.raises(ValueError, match="confidence: 95"):
        paired_effect_heterogeneity(np.ones((4, 2)), margin_pct=1, confidence=95)
    with pytest.raises(ValueError, match=r"effects: shape \(4,\)"):
        paired_effect_heterogeneity(np.ones(4), margin_pct=1, confidence=0.95)
