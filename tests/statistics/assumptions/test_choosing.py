"""Choosing at small scale: by hand, against chance, with ties and weights, and intervals that cover."""

import json
from dataclasses import asdict
from itertools import combinations

import numpy as np
import pytest
import stopped
from recorded import nas_bench_macro

from sweep.statistics import Choice, choices

NAN = np.nan


def chosen(small, large, share: float, **options) -> Choice:
    rng = np.random.default_rng(0)
    return choices(np.asarray(small), np.asarray(large), shares=[share], confidence=0.95, rng=rng, **options)[0]


def test_by_hand():
    """Ten networks; small scale takes those with 12, 10, 30, 15; the four best have 10, 11, 12, 13."""
    small = np.arange(10.0)
    large = np.array([12.0, 10, 30, 15, 11, 13, 20, 21, 22, 23])
    found = chosen(small, large, 0.4)
    assert (found.num_networks, found.num_pairs, found.num_chosen) == (10, 10, 4)
    assert found.recall.value == pytest.approx(0.5)
    assert (found.recall.low, found.recall.high) == pytest.approx((0.1500, 0.8500), abs=1e-4)  # Wilson's
    assert found.random_recall == pytest.approx(0.4)
    assert found.typical_regret_pct.value == pytest.approx(13.5 - 11.5)
    assert found.random_typical_regret_pct == pytest.approx(17.5 - 11.5)
    assert found.best_regret_pct == 0
    assert chosen(small[::-1], large, 0.4).best_regret_pct == pytest.approx(10)


def test_chance_is_the_mean_over_all_blind_choices():
    large = np.random.default_rng(1).normal(20, 3, size=12)
    found = chosen(np.arange(12.0), large, 0.25)
    blind = [large[list(three)] for three in combinations(range(12), 3)]
    best_three = np.sort(large)[:3]
    assert found.random_recall == pytest.approx(np.mean([np.isin(three, best_three).mean() for three in blind]))
    drawn_again = large[np.random.default_rng(2).integers(12, size=(100_000, 3))]  # as from a large space
    assert found.random_best_regret_pct == pytest.approx(drawn_again.min(axis=1).mean() - large.min(), abs=0.03)


def test_agreement_without_a_flaw_loses_nothing():
    errors = np.random.default_rng(3).normal(20, 3, size=200)
    for found in choices(errors, errors, confidence=0.95, rng=np.random.default_rng(4)):
        assert (found.recall.value, found.typical_regret_pct.value, found.best_regret_pct) == (1, 0, 0)
        assert 0 < found.recall.low < found.recall.high == pytest.approx(1)
    assert [found.num_chosen for found in choices(errors, errors, confidence=0.9, rng=np.random.default_rng(4))] == [
        2,
        10,
        20,
    ]


def test_networks_that_tie_share_the_places():
    large = np.random.default_rng(5).normal(20, 3, size=40)
    found = chosen(np.ones(40), large, 0.1)
    assert found.recall.value == pytest.approx(found.random_recall) == pytest.approx(0.1)
    assert found.typical_regret_pct.value == pytest.approx(found.random_typical_regret_pct)
    assert found.best_regret_pct == pytest.approx(found.random_best_regret_pct, rel=0.1)
    half = chosen(np.repeat([1.0, 2.0], [6, 34]), large, 0.1)  # four places, six that tie for them
    assert half.recall.value == pytest.approx(np.mean(large[:6] <= np.sort(large)[3]))


def test_a_weight_of_two_fills_two_places():
    rng = np.random.default_rng(6)
    small = rng.normal(size=60)
    large, weights = small + rng.normal(size=60), rng.integers(1, 3, size=60)
    found = chosen(small, large, 0.2, weights=weights.astype(float))
    twice = chosen(np.repeat(small, weights), np.repeat(large, weights), 0.2)
    for name in ("recall", "typical_regret_pct"):
        assert getattr(found, name).value == pytest.approx(getattr(twice, name).value)
    assert found.num_chosen == twice.num_chosen
    assert found.recall.high - found.recall.low > twice.recall.high - twice.recall.low
    assert found.random_best_regret_pct == pytest.approx(twice.random_best_regret_pct)


