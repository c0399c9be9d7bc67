"""What matters in a network, in sentences: of the findings, with n, interval and budget; nothing of nothing."""

import dataclasses

import numpy as np
import pytest
import synthetic

from dashboards.factor_words import factor_name, factors_told
from sweep.spaces import network_from_json
from sweep.statistics import find_in_tables
from sweep.statistics.intervals import UNKNOWN


@pytest.fixture(scope="module")
def found():
    made = synthetic.tables({"anynet_c": 24.0, "anynet_d": 20.0}, rng=np.random.default_rng(1), trials_per_space=30)
    depth = {row["trial_id"]: network_from_json(row["architecture"]).depth for row in made.architectures.to_pylist()}
    rng = np.random.default_rng(2)
    errors = [15 + 1.5 * depth[trial_id] + rng.normal(0, 0.3) for trial_id in made.epochs["trial_id"].to_pylist()]
    return find_in_tables(synthetic.with_errors(made, np.array(errors))).factors


def test_each_question_has_its_numbers(found):
    told = {one.kind: one.text for one in factors_told(found)}
    assert list(told) == ["main_effects", "importances", "trends"]
    first = found[0].importances.factors[0]
    assert f"depth come first, for certain: {100 * first.total.value:.0f} %" in told["importances"]
    assert "AnyNet C, small (n = 30, after 2 epochs)" in told["importances"]
    assert "2 spaces together, small (n = 60, after 2 epochs)" in told["importances"]
    share = found[0].main_effects.share
    assert f"explains {100 * share.low:.0f} to {100 * share.high:.0f} % (what one seed" in told["main_effects"]
    assert "depth" in told["trends"]


def test_nothing_is_made_of_nothing(found):
    assert factors_told([]) == []
    [one] = found[:1]
    nothing = dataclasses.replace(
        one,
        main_effects=dataclasses.replace(one.main_effects, r2_all=UNKNOWN),
        importances=dataclasses.replace(one.importances, explained=UNKNOWN),
        trends=(),
    )
    [told] = factors_told([nothing])
    assert "nothing has been shown to explain errors" in told.text


def test_names_are_those_of_people():
    assert [factor_name(name) for name in ("d", "w", "line_fit_error")] == ["depth", "widths", "line fit error"]
