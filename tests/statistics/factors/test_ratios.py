"""Ratios of sums: the interval covers as it says, ranks come from the same resamples, degenerate sums give None."""

import numpy as np
import pytest

from sweep.statistics.factors.ratios import ratios


def intervals(above: np.ndarray, below: np.ndarray, seed: int = 1, **settings):
    return ratios(above, below, confidence=0.95, num_bootstrap=399, rng=np.random.default_rng(seed), **settings)


def test_interval_covers_a_share_of_variance():
    rng = np.random.default_rng(1)
    covered = []
    for seed in range(300):
        explained, rest = rng.normal(size=(2, 60))
        found = intervals((explained**2)[:, None], (explained**2 + rest**2)[:, None], seed)
        covered.append(found.lows[0] <= 0.5 <= found.highs[0])
    assert 0.92 <= np.mean(covered) <= 0.98


def test_value_is_the_ratio_of_sums_and_widening_stretches_about_it():
    rng = np.random.default_rng(2)
    above, below = rng.random((30, 2)), rng.random((30, 1)) + 1
    plain, wide = intervals(above, below), intervals(above, below, widen=2.0)
    np.testing.assert_allclose(plain.values, above.sum(axis=0) / below.sum())
    np.testing.assert_allclose(wide.highs - wide.values, 2 * (plain.highs - plain.values))
    assert plain.resampled.shape == (399, 2)
    np.testing.assert_allclose(plain.resampled.mean(axis=0), plain.values, atol=0.02)


def test_no_spread_is_no_doubt():
    found = intervals(np.zeros((30, 1)), np.ones((30, 1)))
    assert (found.share(0).value, found.share(0).low, found.share(0).high) == (0.0, 0.0, 0.0)


def test_none_where_there_is_nothing_to_divide_by():
    assert intervals(np.ones((30, 1)), np.zeros((30, 1))) is None
    assert intervals(np.ones((30, 1)), -np.ones((30, 1))) is None


def test_limits_are_unknown_where_resamples_have_no_denominator():
    found = intervals(np.ones((3, 1)), np.array([[1.0], [-0.4], [-0.4]]))
    assert found.share(0).value == 1.0
    assert found.share(0).low is None


def test_a_share_stays_within_0_and_1_and_explained_does_not():
    found = intervals(np.array([[-2.0], [-1.0], [0.5]] * 10), np.ones((30, 1)))
    assert found.share(0).value == found.share(0).low == found.share(0).high == 0
    assert found.explained(0).low < found.explained(0).value < found.explained(0).high < 0


def test_too_few_resamples_are_refused():
    with pytest.raises(ValueError, match="num_bootstrap"):
        ratios(np.ones((3, 1)), np.ones((3, 1)), confidence=0.95, num_bootstrap=10, rng=np.random.default_rng(1))
