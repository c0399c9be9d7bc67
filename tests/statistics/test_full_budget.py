"""Estimates at the full budget: by hand, without bias, with the spread that they state, and bounds that hold."""

import numpy as np
import pytest
import stopped

from sweep.statistics.bootstrap import mean_interval
from sweep.statistics.cohorts import Cohort
from sweep.statistics.full_budget import FullBudget, bounds, edf_bounds, full_budget
from sweep.statistics.rules.effects import quantile, quantile_interval, share_below
from sweep.statistics.samples import Complete

NAN = np.nan
# Six networks, two epochs: two survive, four are to end after the first, of which the lottery keeps two.
BY_HAND = np.array([[20.0, 10.0], [22.0, 12.0], [30.0, 18.0], [40.0, 26.0], [35.0, NAN], [50.0, NAN]])
ENDED_AT = np.array([0, 0, 1, 1, 1, 1])


def by_hand(audit_fraction: float | None = 0.5) -> Cohort:
    return stopped.bare(BY_HAND, ENDED_AT, audit_fraction=audit_fraction)


def mean(cohort: Cohort, method: str) -> float:
    sample = full_budget(cohort, method)
    assert sample is not None
    return sample.mean


def test_horvitz_thompson_counts_each_known_error_by_its_inverse_probability():
    assert mean(by_hand(), "horvitz_thompson") == pytest.approx((10 + 12 + (18 + 26) / 0.5) / 6)
    assert mean(by_hand(0.4), "horvitz_thompson") == pytest.approx((10 + 12 + (18 + 26) / 0.4) / 6)


def test_hajek_makes_the_weights_sum_to_the_number_of_networks():
    assert mean(by_hand(0.4), "hajek") == pytest.approx((10 + 12 + (18 + 26) / 0.4) / (2 + 2 / 0.4))


def test_a_lottery_that_is_not_known_is_what_it_kept():
    assert full_budget(by_hand(None)).probabilities.tolist() == [0.5, 0.5]
    assert mean(by_hand(None), "hajek") == pytest.approx(mean(by_hand(None), "horvitz_thompson"))


def test_where_early_errors_are_alike_the_model_is_the_mean_without_each():
    """Predictions: 22 of those that were stopped, of the audited the other's error; residuals −8 and 8."""
    predicted = [26.0, 18.0]
    corrected = [p + (y - p) / 0.5 for p, y in zip(predicted, (18.0, 26.0))]
    alike = BY_HAND.copy()
    alike[2:, 0] = 40.0
    cohort = stopped.bare(alike, ENDED_AT, audit_fraction=0.5)
    assert mean(cohort, "model_assisted") == pytest.approx((10 + 12 + 2 * 22 + sum(corrected)) / 6)


@pytest.mark.parametrize("method", ["model_assisted", "hajek", "horvitz_thompson"])
@pytest.mark.parametrize("num", [12, 150])
def test_weights_and_pseudo_values_tell_the_same_mean(num, method):
    rng = np.random.default_rng(num)
    sample = full_budget(stopped.cohort(stopped.curves(num, rng), rng), method)
    means, _ = sample.means(np.stack([sample.values, np.ones(len(sample.values))], axis=1))
    assert means[0] == pytest.approx(sample.mean)
    assert sample.weights @ sample.values == pytest.approx(sample.mean)
    if method != "horvitz_thompson":  # what does not vary is told exactly
        assert means[1] == pytest.approx(1.0)
        assert sample.weights.sum() == pytest.approx(1.0)


def test_where_no_network_was_to_end_all_are_known():
    sample = full_budget(stopped.bare(BY_HAND[:4], np.zeros(4)))
    assert isinstance(sample, Complete)
    assert sample.mean == pytest.approx((10 + 12 + 18 + 26) / 4)


def test_there_is_no_estimate_without_a_lottery_or_while_trials_are_to_come():
    lonely = BY_HAND.copy()
    lonely[3, 1] = NAN
    assert full_budget(stopped.bare(lonely, ENDED_AT)) is None
    assert full_budget(by_hand(0.0)) is None
    assert mean(stopped.bare(lonely, ENDED_AT), "horvitz_thompson") == pytest.approx((10 + 12 + 18 / 0.25) / 6)
    running = by_hand()
    running.is_open[4] = True
    assert full_budget(running) is None
    assert bounds(running) is None


def test_a_network_that_diverged_before_the_rule_could_end_it_is_certain():
    cohort = stopped.bare(np.array([[20.0, 10.0], [90.0, 90.0], [40.0, 90.0]]), np.array([0, 1, 1]))
    cohort.diverged_at[1:] = 1, 2
    assert cohort.is_certain.tolist() == [True, True, False]


def test_an_estimator_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="method: 'magic' is no estimator; choose one of model_assisted"):
        full_budget(by_hand(), "magic")


def test_bounds_hold_whatever_the_lottery():
    found = bounds(by_hand())
    assert found.low_pct == pytest.approx((10 + 12 + 18 + 26) / 6)
    assert found.high_pct == pytest.approx((10 + 12 + 18 + 26 + 200) / 6)
    assert found.high_if_no_worse_pct == pytest.approx((10 + 12 + 18 + 26 + 35 + 50) / 6)
    low, high = edf_bounds(by_hand(), np.array([11.0, 100.0]))
    assert low == pytest.approx([1 / 6, 4 / 6])
    assert high == pytest.approx([3 / 6, 1.0])


