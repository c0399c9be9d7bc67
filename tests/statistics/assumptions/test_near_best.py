"""The share of a space near its best: by hand, with weights, with intervals that know the best is estimated too."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import stopped
from recorded import nas_bench_macro

from sweep.statistics import NearBest, share_near_best

NAN = np.nan


def near(errors, within_pct: float, **options) -> NearBest:
    settings = {"confidence": 0.95, "num_bootstrap": 300, "rng": np.random.default_rng(0)} | options
    return share_near_best(np.asarray(errors, dtype=float), within_pct=within_pct, **settings)


def test_by_hand():
    """Errors 10.0, 10.1 … 19.9: the best twentieth ends at 10.4."""
    found = near(10 + np.arange(100) / 10, 1.0)
    assert found.reference_pct == pytest.approx(10.4)
    assert found.share.value == pytest.approx(0.15)
    assert found.draws.value == 19  # 0.85^19 = 0.046, 0.85^18 = 0.054
    assert 0.05 <= found.share.low < 0.15 < found.share.high < 0.4
    assert found.draws.low < 19 < found.draws.high
    assert near(10 + np.arange(100) / 10, 1.0, reference_share=0.01).share.value == pytest.approx(0.11)


def test_the_seed_documents_32_draws_are_of_a_share_of_nine_percent():
    found = near(np.concatenate([np.full(9, 10.0), np.full(91, 30.0)]), 0.5)
    assert (found.share.value, found.draws.value) == (pytest.approx(0.09), 32)
    assert near([10.0] * 9 + [30.0] * 91, 0.5, probability=0.5).draws.value == 8


def test_the_best_seen_as_reference():
    found = near(10 + np.arange(100) / 10, 1.0, reference_share=None)
    assert (found.reference_pct, found.share.value) == (10, pytest.approx(0.11))
    assert (found.share.low, found.share.high) == pytest.approx((0.0625, 0.1863), abs=1e-3)  # Wilson's, 11 of 100


def test_all_that_is_within_counts_also_in_binary():
    assert 0.7 + 0.1 < 0.8
    for reference_share in (0.05, None):
        found = near([0.7, 0.8, 0.8001], 0.1, reference_share=reference_share)
        assert found.share.value == pytest.approx(2 / 3)


def test_a_weight_of_two_counts_as_two_networks():
    rng = np.random.default_rng(1)
    errors, weights = rng.normal(20, 3, size=80), rng.integers(1, 3, size=80)
    for reference_share in (0.05, 0.2, None):
        found = near(errors, 1.0, weights=weights.astype(float), reference_share=reference_share)
        twice = near(np.repeat(errors, weights), 1.0, reference_share=reference_share)
        assert found.share.value == pytest.approx(twice.share.value)
        assert found.reference_pct == twice.reference_pct
    # Of the last, whose interval draws nothing: 80 networks say less than 117.
    assert found.share.high - found.share.low > twice.share.high - twice.share.low


def test_the_best_seen_depends_on_the_size_of_the_sweep_and_the_quantile_does_not():
    rng = np.random.default_rng(2)
    of_quantile, of_seen = (
        [
            np.mean([near(stopped.curves(num, rng)[:, -1], 1, reference_share=r).share.value for _ in range(100)])
            for num in (40, 600)
        ]
        for r in (0.05, None)
    )
    assert abs(of_quantile[0] - of_quantile[1]) < 0.03
    assert of_seen[0] - of_seen[1] > 0.05


@pytest.mark.parametrize(("num", "is_stopped"), [(50, False), (150, True)])
def test_intervals_cover(num, is_stopped):
    rng = np.random.default_rng(3)
    everything = stopped.curves(50_000, rng)[:, -1]
    truth = np.mean(everything <= np.quantile(everything, 0.05) + 1.5)
    draws = np.log(0.05) / np.log(1 - truth)
    found = []
    for _ in range(200):
        curves, weights = stopped.curves(num, rng), None
        errors = curves[:, -1]
        if is_stopped:
            cohort = stopped.cohort(curves, rng)
            errors, weights = cohort.final_errors, np.where(cohort.is_certain, 1.0, 1 / cohort.audit_fraction)
        found.append(near(errors, 1.5, weights=weights, rng=rng))
    known = [one for one in found if one.share.low is not None]
    assert len(known) > 190
    assert np.mean([one.share.value for one in found]) == pytest.approx(truth, abs=0.03)
    assert np.mean([one.share.low <= truth <= one.share.high for one in known]) >= 0.93
    assert np.mean([one.draws.low <= draws <= one.draws.high for one in known]) >= 0.93


@pytest.mark.parametrize("num", [0, 1, 2, 20])
def test_few_networks_do_not_say_where_the_best_twentieth_ends(num):
    found = near(np.arange(float(num)), 1.0)
    assert (found.share.value is None) == (found.reference_pct is None) == (num == 0)
    assert found.share.low is found.draws.high is None
    json.dumps(asdict(found), allow_nan=False)


def test_networks_that_are_all_alike_are_all_near_the_best():
    for reference_share in (0.05, None):
        found = near([90.0] * 60, 0.0, reference_share=reference_share)
        assert (found.share.value, found.draws.value) == (1, 1)


def test_networks_that_were_stopped_are_counted_but_not_read():
    found = near([10.0, 11.0, NAN, 12.0], 1.0, weights=np.array([1.0, 1.0, NAN, 2.0]), reference_share=0.2)
    assert (found.num_networks, found.num_finished, found.share.value) == (4, 3, pytest.approx(0.5))


def test_what_is_wrong_is_named():
    with pytest.raises(ValueError, match="within_pct: -1"):
        near([1.0], -1.0)
    with pytest.raises(ValueError, match=r"reference_share: 5; .*None for the best seen"):
        near([1.0], 1.0, reference_share=5)
    with pytest.raises(ValueError, match="probability: 95"):
        near([1.0], 1.0, probability=95)
    with pytest.raises(ValueError, match="num_bootstrap: 10 resamples are too few"):
        near([1.0], 1.0, num_bootstrap=10)
    with pytest.raises(ValueError, match="1 of 2 networks lack an error"):
        near([1.0, NAN], 1.0)


def test_recorded_networks_samples_of_300_cover_the_share_of_all_6561():
    errors = nas_bench_macro()[:, 0]
    truth = near(errors, 0.5, num_bootstrap=50).share.value
    assert truth == pytest.approx(0.183, abs=0.002)
    rng = np.random.default_rng(4)
    found = [near(rng.choice(errors, 300, replace=False), 0.5, rng=rng) for _ in range(100)]
    assert sum(one.share.low <= truth <= one.share.high for one in found) >= 92
