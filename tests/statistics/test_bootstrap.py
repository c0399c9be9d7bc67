"""The studentised bootstrap: its interval and its tests agree, cover what they claim, and refuse to guess."""

import math

import numpy as np
import pytest

from sweep.statistics.bootstrap import difference_interval, num_beyond, studentised_difference, unmatched

LEARNS_NOTHING_PCT = 90.0


def skewed(rng: np.random.Generator, num: int) -> np.ndarray:
    """Exponential errors from 16 %: mean 20, skewness 2."""
    return 16 + rng.exponential(4.0, size=num)


def symmetric(rng: np.random.Generator, num: int) -> np.ndarray:
    return rng.normal(20.0, 3.0, size=num)


def some_diverge(rng: np.random.Generator, num: int) -> np.ndarray:
    return np.where(rng.random(num) < 0.05, LEARNS_NOTHING_PCT, symmetric(rng, num))


def test_interval_holds_exactly_the_differences_that_the_test_does_not_reject():
    rng = np.random.default_rng(1)
    for confidence in (0.8, 0.9, 0.95, 0.99):
        difference = studentised_difference(unmatched(skewed(rng, 12), skewed(rng, 15)), num_bootstrap=999, rng=rng)
        low, high = difference.interval(confidence)
        for candidate in np.linspace(low - 2, high + 2, 401):
            rejected = difference.p_value(candidate) < round(1 - confidence, 12)
            assert rejected == (not low <= candidate <= high)


def test_interval_and_p_value_agree_on_zero():
    rng = np.random.default_rng(2)
    agree = []
    for _ in range(200):
        found = difference_interval(skewed(rng, 10), skewed(rng, 10) - 1.5, confidence=0.95, num_bootstrap=399, rng=rng)
        agree.append((found.p_value < 0.05) == (found.low > 0 or found.high < 0))
    assert all(agree)


def test_equivalence_is_shown_exactly_if_the_interval_lies_within_the_margin():
    rng = np.random.default_rng(3)
    shown = []
    for _ in range(200):
        difference = studentised_difference(
            unmatched(symmetric(rng, 40), symmetric(rng, 40)), num_bootstrap=399, rng=rng
        )
        low, high = difference.interval(0.95)
        shown.append(low > -1.6 and high < 1.6)
        assert (difference.p_equivalence(1.6) < 0.05) == shown[-1]
    assert 0 < sum(shown) < 200


def test_effect_is_with_minus_without():
    rng = np.random.default_rng(4)
    found = difference_interval(
        np.array([20.0, 22.0, 24.0]), np.array([19.0, 20.0, 21.0]), confidence=0.9, num_bootstrap=999, rng=rng
    )
    assert found.effect == pytest.approx(-2.0)
    assert found.low < -2.0 < found.high
    assert found.low + found.high == pytest.approx(2 * found.effect)


def test_many_resamples_give_the_textbook_interval_of_normal_errors():
    rng = np.random.default_rng(5)
    without, with_ = symmetric(rng, 400), symmetric(rng, 400)
    found = difference_interval(without, with_, confidence=0.95, num_bootstrap=20_000, rng=rng)
    textbook = 1.96 * math.sqrt(np.var(without) / 400 + np.var(with_) / 400)
    assert (found.high - found.low) / 2 == pytest.approx(textbook, rel=0.04)


@pytest.mark.parametrize(
    ("without", "with_", "difference"),
    [(skewed, skewed, 0.0), (symmetric, skewed, 0.0), (symmetric, symmetric, 0.0), (some_diverge, some_diverge, 0.0)],
)
def test_coverage_is_near_nominal_for_twenty_networks(without, with_, difference):
    rng = np.random.default_rng(6)
    num = 800
    covered = 0
    for _ in range(num):
        found = difference_interval(without(rng, 20), with_(rng, 20), confidence=0.95, num_bootstrap=399, rng=rng)
        covered += found.low <= difference <= found.high
    slack = 3 * math.sqrt(0.05 * 0.95 / num)
    # Diverged networks come in lumps that no interval of 20 can resolve: there it may only be too wide.
    ceiling = 1.0 if without is some_diverge else 0.95 + slack
    assert 0.95 - slack - 0.01 <= covered / num <= ceiling


def test_five_networks_of_skewed_error_are_not_overrated():
    rng = np.random.default_rng(7)
    found = [
        difference_interval(skewed(rng, 5), skewed(rng, 5), confidence=0.95, num_bootstrap=399, rng=rng)
        for _ in range(500)
    ]
    assert sum(interval.low <= 0 <= interval.high for interval in found) >= 0.93 * 500


def test_same_seed_same_interval():
    without, with_ = skewed(np.random.default_rng(8), 20), skewed(np.random.default_rng(9), 20)
    first, second = (
        difference_interval(without, with_, confidence=0.95, num_bootstrap=999, rng=np.random.default_rng(10))
        for _ in range(2)
    )
    assert first == second


def test_blocks_of_resamples_change_no_number_of_them(monkeypatch):
    monkeypatch.setattr("sweep.statistics.bootstrap._BLOCK_VALUES", 1000)
    rng = np.random.default_rng(11)
    difference = studentised_difference(unmatched(skewed(rng, 20), skewed(rng, 20)), num_bootstrap=999, rng=rng)
    assert difference.distances.shape == (999,)
    assert np.all(np.diff(difference.distances) >= 0)


@pytest.mark.parametrize(
    ("without", "with_", "effect"),
    [
        ([], [], None),
        ([], [20.0, 21.0], None),
        ([20.0], [19.0, 21.0], 0.0),
        ([20.0, 22.0], [21.0], 0.0),
        ([20.0, 20.0, 20.0], [18.0, 19.0, 20.0], -1.0),
        ([LEARNS_NOTHING_PCT] * 8, [LEARNS_NOTHING_PCT] * 8, 0.0),
        ([0.1] * 7, [0.1, 0.1, 0.1], 0.0),
        ([20.0, 22.0], [19.0, 21.0], -1.0),
    ],
)
def test_too_little_to_say_gives_no_interval(without, with_, effect):
    found = difference_interval(
        np.array(without), np.array(with_), confidence=0.95, num_bootstrap=999, rng=np.random.default_rng(12)
    )
    assert (found.low, found.high, found.p_value) == (None, None, None)
    assert found.effect == (None if effect is None else pytest.approx(effect))


def test_confidence_must_be_a_level():
    for confidence in (0.0, 1.0, 95, -0.5):
        with pytest.raises(ValueError, match=r"confidence: .*0\.95"):
            num_beyond(confidence, 999)


def test_too_few_resamples_are_refused_and_the_named_remedy_works():
    with pytest.raises(ValueError, match=r"num_bootstrap: 19 .*at least 20"):
        num_beyond(0.95, 19)
    assert num_beyond(0.95, 20) == 1
