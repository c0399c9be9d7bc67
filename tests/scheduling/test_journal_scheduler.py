"""The scheduler and its journal: what is recorded, what holds after a recovery, what is ignored."""

import sqlite3
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler
from tracking.journal_maker import make_journal, result

from sweep.records.journal import DecisionRow, Journal
from sweep.scheduling.tune import JournalScheduler
from sweep.studies import study_from_dict

# Draw 0 is audited, 1 diverges in epoch 3 (tests/tracking/journal_maker.py); the rungs are 1, 2 and 4.
T0, T1, T2, T3 = (f"regnet_x-small-{draw:04d}" for draw in range(4))
GO_ON, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


class Driver:
    """The scheduler on a journal; `ended` gathers the trials that it has seen to their end."""

    def __init__(self, journal: Journal):
        self.ended: list[str] = []
        stopping = study_from_dict(journal.get("study")).stopping
        self.scheduler = JournalScheduler(journal, stopping, self.ended.append)

    def report(self, trial_id: str, epoch: int, **values: object) -> str:
        trial = SimpleNamespace(config={"trial_id": trial_id})
        return self.scheduler.on_trial_result(None, trial, result(trial_id, epoch) | values)


@pytest.fixture
def journal(tmp_path):
    with make_journal(tmp_path, num=4, max_epochs=8) as journal:
        yield journal


def decided(journal: Journal) -> list[tuple]:
    return [
        (row["arrival"], row["trial_id"], row["rung_epochs"], row["error_pct"], row["decision"])
        for row in journal.decisions()
    ]


def epochs(journal: Journal) -> list[tuple]:
    return [(row["trial_id"], row["epoch"], row["val_error_pct"]) for row in journal.epochs()]


def lose_epochs(journal: Journal, trial_id: str) -> None:
    """As a recovered journal has it: what the decisions were is known, the curve is not."""
    with journal._transaction():
        journal._db.execute("DELETE FROM epochs WHERE trial_id = ?", (trial_id,))
        journal._db.execute("UPDATE trials SET outcome = 'running' WHERE trial_id = ?", (trial_id,))


def test_an_epoch_and_its_decision_are_committed_before_the_answer(journal):
    driver = Driver(journal)
    driver.scheduler.on_trial_started(T1)
    assert driver.report(T1, 1, val_error_pct=40.0) == GO_ON
    assert driver.report(T2, 1, val_error_pct=50.0) == STOP
    assert epochs(journal) == [(T1, 1, 40.0), (T2, 1, 50.0)]
    assert decided(journal) == [(1, T1, 1, 40.0, "continue"), (2, T2, 1, 50.0, "stop")]
    assert journal.counts() == {
        "pending": 2, "running": 1, "completed": 0, "stopped": 1, "diverged": 0, "failed": 0
    }  # fmt: skip
    assert driver.ended == [T2]
    assert [row["attempt"] for row in journal.epochs()] == [1, 0]


def test_an_epoch_reported_twice_is_ignored(journal):
    driver = Driver(journal)
    driver.report(T1, 1, val_error_pct=40.0)
    driver.report(T2, 1, val_error_pct=50.0)
    before = epochs(journal), decided(journal), [dict(row) for row in journal.trials()]
    assert driver.report(T1, 1, val_error_pct=99.0) == GO_ON
    assert driver.report(T2, 1, val_error_pct=1.0) == STOP
    resumed = Driver(journal)
    assert resumed.report(T1, 1, val_error_pct=99.0) == GO_ON
    assert (epochs(journal), decided(journal), [dict(row) for row in journal.trials()]) == before
    assert driver.ended == [T2]


def test_an_epoch_that_is_missing_is_never_passed_over(journal):
    """The checkpoints of a recovered sweep may know more than its journal."""
    driver = Driver(journal)
    driver.report(T1, 1)
    before = epochs(journal), decided(journal)
    with pytest.raises(RuntimeError, match=f"{T1} reports epoch 3 after 1"):
        driver.report(T1, 3)
    assert (epochs(journal), decided(journal)) == before


