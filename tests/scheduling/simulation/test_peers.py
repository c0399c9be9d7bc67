"""Other schedulers: brackets and medians by hand, and all of them under the lottery."""

import math

import numpy as np
import pytest
from scheduling.curves import of_curves

from sweep.scheduling.simulation.peers import SCHEDULERS, Median, bracket_sizes, designs_of, schedule
from sweep.scheduling.simulation.replay import play

NUMBERS = {
    "max_epochs": 9, "grace_epochs": [1], "reduction_factors": [3], "audit_fractions": [0.0], "num_trials": [27],
    "num_workers": [4],
}  # fmt: skip


def design_of(scheduler, **numbers):
    return designs_of([scheduler], **{**NUMBERS, **numbers})[0]


def play_design(design, errors, audited=None, spaces=None, num_workers=4):
    audited = [False] * len(errors) if audited is None else audited
    plan = schedule(design, spaces or ["s"] * len(errors))
    trials = of_curves(
        np.array(errors, dtype=float),
        cohorts=plan.cohorts,
        rungs=plan.rungs,
        audited=audited,
        epoch_s=np.ones(len(errors)),
    )
    return plan, play(plan.rule, trials, list(range(len(errors))), num_workers=num_workers)


def flat(errors, num_epochs=9):
    return [[error] * num_epochs for error in errors]


# -- hyperband -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num", "expected"),
    # Li et al. 2018, table 1 (R = 81, eta = 3) has 81, 34, 15, 8, 5 of 143, each rounded up.
    [(143, [81, 34, 15, 8, 5]), (1, [1, 0, 0, 0, 0]), (0, [0, 0, 0, 0, 0])],
)
def test_brackets_in_the_proportions_of_the_paper(num, expected):
    sizes = bracket_sizes(num, 4, 3)
    assert sum(sizes) == num
    assert all(abs(found - wanted) <= 1 for found, wanted in zip(sizes, expected))


def test_hyperband_by_hand():
    """R = 9, eta = 3: brackets in the proportions 9/3 : 3/2 : 1, so of 11 trials 6, 3 and 2."""
    errors = [5, 4, 3, 2, 1, 0, 8, 7, 6, 10, 9]
    plan, course = play_design(design_of("hyperband"), flat(errors))
    assert plan.cohorts == ["s/0"] * 6 + ["s/1"] * 3 + ["s/2"] * 2
    assert plan.rungs == {"s/0": (1, 3), "s/1": (3,), "s/2": ()}
    # Of six, two go on from epoch 1, and the best of them from 3; of three, one; the last two are not judged.
    assert course.epochs.tolist() == [1, 1, 1, 1, 3, 9, 3, 3, 9, 9, 9]
    assert course.would_stop_at.tolist() == [1, 1, 1, 1, 3, 0, 3, 3, 0, 0, 0]


def test_each_space_has_brackets_of_its_own():
    errors = [5, 4, 3, 2, 1, 0] * 2
    plan, course = play_design(design_of("hyperband"), flat(errors), spaces=["a", "b"] * 6)
    assert {cohort.partition("/")[0] for cohort in plan.cohorts} == {"a", "b"}
    assert plan.cohorts[:2] == ["a/0", "b/0"]
    assert (course.epochs == 9).sum() >= 2


# -- the median rule -------------------------------------------------------------------------------------------------


def test_median_by_hand():
    rule = Median(2)
    for trial, error in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        assert rule.arrive("s", 1, trial, 9.0).would_stop is False
        assert rule.arrive("s", 2, trial, error).would_stop is False  # two others at most: too few
    # The averages after two epochs are 5, 5.5 and 6; d has 6 at best, e 5.5: a tie goes on.
    rule.arrive("s", 1, "d", 6.0)
    judged = rule.arrive("s", 2, "d", 7.0)
    assert (judged.would_stop, judged.cutoff_pct) == (True, 5.5)
    rule.arrive("s", 1, "e", 9.0)
    assert rule.arrive("s", 2, "e", 5.75).cutoff_pct == pytest.approx((5.5 + 6.0) / 2)
    assert rule.arrive("s", 1, "f", 99.0).would_stop is False  # nobody stops before the grace period is over
    assert rule.arrive("other", 2, "f", 99.0).would_stop is False
    assert rule.arrive("s", 2, "f", None).would_stop is True


def test_median_judges_after_every_epoch_and_by_the_best_so_far():
    """It was good once: a later bad error does not stop it. One that was never good is stopped in epoch 2."""
    good = [[3.0] * 4] * 5
    _, course = play_design(
        design_of("median", max_epochs=4, grace_epochs=[2]), [*good, [2.0, 9, 9, 9], [4.0] * 4], num_workers=1
    )
    assert course.epochs.tolist() == [4] * 6 + [2]
    assert course.would_stop_at.tolist() == [0] * 6 + [2]


# -- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_lottery_that_exempts_all_trains_all_and_knows_who_would_have_stopped(scheduler):
    rng = np.random.default_rng(3)
    errors = rng.random((27, 9))
    _, course = play_design(design_of(scheduler), errors, audited=[True] * 27)
    assert course.epochs.tolist() == [9] * 27
    assert course.finished.all()
    assert (course.would_stop_at > 0).any() == (scheduler not in ("none", "random"))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_who_is_not_exempt_trains_until_the_rule_stops_it(scheduler):
    rng = np.random.default_rng(4)
    errors, audited = rng.random((60, 9)), (rng.random(60) < 0.2).tolist()
    errors[7, 3:] = math.nan
    _, course = play_design(design_of(scheduler), errors, audited=audited, spaces=["a", "b"] * 30)
    for trial in range(60):
        if trial == 7:
            continue
        end = course.would_stop_at[trial] if course.would_stop_at[trial] and not audited[trial] else 9
        assert course.epochs[trial] == end
        assert course.finished[trial] == (end == 9)
    assert course.finished.sum() >= 2


# -- designs ---------------------------------------------------------------------------------------------------------


def test_each_design_once():
    designs = designs_of(
        ["asha", "median", "none"], **{**NUMBERS, "reduction_factors": [2, 3], "audit_fractions": [0.1, 0.2]}
    )
    told = [(design.scheduler, design.reduction_factor, design.audit_fraction) for design in designs]
    assert told == [
        ("asha", 2, 0.1), ("asha", 2, 0.2), ("asha", 3, 0.1), ("asha", 3, 0.2), ("median", 2, 0.1), ("median", 2, 0.2),
        ("none", 2, 0.1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"schedulers": ["ashe"]}, "scheduler: 'ashe' is none that can be simulated; did you mean 'asha'?"),
        ({"schedulers": ["zzz"]}, "choose from asha, asha_promotion"),
        ({"grace_epochs": [1, 10]}, "grace: 10 epochs are more than the full budget of 9"),
        ({"grace_epochs": [0]}, "grace: 0 is too few"),
        ({"reduction_factors": [1]}, "eta: 1 is too few"),
        ({"audit_fractions": [0.1, 1.5]}, "audit: 1.5 is no share"),
        ({"audit_fractions": [-0.1]}, "audit: -0.1 is no share"),
        ({"num_trials": [1]}, "trials: 1 is too few"),
        ({"num_workers": [0]}, "workers: 0 is too few"),
    ],
)
def test_bad_designs_are_refused(changed, said):
    with pytest.raises(ValueError, match=said.replace("?", r"\?").replace("(", r"\(")):
        designs_of(**{"schedulers": ["asha"], **NUMBERS, **changed})
