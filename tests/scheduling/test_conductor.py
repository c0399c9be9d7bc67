"""The conductor and its journal: what is recorded, what holds after a restart, who waits and for how long."""

import pytest
from records.rows import T0, T1, T2, T3
from scheduling.by_hand import all_at_work, decided, epochs, lose_epochs, outcome
from scheduling.simulated import begun_report, draw, study_of

from sweep.scheduling.conductor import USER, Nothing

# -- what is recorded ------------------------------------------------------------------------------------------------


def test_an_epoch_and_its_decision_are_committed_before_the_answer(begin):
    driver = all_at_work(begin("asha"))
    assert driver.epoch(T1, 1, 40.0)
    assert not driver.epoch(T2, 1, 50.0)
    assert epochs(driver) == [(T1, 1, 40.0), (T2, 1, 50.0)]
    assert decided(driver) == [(1, T1, 1, 40.0, "continue"), (2, T2, 1, 50.0, "stop")]
    assert {key: num for key, num in driver.journal.counts().items() if num} == {"running": 3, "stopped": 1}
    assert driver.ended == [(T2, "stopped")]
    assert [(row["attempt"], row["host"]) for row in driver.journal.epochs()] == [(1, "host-1")] * 2


def test_an_epoch_trained_again_only_changes_its_digest(begin):
    driver = all_at_work(begin("asha"))
    driver.epoch(T1, 1, 40.0)
    driver.epoch(T1, 2, 40.0)
    query = "SELECT trial_id, epoch, val_error_pct, host, attempt, recorded_at_ms FROM epochs"
    before = (
        driver.ask(query),
        decided(driver),
        driver.ask("SELECT * FROM trials WHERE trial_id != ?", T1),
    )
    driver = begin()
    assert driver.next() == T1
    assert driver.stretches[T1].known == {1: f"{T1} 1 1", 2: f"{T1} 2 1"}
    assert driver.epoch(T1, 1, 99.0, checkpoint="new")
    assert driver.epoch(T1, 2, 1.0, checkpoint=None)
    after = (
        driver.ask(query),
        decided(driver),
        driver.ask("SELECT * FROM trials WHERE trial_id != ?", T1),
    )
    assert after == before
    assert driver.ask("SELECT epoch, checkpoint FROM epochs ORDER BY 1") == [(1, "new"), (2, None)]
    assert driver.epoch(T1, 3, 40.0)


def test_an_epoch_that_is_missing_is_never_passed_over(begin):
    """The checkpoints of a recovered sweep may know more than its journal."""
    driver = all_at_work(begin("asha"))
    driver.epoch(T1, 1, 40.0)
    before = epochs(driver), decided(driver)
    with pytest.raises(RuntimeError, match=f"{T1} reports epoch 3 after 1"):
        driver.epoch(T1, 3, 40.0)
    assert (epochs(driver), decided(driver)) == before


def test_the_last_epoch_completes_a_trial_without_a_decision(begin):
    driver = all_at_work(begin("asha"))
    assert [driver.epoch(T3, epoch, 40.0) for epoch in range(1, 9)] == [True] * 7 + [False]
    assert [row["rung_epochs"] for row in driver.journal.decisions()] == [1, 2, 4]
    assert driver.ended == [(T3, "completed")]


def test_what_workers_say_is_told_and_noted(begin):
    driver = begin("asha")
    stretch = driver.conductor.next_stretch()
    driver.conductor.started(T0)
    driver.report(T0, begun_report(stretch, 0, ("epoch 1 is damaged",)) | {"log": "a line\n"})
    for _ in range(3):
        driver.report(T0, {"kind": "waiting", "attempt": 1, "message": "no room"})
    driver.stretches[T0] = stretch
    driver.epoch(T0, 1, 40.0)
    driver.report(T0, {"kind": "waiting", "attempt": 1, "message": "no room"})
    assert driver.ask("SELECT kind, message, trial_id FROM events") == [
        ("checkpoint_refused", "epoch 1 is damaged", T0), ("waiting", "no room", T0), ("waiting", "no room", T0)
    ]  # fmt: skip
    assert driver.said[0] == "a line\n"
    assert any("epoch 1: validation error 40.00 %" in text for text in driver.said)


# -- what holds after a restart --------------------------------------------------------------------------------------


def test_the_rungs_are_rebuilt_from_the_journal(begin):
    for trial_id, error, goes_on in ((T1, 40.0, True), (T2, 50.0, False), (T3, 46.0, False)):
        driver = begin(*["asha"] if trial_id == T1 else [])
        while driver.next() != trial_id:
            pass
        assert driver.epoch(trial_id, 1, error) == goes_on
    # The bar is the median of 40 and 50: 46 does not pass it.
    assert [row["cutoff_pct"] for row in driver.journal.decisions()] == [None, 40.0, 45.0]


