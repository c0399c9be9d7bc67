"""Errors, coverage and verdicts of estimates that are made up, against numbers by hand."""

import math

import numpy as np
import pytest

from sweep.scheduling.simulation.accuracy import FREE, HELPS, HURTS, UNDECIDED, difference, figure, simulated, verdicts
from sweep.scheduling.simulation.peers import Design
from sweep.scheduling.simulation.pools import Pool
from sweep.scheduling.simulation.repetitions import ESTIMATORS, QUANTITIES, Repetitions
from sweep.statistics.cohorts import Cohort

DESIGN = Design("asha", 4, 1, 2, 0.5, num_trials=10, num_workers=2)
MEAN, Q50 = list(QUANTITIES).index("mean"), list(QUANTITIES).index("q50")


def pool_of(space, ends) -> Pool:
    num = len(ends)
    nothing = np.zeros(num, dtype=np.int64)
    cohort = Cohort(
        space=space,
        scale="",
        trial_ids=tuple(map(str, range(num))),
        epochs=np.arange(1, 5),
        errors=np.repeat(np.array(ends, dtype=float)[:, np.newaxis], 4, axis=1),
        would_stop_at=nothing,
        diverged_at=nothing,
        is_open=nothing > 0,
        is_cancelled=nothing > 0,
        audit_fraction=np.full(num, np.nan),
        complexity={},
    )
    return Pool(cohort, np.full(num, 1 / num), np.ones(num))


POOLS = [pool_of("a", [10, 20, 30]), pool_of("b", [5, 15, 25])]


def repetitions_of(estimates, **told) -> Repetitions:
    """Two repetitions; `estimates` by (space, estimator, quantity): (value, se, low, high) of each."""
    full = np.full((2, 2, len(ESTIMATORS), len(QUANTITIES), 4), np.nan)
    for (space, estimator, quantity), values in estimates.items():
        full[:, space, ESTIMATORS.index(estimator), quantity] = values
    defaults = {
        "epochs": np.array([[10.0, 20], [20, 30]]), "full_epochs": np.full((2, 2), 40.0),
        "wall_s": np.array([20.0, 30]), "busy_s": np.array([30.0, 50]),
        "found_pct": np.array([[12.0, 5], [10, 6]]), "found_by_fewer_pct": np.array([[20.0, 15], [20, 5]]),
        "best_drawn_pct": np.array([[10.0, 5], [10, 5]]),
    }  # fmt: skip
    return Repetitions(**{**defaults, **told}, estimates=full)


def test_cost_and_regret_by_hand():
    found = simulated(DESIGN, repetitions_of({}), POOLS, margin_pct=1.0)
    assert found.epochs.value == 40
    assert (found.cost.value, found.cost.standard_error) == (0.5, pytest.approx(math.sqrt(0.03125) / math.sqrt(2)))
    assert found.regret.value == pytest.approx((1.0 + 0.5) / 2)
    assert found.regret_of_fewer.value == pytest.approx((10 + 5) / 2)
    assert found.regret_of_pool_of_fewer.value == pytest.approx((10 + 5) / 2)
    assert found.wall_s.value == 25
    assert found.idle == pytest.approx(1 - 80 / 100)


def test_bias_rmse_and_coverage_by_hand():
    found = simulated(
        DESIGN,
        repetitions_of(
            {
                (0, "hajek", MEAN): [(21, 1, 19, 23), (23, 1, 21, 25)],  # the mean of a is 20
                (1, "hajek", MEAN): [(15, 1, 13, 17), (14, 1, 12, 16)],  # that of b is 15
                (0, "hajek", Q50): [(18, 1, 16, 19), (np.nan,) * 4],  # its median is 20
            }
        ),
        POOLS,
        margin_pct=1.0,
    )
    mean = found.accuracy("hajek", "mean", "a")
    assert (mean.num, mean.bias.value, mean.bias.standard_error) == (2, 2, pytest.approx(1))
    assert mean.rmse_pct == pytest.approx(math.sqrt(5))
    assert (mean.coverage.value, mean.width_pct) == (0.5, 4)
    both = found.accuracy("hajek", "mean")
    assert both.num == 4
    assert (both.bias.value, both.bias.standard_error) == (pytest.approx(0.75), pytest.approx(0.25))
    assert both.rmse_pct == pytest.approx(math.sqrt((1 + 9 + 0 + 1) / 4))
    assert both.coverage.value == 0.75
    median = found.accuracy("hajek", "q50", "a")
    assert (median.num, median.bias.value, median.coverage.value) == (1, -2, 0)
    nothing = found.accuracy("model_assisted", "mean")
    assert nothing.num == 0
    assert math.isnan(nothing.rmse_pct)


def test_what_is_not_a_number_is_null_in_the_document():
    told = simulated(DESIGN, repetitions_of({}), POOLS, pairs=[("a", "b")], margin_pct=1.0).to_dict()
    assert told["accuracies"][0]["rmse_pct"] is None
    assert told["accuracies"][0]["bias"] == {"value": None, "standard_error": None}


def test_the_interval_of_a_difference_by_hand():
    """3 − 4 − 5 triangles: below, 3 down from with and 4 up from without."""
    [[value, error, low, high]] = difference(np.array([[10.0, 3, 9, 14]]), np.array([[20.0, 4, 17, 20.5]]))
    assert (value, error) == (10, 5)
    assert (low, high) == (10 - 5, pytest.approx(10 + math.hypot(0.5, 1)))


def test_verdicts_by_hand():
    effects = np.array([[-2, 1, -3, -1], [2, 1, 1, 3], [0, 1, -0.4, 0.4], [0, 1, -0.4, 0.5], [np.nan] * 4], dtype=float)
    assert verdicts(effects, 0.5).tolist() == [HELPS, HURTS, FREE, UNDECIDED, UNDECIDED]


def test_agreement_is_with_all_networks_drawn():
    found = simulated(
        DESIGN,
        repetitions_of(
            {
                (0, "all", MEAN): [(20, 1, 19, 21), (20, 1, 19, 21)],
                (1, "all", MEAN): [(15, 1, 14, 16), (15, 1, 14, 16)],  # helps, both times
                (0, "hajek", MEAN): [(20, 1, 19, 21), (10, 1, 9, 11)],
                (1, "hajek", MEAN): [(15, 1, 14, 16), (15, 1, 14, 16)],  # helps, then hurts
            }
        ),
        POOLS,
        pairs=[("a", "b")],
        margin_pct=1.0,
    )
    [hajek] = [agreement for agreement in found.agreements if agreement.estimator == "hajek"]
    assert (hajek.agree.value, hajek.opposed.value) == (0.5, 0.5)
    assert hajek.counts["hurts"]["helps"] == 1
    effect = found.accuracy("hajek", "effect", "a:b")
    assert effect.bias.value == pytest.approx((-5 + 5 + 5 + 5) / 2)
    assert [agreement.estimator for agreement in found.agreements] == ["hajek"]


def test_a_figure_leaves_out_what_is_not_there():
    assert figure(np.array([1.0, np.nan, 3.0])).value == 2
    assert math.isnan(figure(np.array([np.nan])).value)
    assert math.isnan(figure(np.array([1.0])).standard_error)
