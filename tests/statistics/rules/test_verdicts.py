"""Verdicts on populations in which each rule is true, false, free or without effect by construction."""

import json
import math
from dataclasses import fields, replace

import numpy as np
import pyarrow as pa
import pytest
import synthetic
from scipy import stats

from sweep.records.tables import Tables
from sweep.statistics import Verdict, errors_at, find_in_tables, holm, judge
from sweep.statistics.bootstrap import studentised_difference, unmatched
from sweep.statistics.rules.verdicts import trials_to_decide

SPACES = tuple(synthetic.MEAN_ERRORS_PCT)
CONTRACT = [
    "rule",
    "claim",
    "space_without",
    "space_with",
    "scale",
    "budget",
    "rung_epochs",
    "n_without",
    "n_with",
    "num_known_without",
    "num_known_with",
    "mean_without_pct",
    "mean_with_pct",
    "effect_pct",
    "standard_error_pct",
    "ci_low_pct",
    "ci_high_pct",
    "confidence",
    "p_value",
    "p_holm",
    "margin_pct",
    "verdict",
    "trials_to_decide",
    "matched_on",
    "num_matched_without",
    "num_matched_with",
    "share_outside",
    "looks_taken",
    "decided_at_look",
    "others",
]


def judged(tables: Tables, **changes) -> list[Verdict]:
    settings = {"margin_pct": 0.5, "confidence": 0.95, "num_bootstrap": 1999, "seed": 1}
    return judge(tables, **(settings | changes))


def population(seed: int, means: dict[str, float], **changes) -> Tables:
    return synthetic.tables(means, rng=np.random.default_rng(seed), **changes)


def null_population(seed: int, **changes) -> Tables:
    """Four spaces alike: none of the three rules between them does anything."""
    return population(seed, dict.fromkeys(SPACES, 22.0), **changes)


def test_true_false_and_free_rules_are_told_apart():
    means = {"anynet_c": 24.0, "anynet_d": 21.0, "anynet_e": 21.0, "regnet_x": 25.0}
    verdicts = judged(population(0, means, trials_per_space=100, spread_pct=1.5), margin_pct=1.0)
    assert [(v.rule, v.verdict) for v in verdicts] == [
        ("widths_up", "helps"),
        ("depths_up", "free"),
        ("quantised_widths", "hurts"),
    ]
    widths_up = verdicts[0]
    assert (widths_up.space_without, widths_up.space_with) == ("anynet_c", "anynet_d")
    assert (widths_up.n_without, widths_up.n_with, widths_up.rung_epochs) == (100, 100, 2)
    assert widths_up.ci_low_pct < widths_up.effect_pct < widths_up.ci_high_pct < 0
    assert widths_up.effect_pct == pytest.approx(widths_up.mean_with_pct - widths_up.mean_without_pct)
    assert all(v.trials_to_decide is None for v in verdicts)


def test_dict_of_a_verdict_is_the_contract_of_the_command_line():
    verdict = judged(population(1, synthetic.MEAN_ERRORS_PCT))[0]
    assert [field.name for field in fields(Verdict)] == CONTRACT
    assert list(verdict.to_dict()) == CONTRACT
    assert json.loads(json.dumps(verdict.to_dict(), allow_nan=False)) == verdict.to_dict()


def test_no_rule_is_said_to_help_or_hurt_where_none_does():
    """Family-wise, of three rules in one sweep: at most 5 %."""
    num = 250
    wrong = sum(
        any(v.verdict in ("helps", "hurts") for v in judged(null_population(seed), num_bootstrap=399))
        for seed in range(num)
    )
    assert wrong <= 0.05 * num + 2.5 * math.sqrt(0.05 * 0.95 * num)


def test_no_rule_is_said_to_help_or_hurt_where_networks_diverge_by_chance():
    """The same, with diverged networks at chance level strewn over the spaces."""
    num = 250
    wrong = 0
    for seed in range(num):
        tables = strewn_with_divergence(null_population(seed), 0.08, np.random.default_rng(seed))
        wrong += any(v.verdict in ("helps", "hurts") for v in judged(tables, num_bootstrap=399))
    assert wrong <= 0.05 * num + 2.5 * math.sqrt(0.05 * 0.95 * num)


def strewn_with_divergence(tables: Tables, share: float, rng: np.random.Generator) -> Tables:
    outcomes = np.array(tables.trials["outcome"].to_pylist(), dtype=object)
    outcomes[rng.random(len(outcomes)) < share] = "diverged"
    diverged = set(np.array(tables.trials["trial_id"].to_pylist())[outcomes == "diverged"])
    errors = [
        None if trial_id in diverged else error
        for trial_id, error in zip(tables.epochs["trial_id"].to_pylist(), tables.epochs["val_error_pct"].to_pylist())
    ]
    return replace(
        tables,
        trials=replaced(tables.trials, "outcome", pa.array(outcomes.tolist(), pa.string())),
        epochs=replaced(tables.epochs, "val_error_pct", pa.array(errors, pa.float64())),
    )


