"""The decomposition of a forest against sums over every combination of values, one by one."""

import itertools

import numpy as np
import pytest

from sweep.statistics.factors.factors import Factors, factors_from_columns
from sweep.statistics.factors.forest import Decomposition, Forest, grow_forest


@pytest.fixture(scope="module")
def networks() -> tuple[Factors, Forest, Decomposition]:
    """A number, a category, and two numbers that always rise together: a group that is not all combinations."""
    rng = np.random.default_rng(3)
    number, category = rng.integers(0, 5, size=80), rng.integers(0, 3, size=80)
    widths = np.sort(rng.integers(1, 5, size=(80, 2)), axis=1)
    factors = factors_from_columns(
        {"a": number, "c": np.array(list("xyz"))[category], "w1": widths[:, 0], "w2": widths[:, 1]},
        groups={"w": ["w1", "w2"]},
    )
    errors = 2.0 * number + (category == 1) * widths[:, 0] + widths[:, 1] + rng.normal(size=80)
    forest = grow_forest(factors, errors, np.arange(80), rng=rng)
    return factors, forest, Decomposition(forest, factors, rng=rng)


def predict(forest: Forest, row: np.ndarray) -> float:
    inside = np.all((forest.lower < row) & (row <= forest.upper), axis=1)
    return float(forest.offset + forest.values[inside].sum())


def table(factors: Factors, forest: Forest) -> tuple[np.ndarray, list[np.ndarray]]:
    """The prediction of every combination of the factors' values, and the share of networks with each value."""
    distinct = [np.unique(factor.encoded, axis=0, return_counts=True) for factor in factors.factors]
    rows = [values for values, _ in distinct]
    shares = [counts / counts.sum() for _, counts in distinct]
    predictions = [predict(forest, np.concatenate(chosen)) for chosen in itertools.product(*rows)]
    return np.reshape(predictions, [len(values) for values in rows]), shares


def test_variances_are_those_of_all_combinations(networks):
    factors, forest, parts = networks
    predictions, shares = table(factors, forest)

    def averaged_over(*axes: int) -> np.ndarray:
        result = predictions
        for axis in axes:
            weights = shares[axis].reshape([-1 if k == axis else 1 for k in range(3)])
            result = np.sum(result * weights, axis=axis, keepdims=True)
        return np.broadcast_to(result, predictions.shape)

    chance = shares[0][:, None, None] * shares[1][:, None] * shares[2]
    mean = averaged_over(0, 1, 2)
    mains = [averaged_over(*{0, 1, 2} - {axis}) - mean for axis in range(3)]

    def variance(values: np.ndarray) -> float:
        return float(np.sum(chance * values**2))

    total, without = parts.variances()
    assert parts.mean == pytest.approx(mean.flat[0])
    assert total == pytest.approx(variance(predictions - mean))
    np.testing.assert_allclose(parts.main_variances(), [variance(main) for main in mains])
    np.testing.assert_allclose(without, [variance(averaged_over(axis) - mean) for axis in range(3)])
    for (j, k), value in parts.pair_variances().items():
        (other,) = {0, 1, 2} - {j, k}
        assert value == pytest.approx(variance(averaged_over(other) - mean - mains[j] - mains[k]))


def test_what_it_says_of_networks_is_the_same_sum(networks):
    factors, forest, parts = networks
    rows = np.array([5, 0, 17])
    told = parts.at(factors, rows)
    distinct = [np.unique(factor.encoded, axis=0, return_counts=True) for factor in factors.factors]
    for place, row in enumerate(rows):
        own = [factor.encoded[row] for factor in factors.factors]
        assert told.prediction[place] == pytest.approx(predict(forest, np.concatenate(own)))
        for j, (values, counts) in enumerate(distinct):
            others = [predict(forest, np.concatenate([*own[:j], value, *own[j + 1 :]])) for value in values]
            assert told.without[place, j] == pytest.approx(np.average(others, weights=counts))


def test_main_effects_of_networks_average_to_nothing(networks):
    factors, _, parts = networks
    told = parts.at(factors, np.arange(80))
    np.testing.assert_allclose(told.mains.mean(axis=0), 0, atol=1e-12)


def test_a_factor_of_many_values_is_represented_by_some_networks():
    rng = np.random.default_rng(4)
    values = rng.random((400, 2))
    factors = factors_from_columns({"w1": values[:, 0], "w2": values[:, 1]}, groups={"w": ["w1", "w2"]})
    parts = Decomposition(grow_forest(factors, values.sum(axis=1), np.arange(400), rng=rng), factors, rng=rng)
    assert parts.variances()[0] == pytest.approx(parts.main_variances()[0])
    assert parts.main_variances()[0] == pytest.approx(values.sum(axis=1).var(), rel=0.2)
