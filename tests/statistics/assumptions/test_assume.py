"""The assumptions of cheap search, wired: which networks go together, at which budget, with which weights."""

import dataclasses
import json

import numpy as np
import pytest
import stopped
import synthetic

from sweep.statistics import find_in_tables
from sweep.statistics.assumptions.assume import (
    Pairing,
    assume,
    pairings_of_curves,
    pairings_of_tables,
    repeated_errors,
    seeds_of_tables,
)
from sweep.statistics.cohorts import Cohort, cohorts_of
from sweep.statistics.rules.verdicts import Terms

TERMS = Terms(margin_pct=1.0, confidence=0.95, num_bootstrap=999, seed=1)
NOTHING = np.empty((60, 0))


def full(errors: np.ndarray, scale: str = "small") -> Cohort:
    return dataclasses.replace(stopped.bare(errors, np.zeros(len(errors)), space="made"), scale=scale)


@pytest.fixture(scope="module")
def curves() -> np.ndarray:
    return stopped.curves(3_000, np.random.default_rng(1))


def test_ranks_of_each_rung_are_free_of_survivor_bias(curves):
    """Of one sweep's audited networks against all: the weighted correlation holds it, that of survivors does not."""
    rng = np.random.default_rng(2)
    truth = np.corrcoef(*(np.argsort(np.argsort(curves[:, epoch])) for epoch in (0, -1)))[0, 1]
    cohort = stopped.cohort(curves, rng)
    first, later = assume({("small", "made"): cohort}, [], TERMS).budgets
    assert (first.epochs, later.epochs, first.full_epochs) == (1, 4, 9)
    assert first.ranks.num_pairs == np.count_nonzero(cohort.is_finished)
    assert first.ranks.spearman.low < truth < first.ranks.spearman.high
    survivors = cohort.take(cohort.is_certain)
    seen = np.corrcoef(*(np.argsort(np.argsort(survivors.errors[:, epoch])) for epoch in (0, -1)))[0, 1]
    assert not first.ranks.spearman.low < seen < first.ranks.spearman.high


def test_curves_that_none_was_stopped_in_are_asked_at_every_doubling(curves):
    found = assume({("small", "made"): full(curves[:50])}, [], TERMS)
    assert [budget.epochs for budget in found.budgets] == [1, 2, 4, 8]
    assert [near.near.within_pct for near in found.near_best] == [1.0, 3.0]
    assert found.near_best[0].near.share.value < found.near_best[1].near.share.value


def test_survivors_alone_say_nothing(curves):
    cohort = dataclasses.replace(stopped.cohort(curves[:200], np.random.default_rng(3), audit_fraction=0.0))
    found = assume({("small", "made"): cohort}, [], TERMS)
    assert found.budgets == found.near_best == ()


def test_the_same_network_at_two_scales(curves):
    """Errors twice as large at the other scale, rows in another order: ranks agree, and the choice is right."""
    small, order = full(curves[:60]), np.random.default_rng(4).permutation(60)
    large = full(0.5 * curves[:60][order], "large")
    large = dataclasses.replace(large, trial_ids=tuple(small.trial_ids[row] for row in order))
    cohorts = {("small", "made"): small, ("large", "made"): large}
    [pairing] = pairings_of_curves(cohorts)
    [agreement] = assume(cohorts, [], TERMS, [pairing]).scales
    assert agreement.ranks.observed.value == pytest.approx(1.0)
    assert agreement.choices[-1].recall.value == 1.0
    assert agreement.choices[-1].best_regret_pct == 0.0


def test_the_noise_of_a_seed_is_taken_off(curves):
    rng = np.random.default_rng(5)
    quality = rng.normal(20, 3, 60)
    noisy = [(quality + rng.normal(0, 2, 60))[:, None] for _ in range(4)]
    cohorts = {("small", "made"): full(noisy[0]), ("large", "made"): full(noisy[1], "large")}
    rows = np.arange(60)
    [plain] = assume(cohorts, [], TERMS, [Pairing("made", "small", "large", rows, rows, NOTHING, NOTHING)]).scales
    [freed] = assume(cohorts, [], TERMS, [Pairing("made", "small", "large", rows, rows, noisy[2], noisy[3])]).scales
    assert plain.ranks.corrected.value is None
    assert freed.ranks.observed.value == pytest.approx(9 / 13, abs=0.15)
    assert freed.ranks.corrected.value > freed.ranks.observed.value + 0.1


@pytest.fixture(scope="module")
def tables():
    made = synthetic.tables(
        {"anynet_c": 24.0, "anynet_d": 20.0}, rng=np.random.default_rng(6), scales=("small", "large", "again"),
        trials_per_space=16,
    )  # fmt: skip
    made = synthetic.with_scale(made, 1, of="small", width_factor=2.0, flops_min=None, flops_max=None)
    return synthetic.with_scale(made, 2, of="small", flops_min=None, flops_max=None)


def test_pairs_and_repeats_of_a_sweep(tables):
    cohorts = cohorts_of(tables)
    pairings = pairings_of_tables(tables, cohorts)
    assert [(p.space, p.small, p.large) for p in pairings] == [
        ("anynet_c", "small", "large"), ("anynet_d", "small", "large"),
    ]  # fmt: skip
    for pairing in pairings:
        ids = [cohorts[scale, pairing.space].trial_ids for scale in ("small", "large")]
        for small, large in zip(pairing.small_rows, pairing.large_rows):
            assert ids[0][small].replace("small", "large") == ids[1][large]
    again, own = cohorts["again", "anynet_c"], cohorts["small", "anynet_c"]
    assert (
        repeated_errors(tables, cohorts, "small", "anynet_c")[:, 0].tolist()
        == again.errors_at(own.shared_rung).tolist()
    )
    assert set(seeds_of_tables(tables, cohorts)) == {("small", "anynet_c"), ("small", "anynet_d")}


def test_a_sweep_tells_all_of_them_and_judges_no_repeat(tables):
    found = find_in_tables(tables)
    assert {verdict.scale for verdict in found.verdicts} == {"small", "large"}
    assert {estimate.scale for estimate in found.estimates} == {"small", "large"}
    assert [(noise.scale, noise.space) for noise in found.assumptions.seeds] == [
        ("small", "anynet_c"), ("small", "anynet_d"),
    ]  # fmt: skip
    [rule] = found.assumptions.rules
    assert (rule.rule, rule.scales) == ("widths_up", ("small", "large"))
    by_scale = {v.scale: v for v in found.verdicts if v.budget == "rung"}
    assert [effect.value for effect in rule.effect.effects] == [by_scale[s].effect_pct for s in rule.scales]
    json.dumps(found.to_dict(), allow_nan=False)
