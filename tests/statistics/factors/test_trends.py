"""Parameter trends: the exact limit of the bootstrap, complexity taken out, and what 32 published RegNetX show."""

import json

import numpy as np
import pytest
from recorded import regnetx_400mf

from sweep.statistics.factors.trends import FEWEST_NETWORKS, Trend, trends, without_complexity


def trend(values: np.ndarray, errors: np.ndarray, **settings) -> Trend:
    found = trends({"d": values}, errors, confidence=0.95, **settings)
    assert found is not None
    return found[0]


def test_range_is_that_of_the_bootstrap_with_many_draws():
    rng = np.random.default_rng(1)
    depth = rng.integers(1, 40, size=60).astype(float)
    errors = 20 + 0.01 * (depth - 18) ** 2 + rng.normal(size=60)
    drawn = rng.integers(60, size=(40_000, 15))
    best = depth[drawn[np.arange(40_000), errors[drawn].argmin(axis=1)]]
    found = trend(depth, errors)
    expected = np.quantile(best, [0.5, 0.025, 0.975], method="inverted_cdf")
    assert [found.best.value, found.best.low, found.best.high] == expected.tolist()


def test_all_networks_drawn_once_is_the_best_one_of_one():
    found = trend(np.arange(10.0), np.arange(10.0), share_drawn=0.1)  # one network: any of the ten
    assert (found.best.value, found.best.low, found.best.high) == (4, 0, 9)


def test_equal_errors_share_the_chance_to_be_best():
    values = np.arange(20.0)
    found = trend(values, np.where(values < 11, 5.0, 90.0), share_drawn=1.0)
    assert (found.best.value, found.best.low, found.best.high) == (5, 0, 10)


def test_larger_networks_do_not_pass_for_deeper_ones():
    rng = np.random.default_rng(2)
    flops = rng.uniform(1e8, 8e8, size=200)
    depth = 10 * np.log2(flops / 1e8) + rng.normal(size=200)
    errors = 40 - 3 * np.log2(flops / 1e8) + 0.2 * rng.normal(size=200)
    plain, freed = trend(depth, errors), trend(depth, errors, complexity=flops)
    assert plain.with_error.high < -0.9
    assert plain.best.low > 25
    assert abs(freed.with_error.value) < 0.2
    assert freed.best.low < 15
    assert (plain.without_complexity, freed.without_complexity) == (False, True)


def test_a_few_diverged_networks_do_not_tilt_the_line():
    flops = np.geomspace(1e8, 8e8, 50)
    errors = 40 - 2 * np.log(flops / 1e8)
    diverged = np.where(np.arange(50) < 6, 90.0, errors)
    assert np.ptp(without_complexity(diverged, flops)[6:]) < 0.3
    np.testing.assert_allclose(without_complexity(errors, flops), np.median(errors))


def test_equal_complexities_change_nothing():
    errors = np.arange(10.0)
    assert without_complexity(errors, np.full(10, 4e8)).tolist() == errors.tolist()


def test_constant_parameter_has_a_best_value_and_no_correlation():
    found = trend(np.ones(12), np.arange(12.0))
    assert (found.best.low, found.best.high, found.with_error.value) == (1, 1, None)


def test_result_is_json():
    told = json.loads(json.dumps(trend(np.arange(12), np.arange(12.0)).to_dict()))
    assert told["num_networks"] == 12
    assert told["value_of_best"] == 0


def test_none_for_too_few_networks():
    assert trends({"d": np.arange(FEWEST_NETWORKS - 1)}, np.arange(FEWEST_NETWORKS - 1.0), confidence=0.95) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parameters": {"d": np.ones(9)}}, "d: give one finite number for each of 10 networks"),
        ({"parameters": {"d": np.full(10, np.nan)}}, "d: give one finite number"),
        ({"errors": np.full(10, np.nan)}, "errors: give one finite number"),
        ({"complexity": np.zeros(10)}, "complexity: give a number above 0 for each of 10"),
        ({"share_drawn": 0.0}, "share_drawn: 0.0 is no share"),
        ({"confidence": 95}, "confidence: 95 is not a level"),
    ],
)
def test_what_is_refused(settings, message):
    arguments = {"parameters": {"d": np.arange(10)}, "errors": np.arange(10.0), "confidence": 0.95, **settings}
    with pytest.raises(ValueError, match=message):
        trends(**arguments)


def test_what_32_regnets_of_400_megaflops_show_of_the_published_trends():
    """After 25 epochs. The published best multiplier of about 2.5 holds; the best depth of about 20 does not: deeper
    networks are worse, and so are wider groups. All have b = 1, so of b they say nothing."""
    parameters, errors = regnetx_400mf()
    found = {trend.parameter: trend for trend in trends(parameters, errors, confidence=0.95)}
    assert found["w_m"].best.low < 2.5 < found["w_m"].best.high
    assert found["w_m"].best.value == pytest.approx(2.45, abs=0.01)
    assert (found["d"].best.value, found["d"].best.low, found["d"].best.high) == (16, 12, 18)
    assert found["d"].with_error.low > 0.2
    assert (found["g"].best.value, found["g"].best.low, found["g"].best.high) == (16, 8, 32)
    assert found["g"].with_error.low > 0.05
    assert (found["b"].lowest, found["b"].highest, found["b"].with_error.value) == (1, 1, None)
