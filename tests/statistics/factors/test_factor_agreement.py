"""Importances against what breaking rules costs: agreement, disagreement, and too little to tell."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from sweep.statistics.factors.factor_agreement import FactorAgreement, RuleEffect, factor_agreement, rule_effects
from sweep.statistics.factors.importance import Importance, Importances
from sweep.statistics.intervals import IntervalEstimate


def important(**totals: float) -> Importances:
    """Importances with intervals of ± 0.02."""
    rows = [
        Importance(name, IntervalEstimate(0.0, 0.0, 0.0), IntervalEstimate(t, t - 0.02, t + 0.02), 1, 1, 1, 0.0)
        for name, t in sorted(totals.items(), key=lambda item: -item[1])
    ]
    whole = IntervalEstimate(0.8, 0.7, 0.9)
    return Importances(100, 4.0, whole, whole, tuple(rows), 399, 0.95)


def broken(factor: str, cost_pct: float, reach_pct: float = 0.5) -> RuleEffect:
    return RuleEffect(factor, f"vionet_{factor}", cost_pct, cost_pct - reach_pct, cost_pct + reach_pct)


def agreement(importances: Importances, *effects: RuleEffect) -> FactorAgreement | None:
    return factor_agreement(importances, effects, num_draws=2000, rng=np.random.default_rng(1))


FOUR = important(w=0.5, d=0.3, b=0.15, g=0.05)


def test_the_same_order_agrees():
    found = agreement(FOUR, broken("w", 8), broken("d", 5), broken("b", 2.5), broken("g", 0.1))
    assert (found.first_by_importance, found.first_by_rules, found.same_first) == ("w", "w", True)
    assert found.chance_same_first > 0.99
    assert (found.spearman.value, found.kendall.value) == (pytest.approx(1), pytest.approx(1))
    assert found.spearman.low == pytest.approx(1)


def test_the_reverse_order_disagrees():
    found = agreement(FOUR, broken("w", 0.1), broken("d", 2.5), broken("b", 5), broken("g", 8))
    assert (found.first_by_rules, found.same_first, found.chance_same_first) == ("g", False, 0.0)
    assert (found.spearman.value, found.kendall.value) == (pytest.approx(-1), pytest.approx(-1))


def test_wide_intervals_leave_the_ranks_open():
    found = agreement(FOUR, broken("w", 3, 6), broken("d", 2, 6), broken("b", 1, 6), broken("g", 0.5, 6))
    assert found.spearman.value == pytest.approx(1)
    assert found.spearman.low < 0 < found.spearman.high
    assert 0.2 < found.chance_same_first < 0.8


def test_a_factor_counts_by_its_strongest_rule_in_either_direction():
    found = agreement(FOUR, broken("w", 1), broken("w", 9), broken("d", 2), broken("b", -4))
    assert found.factors == ("w", "d", "b")
    assert found.costs_pct == (9, 2, -4)


def test_two_factors_have_a_first_but_no_correlation():
    found = agreement(FOUR, broken("w", 8), broken("d", 2))
    assert found.same_first
    assert found.spearman.value is None
    assert found.kendall.low is None


def test_none_without_two_factors_in_common():
    assert agreement(FOUR, broken("w", 8)) is None
    assert agreement(FOUR, broken("norm", 8), broken("skip", 8)) is None


def test_result_is_json():
    told = json.loads(json.dumps(agreement(FOUR, broken("w", 8), broken("d", 5), broken("b", 2)).to_dict()))
    assert told["factors"] == ["w", "d", "b"]
    assert told["confidence"] == 0.95


def verdict(rule: str, without: str, effect: float | None = -3.0) -> SimpleNamespace:
    low, high = (None, None) if effect is None else (effect - 1, effect + 2)
    return SimpleNamespace(rule=rule, space_without=without, effect_pct=effect, ci_low_pct=low, ci_high_pct=high)


def test_verdicts_on_spaces_that_break_a_rule_become_costs_of_factors():
    effects = rule_effects(
        [
            verdict("widths_up", "vionet_widths_down"),
            verdict("widths_up", "anynet_c"),  # adds the rule, and much else is alike by chance only
            verdict("no_depthwise_groups", "vionet_depthwise", 1.0),
            verdict("depths_up", "vionet_depths_down", None),
            verdict("squeeze_excitation", "regnet_x"),
        ]
    )
    assert effects == [
        RuleEffect("w", "vionet_widths_down", 3.0, 1.0, 4.0),
        RuleEffect("g", "vionet_depthwise", -1.0, -3.0, 0.0),
    ]
