"""EDFs and their bands."""

import numpy as np
import pytest

from sweep.statistics import edf, edf_band


def test_edf_steps_up_at_each_error_to_one():
    errors, share = edf(np.array([30.0, 10.0, 20.0, 20.0]))
    assert errors.tolist() == [10, 20, 20, 30]
    assert share.tolist() == [0.25, 0.5, 0.75, 1.0]


def test_edf_of_nothing_is_empty():
    errors, share = edf(np.array([]))
    assert errors.shape == share.shape == (0,)


def test_band_surrounds_the_edf_and_rises():
    errors = np.random.default_rng(0).gamma(4.0, size=25)
    grid = np.linspace(-1, errors.max() + 1, 200)
    low, high = edf_band(errors, grid, confidence=0.95)
    share = np.searchsorted(np.sort(errors), grid, side="right") / 25
    assert np.all((low <= share) & (share <= high))
    assert np.all(np.diff(low) >= 0)
    assert np.all(np.diff(high) >= 0)


def test_band_stays_open_beyond_what_was_seen():
    low, high = edf_band(np.linspace(10, 20, 20), np.array([0.0, 100.0]), confidence=0.95)
    assert low[0] == 0
    assert high[0] == pytest.approx(1 - 0.025 ** (1 / 20))
    assert high[1] == 1
    assert low[1] == pytest.approx(0.025 ** (1 / 20))


def test_band_of_nothing_says_nothing():
    low, high = edf_band(np.array([]), np.array([10.0]), confidence=0.95)
    assert (low.tolist(), high.tolist()) == ([0], [1])


def test_band_covers_the_share_of_the_space():
    rng = np.random.default_rng(1)
    at_pct = np.array([1.0, 2.0, 4.0, 8.0])
    truth = 1 - np.exp(-at_pct / 4)
    bands = [edf_band(rng.exponential(4.0, size=20), at_pct, confidence=0.95) for _ in range(1000)]
    covered = np.mean([(low <= truth) & (truth <= high) for low, high in bands], axis=0)
    assert np.all(covered >= 0.94)
