"""Asynchronous stopping: rungs by hand, the same decisions as Ray's scheduler, and what Ray gets wrong put right."""

import math

import numpy as np
import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler

from sweep.scheduling.asha import Asha, Judgement, lower_quantile, next_rung
from sweep.studies import Stopping


def arrive_all(asha: Asha, errors: list[float | None], cohort: str = "c", rung: int = 1) -> list[bool | None]:
    return [asha.arrive(cohort, rung, f"t{number}", error).would_stop for number, error in enumerate(errors)]


def test_rung_by_hand():
    # cutoffs before each arrival, eta 2 (the median): -, 20, 15, 20, 17.5
    assert arrive_all(Asha(2), [20, 10, 20, 15, 17.5]) == [False, False, True, False, False]
    assert Asha(2).arrive("c", 1, "a", 50).cutoff_pct is None


def test_first_arrival_and_ties_go_on():
    assert arrive_all(Asha(4), [30, 30, 30, 30]) == [False] * 4


@pytest.mark.parametrize("missing", [None, math.nan])
def test_nan_and_none_are_the_worst(missing):
    assert arrive_all(Asha(2), [missing, 50, missing, 40]) == [True, False, True, False]


def test_cohorts_and_rungs_are_apart():
    asha = Asha(2)
    asha.arrive("easy", 1, "a", 5)
    assert not asha.arrive("hard", 1, "b", 50).would_stop
    assert not asha.arrive("easy", 2, "c", 50).would_stop
    assert asha.arrive("easy", 1, "c", 50).would_stop


def test_infinite_neighbours_give_an_infinite_quantile():
    assert lower_quantile([1.0, math.inf], 2) == math.inf
    assert lower_quantile([math.inf, math.inf], 2) == math.inf
    assert lower_quantile([1.0, 2.0, math.inf], 2) == 2.0


@pytest.mark.parametrize(
    ("grace", "eta", "most", "expected"),
    [(1, 4, 64, (1, 4, 16)), (2, 2, 4, (2,)), (3, 3, 243, (3, 9, 27, 81)), (5, 2, 5, ()), (1, 3, 2, (1,))],
)
def test_rungs_are_below_the_full_budget(grace, eta, most, expected):
    # Ray's logarithm finds only 3, 9, 27 of the third case: log(243/3)/log(3) is 3.9999999999999996.
    assert Stopping(grace_epochs=grace, reduction_factor=eta, max_epochs=most).rungs == expected


def test_no_stopping_has_no_rungs():
    assert Stopping(method="none", max_epochs=64).rungs == ()


def test_a_divergence_arrives_at_the_next_rung():
    assert [next_rung((2, 8), epoch) for epoch in (1, 2, 3, 8, 9)] == [2, 2, 8, 8, None]


def ray_decisions(errors: np.ndarray, eta: int, grace: int, most: int) -> list[list[str]]:
    """What Ray's own scheduler answers, trial after trial, rung after rung, until it stops them."""
    scheduler = AsyncHyperBandScheduler(
        time_attr="epoch", metric="error", mode="min", max_t=most, grace_period=grace, reduction_factor=eta
    )
    answers = []
    for row in errors:
        trial = Trial("unused", stub=True)
        scheduler.on_trial_add(None, trial)
        answers.append([])
        for epoch, error in enumerate(row[: most - 1], start=1):
            answer = scheduler.on_trial_result(None, trial, {"epoch": epoch, "error": float(error)})
            answers[-1].append(answer.lower())
            if answer != "CONTINUE":
                break
    return answers


def our_decisions(errors: np.ndarray, eta: int, grace: int, most: int) -> list[list[str]]:
    asha, rungs = Asha(eta), Stopping(grace_epochs=grace, reduction_factor=eta, max_epochs=most).rungs
    answers = []
    for number, row in enumerate(errors):
        answers.append([])
        for epoch, error in enumerate(row[: most - 1], start=1):
            stop = epoch in rungs and asha.arrive("c", epoch, f"t{number}", float(error)).would_stop
            answers[-1].append("stop" if stop else "continue")
            if stop:
                break
    return answers


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("eta", "grace", "most"), [(2, 1, 9), (4, 1, 17), (3, 2, 19), (2, 2, 5)])
def test_decides_as_ray_does(seed, eta, grace, most):
    errors = 20 + np.random.default_rng(seed).normal(0, 3, (60, most)) + np.linspace(5, 0, most)
    if eta != 3:  # with eta 3 Ray's quantile of tied errors is off in the last bit, and stops some of the ties
        errors = errors.round(0)
    assert our_decisions(errors, eta, grace, most) == ray_decisions(errors, eta, grace, most)


def test_among_the_worst_are_those_that_stop_and_of_whom_a_tenth_are_as_bad_at_most():
    rule = Asha(4)
    judged = [rule.arrive("c", 1, str(number), 50.0 + number) for number in range(9)]  # each worse than all before
    assert not any(judgement.among_worst for judgement in judged)  # of nine nobody is a tenth
    assert rule.arrive("c", 1, "tenth", 90.0) == Judgement(True, 52.0, among_worst=True)
    assert not rule.arrive("c", 1, "tie", 90.0).among_worst  # two of eleven are as bad
    assert not rule.arrive("c", 1, "best", 10.0).among_worst
    for number in range(7):
        rule.arrive("c", 1, f"good {number}", 40.0)
    assert not rule.arrive("c", 1, "second", 89.0).among_worst  # three of twenty
    assert rule.arrive("c", 4, "tenth", 10.0) == Judgement(True)  # it has lost: here it is ranked with nobody
