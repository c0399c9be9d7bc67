"""Importances: intervals hold known Sobol indices, what does nothing gets nothing, NAS-Bench-Macro's layers."""

import json

import numpy as np
import pytest

from sweep.statistics.factors.crossfit import cross_fit
from sweep.statistics.factors.factors import Factors, factors_from_columns
from sweep.statistics.factors.importance import Importances, importances

NUM = 200


def important(factors: Factors, errors: np.ndarray, seed: int = 1) -> Importances:
    rng = np.random.default_rng(seed)
    fit = cross_fit(factors, errors, rng=rng)
    assert fit is not None
    return importances(fit, confidence=0.95, num_bootstrap=399, rng=rng)


@pytest.fixture(scope="module")
def known() -> tuple[dict[str, tuple[float, float]], Importances]:
    """Main and total Sobol indices, of the variance with noise, and what 200 networks say of them."""
    rng = np.random.default_rng(7)
    values = dict(zip("abcd", rng.uniform(-1, 1, size=(4, NUM))))
    kind = rng.integers(0, 3, size=NUM)
    errors = (
        20 + 2 * values["a"] + 3 * values["a"] * values["b"] + np.sqrt(1.5) * (kind - 1) + 0.7 * rng.normal(size=NUM)
    )
    variances = {"a": 4 / 3, "ab": 1.0, "kind": 1.0, "noise": 0.49}
    whole = sum(variances.values())
    truth = {
        "a": (4 / 3 / whole, (4 / 3 + 1) / whole),
        "b": (0.0, 1 / whole),
        "c": (0.0, 0.0),
        "d": (0.0, 0.0),
        "kind": (1 / whole, 1 / whole),
    }
    factors = factors_from_columns({**values, "kind": kind}, categorical=["kind"])
    return truth, important(factors, errors)


def test_intervals_hold_main_effects(known):
    truth, found = known
    for row in found.factors:
        assert row.main.low <= truth[row.factor][0] <= row.main.high, row


def test_total_effects_are_near_and_not_above_the_truth(known):
    truth, found = known
    for row in found.factors:
        assert row.total.low <= truth[row.factor][1], row
        assert row.total.value == pytest.approx(truth[row.factor][1], abs=0.12), row


def test_ranks_have_ranges_and_chances(known):
    _, found = known
    rows = {row.factor: row for row in found.factors}
    assert [row.rank for row in found.factors] == [1, 2, 3, 4, 5]
    assert found.factors[0].factor == "a"
    assert rows["a"].chance_first > 0.9
    assert {rows["c"].rank, rows["d"].rank} == {4, 5}
    assert all(row.rank_low <= row.rank <= row.rank_high for row in found.factors)
    assert rows["c"].rank_low >= 3
    assert sum(row.chance_first for row in found.factors) == pytest.approx(1)


def test_explained_is_more_than_main_effects_and_less_than_all(known):
    _, found = known
    assert found.main_effects.value < found.explained.value < 1 - 0.49 / 3.82 + 0.05
    assert found.explained.low > 0.5


def test_noise_alone_makes_nothing_important():
    rng = np.random.default_rng(8)
    factors = factors_from_columns(dict(zip("abcde", rng.random((5, 80)))))
    found = important(factors, 20 + rng.normal(size=80))
    assert found.explained.low < 0.02
    assert all(row.main.low == 0 and row.total.low == 0 for row in found.factors)
    assert all(row.total.value < 0.1 for row in found.factors)


def test_result_is_json(known):
    told = json.loads(json.dumps(known[1].to_dict()))
    assert set(told["factors"][0]) == {"factor", "main", "total", "rank", "rank_low", "rank_high", "chance_first"}


def test_a_group_answers_for_its_columns():
    rng = np.random.default_rng(9)
    first, second, other = rng.integers(0, 2, size=(3, 120))
    errors = 20 + 2.0 * (first ^ second) + 0.3 * rng.normal(size=120)
    columns = {"w1": first, "w2": second, "d": other}
    found = important(factors_from_columns(columns, groups={"w": ["w1", "w2"]}), errors)
    assert found.factors[0].factor == "w"
    assert found.factors[0].total.low > 0.5
