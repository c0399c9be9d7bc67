"""Pools of complete curves: from files and from sweeps, stopped early or not, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from records.rows import ask
from scheduling.curves import cohorts, write_curves
from scheduling.simulated import make_sweep, run_to_the_end, study_of

from sweep.scheduling.simulation.pools import LEAST_CURVES, pool_of, pools_of, shortened

MEANS = {"anynet_c": 24.0, "anynet_d": 22.0}


def test_from_a_file_of_complete_curves(tmp_path):
    path = write_curves(tmp_path / "curves of anyone.parquet", MEANS, num=30, num_diverged=2)
    pools = pools_of(str(path))
    assert [pool.space for pool in pools] == ["anynet_c", "anynet_d"]
    for pool in pools:
        assert len(pool.chances) == 30
        assert pool.chances.sum() == pytest.approx(1)
        assert np.ptp(pool.chances) == 0
        assert pool.epoch_s.mean() == pytest.approx(1)  # by flops
        assert pool.cohort.final_errors[:2].tolist() == [90.0, 90.0]
        assert pool.mean_pct == pytest.approx(pool.cohort.final_errors.mean())
        assert pool.quantile_pct(0.5) == pytest.approx(np.median(pool.cohort.final_errors))
    assert [pool.space for pool in pools_of(str(path), spaces=["anynet_d"])] == ["anynet_d"]
    assert pools_of(str(path), max_epochs=3)[0].cohort.full_budget == 3


def test_draws_follow_the_chances():
    pool = replace(pool_of(cohorts({"a": 20.0}, num=20)[0]), chances=np.array([0.5, *[0.5 / 19] * 19]))
    assert pool.drawn(np.array([0.0, 0.49, 0.51, 1 - 1e-12])).tolist() == [0, 0, 1, 19]


def test_a_network_that_the_lottery_kept_stands_for_those_that_were_stopped():
    """By construction: 40 networks, of which the rule wanted to end 30 and the lottery of 0.2 kept 6 of them."""
    [cohort] = cohorts({"a": 20.0}, num=40)
    would_stop_at = np.where(np.arange(40) < 30, 3, 0)
    errors = cohort.errors.copy()
    errors[:30, -1] = 50.0  # the worst, and all alike, so that it does not matter which are kept
    errors[6:30, 3:] = np.nan
    stopped = replace(cohort, errors=errors, would_stop_at=would_stop_at, audit_fraction=np.full(len(cohort), 0.2))
    with pytest.raises(ValueError, match=f"16 of 40 of a are complete, and a replay needs {LEAST_CURVES}"):
        pool_of(stopped)
    both = replace(
        stopped,
        trial_ids=tuple(f"{part}-{name}" for part in "xy" for name in cohort.trial_ids),
        errors=np.tile(errors, (2, 1)),
        audit_fraction=np.full(80, 0.2),
        would_stop_at=np.tile(would_stop_at, 2),
        diverged_at=np.zeros(80, dtype=np.int64),
        is_open=np.zeros(80, dtype=bool),
        is_cancelled=np.zeros(80, dtype=bool),
        complexity={},
    )
    pool = pool_of(both)
    assert len(pool.chances) == 32
    assert pool.chances[pool.cohort.final_errors == 50].sum() == pytest.approx(60 / 80)
    assert pool.mean_pct == pytest.approx((30 * 50 + errors[30:, -1].sum()) / 40)
    assert pool.cohort.is_certain.all()
    assert pool.quantile_pct(0.5) == 50


def test_survivors_are_no_population():
    [cohort] = cohorts({"a": 20.0}, num=40)
    errors = cohort.errors.copy()
    errors[:10, 3:] = np.nan
    stopped = replace(
        cohort, errors=errors, would_stop_at=np.where(np.arange(40) < 10, 3, 0), audit_fraction=np.zeros(40)
    )
    with pytest.raises(ValueError, match=r"only survivors of early stopping are complete; .*\.audit_fraction above 0"):
        pool_of(stopped)


def test_a_shorter_budget():
    [cohort] = cohorts({"a": 20.0}, num=20)
    told = replace(
        cohort,
        would_stop_at=np.array([3, 5, *[0] * 18]),
        diverged_at=np.array([0, 0, 2, 6, *[0] * 16]),
        epochs=cohort.epochs,
    )
    short = shortened(told, 5)
    assert short.epochs.tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(short.final_errors, cohort.errors[:, 4])
    assert short.would_stop_at[:2].tolist() == [3, 0]
    assert short.diverged_at[2:4].tolist() == [2, 0]
    with pytest.raises(ValueError, match=r"max_epochs: the curves of a hold no error after 12 epochs; .* after 1 to 9"):
        shortened(told, 12)


def test_from_a_sweep_with_its_seconds(memory_path):
    """Two spaces of simulated workers under ASHA, a fifth exempt: 2 s of training and 0.5 s of evaluation an epoch."""
    run_dir = memory_path / "run"
    study = study_of("asha", audit_fraction=0.2)
    make_sweep(run_dir, study, 60)
    with pytest.raises(ValueError, match=r"120 trials of the sweep in .* are still to end"):
        pools_of(str(run_dir))
    run_to_the_end(run_dir, seed=3)
    trained = dict(ask(run_dir, "SELECT trial_id, outcome FROM trials WHERE outcome IN ('completed', 'diverged')"))
    pools = pools_of(str(run_dir))
    assert sorted(name for pool in pools for name in pool.cohort.trial_ids) == sorted(trained)
    for pool in pools:
        assert np.unique(pool.epoch_s).tolist() == [2.5]
        assert pool.cohort.full_budget == study.stopping.max_epochs
        assert np.unique(pool.chances / pool.chances.min()).tolist() == pytest.approx([1, 5])


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"spaces": ["anynet_e"]}, "space: .* holds no curves of 'anynet_e'; it holds those of anynet_c, anynet_d"),
        ({"scale": "large"}, "scale: .* has none named 'large'"),
        ({"max_epochs": 20}, "max_epochs: the curves of anynet_c hold no error after 20 epochs"),
    ],
)
def test_what_is_not_there_is_named(tmp_path, told, said):
    path = write_curves(tmp_path / "curves.parquet", MEANS, num=20)
    with pytest.raises(ValueError, match=said):
        pools_of(str(path), **told)


def test_what_is_no_source_is_refused(tmp_path):
    with pytest.raises(ValueError, match="run"):
        pools_of(str(tmp_path / "nothing"))