def test_what_had_got_furthest_goes_first(begin):
    driver = all_at_work(begin("none"))
    for trial_id, last in ((T3, 1), (T2, 3)):
        for epoch in range(1, last + 1):
            driver.epoch(trial_id, epoch, 40.0)
    driver = begin()
    assert [driver.next() for _ in range(5)] == [T2, T3, T0, T1, Nothing.LATER]
    assert driver.stretches[T2].last_epoch == 3
    assert driver.stretches[T2].attempt == 2


@pytest.mark.parametrize("error_again", [50.0, 1.0])
def test_a_decision_to_stop_holds_where_its_epoch_was_lost(begin, error_again):
    driver = all_at_work(begin("asha"))
    driver.epoch(T1, 1, 40.0)
    driver.epoch(T2, 1, 50.0)
    lose_epochs(driver, T2)
    before = decided(driver)
    driver = begin()
    assert {driver.next() for _ in range(4)} == {T0, T1, T2, T3}
    assert not driver.epoch(T2, 1, error_again)
    assert decided(driver) == before
    assert epochs(driver) == [(T1, 1, 40.0), (T2, 1, error_again)]
    assert driver.ended == [(T2, "stopped")]


@pytest.mark.parametrize("error_again", [40.0, 90.0])
def test_a_decision_to_go_on_holds_and_the_next_arrival_is_a_new_one(begin, error_again):
    driver = all_at_work(begin("asha"))
    for epoch in (1, 2):
        driver.epoch(T3, epoch, 40.0)
    driver.epoch(T2, 1, 30.0)
    lose_epochs(driver, T3)
    before = decided(driver)
    driver = begin()
    assert {driver.next() for _ in range(4)} == {T0, T1, T2, T3}
    assert [driver.epoch(T3, epoch, error_again) for epoch in (1, 2, 3)] == [True] * 3
    assert decided(driver) == before
    assert driver.epoch(T3, 4, 20.0)
    assert decided(driver) == [*before, (4, T3, 4, 20.0, "continue")]
    # What it was held against counts once: the median of 40 and 30, not of 40, 30 and another 40.
    driver.epoch(T1, 1, 34.0)
    assert driver.journal.decisions()[-1]["cutoff_pct"] == 35.0


@pytest.mark.parametrize("method", ["asha", "asha_promotion", "synchronous"])
def test_a_divergence_keeps_the_arrival_at_the_next_rung_that_it_had(begin, method):
    driver = all_at_work(begin(method))
    for epoch in (1, 2):
        assert driver.epoch(T0, epoch, 40.0)  # audited, it goes on in each mode
    assert not driver.diverge(T0, 3)
    assert decided(driver)[-1] == (3, T0, 4, None, "continue")
    assert outcome(driver, T0) == "diverged"
    lose_epochs(driver, T0)
    before = decided(driver)
    driver = begin()
    assert {driver.next() for _ in range(4)} == {T0, T1, T2, T3}
    assert driver.epoch(T0, 1, 40.0)
    assert driver.epoch(T0, 2, 40.0)
    assert not driver.diverge(T0, 3)
    assert decided(driver) == before
    assert driver.ended == [(T0, "diverged")]


def test_an_audited_trial_goes_on_and_is_judged_all_the_same(begin):
    driver = all_at_work(begin("asha"))
    driver.epoch(T1, 1, 40.0)
    assert driver.epoch(T0, 1, 50.0)
    lose_epochs(driver, T0)
    driver = begin()
    assert {driver.next() for _ in range(4)} == {T0, T1, T2, T3}
    assert driver.epoch(T0, 1, 50.0)
    row = driver.journal.decisions()[-1]
    assert (row["would_stop"], row["audited"], row["decision"]) == (1, 1, "continue")


@pytest.mark.parametrize("method", ["asha_promotion", "synchronous"])
@pytest.mark.parametrize("earned", [False, True])
def test_a_trial_that_waits_does_so_again_where_its_epoch_was_lost(begin, method, earned):
    driver = all_at_work(begin(method))
    assert not driver.epoch(T1, 1, 40.0)
    assert outcome(driver, T1) == "paused"
    if earned:
        driver.epoch(T2, 1, 50.0)
        driver.epoch(T0, 1, 60.0)
        driver.epoch(T3, 1, 60.0)
    lose_epochs(driver, T1)
    before = decided(driver), driver.journal.promotions()
    driver = begin()
    while driver.next() != T1:
        pass
    assert driver.epoch(T1, 1, 45.0) == earned
    assert (decided(driver), driver.journal.promotions()) == before
    assert outcome(driver, T1) == ("running" if earned else "paused")


