"""Rank agreement: the textbook's values, no bias from what early stopping kept, and intervals that cover."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import stopped
from recorded import nas_bench_macro
from scipy.stats import kendalltau, spearmanr

from sweep.statistics import rank_agreement
from sweep.statistics.resampling import resampled_weights

NAN = np.nan


def related(rng: np.random.Generator, num: int, *, correlation: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    x, y = rng.normal(size=(2, num))
    return x, correlation * x + np.sqrt(1 - correlation**2) * y


def weights_of(cohort) -> np.ndarray:
    return np.where(cohort.is_certain, 1.0, 1 / cohort.audit_fraction)


@pytest.mark.parametrize("decimals", [9, 1, 0])
@pytest.mark.parametrize("num", [2, 3, 10, 101])
def test_without_weights_it_is_the_textbooks(num, decimals):
    first, second = np.round(related(np.random.default_rng(num), num), decimals)
    found = rank_agreement(first, second, confidence=0.95)
    assert found.spearman.value == pytest.approx(spearmanr(first, second).statistic)
    assert found.kendall.value == pytest.approx(kendalltau(first, second).statistic)
    assert (found.num_networks, found.num_pairs, found.effective_pairs) == (num, num, pytest.approx(num))


@pytest.mark.parametrize("decimals", [9, 1])
def test_a_weight_of_three_counts_as_three_networks(decimals):
    rng = np.random.default_rng(1)
    first, second = np.round(related(rng, 60), decimals)
    weights = rng.integers(1, 4, size=60)
    found = rank_agreement(first, second, weights=weights.astype(float), confidence=0.95)
    many = np.repeat(first, weights), np.repeat(second, weights)
    assert found.spearman.value == pytest.approx(spearmanr(*many).statistic)
    assert found.kendall.value == pytest.approx(kendalltau(*many).statistic)
    assert found.effective_pairs == pytest.approx(weights.sum() ** 2 / (weights**2).sum())


def test_the_standard_error_is_that_of_a_bootstrap_over_all_networks():
    """Of 150 networks, 60 finished: 30 of the best for certain, 30 others kept by a lottery of one in four."""
    rng = np.random.default_rng(2)
    first, second = related(rng, 150)
    order = np.argsort(first)
    weights = np.full(150, NAN)
    weights[order[:30]], weights[order[30::4]] = 1.0, 4.0
    second[np.isnan(weights)] = NAN
    found = rank_agreement(first, second, weights=weights, confidence=0.95)
    kept = ~np.isnan(weights)
    drawn = [
        rank_agreement(first[kept][row > 0], second[kept][row > 0], weights=row[row > 0], confidence=0.95)
        for block in resampled_weights(weights[kept], 150, num_bootstrap=600, rng=rng)
        for row in block
    ]
    for name in ("spearman", "kendall"):
        estimate = getattr(found, name)
        spread = np.std(np.arctanh([getattr(one, name).value for one in drawn]))
        reach = (np.arctanh(estimate.high) - np.arctanh(estimate.low)) / 2
        assert reach / spread == pytest.approx(2.03, abs=0.25)  # Student's quantile at 33 degrees of freedom


def test_survivors_alone_would_mislead_and_weights_put_it_right():
    rng = np.random.default_rng(3)
    everything = stopped.curves(20_000, rng)
    truth = spearmanr(everything[:, 0], everything[:, -1]).statistic
    weighted, survivors = [], []
    for _ in range(250):
        cohort = stopped.cohort(stopped.curves(200, rng), rng)
        early, final = cohort.errors_at(1), cohort.final_errors
        found = rank_agreement(early, final, weights=weights_of(cohort), confidence=0.95)
        assert found.num_networks == 200
        assert found.num_pairs < 110
        weighted.append(found.spearman.value)
        kept = cohort.is_finished & cohort.is_certain
        survivors.append(spearmanr(early[kept], final[kept]).statistic)
    assert abs(np.mean(weighted) - truth) < 0.02
    assert abs(np.mean(survivors) - truth) > 0.15


@pytest.mark.parametrize(("num", "is_stopped", "heavy"), [(40, False, False), (80, True, False), (200, True, True)])
def test_intervals_cover(num, is_stopped, heavy):
    rng = np.random.default_rng(4)
    everything = stopped.curves(4_000, rng, heavy=heavy)
    truth = rank_agreement(everything[:, 3], everything[:, -1], confidence=0.95)
    covered = {"spearman": 0, "kendall": 0}
    repetitions = 300
    for _ in range(repetitions):
        curves = stopped.curves(num, rng, heavy=heavy)
        if is_stopped:
            cohort = stopped.cohort(curves, rng)
            early, final, weights = cohort.errors_at(4), cohort.final_errors, weights_of(cohort)
        else:
            early, final, weights = curves[:, 3], curves[:, -1], None
        found = rank_agreement(early, final, weights=weights, confidence=0.95)
        for name in covered:
            covered[name] += getattr(found, name).low <= getattr(truth, name).value <= getattr(found, name).high
    assert all(0.91 <= hits / repetitions <= 0.99 for hits in covered.values()), covered


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([], []),
        ([1.0], [2.0]),
        ([1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0]),
        ([1.0, 2.0, 3.0, 4.0, 5.0], [90.0] * 5),
        ([NAN, 2.0], [3.0, NAN]),
    ],
)
def test_too_little_says_nothing(first, second):
    found = rank_agreement(np.array(first), np.array(second), weights=np.ones(len(first)), confidence=0.95)
    assert found.spearman.value is found.kendall.value is found.spearman.low is found.kendall.high is None
    json.dumps(asdict(found), allow_nan=False)


def test_three_pairs_or_no_disagreement_give_a_value_without_an_interval():
    three = rank_agreement(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0]), confidence=0.95)
    assert (three.spearman.value, three.spearman.low) == (pytest.approx(0.5), None)
    alike = rank_agreement(np.arange(30.0), np.arange(30.0) ** 3, confidence=0.95)
    assert alike.spearman.value == pytest.approx(1)
    assert alike.spearman.high is alike.kendall.low is None


def test_a_network_that_diverged_ranks_last():
    first, second = related(np.random.default_rng(5), 30)
    at_chance, infinite = second.copy(), second.copy()
    at_chance[:3], infinite[:3] = 90.0, np.inf
    assert rank_agreement(first, infinite, confidence=0.9) == rank_agreement(first, at_chance, confidence=0.9)


def test_what_is_wrong_is_named():
    ones = np.ones(3)
    with pytest.raises(ValueError, match="shapes"):
        rank_agreement(ones, np.ones(4), confidence=0.95)
    with pytest.raises(ValueError, match="1 of 3 networks lack an error; give inverse inclusion"):
        rank_agreement(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, NAN]), confidence=0.95)
    with pytest.raises(ValueError, match="weights: some are not above 0"):
        rank_agreement(ones, ones, weights=np.array([1.0, 0.0, 1.0]), confidence=0.95)
    with pytest.raises(ValueError, match="confidence: 95"):
        rank_agreement(np.arange(9.0), np.arange(9.0) % 4, confidence=95)


def test_many_networks_take_no_time_and_little_memory():
    first, second = related(np.random.default_rng(6), 20_000)
    found = rank_agreement(first, second, confidence=0.95)
    assert found.spearman.value == pytest.approx(spearmanr(first, second).statistic)
    assert found.kendall.value == pytest.approx(kendalltau(first, second).statistic)


def test_recorded_networks_samples_of_300_cover_the_agreement_of_all_6561():
    errors = nas_bench_macro()
    truth = rank_agreement(errors[:, 0], errors[:, 1], confidence=0.95)
    assert truth.spearman.value == pytest.approx(0.97955, abs=1e-4)
    rng = np.random.default_rng(7)
    found = [
        rank_agreement(*errors[rng.choice(len(errors), 300, replace=False), :2].T, confidence=0.95) for _ in range(100)
    ]
    for name in ("spearman", "kendall"):
        value = getattr(truth, name).value
        assert sum(getattr(one, name).low <= value <= getattr(one, name).high for one in found) >= 89
