"""Many replayed sweeps: what is known by construction, and that the numbers depend on the seed alone."""

import numpy as np
import pytest
from scheduling.curves import cohorts

from sweep.scheduling.simulation.peers import SCHEDULERS, Design
from sweep.scheduling.simulation.pools import pool_of
from sweep.scheduling.simulation.repetitions import ESTIMATORS, HIGH, LOW, QUANTITIES, VALUE, Repetitions, repeat

MEAN = list(QUANTITIES).index("mean")


@pytest.fixture(scope="module")
def pools():
    return [pool_of(cohort) for cohort in cohorts({"anynet_c": 24.0, "anynet_d": 20.0}, num=60, num_diverged=1)]


def design_of(scheduler: str, **numbers) -> Design:
    return Design(**{
        "scheduler": scheduler, "max_epochs": 9, "grace_epochs": 1, "reduction_factor": 3, "audit_fraction": 0.3,
        "num_trials": 30, "num_workers": 4, **numbers,
    })  # fmt: skip


def means(found: Repetitions, estimator: str) -> np.ndarray:
    """R × S."""
    return found.estimates[:, :, ESTIMATORS.index(estimator), MEAN, VALUE]


def test_training_all_is_the_truth_of_the_draw(pools):
    [none] = repeat(pools, [design_of("none")], num_repetitions=10, seed=1)
    np.testing.assert_array_equal(none.epochs, none.full_epochs)
    np.testing.assert_array_equal(none.found_pct, none.best_drawn_pct)
    np.testing.assert_array_equal(none.found_by_fewer_pct, none.best_drawn_pct)
    for estimator in ("model_assisted", "hajek", "horvitz_thompson", "fewer"):
        np.testing.assert_allclose(means(none, estimator), means(none, "all"))
    assert np.isnan(means(none, "first_rung")).all()
    assert (none.estimates[:, :, ESTIMATORS.index("all"), :, LOW] <= none.estimates[:, :, -2, :, HIGH]).all()


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_of_each_scheduler(pools, scheduler):
    [found] = repeat(pools, [design_of(scheduler)], num_repetitions=4, seed=2, quantities=("mean",))
    assert (found.epochs <= found.full_epochs).all()
    assert (found.found_pct >= found.best_drawn_pct).all()
    assert (found.busy_s <= 4 * found.wall_s + 1e-9).all()
    assert not np.isnan(means(found, "all")).any()


def test_the_lottery_makes_up_for_what_was_stopped_and_survivors_do_not(pools):
    """Enough sweeps to tell three points of bias from none."""
    [found] = repeat(
        pools, [design_of("asha")], num_repetitions=120, seed=3, quantities=("mean",),
        estimators=("survivors", "hajek", "horvitz_thompson", "all", "fewer"),
    )  # fmt: skip
    truth = np.array([pool.mean_pct for pool in pools])
    for estimator in ("hajek", "horvitz_thompson", "fewer", "all"):
        errors = np.nanmean(means(found, estimator) - truth, axis=1)
        assert abs(errors.mean()) < 4 * errors.std(ddof=1) / np.sqrt(len(errors)), estimator
    survivors = (means(found, "survivors") - truth).mean(axis=1)
    assert survivors.mean() < -10 * survivors.std(ddof=1) / np.sqrt(len(survivors))


def test_without_a_lottery_there_are_only_survivors(pools):
    [found] = repeat(pools, [design_of("asha", audit_fraction=0.0)], num_repetitions=3, seed=4)
    for estimator in ("hajek", "horvitz_thompson", "model_assisted"):
        assert np.isnan(means(found, estimator)).all()
    survivors = found.estimates[:, :, ESTIMATORS.index("survivors"), MEAN]
    assert not np.isnan(survivors[..., VALUE]).any()
    assert np.isnan(survivors[1, 0, LOW])  # of one network, in this draw


def test_random_costs_what_asha_does_or_what_is_allowed(pools):
    asha, random, none = repeat(
        pools, [design_of("asha"), design_of("random"), design_of("none")], num_repetitions=5, seed=5, estimators=()
    )
    assert np.abs(random.epochs - asha.epochs).max() <= 9
    assert not np.array_equal(random.found_pct, none.found_pct)
    [cheap] = repeat(pools, [design_of("random")], num_repetitions=5, seed=5, cost=0.1, estimators=())
    assert (cheap.epochs <= 3 * 9).all()  # three of thirty


def test_a_smaller_sweep_is_the_beginning_of_a_larger_one(pools):
    """So that designs can be compared across calls, and numbers of trials with each other."""
    [alone] = repeat(pools, [design_of("none", num_trials=20)], num_repetitions=3, seed=6, estimators=("all",))
    small, large = repeat(
        pools, [design_of("none", num_trials=20), design_of("none")], num_repetitions=3, seed=6, estimators=("all",)
    )
    np.testing.assert_array_equal(alone.best_drawn_pct, small.best_drawn_pct)
    np.testing.assert_array_equal(alone.estimates, small.estimates)
    assert (large.best_drawn_pct <= small.best_drawn_pct).all()


def test_the_numbers_do_not_depend_on_who_does_the_work(pools):
    told: list[int] = []
    designs = [design_of("asha"), design_of("hyperband")]
    alone = repeat(pools, designs, num_repetitions=8, seed=7, quantities=("mean",), progress=told.append)
    shared = repeat(pools, designs, num_repetitions=8, seed=7, quantities=("mean",), num_processes=2)
    for one, other in zip(alone, shared):
        for name in Repetitions.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert told == sorted(told)
    assert told[-1] == 8
    [again] = repeat(pools, designs[:1], num_repetitions=8, seed=8, estimators=())
    assert not np.array_equal(again.epochs, alone[0].epochs)
