"""How trials fail, are given up, cancelled and let go: budgets, delays, silence, late words, wishes from outside."""

import pytest
from records.rows import T0, T1, T2, T3
from scheduling.by_hand import Driver, all_at_work, decided, epochs, outcome
from scheduling.simulated import STALL_AFTER_S, begun_report, draw, epoch_report, study_of

from sweep.scheduling.conductor import DATA, MACHINE, MEMORY, STALLED, USER, Nothing

# -- failures --------------------------------------------------------------------------------------------------------


def test_user_and_machine_failures_have_budgets_of_their_own(begin):
    driver = begin("none", num=1, max_failures=2, max_machine_failures=3)
    for kind in (USER, MACHINE, STALLED, USER, DATA):
        driver.conductor.draining = False
        driver.clock.now_s += 60
        assert driver.next() == T0
        driver.fail(T0, kind)
    driver.conductor.draining = False
    row = driver.journal.trial(T0)
    assert (row["user_failures"], row["machine_failures"], row["outcome"]) == (2, 3, "running")
    driver.clock.now_s += 60
    assert driver.next() == T0
    assert driver.stretches[T0].attempt == 6
    driver.fail(T0, USER, "Traceback\nValueError: no")
    row = driver.journal.trial(T0)
    assert (row["outcome"], row["failure_kind"], row["failure"]) == ("failed", USER, "Traceback\nValueError: no")
    assert driver.next() is Nothing.LEFT
    assert driver.ended == [(T0, "failed")]
    assert driver.journal.num_events() == {"retried": 5, "failed": 1}


@pytest.mark.parametrize(("kind", "limit"), [(USER, "max_failures"), (MACHINE, "max_machine_failures")])
def test_no_budget_means_no_second_try(begin, kind, limit):
    driver = begin("none", num=1, **{limit: 0})
    driver.next()
    driver.fail(T0, kind)
    assert driver.ended == [(T0, "failed")]


def test_a_machine_that_fails_again_is_given_time(begin):
    driver = begin("none", num=1, max_machine_failures=5000)
    waited = []
    for failures in (0, 1, 2, 3, 20, 4000):
        driver.ask("UPDATE trials SET machine_failures = ?", failures)
        assert driver.next() == T0
        driver.fail(T0, MACHINE)
        began_s = driver.clock.now_s
        while driver.conductor._again[0][0] > driver.clock.now_s:
            assert driver.next() is Nothing.LATER
            driver.clock.now_s += 1
        waited.append(driver.clock.now_s - began_s)
    assert waited == [0, 2, 6, 14, 60, 60]


def test_a_place_that_is_earned_meanwhile_does_not_shorten_that_time(begin):
    driver = all_at_work(begin("asha_promotion"))
    driver.epoch(T0, 1, 10.0)
    for _ in range(2):
        driver.conductor.failed(T0, MACHINE, "its node is gone")
        if driver.journal.trial(T0)["machine_failures"] == 1:
            assert driver.next() == T0
    driver.epoch(T1, 1, 20.0)
    assert driver.journal.promotions()[0]["trial_id"] == T0
    assert driver.next() is Nothing.LATER
    driver.clock.now_s += 2
    assert [driver.next(), driver.next()] == [T0, Nothing.LATER]


def test_out_of_memory_fails_at_once(begin):
    driver = begin("none", num=1)
    driver.next()
    driver.conductor.failed(T0, MEMORY, "the kernel ended it")
    assert driver.ended == [(T0, "failed")]
    assert driver.journal.trial(T0)["failure_kind"] == MEMORY


def test_out_of_memory_is_tried_once_with_half_the_batch_where_the_study_allows_it(begin):
    driver = begin("none", num=1, out_of_memory="smaller_batch", max_failures=0, recipe={"batch_size": 100})
    driver.next()
    assert driver.stretches[T0].batch_size is None
    driver.fail(T0, MEMORY)
    assert driver.next() == T0
    assert driver.stretches[T0].batch_size == 50
    driver = begin()  # nor is it forgotten
    driver.next()
    assert driver.stretches[T0].batch_size == 50
    driver.fail(T0, MEMORY)
    assert driver.ended == [(T0, "failed")]
    assert driver.journal.trial(T0)["user_failures"] == 2