def replaced(table: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(column), column, values)


def test_no_rule_is_said_to_be_free_where_its_effect_is_the_margin():
    """Family-wise, of three rules whose true effects all lie just at the margin: at most 5 %."""
    means = {"anynet_c": 22.0, "anynet_d": 23.0, "anynet_e": 22.0, "regnet_x": 23.0}
    num = 160
    wrong = sum(
        any(
            v.verdict == "free"
            for v in judged(population(seed, means, trials_per_space=60), margin_pct=1.0, num_bootstrap=399)
        )
        for seed in range(num)
    )
    assert wrong <= 0.05 * num + 2.5 * math.sqrt(0.05 * 0.95 * num)


def test_power_rises_with_the_number_of_networks():
    means = {"anynet_c": 24.0, "anynet_d": 22.5}
    found = {
        num: sum(judged(population(seed, means, trials_per_space=num))[0].verdict == "helps" for seed in range(60))
        for num in (10, 30, 90)
    }
    assert found[10] < found[30] < found[90]
    assert found[90] >= 55


@pytest.mark.parametrize(("shift", "margin_pct"), [(0.3, 0.1), (0.1, 0.4)])
@pytest.mark.parametrize("num_with", [20, 31])
def test_trials_to_decide_decide_if_effect_and_spread_stay_as_seen(shift, margin_pct, num_with):
    """The same networks over and over keep both: somewhat more of them than asked for decide, far fewer do not."""
    rng = np.random.default_rng(2)
    without, with_ = (rng.permutation(stats.norm.ppf((np.arange(num) + 0.5) / num)) for num in (20, num_with))
    with_ -= shift
    seen = studentised_difference(unmatched(without, with_), num_bootstrap=4999, rng=rng)
    more = trials_to_decide(seen, len(without), len(with_), margin_pct=margin_pct, confidence=0.95)

    def is_decided(num_more: float) -> bool:
        samples = (np.resize(errors, len(errors) + round(num_more)) for errors in (without, with_))
        difference = studentised_difference(unmatched(*samples), num_bootstrap=4999, rng=rng)
        return min(difference.p_value(), difference.p_equivalence(margin_pct)) < 0.05

    assert [is_decided(0), is_decided(0.6 * more), is_decided(1.5 * more)] == [False, False, True]


def test_no_number_of_trials_shows_that_an_effect_is_exactly_nothing():
    errors = np.array([19.0, 20.0, 21.0, 23.0])
    difference = studentised_difference(unmatched(errors, errors), num_bootstrap=999, rng=np.random.default_rng(0))
    assert trials_to_decide(difference, 4, 4, margin_pct=0.0, confidence=0.95) is None


def test_trials_to_decide_asks_for_more_where_more_is_compared():
    means = {"anynet_c": 24.0, "anynet_d": 23.5}
    alone = judged(population(3, means))[0]
    among_others = judged(population(3, means | {"anynet_e": 21.0, "regnet_x": 19.0}))[0]
    assert alone.effect_pct == among_others.effect_pct
    assert alone.trials_to_decide < among_others.trials_to_decide


def test_interval_of_a_pair_does_not_depend_on_the_rest_of_the_study():
    means = {"anynet_c": 24.0, "anynet_d": 22.0}
    alone = judged(population(4, means))[0]
    among_others = judged(population(4, means | {"anynet_e": 21.0, "regnet_x": 19.0}))[0]
    assert (alone.ci_low_pct, alone.ci_high_pct) == (among_others.ci_low_pct, among_others.ci_high_pct)
    assert alone.p_value == among_others.p_value <= among_others.p_holm


def test_same_seed_same_verdicts_other_seed_other_resamples():
    tables = population(5, synthetic.MEAN_ERRORS_PCT)
    assert judged(tables) == judged(tables)
    assert judged(tables)[0].ci_low_pct != judged(tables, seed=2)[0].ci_low_pct


def test_each_scale_is_judged_and_corrected_together():
    one = judged(population(6, synthetic.MEAN_ERRORS_PCT))
    two = judged(population(6, synthetic.MEAN_ERRORS_PCT, scales=("small", "large")))
    assert [v.scale for v in two] == ["small"] * 3 + ["large"] * 3
    assert two[0].p_value == one[0].p_value
    assert two[0].p_holm >= one[0].p_holm


