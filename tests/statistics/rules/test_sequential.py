"""Boundaries against published ones, sequential p-values against boundaries, and the error rates that both promise."""

import itertools

import numpy as np
import pytest
from scipy import stats

from sweep.statistics import holm
from sweep.statistics.rules.sequential import boundaries, nominal_p, sequential_p, spent

QUARTERS = (0.25, 0.5, 0.75, 1.0)


@pytest.mark.parametrize(
    ("num_looks", "published"),
    [
        (1, [1.960]),
        (2, [2.963, 1.969]),
        (3, [3.710, 2.511, 1.993]),
        (4, [4.333, 2.963, 2.359, 2.014]),
        (5, [4.877, 3.357, 2.680, 2.290, 2.031]),
        (10, [6.991, 4.877, 3.930, 3.367, 2.989, 2.715, 2.504, 2.336, 2.197, 2.081]),
    ],
)
def test_boundaries_of_equal_looks_are_the_published_ones(num_looks, published):
    """Two-sided 5 %, spending of the O'Brien-Fleming type (Lan and DeMets 1983; Proschan, Lan and Wittes, *Statistical
    Monitoring of Clinical Trials*, 2006, chapter 5)."""
    fractions = np.arange(1, num_looks + 1) / num_looks
    assert boundaries(0.05, fractions) == pytest.approx(published, abs=6e-4)


def test_what_is_spent_after_each_quarter_by_hand():
    quantile = stats.norm.isf(0.0125)
    by_hand = [4 * stats.norm.sf(quantile / np.sqrt(share)) for share in QUARTERS]
    assert spent(0.05, QUARTERS) == pytest.approx(by_hand)
    assert spent(0.05, [1.0, 1.3]) == pytest.approx([0.05, 0.05])


@pytest.mark.parametrize("fractions", [QUARTERS, (0.1, 0.15, 0.9, 1.2), (0.3, 0.8)])
@pytest.mark.parametrize("level", [0.2, 0.05, 0.004])
def test_all_looks_together_reject_as_often_as_was_spent(level, fractions):
    """The same probability from the multivariate normal distribution: that no look rejects."""
    times = np.array(fractions)
    correlation = np.sqrt(np.minimum.outer(times, times) / np.maximum.outer(times, times))
    reach = np.minimum(boundaries(level, fractions), 30)
    inside = stats.multivariate_normal(cov=correlation, abseps=1e-7, maxpts=200_000, seed=1).cdf(
        reach, lower_limit=-reach
    )
    assert 1 - inside == pytest.approx(spent(level, fractions[-1]), abs=2e-6)


def test_one_look_at_the_end_is_the_plain_test():
    p_values = np.array([[1e-9, 0.003, 0.05, 0.4]])
    levels, looks = sequential_p(p_values, [1.0])
    assert levels == pytest.approx(p_values[0], rel=1e-3)
    assert not looks.any()


@pytest.mark.parametrize("fractions", [QUARTERS, (0.2, 0.7, 1.1), tuple(np.arange(1, 11) / 10)])
@pytest.mark.parametrize("level", [0.1, 0.05, 0.05 / 3, 1e-4])
def test_the_sequential_p_value_is_the_level_whose_boundary_is_met(level, fractions):
    """Whichever look meets it, while the others show nothing."""
    num = len(fractions)
    levels, looks = sequential_p(np.where(np.eye(num) > 0, nominal_p(level, fractions), 1.0), fractions)
    is_reachable = nominal_p(level, fractions) > 1e-30  # of one look in ten, the first's is 1e-12
    assert levels[is_reachable] == pytest.approx(level, rel=1e-4)
    assert looks[is_reachable].tolist() == np.arange(num)[is_reachable].tolist()


def test_a_higher_level_rejects_what_a_lower_one_does():
    """Else Holm's method could not be applied to sequential p-values."""
    levels = np.linspace(0.001, 0.999, 40)
    for fractions in (QUARTERS, (0.05, 0.06, 0.5, 1.4), (0.9, 0.95)):
        heights = np.array([boundaries(level, fractions) for level in levels])
        assert np.all(np.diff(heights, axis=0) < 0)


