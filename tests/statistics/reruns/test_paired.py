"""The difference of two classifiers on the same images: by hand, and how often its interval covers the truth."""

import numpy as np
import pytest

from sweep.statistics import ensemble_gain, paired_difference


def test_by_hand():
    found = paired_difference(30, 10, 998, confidence=0.95)
    assert found.points == pytest.approx(-2.004008)
    # (11 - 31) / 1000 and 1.959964 · √((0.031 + 0.011 - 0.0004) / 1000)
    half = 1.959964 * np.sqrt(0.0416 / 1000)
    assert (found.low, found.high) == pytest.approx((100 * (-0.02 - half), 100 * (-0.02 + half)), rel=1e-6)


def test_swapped_it_is_the_same_with_the_other_sign_and_without_a_difference_it_has_room():
    one, other = paired_difference(7, 2, 100, confidence=0.9), paired_difference(2, 7, 100, confidence=0.9)
    assert (one.points, one.low, one.high) == pytest.approx((-other.points, -other.high, -other.low))
    same = paired_difference(0, 0, 50, confidence=0.95)
    assert same.points == 0
    assert -same.low == pytest.approx(same.high)
    assert same.high > 0
    assert paired_difference(0, 1, 1, confidence=0.999).high == 100


@pytest.mark.parametrize("shares", [(0.02, 0.02), (0.05, 0.01), (0.004, 0.001)])
def test_the_interval_covers_the_truth_as_often_as_it_says(shares):
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(1000, [*shares, 1 - sum(shares)], size=2000)
    found = [paired_difference(int(first), int(second), 1000, confidence=0.95) for first, second, _ in drawn]
    truth = 100 * (shares[1] - shares[0])
    assert np.mean([one.low <= truth <= one.high for one in found]) == pytest.approx(0.955, abs=0.015)


def test_pairs_say_more_than_two_intervals_of_their_own():
    """Images that both have wrong say nothing of the difference: its interval is that of the other 40."""
    rerun = {
        "ensemble": {"num_only_single_wrong": 30, "num_only_ensemble_wrong": 10},
        "num_test": 10_000, "confidence": 0.95,
    }  # fmt: skip
    gain = ensemble_gain(rerun)
    assert gain.high < 0
    assert gain.high - gain.low < 0.26