def test_a_repeat_is_not_judged_nor_does_it_make_the_correction_stricter():
    one = judged(population(6, synthetic.MEAN_ERRORS_PCT))
    again = synthetic.with_scale(population(6, synthetic.MEAN_ERRORS_PCT, scales=("small", "again")), 1, of="small")
    assert judged(again) == one
    found = find_in_tables(again, judged(again))
    assert {verdict.scale for verdict in found.verdicts} == {"small"}
    assert {estimate.scale for estimate in found.estimates} == {"small"}


def test_a_space_left_out_joins_the_rules_between():
    verdicts = judged(population(7, {"anynet_c": 24.0, "regnet_x": 19.0}))
    assert [(v.rule, v.space_without, v.space_with) for v in verdicts] == [
        ("widths_up+depths_up+quantised_widths", "anynet_c", "regnet_x")
    ]


def test_one_space_alone_gives_no_verdict():
    assert judged(population(8, {"anynet_c": 24.0})) == []


def test_survivors_are_not_compared():
    with pytest.raises(ValueError, match=r"rung_epochs: after 4 epochs only survivors.*1 to 2"):
        judged(population(9, synthetic.MEAN_ERRORS_PCT), rung_epochs=4)


def test_a_lower_rung_may_be_asked_for():
    verdicts = judged(population(10, synthetic.MEAN_ERRORS_PCT), rung_epochs=1)
    assert {v.rung_epochs for v in verdicts} == {1}
    with pytest.raises(ValueError, match="rung_epochs: after 0 epochs"):
        judged(population(10, synthetic.MEAN_ERRORS_PCT), rung_epochs=0)


def test_bad_settings_are_refused():
    tables = population(11, synthetic.MEAN_ERRORS_PCT)
    with pytest.raises(ValueError, match="margin_pct: -1"):
        judged(tables, margin_pct=-1)
    with pytest.raises(ValueError, match="margin_pct: nan"):
        judged(tables, margin_pct=math.nan)
    with pytest.raises(ValueError, match="confidence: 95"):
        judged(tables, confidence=95)


def test_resamples_are_never_too_few_for_the_correction_to_decide():
    tables = population(11, {"anynet_c": 30.0, "anynet_d": 20.0, "anynet_e": 10.0})
    assert [v.verdict for v in judged(tables, num_bootstrap=1, confidence=0.999)] == ["helps", "helps"]


def is_undecided_without_an_interval(verdict: Verdict) -> bool:
    unknown = (verdict.ci_low_pct, verdict.ci_high_pct, verdict.p_value, verdict.p_holm, verdict.trials_to_decide)
    return verdict.verdict == "undecided" and unknown == (None,) * 5


@pytest.mark.parametrize("trials_per_space", [1, 2])
def test_one_or_two_networks_decide_nothing(trials_per_space):
    verdicts = judged(population(12, synthetic.MEAN_ERRORS_PCT, trials_per_space=trials_per_space))
    assert all(map(is_undecided_without_an_interval, verdicts))
    assert all(v.effect_pct is not None for v in verdicts)


@pytest.mark.parametrize("outcome", ["num_failed", "num_diverged", "num_unfinished"])
def test_cohorts_in_which_nothing_was_trained_decide_nothing(outcome):
    verdicts = judged(population(13, synthetic.MEAN_ERRORS_PCT, **{outcome: 20}))
    assert all(map(is_undecided_without_an_interval, verdicts))
    json.dumps([v.to_dict() for v in verdicts], allow_nan=False)
    assert {v.n_with for v in verdicts} == {20 if outcome == "num_diverged" else 0}
    assert {v.mean_with_pct for v in verdicts} == {90.0 if outcome == "num_diverged" else None}


def test_an_empty_cohort_leaves_the_other_rules_judged():
    tables = population(14, {"anynet_c": 24.0, "anynet_d": 20.0, "anynet_e": 20.0})
    is_e = np.array(tables.trials["space"].to_pylist()) == "anynet_e"
    outcomes = np.where(is_e, "failed", np.array(tables.trials["outcome"].to_pylist())).tolist()
    verdicts = judged(replace(tables, trials=replaced(tables.trials, "outcome", pa.array(outcomes))))
    assert verdicts[0].verdict == "helps"
    assert is_undecided_without_an_interval(verdicts[1])
    assert (verdicts[1].n_without, verdicts[1].n_with) == (20, 0)


def test_a_diverged_network_makes_a_space_worse_and_a_failed_one_does_not():
    def mean(**changes: int) -> float:
        tables = population(15, {"anynet_c": 22.0}, **changes)
        return errors_at(tables, scale="small", space="anynet_c", epoch=2).mean()

    assert mean(num_diverged=2) > mean() + 4
    assert abs(mean(num_failed=2) - mean()) < 1


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