def test_a_trial_that_says_nothing_is_named_and_has_failed_by_its_silence(begin):
    driver = all_at_work(begin("none"), 2)
    driver.clock.now_s += STALL_AFTER_S - 1
    assert driver.tick(T1)
    driver.clock.now_s += 2
    assert [(trial_id, where["node_id"]) for trial_id, where in driver.conductor.silent()] == [(T0, "n")]
    assert driver.conductor.silent() == []  # not again at once
    driver.conductor.failed(T0, MACHINE, "the worker died")
    row = driver.journal.trial(T0)
    assert (row["machine_failures"], row["user_failures"], row["outcome"]) == (1, 0, "running")
    (event,) = driver.journal.events()
    assert event["message"].startswith(f"{STALLED}: said nothing for {STALL_AFTER_S:g} s")
    assert driver.next() == T0


def test_a_worker_that_is_being_set_up_is_given_longer(begin):
    driver = begin("none")
    driver.conductor.next_stretch()
    driver.conductor.started(T0)
    driver.clock.now_s += 9 * STALL_AFTER_S
    assert driver.conductor.silent() == []
    driver.clock.now_s += 2 * STALL_AFTER_S
    assert driver.conductor.silent() == [(T0, {})]


def test_a_trial_whose_worker_never_began_is_tried_again(begin):
    driver = begin("none", num=1)
    assert driver.conductor.next_stretch().attempt == 1
    driver.conductor.failed(T0, MACHINE, "no worker could be started")
    assert (outcome(driver, T0), driver.next()) == ("pending", T0)


def test_damaged_data_ends_the_session_and_costs_no_trial(begin):
    driver = all_at_work(begin("none"), 2)
    driver.fail(T0, DATA, "Traceback\nDamagedDataError: train.npy is damaged")
    assert driver.conductor.damaged_data == "DamagedDataError: train.npy is damaged"
    assert driver.next() is Nothing.LEFT
    assert not driver.epoch(T1, 1, 40.0)
    assert driver.ended == []
    driver = begin()
    assert driver.conductor.damaged_data is None
    assert [driver.next() for _ in range(4)] == [T1, T0, T2, T3]


# -- reports that come late ------------------------------------------------------------------------------------------


def test_stale_reports_are_ignored_and_end_their_worker(begin):
    driver = all_at_work(begin("asha"))
    old = driver.stretches[T1]
    driver.conductor.failed(T1, MACHINE, "its node was cut off")
    assert driver.next() == T1
    before = [driver.ask(f"SELECT * FROM {table}") for table in ("trials", "epochs", "decisions", "events")]
    for report in (
        begun_report(old, 0), epoch_report(old, 1), {"kind": "tick", "attempt": 1, "epoch": 1, "step": 1},
        {"kind": "failed", "attempt": 1, "failure_kind": USER, "traceback": "late"},
        {"kind": "waiting", "attempt": 1, "message": "late"},
    ):  # fmt: skip
        assert driver.report(T1, report) is False
        assert driver.report("nobody", report) is False
    driver.conductor.failed("nobody", MACHINE, "late")
    assert [driver.ask(f"SELECT * FROM {table}") for table in ("trials", "epochs", "decisions", "events")] == before
    assert driver.epoch(T1, 1, 40.0)
    driver.conductor.failed(T1, MACHINE, "died")  # of this, and not of what the old one said late
    assert driver.journal.trial(T1)["user_failures"] == 0


def test_a_trial_that_has_ended_hears_that_it_has(begin):
    driver = all_at_work(begin("asha"))
    driver.epoch(T1, 1, 40.0)
    driver.epoch(T2, 1, 50.0)
    before = epochs(driver), decided(driver)
    assert not driver.epoch(T2, 2, 1.0)
    driver.conductor.failed(T2, MACHINE, "late")
    assert (epochs(driver), decided(driver), outcome(driver, T2)) == (*before, "stopped")


