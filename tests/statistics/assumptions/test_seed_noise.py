"""The noise of a seed: published and recorded values, correlations freed of it, intervals that cover, silence."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from recorded import nas_bench_macro
from scipy.special import stdtrit

from sweep.statistics import corrected_agreement, rank_agreement, reliability

NAN = np.nan
# Shrout and Fleiss (1979), table 2: six targets, four judges.
TARGETS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float)


def two_scales(
    rng: np.random.Generator, num: int, *, correlation: float, reliable: float = 0.8, num_repeated: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of `num` networks at two scales, (num, 2) each: a second seed for the first `num_repeated`."""
    common, other = rng.normal(size=(2, num))
    large = correlation * common + np.sqrt(1 - correlation**2) * other
    noise = np.sqrt(1 / reliable - 1) * rng.normal(size=(2, num, 2))
    found = np.stack([common, large])[..., None] + noise
    found[:, num if num_repeated is None else num_repeated :, 1] = NAN
    return found[0], found[1]


def test_published_intraclass_correlation():
    found = reliability(TARGETS, confidence=0.95)
    assert found.of_errors.value == pytest.approx(0.17, abs=0.005)
    assert (found.num_networks, found.num_repeated, found.num_repeats) == (6, 6, 18)
    assert found.seed_sd_pct == pytest.approx(np.sqrt(TARGETS.var(axis=1, ddof=1).mean()))


def test_the_noise_of_few_repeats_is_set_against_the_variance_of_all():
    errors = np.array([[1.0, 1.2], [3.0, 2.8], [5.0, 5.1], [7.0, 7.3], [9.0, 8.6], [20.0, NAN], [21.0, NAN], [22, NAN]])
    found = reliability(errors, confidence=0.95)
    noise = np.mean([0.02, 0.02, 0.005, 0.045, 0.08])
    means = np.nanmean(errors, axis=1)
    signal = means.var(ddof=1) - noise * (5 * 0.5 + 3) / 8
    assert found.seed_sd_pct == pytest.approx(np.sqrt(noise))
    assert found.of_errors.value == pytest.approx(signal / (signal + noise))


def test_neither_the_order_of_seeds_nor_a_missing_column_matters():
    small, large = two_scales(np.random.default_rng(1), 40, correlation=0.7, num_repeated=20)
    found = corrected_agreement(small, large, confidence=0.9)
    wider = np.column_stack([small[:, 1], np.full(40, NAN), small[:, 0]])
    assert corrected_agreement(wider, large, confidence=0.9).corrected.value == pytest.approx(found.corrected.value)
    both = np.concatenate([np.full((3, 2), NAN), small]), np.concatenate([large[:3], large])
    assert corrected_agreement(*both, confidence=0.9) == found


def test_without_repeats_only_the_observed_correlation_is_known():
    small, large = two_scales(np.random.default_rng(2), 50, correlation=0.7, num_repeated=0)
    found = corrected_agreement(small, large, confidence=0.95)
    plain = rank_agreement(small[:, 0], large[:, 0], confidence=0.95).spearman
    assert found.observed.value == pytest.approx(plain.value)
    assert found.observed.low == pytest.approx(plain.low, abs=0.01)
    assert (
        found.corrected.value is found.corrected.high is found.small.of_ranks.value is found.small.seed_sd_pct is None
    )


def test_corrected_is_observed_over_the_root_of_both_reliabilities():
    found = corrected_agreement(*two_scales(np.random.default_rng(3), 80, correlation=0.6), confidence=0.95)
    product = found.small.of_ranks.value * found.large.of_ranks.value
    assert found.corrected.value == pytest.approx(found.observed.value / np.sqrt(product))
    assert not found.capped