def truth_of(small: np.ndarray, large: np.ndarray, share: float) -> tuple[float, float]:
    """Recall and typical regret in the whole space."""
    is_chosen, is_best = (errors <= np.quantile(errors, share) for errors in (small, large))
    return is_best[is_chosen].mean(), np.median(large[is_chosen]) - np.median(large[is_best])


@pytest.mark.parametrize(("num", "is_stopped"), [(60, False), (200, True)])
def test_intervals_cover_and_weights_leave_no_bias(num, is_stopped):
    rng = np.random.default_rng(7)
    everything = stopped.curves(50_000, rng, heavy=True)
    recall, regret = truth_of(everything[:, 0], everything[:, -1], 0.2)
    found = []
    for _ in range(150):
        curves, weights = stopped.curves(num, rng, heavy=True), None
        early, final = curves[:, 0], curves[:, -1]
        if is_stopped:
            cohort = stopped.cohort(curves, rng)
            final, weights = cohort.final_errors, np.where(cohort.is_certain, 1.0, 1 / cohort.audit_fraction)
        found += choices(early, final, shares=[0.2], weights=weights, confidence=0.95, rng=rng)
    assert np.mean([one.recall.value for one in found]) == pytest.approx(recall, abs=0.03)
    assert np.mean([one.recall.low <= recall <= one.recall.high for one in found]) >= 0.92
    known = [one.typical_regret_pct for one in found if one.typical_regret_pct.low is not None]
    assert len(known) > 140
    assert np.mean([one.low <= regret <= one.high for one in known]) >= 0.92


@pytest.mark.parametrize("num", [0, 1, 2, 3])
def test_few_networks_say_little_without_complaint(num):
    errors = np.arange(float(num))
    found = chosen(errors, errors[::-1], 0.05)
    assert (found.recall.value is None) == (found.best_regret_pct is None) == (num == 0)
    assert found.typical_regret_pct.low is None
    json.dumps(asdict(found), allow_nan=False)


def test_only_networks_with_both_errors_can_be_chosen():
    small, large = np.array([1.0, 2.0, 3.0, NAN, 5.0]), np.array([NAN, 20.0, 21.0, 22.0, 23.0])
    found = chosen(small, large, 0.2, weights=np.array([NAN, 1.0, 1.0, NAN, 3.0]))
    assert (found.num_networks, found.num_pairs, found.num_chosen) == (5, 3, 1)
    assert (found.recall.value, found.best_regret_pct) == (1, 0)


def test_what_is_wrong_is_named():
    ones = np.ones(5)
    with pytest.raises(ValueError, match=r"shares: \[0.0\]"):
        chosen(ones, ones, 0.0)
    with pytest.raises(ValueError, match="large: some errors are infinite"):
        chosen(ones, np.full(5, np.inf), 0.2)
    with pytest.raises(ValueError, match="5 of 5 networks lack an error"):
        chosen(ones, np.full(5, NAN), 0.2)


def test_recorded_networks_one_seed_chooses_for_another():
    errors = nas_bench_macro()
    recall, regret = truth_of(errors[:, 0], errors[:, 1], 0.1)
    rng = np.random.default_rng(8)
    found = [
        choices(*errors[rng.choice(len(errors), 300, replace=False), :2].T, shares=[0.1], confidence=0.95, rng=rng)[0]
        for _ in range(60)
    ]
    assert recall == pytest.approx(0.717, abs=0.001)
    assert sum(one.recall.low <= recall <= one.recall.high for one in found) >= 54
    assert sum(one.typical_regret_pct.low <= regret <= one.typical_regret_pct.high for one in found) >= 54
    assert all(one.best_regret_pct < one.random_best_regret_pct for one in found)
