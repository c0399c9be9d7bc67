"""Matching: strata and weights by hand; a rule that only comes with larger networks is not taken for one that helps."""

import json
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import synthetic

from sweep.records.tables import Tables
from sweep.statistics import Verdict, judge
from sweep.statistics.bootstrap import Stratum, studentised_difference, unmatched
from sweep.statistics.rules.matching import MAX_STRATA, matched
from sweep.statistics.rules.verdicts import trials_to_decide

synthetic.SLOPE_PCT = 3.0  # points of error that twice the flops save
SHAPES = {
    "anynet_c": (1.0, 2.0),
    "anynet_d": (2.0, 1.0),
}  # of beta distributions over the band: D's networks are larger


def sweep_of(seed: int, *, effect_pct: float = 0.0, num: int = 48, measure: str = "flops", **changes) -> Tables:
    """The same as the tables of a sweep; `measure` is what differs between the spaces and decides the errors."""
    rng = np.random.default_rng(seed)
    means = {"anynet_c": 22.0, "anynet_d": 22.0 + effect_pct}
    tables = synthetic.tables(means, rng=rng, trials_per_space=num, **changes)
    positions = {
        trial_id: rng.beta(*synthetic.LARGER_WITH[space == "anynet_d"])
        for trial_id, space in zip(tables.trials["trial_id"].to_pylist(), tables.trials["space"].to_pylist())
    }
    complexity = [round(4e5 * 2.0 ** positions[trial_id]) for trial_id in tables.trials["trial_id"].to_pylist()]
    errors = [
        None
        if row["val_error_pct"] is None
        else row["val_error_pct"] - synthetic.SLOPE_PCT * positions[row["trial_id"]]
        for row in tables.epochs.select(["trial_id", "val_error_pct"]).to_pylist()
    ]
    return replace(
        tables,
        trials=replaced(tables.trials, measure, pa.array(complexity, pa.int64())),
        epochs=replaced(tables.epochs, "val_error_pct", pa.array(errors, pa.float64())),
    )


def replaced(table: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(column), column, values)


def judged(tables: Tables, **changes) -> Verdict:
    settings = {"margin_pct": 0.5, "confidence": 0.95, "num_bootstrap": 399, "seed": 1}
    (verdict,) = judge(tables, **(settings | changes))
    return verdict


def errs(strata: list[Stratum], rng: np.random.Generator, truth_pct: float = 0.0) -> bool:
    """Whether a 95 % interval misses the truth; without one nothing is claimed."""
    difference = studentised_difference(strata, num_bootstrap=399, rng=rng)
    return difference is not None and difference.p_value(truth_pct) < 0.05


def at_most_nominal(num: int) -> float:
    return 0.05 * num + 2.5 * math.sqrt(0.05 * 0.95 * num)


def test_two_strata_by_hand():
    strata = matched(
        np.array([30.0, 28.0, 21.0, 20.0, 22.0, 50.0]),
        np.array([27.0, 25.0, 26.0, 19.0, 17.0, 5.0]),
        np.array([1.0, 1.5, 2.0, 3.0, 4.0, 0.5]),  # 0.5 lies below all networks with the rule
        np.array([1.0, 1.0, 1.9, 2.0, 4.0, 8.0]),  # 8 above all without it
        num_strata=2,  # 1 to 2 and 2 to 4
    )
    assert [s.without.values.tolist() for s in strata] == [[30.0, 28.0], [21.0, 20.0, 22.0]]
    assert [s.with_.values.tolist() for s in strata] == [[27.0, 25.0, 26.0], [19.0, 17.0]]
    assert [s.weight for s in strata] == [0.5, 0.5]  # 2·3/5 each
    found = studentised_difference(strata, num_bootstrap=99, rng=np.random.default_rng(0))
    assert found.effect == pytest.approx(0.5 * (26 - 29) + 0.5 * (18 - 21))
    assert found.squared_error_without == pytest.approx(0.25 * (2 / 2 + 1 / 3))
    assert found.squared_error_with == pytest.approx(0.25 * (1 / 3 + 2 / 2))