def test_the_rungs_are_rebuilt_from_the_journal(journal):
    Driver(journal).report(T1, 1, val_error_pct=40.0)
    Driver(journal).report(T2, 1, val_error_pct=50.0)
    # The bar is the median of 40 and 50: 46 does not pass it.
    assert Driver(journal).report(T3, 1, val_error_pct=46.0) == STOP
    assert [row["cutoff_pct"] for row in journal.decisions()] == [None, 40.0, 45.0]


@pytest.mark.parametrize("error_again", [50.0, 1.0])
def test_a_decision_to_stop_holds_where_its_epoch_was_lost(journal, error_again):
    driver = Driver(journal)
    driver.report(T1, 1, val_error_pct=40.0)
    driver.report(T2, 1, val_error_pct=50.0)
    lose_epochs(journal, T2)
    before = decided(journal)
    driver = Driver(journal)
    assert driver.report(T2, 1, val_error_pct=error_again) == STOP
    assert decided(journal) == before
    assert epochs(journal) == [(T1, 1, 40.0), (T2, 1, error_again)]
    assert driver.ended == [T2]
    assert journal.counts()["stopped"] == 1


@pytest.mark.parametrize("error_again", [40.0, 90.0])
def test_a_decision_to_go_on_holds_and_the_next_arrival_is_a_new_one(journal, error_again):
    driver = Driver(journal)
    for epoch in (1, 2):
        driver.report(T3, epoch, val_error_pct=40.0)
    driver.report(T2, 1, val_error_pct=30.0)
    lose_epochs(journal, T3)
    before = decided(journal)
    driver = Driver(journal)
    assert [driver.report(T3, epoch, val_error_pct=error_again) for epoch in (1, 2, 3)] == [GO_ON] * 3
    assert decided(journal) == before
    assert driver.report(T3, 4, val_error_pct=20.0) == GO_ON
    assert decided(journal) == [*before, (4, T3, 4, 20.0, "continue")]
    # What it was held against counts once: the median of 40 and 30, not of 40, 30 and another 40.
    driver.report(T1, 1, val_error_pct=34.0)
    assert journal.decisions()[-1]["cutoff_pct"] == 35.0


def test_a_divergence_keeps_the_arrival_at_the_next_rung_that_it_had(journal):
    driver = Driver(journal)
    for epoch in (1, 2):
        assert driver.report(T1, epoch) == GO_ON
    assert driver.report(T1, 3) == STOP
    assert decided(journal)[-1] == (3, T1, 4, None, "stop")
    lose_epochs(journal, T1)
    before = decided(journal)
    driver = Driver(journal)
    assert [driver.report(T1, epoch) for epoch in (1, 2, 3)] == [GO_ON, GO_ON, STOP]
    assert decided(journal) == before
    assert journal.counts()["diverged"] == 1


def test_an_audited_trial_goes_on_and_is_judged_all_the_same(journal):
    driver = Driver(journal)
    driver.report(T1, 1, val_error_pct=40.0)
    assert driver.report(T0, 1, val_error_pct=50.0) == GO_ON
    lose_epochs(journal, T0)
    assert Driver(journal).report(T0, 1, val_error_pct=50.0) == GO_ON
    row = journal.decisions()[-1]
    assert (row["would_stop"], row["audited"], row["decision"]) == (1, 1, "continue")


def test_the_last_epoch_completes_a_trial_without_a_decision(journal):
    driver = Driver(journal)
    for epoch in range(1, 8):
        assert driver.report(T3, epoch) == GO_ON
    assert driver.report(T3, 8) == STOP
    assert [row["rung_epochs"] for row in journal.decisions()] == [1, 2, 4]
    assert journal.counts()["completed"] == 1
    assert driver.ended == [T3]


def test_a_second_decision_on_one_rung_cannot_be_stored(journal):
    """The journal's own guard, should the scheduler ever forget."""
    driver = Driver(journal)
    driver.report(T1, 1, val_error_pct=40.0)
    row = journal.decisions()[0]
    again = DecisionRow(**{name: row[name] for name in DecisionRow.__dataclass_fields__})
    epoch = driver.scheduler._epoch_row(T1, result(T1, 2))
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        journal.record(epoch, again, "running")
    assert epochs(journal) == [(T1, 1, 40.0)]