@pytest.mark.parametrize("earned", [False, True])
def test_a_place_that_is_decided_while_its_epoch_is_trained_again_holds(begin, earned):
    driver = all_at_work(begin("synchronous"))
    driver.epoch(T1, 1, 40.0)
    lose_epochs(driver, T1)
    driver = begin()
    assert {driver.next() for _ in range(4)} == {T0, T1, T2, T3}
    for trial_id in (T0, T2, T3):
        driver.epoch(trial_id, 1, 50.0 if earned else 30.0)
    assert driver.epoch(T1, 1, 99.0) == earned
    assert outcome(driver, T1) == ("running" if earned else "stopped")


# -- waiting ---------------------------------------------------------------------------------------------------------


def test_an_earned_place_goes_before_new_trials_and_the_top_rung_before_others(begin):
    driver = all_at_work(begin("asha_promotion", num=8))
    for trial_id, error in ((T1, 10.0), (T2, 20.0), (T0, 15.0), (T3, 30.0)):
        driver.epoch(trial_id, 1, error)
    newcomers = ["anynet_c-small-0004", "anynet_c-small-0005"]
    assert [driver.next() for _ in range(3)] == [T1, *newcomers]
    for newcomer in newcomers:
        driver.epoch(newcomer, 1, 90.0)  # of six the best three: T2 has earned the next rung, too
    assert not driver.epoch(T1, 2, 10.0)
    assert driver.epoch(T0, 2, 90.0)  # the second to arrive there: T1 has earned its place
    assert [driver.next(), driver.next()] == [T1, T2]
    assert driver.next() == "anynet_c-small-0006"
    assert [(row["trial_id"], row["rung_epochs"], row["after_arrival"]) for row in driver.journal.promotions()] == [
        (T1, 1, 2), (T0, 1, 4), (T2, 1, 6), (T1, 2, 8)
    ]  # fmt: skip


def test_a_promoted_trial_is_offered_once_and_goes_on_from_where_it_waits(begin):
    driver = all_at_work(begin("asha_promotion"))
    assert not driver.epoch(T1, 1, 10.0)
    assert driver.ended == [(T1, "paused")]
    assert not driver.epoch(T2, 1, 20.0)
    assert driver.next() == T1
    assert (driver.stretches[T1].last_epoch, driver.stretches[T1].attempt) == (1, 2)
    assert driver.next() is Nothing.LATER
    assert driver.epoch(T1, 2, 10.0) is False
    assert [(row["trial_id"], row["rung_epochs"]) for row in driver.journal.promotions()] == [(T1, 1)]


def test_those_that_wait_when_nothing_is_left_have_not_earned_their_place(begin):
    driver = begin("asha_promotion", num=2)
    assert driver.next() == T0
    assert driver.next() == T1
    for epoch in range(1, 9):
        driver.epoch(T0, epoch, 10.0)
    assert not driver.epoch(T1, 1, 20.0)
    assert outcome(driver, T1) == "paused"
    assert driver.next() is Nothing.LEFT
    assert driver.ended[-1] == (T1, "stopped")
    assert driver.journal.is_finished()
    assert driver.journal.closings() == [4]


@pytest.mark.parametrize("resumed", [False, True])
def test_a_place_that_was_lost_at_the_end_is_not_earned_after_an_extension(begin, resumed):
    driver = begin("asha_promotion", num=2)
    assert [driver.next(), driver.next()] == [T0, T1]
    assert not driver.epoch(T1, 1, 20.0)
    for epoch in range(1, 9):
        driver.epoch(T0, epoch, 10.0)
    assert driver.next() is Nothing.LEFT
    study = study_of("asha_promotion", settings={"spaces": ["anynet_c"]})
    driver.journal.add_trials(draw(study, 2, 2), extensions=[{"trials": 2}])
    driver = begin() if resumed else driver
    assert [driver.next(), driver.next()] == [T2, T3]
    driver.epoch(T2, 1, 30.0)
    driver.epoch(T3, 1, 40.0)  # two places of four, of which T1 has the second
    assert driver.next() is Nothing.LEFT
    assert [row["outcome"] for row in driver.journal.trials()] == ["completed", "stopped", "stopped", "stopped"]
    assert {row["trial_id"] for row in driver.journal.promotions()} == {T0}
    assert driver.journal.closings() == [4, 6]


def test_trials_are_handed_out_in_their_order_before_any_of_them_starts(begin):
    driver = begin("asha")
    assert [driver.conductor.next_stretch().trial_id for _ in range(4)] == [T0, T1, T2, T3]
    assert driver.conductor.next_stretch() is Nothing.LATER


def test_a_failure_for_good_decides_the_rung_that_waited_for_it(begin):
    driver = all_at_work(begin("synchronous", max_failures=0))
    driver.epoch(T0, 1, 90.0)
    assert not driver.epoch(T1, 1, 10.0)
    assert not driver.epoch(T2, 1, 20.0)
    driver.fail(T3, USER)
    assert driver.ended == [(T1, "paused"), (T2, "paused"), (T2, "stopped"), (T3, "failed")]
    assert driver.next() == T1
    assert outcome(begin(), T1) == "running"