def test_weights_are_the_overlap_of_a_stratum_and_thin_strata_are_left_out():
    sizes = {1.1: (4, 12), 2.2: (2, 2), 4.4: (1, 9), 8.8: (6, 6)}  # four strata of 1 to 16
    without = np.array([1.0, *(c for c, (a, _) in sizes.items() for _ in range(a)), 16.0])
    with_ = np.array([1.0, *(c for c, (_, b) in sizes.items() for _ in range(b)), 16.0])
    strata = matched(without, with_, without, with_, num_strata=4)
    assert [(s.without.num, s.with_.num) for s in strata] == [(5, 13), (2, 2), (7, 7)]
    overlaps = np.array([5 * 13 / 18, 1.0, 3.5])
    np.testing.assert_allclose([s.weight for s in strata], overlaps / overlaps.sum())


@pytest.mark.parametrize("seed", range(5))
def test_both_sides_are_balanced_and_weights_sum_to_one(seed):
    rng = np.random.default_rng(seed)
    _, _, flops_without, flops_with = synthetic.confounded(rng, 60)
    strata = matched(flops_without, flops_with, flops_without, flops_with)
    assert sum(s.weight for s in strata) == pytest.approx(1.0)
    assert all(
        s.without.values.max() / s.without.values.min() < 2 ** (1 / 6) for s in strata
    )  # seven strata or so of the band
    before = flops_with.mean() / flops_without.mean() - 1
    after = sum(s.weight * s.with_.mean for s in strata) / sum(s.weight * s.without.mean for s in strata) - 1
    assert abs(after) < 0.03 < 0.15 < before


@pytest.mark.parametrize(("num", "num_strata"), [(1, 0), (2, 1), (20, 2), (48, 6), (1000, MAX_STRATA)])
def test_more_networks_are_cut_into_more_strata(num, num_strata):
    even = np.geomspace(1.0, 2.0, num)
    assert len(matched(even, even, even, even)) == num_strata


def test_networks_all_alike_are_one_stratum_that_holds_all():
    errors, alike = np.array([20.0, 21.0, 23.0]), np.full(3, 5e5)
    (stratum,) = matched(errors, errors + 1, alike, alike, num_strata=7)
    assert (stratum.without.values.tolist(), stratum.weight) == (errors.tolist(), 1.0)


@pytest.mark.parametrize(
    ("without", "with_"),
    [([], []), ([1.0, 2.0], []), ([1.0, 2.0], [3.0, 4.0]), ([1.0, 2.0], [2.0, 3.0]), ([1.0], [1.0, 1.0])],
)
def test_no_counterparts_no_strata(without, with_):
    without, with_ = np.array(without), np.array(with_)
    strata = matched(without, with_, without, with_)
    assert strata == []
    assert studentised_difference(strata, num_bootstrap=99, rng=np.random.default_rng(0)) is None


def test_one_stratum_of_all_is_the_unmatched_comparison():
    rng = np.random.default_rng(1)
    errors = synthetic.confounded(rng, 20)[:2]
    whole, one = (
        studentised_difference(strata, num_bootstrap=199, rng=np.random.default_rng(2))
        for strata in (unmatched(*errors), matched(*errors, np.ones(20), np.ones(20)))
    )
    assert (whole.effect, whole.standard_error) == (one.effect, one.standard_error)
    np.testing.assert_array_equal(whole.distances, one.distances)


@pytest.mark.parametrize("num", [20, 48, 120])
def test_larger_networks_are_not_taken_for_a_rule(num):
    rng = np.random.default_rng(num)
    num_sweeps = 300
    samples = [synthetic.confounded(rng, num) for _ in range(num_sweeps)]
    assert sum(errs(unmatched(*sample[:2]), rng) for sample in samples) > 0.15 * num_sweeps
    assert sum(errs(matched(*sample), rng) for sample in samples) <= at_most_nominal(num_sweeps)


@pytest.mark.parametrize("num_strata", [0, 4])
def test_interval_of_a_true_effect_covers_it_and_excludes_zero(num_strata):
    rng = np.random.default_rng(3)
    samples = [matched(*synthetic.confounded(rng, 80, effect_pct=2.0), num_strata=num_strata) for _ in range(300)]
    assert sum(errs(strata, rng, truth_pct=2.0) for strata in samples) <= at_most_nominal(300)
    assert sum(errs(strata, rng) for strata in samples) > 0.9 * 300