def test_reliabilities_that_few_repeats_tell_widen_the_corrected_interval_outward():
    small, large = two_scales(np.random.default_rng(11), 150, correlation=0.7, reliable=0.85)
    well_known = corrected_agreement(small, large, confidence=0.95).corrected
    small[20:, 1] = large[20:, 1] = NAN
    found = corrected_agreement(small, large, confidence=0.95)
    assert found.corrected.high - found.corrected.low > 1.4 * (well_known.high - well_known.low)
    gain = found.corrected.value / found.observed.value
    assert found.corrected.high - found.corrected.value > 1.3 * gain * (found.observed.high - found.observed.value)


def test_the_standard_error_of_a_reliability_is_the_jackknifes():
    """Noise of few degrees of freedom, so that it is not taken as normal; one to four seeds."""
    rng = np.random.default_rng(12)
    errors = rng.normal(size=(150, 1)) + 0.5 * rng.standard_t(4, size=(150, 4))
    errors[np.arange(4) > rng.integers(4, size=(150, 1))] = NAN
    found = reliability(errors, confidence=0.95)
    without_one = [reliability(np.delete(errors, one, axis=0), confidence=0.95) for one in range(150)]
    for name in ("of_ranks", "of_errors"):
        estimate = getattr(found, name)
        jackknife = np.sqrt(149) * np.std([np.arctanh(getattr(one, name).value) for one in without_one])
        reach = (np.arctanh(estimate.high) - np.arctanh(estimate.low)) / 2
        assert reach / stdtrit(148, 0.975) == pytest.approx(jackknife, rel=0.05)


def test_six_repeats_that_happen_to_differ_alike_do_not_pass_for_many():
    errors = np.column_stack([np.random.default_rng(13).normal(size=60), np.full(60, NAN)])
    errors[:6, 1] = errors[:6, 0] + np.linspace(0.49, 0.51, 6)
    found, wider = (reliability(errors, confidence=confidence).of_errors for confidence in (0.95, 0.99))
    reach, wider_reach = ((np.arctanh(one.high) - np.arctanh(one.low)) / 2 for one in (found, wider))
    assert wider_reach / reach == pytest.approx(stdtrit(6, 0.995) / stdtrit(6, 0.975))
    of_normal_noise = (1 - found.value) * np.sqrt(2 / 6) / (1 - found.value**2)
    assert reach > 0.9 * stdtrit(6, 0.975) * of_normal_noise
    errors[:6, 1] = errors[:6, 0] + 0.5
    assert reliability(errors, confidence=0.95).of_errors.low is None


def test_the_other_way_round_it_is_the_same_with_the_other_sign():
    small, large = two_scales(np.random.default_rng(4), 80, correlation=0.6)
    one, other = (corrected_agreement(sign * small, large, confidence=0.95).corrected for sign in (1, -1))
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))


def test_scales_that_agree_but_for_noise_end_at_one():
    rng = np.random.default_rng(5)
    found = [corrected_agreement(*two_scales(rng, 60, correlation=1.0), confidence=0.95) for _ in range(60)]
    assert np.mean([one.observed.value for one in found]) == pytest.approx(0.78, abs=0.02)
    assert 10 <= sum(one.capped for one in found) <= 50
    assert all(one.corrected.value <= one.corrected.high == 1 for one in found if one.capped)
    assert sum(one.corrected.high == 1 for one in found) >= 55


def test_noise_alone_is_not_divided_by():
    rng = np.random.default_rng(6)
    found = [corrected_agreement(*rng.normal(size=(2, 40, 2)), confidence=0.95) for _ in range(60)]
    assert sum(one.corrected.value is None for one in found) >= 57
    assert all(one.observed.value is not None for one in found)