# -- what is asked for from outside ----------------------------------------------------------------------------------


def cancel(driver: Driver, trial_id: str) -> None:
    driver.journal.ask_to_cancel(trial_id)
    driver.clock.now_s += 1
    driver.conductor.poll()


def test_a_trial_is_cancelled_whatever_it_is_doing(begin):
    driver = begin("asha_promotion", num=6, max_failures=1)
    four, five = "anynet_c-small-0004", "anynet_c-small-0005"
    for _ in range(4):
        driver.next()
    assert not driver.epoch(T1, 1, 40.0)  # waits
    driver.fail(T2, USER)  # between two tries
    for trial_id in (T1, T2, four):
        cancel(driver, trial_id)
        assert outcome(driver, trial_id) == "cancelled"
    cancel(driver, T3)  # at work: at its next word
    assert outcome(driver, T3) == "running"
    assert not driver.tick(T3)
    cancel(driver, T0)
    assert not driver.epoch(T0, 1, 30.0)  # whose epoch is kept
    assert [trial_id for trial_id, how in driver.ended if how == "cancelled"] == [T1, T2, four, T3, T0]
    assert epochs(driver) == [(T0, 1, 30.0), (T1, 1, 40.0)]
    assert driver.next() == five
    assert driver.next() is Nothing.LATER
    assert driver.ask("SELECT count(*) FROM events WHERE kind = 'cancelled'") == [(5,)]
    driver = begin()
    assert [driver.next(), driver.next()] == [five, Nothing.LATER]


def test_a_trial_that_is_cancelled_and_fails_is_not_tried_again(begin):
    driver = begin("none", num=1)
    driver.next()
    cancel(driver, T0)
    driver.fail(T0, USER)
    driver.clock.now_s += 1
    assert driver.next() is Nothing.LEFT
    assert outcome(driver, T0) == "cancelled"


def test_a_cancelled_trial_is_awaited_no_longer(begin):
    driver = all_at_work(begin("synchronous"))
    driver.epoch(T0, 1, 90.0)
    driver.epoch(T1, 1, 10.0)
    driver.epoch(T2, 1, 20.0)
    cancel(driver, T3)
    assert not driver.tick(T3)
    assert driver.next() == T1
    assert outcome(driver, T2) == "stopped"


@pytest.mark.parametrize("wanted", ["train", "cancel"])
def test_trials_that_were_just_added_are_known_at_once(begin, wanted):
    """Also between two looks into the journal, and to a rule that waits for all trials of a cohort."""
    driver = all_at_work(begin("synchronous"))
    study = study_of("synchronous", settings={"spaces": ["anynet_c"]})
    driver.journal.add_trials(draw(study, 5, 1, cohort="{space}/small/+1"), extensions=[{"trials": 1}])
    added = "anynet_c-small-0005"
    if wanted == "cancel":
        cancel(driver, added)
        assert outcome(driver, added) == "cancelled"
        return
    assert driver.next() == added
    assert driver.epoch(added, 1, 50.0)
    assert [(row["trial_id"], row["rung_epochs"]) for row in driver.journal.promotions()] == [(added, 1)]


@pytest.mark.parametrize("by", ["signal", "journal"])
def test_draining_ends_each_stretch_at_its_next_report(begin, by):
    driver = all_at_work(begin("asha"), 3)
    if by == "signal":
        driver.conductor.draining = True
    else:
        driver.journal.set_meta(stop_requested=True)
    driver.clock.now_s += 1
    driver.conductor.poll()
    assert not driver.tick(T0)
    assert not driver.epoch(T1, 1, 40.0)
    driver.fail(T2, USER)
    assert driver.next() is Nothing.LEFT
    assert driver.ended == []
    assert {key: num for key, num in driver.journal.counts().items() if num} == {"running": 3, "pending": 1}
    assert epochs(driver) == [(T1, 1, 40.0)]


def test_a_sweep_that_was_asked_to_stop_hands_nothing_out(begin):
    driver = begin("asha")
    driver.journal.set_meta(stop_requested=True)
    assert driver.next() is Nothing.LEFT
    assert driver.conductor.draining