def test_a_further_look_never_raises_the_sequential_p_value():
    rng = np.random.default_rng(0)
    p_values = rng.uniform(size=(4, 200)) ** 3
    after = [sequential_p(p_values[:num], QUARTERS[:num])[0] for num in range(1, 5)]
    assert all(np.all(late <= early) for early, late in itertools.pairwise(after))
    assert np.any(after[3] < after[2])


def test_nothing_is_spent_beyond_the_planned_trials():
    """What was not rejected by then stays so, however small its p-value becomes."""
    fractions = (0.5, 1.0, 1.5)
    assert boundaries(0.05, fractions)[2] == np.inf
    levels, looks = sequential_p([[0.5, 1e-9], [0.03, 0.5], [1e-9, 0.5]], fractions)
    assert levels == pytest.approx(sequential_p([[0.5, 1e-9], [0.03, 0.5]], fractions[:2])[0])
    assert looks.tolist() == [1, 0]


def test_an_overrun_that_no_look_preceded_spends_all():
    assert boundaries(0.05, [1.3]) == pytest.approx([stats.norm.isf(0.025)])


def test_too_few_trials_leave_something_unspent():
    assert spent(0.05, 0.8) < 0.05
    assert boundaries(0.05, [0.5, 0.8])[-1] > boundaries(0.05, [0.5, 1.0])[-1]


def test_what_is_certain_and_what_is_nothing_stay_within_the_levels():
    levels, looks = sequential_p([[0.0, 1.0]] * 4, QUARTERS)
    assert levels == pytest.approx([1e-12, 1.0])
    assert looks[1] == 0


@pytest.mark.parametrize("fractions", [[], [0.0, 1.0], [0.5, 0.5], [0.6, 0.5]])
def test_fractions_that_do_not_rise_are_refused(fractions):
    with pytest.raises(ValueError, match=r"fractions: .* rise"):
        boundaries(0.05, fractions)


def test_bad_levels_and_shapes_are_refused():
    with pytest.raises(ValueError, match=r"level: 1.5 .*0\.05"):
        boundaries(1.5, QUARTERS)
    with pytest.raises(ValueError, match="p_values: 2 looks, and 4 fractions"):
        sequential_p([[0.1], [0.2]], QUARTERS)


# ---- error rates -----------------------------------------------------------------------------------------------------


def null_looks(num_sweeps: int, per_space: int, rng: np.random.Generator) -> np.ndarray:
    """Sweeps × looks × comparisons: Welch's p-values between four spaces alike, each with its neighbour, as skewed as
    errors of networks are, after each quarter of the networks."""
    errors = rng.gamma(4.0, size=(num_sweeps, 4, per_space))
    found = np.empty((num_sweeps, 4, 3))
    for look in range(4):
        seen = errors[:, :, : per_space * (look + 1) // 4]
        for pair in range(3):
            found[:, look, pair] = stats.ttest_ind(seen[:, pair], seen[:, pair + 1], axis=-1, equal_var=False).pvalue
    return found


def test_family_wise_error_of_four_looks_at_three_rules_that_do_nothing():
    """At most 5 % of sweeps find a difference; looking four times at the plain test, corrected for the rules but not
    for the looks, finds one in far more."""
    num = 4000
    p_values = null_looks(num, 48, np.random.default_rng(1))
    levels = sequential_p(p_values.transpose(1, 0, 2).reshape(4, -1), QUARTERS)[0].reshape(num, 3)
    wrong = sum(min(holm(sweep)) < 0.05 for sweep in levels.tolist())
    naive = sum(min(holm(sweep)) < 0.05 for sweep in p_values.min(axis=1).tolist())
    chance = 2.5 * np.sqrt(0.05 * 0.95 * num)
    assert 0.025 * num < wrong <= 0.05 * num + chance
    assert naive > 0.08 * num