@pytest.mark.parametrize(("num", "num_repeated", "correlation"), [(100, 12, 0.5), (60, 60, 0.9), (40, 20, 0.0)])
def test_intervals_cover(num, num_repeated, correlation):
    rng = np.random.default_rng(7)
    everything = two_scales(rng, 30_000, correlation=correlation, reliable=0.85)
    truth = corrected_agreement(*everything, confidence=0.95)
    free_of_noise = 6 / np.pi * np.arcsin(correlation / 2)  # Spearman's ρ of normal errors
    assert truth.corrected.value == pytest.approx(free_of_noise, abs=0.015)
    repetitions = 300
    found = [
        corrected_agreement(
            *two_scales(rng, num, correlation=correlation, reliable=0.85, num_repeated=num_repeated), confidence=0.95
        )
        for _ in range(repetitions)
    ]
    known = [one.corrected for one in found if one.corrected.value is not None]
    assert len(known) > 0.9 * repetitions
    assert 0.91 <= np.mean([one.low <= free_of_noise <= one.high for one in known]) <= 0.99
    for name in ("of_ranks", "of_errors"):
        value = getattr(truth.small, name).value
        estimates = [getattr(one.small, name) for one in found]
        assert 0.91 <= np.mean([one.low <= value <= one.high for one in estimates]) <= 0.99, name


@pytest.mark.parametrize("shape", [(0, 2), (1, 2), (3, 2), (9, 0), (9, 1)])
def test_too_little_says_nothing(shape):
    errors = np.random.default_rng(8).normal(size=shape)
    found = corrected_agreement(errors, errors, confidence=0.95)
    assert found.corrected.value is found.small.of_ranks.value is found.small.of_errors.low is None
    json.dumps(asdict(found), allow_nan=False)


def test_networks_that_are_all_alike_say_nothing():
    same = np.full((20, 2), 12.5)
    assert reliability(same, confidence=0.95).of_ranks.value is None
    repeatable = np.repeat(np.arange(20.0)[:, None], 2, axis=1)
    assert reliability(repeatable, confidence=0.95).of_errors.value == pytest.approx(1)
    assert corrected_agreement(repeatable, repeatable, confidence=0.95).corrected.value is None


def test_what_is_wrong_is_named():
    with pytest.raises(ValueError, match=r"errors: shape \(4,\)"):
        reliability(np.arange(4.0), confidence=0.95)
    with pytest.raises(ValueError, match="infinite; count a network that diverged at chance level"):
        reliability(np.full((4, 2), np.inf), confidence=0.95)
    with pytest.raises(ValueError, match="large: 5 networks beside 4"):
        corrected_agreement(np.ones((4, 2)), np.ones((5, 2)), confidence=0.95)


def test_recorded_networks_a_sample_knows_the_noise_of_all():
    errors = nas_bench_macro()
    truth = reliability(errors, confidence=0.95)
    assert truth.seed_sd_pct == pytest.approx(0.2128, abs=1e-3)
    assert truth.of_ranks.value == pytest.approx(0.98, abs=0.005)
    rng = np.random.default_rng(9)
    covered, sds = 0, []
    for _ in range(100):
        sample = errors[rng.choice(len(errors), 300, replace=False)]
        sample[60:, 1:] = NAN  # a fifth is repeated
        found = reliability(sample, confidence=0.95)
        covered += found.of_ranks.low <= truth.of_ranks.value <= found.of_ranks.high
        sds.append(found.seed_sd_pct)
    assert covered >= 88
    assert np.median(sds) == pytest.approx(truth.seed_sd_pct, rel=0.1)


def test_recorded_networks_seeds_agree_fully_once_their_noise_is_taken_out():
    """One seed against another, as if they were two scales; the third repeats it in one half of the networks, the other
    in the other half."""
    errors = nas_bench_macro()
    rng = np.random.default_rng(10)
    for _ in range(20):
        sample = errors[rng.choice(len(errors), 300, replace=False)]
        half = np.arange(300) < 150
        small = np.column_stack([sample[:, 0], np.where(half, sample[:, 2], NAN)])
        large = np.column_stack([sample[:, 1], np.where(half, NAN, sample[:, 2])])
        found = corrected_agreement(small, large, confidence=0.95)
        assert found.observed.value < 0.99
        assert found.corrected.value == pytest.approx(1, abs=0.01)
        assert found.corrected.low > 0.97
