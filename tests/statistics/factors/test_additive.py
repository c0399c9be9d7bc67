"""The share of main effects: known functions, with and without known noise, and all of NAS-Bench-Macro."""

import json

import numpy as np
import pytest
from recorded import nas_bench_macro

from sweep.statistics.factors import forest
from sweep.statistics.factors.additive import MainEffectsShare, main_effects_share
from sweep.statistics.factors.crossfit import FEWEST_NETWORKS, cross_fit
from sweep.statistics.factors.factors import Factors, factors_from_columns

NOISE = 0.5


def population(seed: int, num: int = 100, *, interaction: float = 0.0) -> tuple[Factors, np.ndarray]:
    """Three numbers and a category; main effects of variance 1.333 and 0.25, an interaction of `interaction`²."""
    rng = np.random.default_rng(seed)
    a, b, c = rng.uniform(-1, 1, size=(3, num))
    kind = rng.integers(0, 2, size=num)
    errors = 20 + 2 * a + kind + 3 * interaction * a * b + NOISE * rng.normal(size=num)
    return factors_from_columns({"a": a, "b": b, "c": c, "kind": np.array(["x", "y"])[kind]}), errors


def share(factors: Factors, errors: np.ndarray, noise: float | None, seed: int = 1) -> MainEffectsShare:
    rng = np.random.default_rng(seed)
    fit = cross_fit(factors, errors, rng=rng)
    assert fit is not None
    return main_effects_share(fit, confidence=0.95, num_bootstrap=399, rng=rng, noise_variance_pct2=noise)


@pytest.fixture
def few_trees(monkeypatch):
    """The share with known noise does not look at the forest."""
    monkeypatch.setattr(forest, "_NUM_TREES", 1)


def test_interval_covers_the_share_where_the_noise_is_known(few_trees):
    truth = (4 / 3 + 0.25) / (4 / 3 + 0.25 + 1)
    found = [share(*population(seed, interaction=1.0), NOISE**2, seed).share for seed in range(40)]
    assert sum(each.low <= truth <= each.high for each in found) >= 34
    assert np.mean([each.value for each in found]) == pytest.approx(truth, abs=0.05)
    assert all(each.high - each.low < 0.6 for each in found)


def test_additive_function_is_all_main_effects():
    found = share(*population(1), None)
    assert found.share.value > 0.97
    assert found.r2_all.value >= found.r2_main.value
    explainable = (4 / 3 + 0.25) / (4 / 3 + 0.25 + NOISE**2)
    assert found.r2_main.low < explainable < found.r2_main.high
    assert 2 < found.num_coefficients < 20


def test_interaction_is_seen_and_bounds_the_share_from_above():
    found = share(*population(2, 150, interaction=1.5), None)
    truth = (4 / 3 + 0.25) / (4 / 3 + 0.25 + 2.25)
    assert found.r2_all.value > found.r2_main.value + 0.2
    assert found.share.low == found.r2_main.low < truth < found.share.high < 0.9
    assert found.share.value < 0.75


def test_noise_alone_has_no_share():
    factors, _ = population(3)
    rng = np.random.default_rng(3)
    fit = cross_fit(factors, 20 + rng.normal(size=100), rng=rng)
    for known in (None, 1.0):
        found = main_effects_share(fit, confidence=0.95, num_bootstrap=399, rng=rng, noise_variance_pct2=known)
        assert found.share.low in (None, 0.0)
        assert found.r2_main.low < 0.05
        assert found.r2_all.value < 0.1


def test_result_is_json_and_repeats(few_trees):
    first, second = share(*population(4, 40), 0.25), share(*population(4, 40), 0.25)
    assert first == second
    assert json.loads(json.dumps(first.to_dict()))["noise_variance_pct2"] == 0.25


def test_none_where_the_data_say_nothing():
    rng = np.random.default_rng(1)
    few = FEWEST_NETWORKS - 1
    assert cross_fit(factors_from_columns({"a": np.arange(few)}), np.arange(few, dtype=float), rng=rng) is None
    assert cross_fit(factors_from_columns({"a": np.ones(50)}), np.arange(50.0), rng=rng) is None
    assert cross_fit(factors_from_columns({"a": np.arange(50)}), np.full(50, 20.0), rng=rng) is None


def test_fewest_networks_and_more_columns_than_networks_are_fitted(few_trees):
    rng = np.random.default_rng(5)
    columns = {f"c{i}": rng.random(FEWEST_NETWORKS) for i in range(30)}
    found = share(factors_from_columns(columns), rng.normal(20, 1, size=FEWEST_NETWORKS), 0.5)
    assert found.num_columns == 30


def test_levels_that_only_held_out_networks_have_are_no_trouble(few_trees):
    factors, errors = population(6, 60)
    rare = ["rare", *["common"] * 59]
    table = {"rare": rare, "a": factors.columns[0].codes}
    assert share(factors_from_columns(table), errors, 0.25).share.value is not None


def test_bad_noise_is_refused(few_trees):
    with pytest.raises(ValueError, match="noise_variance_pct2: -1 is no variance"):
        share(*population(1, 40), -1)


def layers(rows: np.ndarray) -> Factors:
    choices = np.array(np.unravel_index(rows, (3,) * 8))
    names = [f"layer {i}" for i in range(1, 9)]
    return factors_from_columns(dict(zip(names, choices)), categorical=names)


def exact_share(errors: np.ndarray) -> tuple[float, float]:
    """The share of main effects by the analysis of variance of all networks, and the noise of a mean of 3 seeds."""
    noise = errors.var(axis=1, ddof=1).mean() / 3
    means = errors.mean(axis=1).reshape((3,) * 8)
    marginals = [means.mean(axis=tuple(k for k in range(8) if k != layer)) for layer in range(8)]
    main = sum(marginal.var() - noise * 2 / 6561 for marginal in marginals)
    return main / (means.var() - noise * 6560 / 6561), noise


def test_samples_of_nas_bench_macro_tell_the_share_of_all_its_networks(few_trees):
    errors = nas_bench_macro()
    truth, noise = exact_share(errors)
    assert (truth, noise) == (pytest.approx(0.695, abs=0.001), pytest.approx(0.0151, abs=1e-4))
    found = []
    for seed in range(12):
        rows = np.random.default_rng(seed).choice(6561, size=500, replace=False)
        found.append(share(layers(rows), errors[rows].mean(axis=1), noise, seed).share)
    # One network in a hundred is a disaster that carries much of the variance: 86 % of intervals cover, not 95 %.
    assert sum(each.low <= truth <= each.high for each in found) >= 9
    assert np.mean([each.value for each in found]) == pytest.approx(truth, abs=0.05)


def test_a_sample_of_nas_bench_macro_shows_that_layers_interact():
    errors = nas_bench_macro()
    truth, _ = exact_share(errors)
    rows = np.random.default_rng(0).choice(6561, size=300, replace=False)
    found = share(layers(rows), errors[rows].mean(axis=1), None)
    assert found.r2_all.value - found.r2_main.value > 0.05
    assert found.r2_main.low < truth < found.share.high