@pytest.fixture(scope="module")
def repeated() -> tuple[float, dict[str, np.ndarray], list[FullBudget], np.ndarray]:
    """The truth of a population; the estimates of 400 sweeps of 120 networks each; the survivors' means."""
    rng = np.random.default_rng(1)
    pool = stopped.curves(20_000, rng)
    samples, means, survivors = [], {"model_assisted": [], "hajek": [], "horvitz_thompson": []}, []
    for _ in range(400):
        cohort = stopped.cohort(pool[rng.choice(len(pool), 120)], rng)
        samples.append(full_budget(cohort))
        for method, found in means.items():
            found.append(mean(cohort, method))
        survivors.append(cohort.final_errors[cohort.is_certain].mean())
    return pool[:, -1].mean(), {m: np.array(f) for m, f in means.items()}, samples, np.array(survivors)


@pytest.mark.parametrize("method", ["model_assisted", "hajek", "horvitz_thompson"])
def test_estimates_are_without_bias(repeated, method):
    truth, means, _, survivors = repeated
    error = means[method] - truth
    assert abs(error.mean()) < 3 * error.std() / np.sqrt(len(error))
    assert abs(survivors.mean() - truth) > 20 * survivors.std() / np.sqrt(len(survivors))  # which survivors are not


def test_more_of_the_worst_tell_the_mean_without_bias_and_better():
    """Six in a hundred seem to have learnt nothing, and half of these do so in the end. Much the same share of all
    trials is kept: 0.15, or 0.125 and three times as many of the worst tenth."""
    rng = np.random.default_rng(5)
    pool = 0.7 * stopped.curves(20_000, rng)
    is_bad, learns = rng.random((2, len(pool), 1)) < [[[0.06]], [[0.5]]]
    late = np.where(learns & (np.arange(pool.shape[1]) >= 5), 12.0, rng.uniform(75, 90, size=(len(pool), 1)))
    pool = np.where(is_bad, late, pool)
    lotteries = {"alike": (0.15, None), "more of the worst": (0.125, 0.375)}
    errors, kept = {name: np.empty(500) for name in lotteries}, dict.fromkeys(lotteries, 0)
    for number in range(500):
        drawn = pool[rng.integers(len(pool), size=120)]
        for name, (audit_fraction, audit_worst) in lotteries.items():
            cohort = stopped.cohort(drawn, rng, audit_fraction=audit_fraction, audit_worst=audit_worst)
            errors[name][number] = mean(cohort, "model_assisted") - pool[:, -1].mean()
            kept[name] += np.count_nonzero(cohort.is_finished & ~cohort.is_certain)
    error = errors["more of the worst"]
    assert kept["more of the worst"] <= 1.03 * kept["alike"]
    assert abs(error.mean()) < 3 * error.std() / np.sqrt(len(error))
    assert np.sqrt(np.mean(error**2)) < 0.85 * np.sqrt(np.mean(errors["alike"] ** 2))


def test_early_curves_make_the_estimate_better(repeated):
    truth, means, *_ = repeated
    error = {method: float(np.sqrt(np.mean((found - truth) ** 2))) for method, found in means.items()}
    assert error["model_assisted"] < 0.97 * error["hajek"] < 0.97 * error["horvitz_thompson"]


def test_standard_errors_are_those_of_the_estimates(repeated):
    """The closed form, and that of the bootstrap, against the spread over sweeps."""
    _, means, samples, _ = repeated
    seen = means["model_assisted"].std()
    closed = np.mean([s.means(s.values[:, None])[1][0] ** 0.5 for s in samples])
    two_phases = np.mean([s.squared_error**0.5 for s in samples])
    rng = np.random.default_rng(2)
    resampled = np.mean([s.resample(200, rng)[0].std() for s in samples[:100]])
    assert closed == pytest.approx(seen, rel=0.1)
    assert two_phases == pytest.approx(seen, rel=0.1)
    assert resampled == pytest.approx(seen, rel=0.15)


def test_intervals_of_the_mean_hold_it(repeated):
    truth, _, samples, _ = repeated
    rng = np.random.default_rng(3)
    limits = [mean_interval(s, confidence=0.95, num_bootstrap=399, rng=rng) for s in samples]
    assert 0.91 < np.mean([low <= truth <= high for low, high in limits]) < 0.98


def test_intervals_of_quantiles_hold_them():
    rng = np.random.default_rng(4)
    pool = stopped.curves(20_000, rng)
    levels = (0.1, 0.5, 0.75)
    truth = np.quantile(pool[:, -1], levels)
    held = np.zeros(3)
    for _ in range(200):
        sample = full_budget(stopped.cohort(pool[rng.choice(len(pool), 120)], rng))
        for place, level in enumerate(levels):
            _, low, high = quantile_interval([(1.0, sample)], level, confidence=0.95)
            held[place] += low <= truth[place] <= high
    assert (held / 200 > 0.9).all()


def test_the_band_of_the_distribution_is_that_of_the_bootstrap():
    """Its closed form against the spread of the shares over resampled sweeps."""
    rng = np.random.default_rng(5)
    pool = stopped.curves(20_000, rng)
    grid = np.quantile(pool[:, -1], [0.25, 0.5, 0.75])
    shares, widths = [], []
    for _ in range(150):
        sample = full_budget(stopped.cohort(pool[rng.choice(len(pool), 120)], rng))
        share, low, high = share_below([(1.0, sample)], grid, confidence=0.95)
        shares.append(share)
        widths.append(high - low)
    assert np.mean(shares, axis=0) == pytest.approx([0.25, 0.5, 0.75], abs=0.02)
    assert np.mean(widths, axis=0) == pytest.approx(2 * 1.96 * np.std(shares, axis=0), rel=0.15)


def test_quantiles_lie_between_the_known_errors():
    sample = full_budget(by_hand())
    assert 10.0 <= quantile([(1.0, sample)], 0.01) <= quantile([(1.0, sample)], 0.99) <= 26.0