def test_divergence_in_small_strata_does_not_make_a_rule():
    """A stratum in which by chance all of one side diverged would look certain."""
    rng = np.random.default_rng(4)
    wrong = 0
    for _ in range(300):
        *errors, flops_without, flops_with = synthetic.confounded(rng, 40)
        diverged = (np.where(rng.random(40) < 0.08, 90.0, found) for found in errors)
        wrong += errs(matched(*diverged, flops_without, flops_with), rng)
    assert wrong <= at_most_nominal(300)


def test_verdicts_of_sweeps_in_which_the_rule_does_nothing():
    num = 60
    sweeps = [sweep_of(seed) for seed in range(num)]
    assert sum(judged(tables).verdict == "helps" for tables in sweeps) > 0.25 * num
    assert sum(judged(tables, match="flops").verdict in ("helps", "hurts") for tables in sweeps) <= at_most_nominal(num)


@pytest.mark.parametrize("measure", ["flops", "params", "activations"])
def test_a_matched_verdict_says_so_and_a_true_effect_is_found(measure):
    found = judged(sweep_of(1, effect_pct=3.0, num=100, measure=measure, num_diverged=1, num_failed=2), match=measure)
    assert (found.verdict, found.matched_on) == ("hurts", measure)
    assert found.effect_pct == pytest.approx(found.mean_with_pct - found.mean_without_pct)
    assert (found.n_without, found.n_with) == (98, 98)
    assert 50 < found.num_matched_without < 98
    assert found.share_outside == pytest.approx(1 - (found.num_matched_without + found.num_matched_with) / 196)


def test_unmatched_verdicts_leave_nothing_out():
    found = judged(sweep_of(1))
    assert (found.matched_on, found.num_matched_without, found.num_matched_with) == ("none", 48, 48)
    assert found.share_outside == 0.0


def test_further_trials_of_a_matched_verdict_count_those_that_matching_will_leave_out():
    """The same interval from half of the networks, the others being outside, takes twice as many more."""
    rng = np.random.default_rng(5)
    errors, flops = np.linspace(15.0, 25.0, 60), np.geomspace(4e5, 8e5, 60)
    strata = matched(rng.permutation(errors), rng.permutation(errors) - 0.3, flops, flops, num_strata=1)
    seen = studentised_difference(strata, num_bootstrap=999, rng=rng)
    all_inside, half_outside = (trials_to_decide(seen, num, num, margin_pct=0.1, confidence=0.95) for num in (60, 120))
    assert all_inside > 100
    assert half_outside == pytest.approx(2 * all_inside, abs=1)


@pytest.mark.parametrize("changes", [{"num": 1}, {"num_failed": 48}, {"num_unfinished": 24}, {"num_diverged": 48}])
def test_poor_sweeps_are_undecided(changes):
    found = judged(sweep_of(3, **changes), match="flops")
    assert (found.verdict, found.ci_low_pct, found.p_value, found.trials_to_decide) == ("undecided", *[None] * 3)
    json.dumps(found.to_dict(), allow_nan=False)


def test_spaces_without_a_network_of_like_flops_are_undecided():
    tables = sweep_of(4)
    apart = [5e5 + n if space == "anynet_c" else 7e5 + n for n, space in enumerate(tables.trials["space"].to_pylist())]
    found = judged(replace(tables, trials=replaced(tables.trials, "flops", pa.array(apart, pa.int64()))), match="flops")
    assert (found.verdict, found.effect_pct, found.mean_with_pct) == ("undecided", None, None)
    assert (found.n_with, found.num_matched_with, found.share_outside) == (48, 0, 1.0)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"match: 'depth' .* none, flops, params, activations"):
        judged(sweep_of(5, num=2), match="depth")
    with pytest.raises(ValueError, match=r"match_strata: -1 .* 0 for"):
        judged(sweep_of(5, num=2), match_strata=-1)
