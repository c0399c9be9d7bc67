"""Effects beside the mean: against scipy, by hand, in awkward samples, and with the error rates that they promise."""

import numpy as np
import pytest
from scipy import stats

from sweep.statistics.bootstrap import unmatched
from sweep.statistics.rules.effects import Effect, effects, quantile, quantile_interval
from sweep.statistics.samples import Complete


def of(without, with_, margin_pct: float = 1.0) -> dict[str, Effect]:
    strata = unmatched(np.asarray(without, dtype=float), np.asarray(with_, dtype=float))
    return {effect.measure: effect for effect in effects(strata, confidence=0.95, margin_pct=margin_pct)}


def test_quantiles_are_interpolated_between_order_statistics():
    values = np.arange(1.0, 11.0)
    assert quantile([(1.0, Complete(values))], 0.5) == np.quantile(values, 0.5, method="hazen")
    assert quantile([(1.0, Complete(values))], 0.1) == pytest.approx(np.quantile(values, 0.1, method="hazen"))


def test_effects_are_with_minus_without_and_negative_helps():
    found = of(range(20, 60), range(10, 50))
    assert found["median"].effect == pytest.approx(-10)
    assert found["quantile_10"].effect == pytest.approx(-10)
    assert found["superiority"].effect < 0
    assert found["superiority"].with_ == pytest.approx(1 - (0.5 * 30 + 0.5 * 30 * 29) / 1600)


def test_superiority_is_mann_and_whitneys_with_brunner_and_munzels_error():
    rng = np.random.default_rng(1)
    without, with_ = rng.normal(20, 3, 60).round(), rng.normal(19, 4, 45).round()  # with ties
    found = of(without, with_)["superiority"]
    u = stats.mannwhitneyu(without, with_).statistic / (60 * 45)
    assert found.with_ == pytest.approx(u)
    assert found.p_value == pytest.approx(stats.brunnermunzel(without, with_).pvalue, rel=0.1)


@pytest.mark.parametrize("measure", ["median", "quantile_10"])
def test_a_p_value_is_that_of_the_interval_which_ends_at_nothing(measure):
    rng = np.random.default_rng(2)
    for _ in range(20):
        without, with_ = rng.gumbel(20, 3, 50), rng.gumbel(18.5, 3, 50)
        found = of(without, with_)[measure]
        assert (found.p_value < 0.05) == (not found.low <= 0 <= found.high)
        is_within = found.low > -1.0 and found.high < 1.0
        assert (found.p_equivalence < 0.05) == is_within


def test_samples_that_do_not_overlap_are_told_apart():
    found = of(np.linspace(30, 40, 30), np.linspace(10, 20, 30))
    for measure in ("median", "superiority"):
        assert found[measure].p_value < 1e-4
        assert found[measure].high < 0
    assert found["quantile_10"].p_value > 0.001  # of thirty networks the best tenth is not known so well


def test_equal_samples_do_not_differ_and_constant_ones_are_equivalent():
    found = of([20.0] * 40, [20.0] * 40)
    assert all(effect.effect == 0 for effect in found.values())
    assert found["median"].p_value == 1.0
    assert found["median"].p_equivalence < 0.05


@pytest.mark.parametrize("sizes", [(0, 5), (1, 5), (0, 0)])
def test_too_few_networks_say_nothing(sizes):
    for effect in of(*(np.linspace(10, 20, size) for size in sizes)).values():
        assert effect.effect is effect.low is effect.high is effect.p_value is None


def test_the_ends_of_small_samples_are_not_known():
    """Of twenty networks the best tenth may lie anywhere below the third best."""
    _, low, high = quantile_interval([(1.0, Complete(np.arange(20.0, 40.0)))], 0.1, confidence=0.95)
    assert low == 0.0
    assert 22 < high < 28


def test_a_margin_of_nothing_makes_nothing_equivalent():
    assert of([20.0] * 40, [20.0] * 40, margin_pct=0.0)["median"].p_equivalence == 1.0


@pytest.mark.parametrize("kind", ["gumbel", "heavy", "tied"])
def test_rules_that_do_nothing_are_rarely_said_to_do_something(kind):
    rng = np.random.default_rng(3)

    def draw(num: int) -> np.ndarray:
        errors = 20 + 4 * rng.gumbel(size=num)
        if kind == "heavy":
            errors = np.where(rng.random(num) < 0.06, 90.0, errors)
        return np.clip(errors.round() if kind == "tied" else errors, 0, 100)

    num = 300
    wrong = dict.fromkeys(("median", "quantile_10", "superiority"), 0)
    for _ in range(num):
        for measure, effect in of(draw(40), draw(60)).items():
            wrong[measure] += effect.p_value < 0.05
    assert all(count < 0.05 * num + 2.5 * np.sqrt(0.05 * 0.95 * num) for count in wrong.values())
