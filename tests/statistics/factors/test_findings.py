"""Factors, wired: which networks are asked, by which errors, and that all of it prints."""

import json

import numpy as np
import pytest
import synthetic

from sweep.spaces import network_from_json
from sweep.statistics import find_in_tables
from sweep.statistics.factors.findings import FEWEST_NETWORKS


@pytest.fixture(scope="module")
def tables():
    """The error of a network is that of its depth, and a little noise."""
    made = synthetic.tables({"anynet_c": 24.0, "anynet_d": 20.0}, rng=np.random.default_rng(1), trials_per_space=40)
    depth = {row["trial_id"]: network_from_json(row["architecture"]).depth for row in made.architectures.to_pylist()}
    rng = np.random.default_rng(2)
    errors = [15 + 1.5 * depth[trial_id] + rng.normal(0, 0.3) for trial_id in made.epochs["trial_id"].to_pylist()]
    return synthetic.with_errors(made, np.clip(errors, 0, 90))


def test_the_factor_that_makes_the_errors_comes_first(tables):
    found = find_in_tables(tables).factors
    assert [one.spaces for one in found] == [("anynet_c",), ("anynet_c", "anynet_d")]
    for one in found:
        assert one.importances.factors[0].factor == "d"
        assert one.epochs == synthetic.GRACE_EPOCHS
        assert one.main_effects.share.value > 0.8
        trend = {trend.parameter: trend for trend in one.trends}["depth"]
        assert trend.with_error.value > 0.5
    assert [one.num_networks for one in found] == [40, 80]


def test_all_of_it_prints(tables):
    json.dumps(find_in_tables(tables).to_dict(), allow_nan=False)


def test_few_networks_tell_nothing():
    num = FEWEST_NETWORKS // 2 - 1
    few = synthetic.tables({"anynet_c": 24.0, "anynet_d": 20.0}, rng=np.random.default_rng(3), trials_per_space=num)
    assert find_in_tables(few).factors == ()
