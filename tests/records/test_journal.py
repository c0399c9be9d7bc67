"""The journal: all or nothing, one row a trial and epoch, moments that never go back, and the guard against others."""

import inspect
import math
import select
import sqlite3
import time

import pytest
from records.other_process import OtherProcess
from records.rows import (
    META,
    T0,
    T1,
    T2,
    T3,
    WRITES,
    ask,
    content,
    count,
    decision_row,
    epoch_row,
    make_journal,
    marked_commits,
    trial_row,
)

from sweep.records import Journal, find_run, from_journal, read_tables, write_tables
from sweep.records import journal_file as journal_module
from sweep.records.journal import LeaseLostError


@pytest.fixture
def journal(tmp_path):
    with make_journal(tmp_path) as opened:
        yield opened


def test_results_and_decisions_come_back_exactly(journal):
    error = 100 / 3
    journal.start_attempt(T0, 1)
    journal.record(epoch_row(T0, 1, error, checkpoint="ab"), decision_row(T0, 1, error), "running")
    assert journal.epochs()[0]["val_error_pct"] == error
    assert journal.decisions()[0]["error_pct"] == error
    assert journal.checkpoints(T0) == {1: "ab"}
    assert journal.counts() == {
        "pending": 3, "running": 1, "paused": 0, "completed": 0, "stopped": 0, "diverged": 0, "failed": 0,
        "cancelled": 0,
    }  # fmt: skip


def test_an_epoch_cannot_stand_twice_and_takes_nothing_with_it(journal):
    journal.record(epoch_row(T0, 1), None, "running")
    with pytest.raises(sqlite3.IntegrityError):
        journal.record(epoch_row(T0, 1), decision_row(T0, 1, 20.0), "completed", earned=[(1, T1)])
    assert journal.counts()["running"] == 1
    assert (journal.num_epochs(), journal.decisions(), journal.promotions()) == (1, [], [])


@pytest.mark.parametrize("twice", ["decision", "place"])
def test_a_refused_decision_or_place_takes_its_epoch_back(journal, twice):
    journal.record(epoch_row(T0, 1), decision_row(T0, 1, 20.0), "running", earned=[(1, T0)])
    decision = decision_row(T0, 1 if twice == "decision" else 2, 20.0)
    with pytest.raises(sqlite3.IntegrityError):
        journal.record(epoch_row(T0, 2), decision, "running", earned=[(1, T0)] if twice == "place" else [])
    assert (journal.num_epochs(), len(journal.decisions()), len(journal.promotions())) == (1, 1, 1)


def test_what_is_not_finite_is_null(journal):
    journal.record(epoch_row(T0, 1, math.nan, train_loss=math.inf), decision_row(T0, 1, math.nan, True), "diverged")
    row = journal.epochs()[0]
    assert row["val_error_pct"] is None
    assert row["train_loss"] is None
    assert journal.decisions()[0]["error_pct"] is None


def test_a_place_that_is_earned_or_lost_moves_only_those_that_wait(journal):
    for trial_id, outcome in ((T0, "paused"), (T1, "paused"), (T2, "cancelled"), (T3, "running")):
        journal.record(epoch_row(trial_id, 1), decision_row(trial_id, 1, 20.0, None), outcome)
    journal.leave(T2, "cancelled", earned=[(1, T0), (1, T2)], lost=[(1, T1), (1, T3)])
    assert [row["outcome"] for row in journal.trials()] == ["running", "stopped", "cancelled", "running"]
    assert [row["would_stop"] for row in journal.decisions()] == [0, 1, 0, 1]
    assert [(row["trial_id"], row["after_arrival"]) for row in journal.promotions()] == [(T0, 4), (T2, 4)]
    assert [row["ended_at_ms"] is not None for row in journal.trials()] == [False, True, True, False]


def test_closing_is_told_apart_by_the_arrivals_before_it(journal):
    journal.record(epoch_row(T0, 1), decision_row(T0, 1, 20.0, None), "paused")
    journal.close_waiting([(1, T0)])
    journal.close_waiting([])
    assert journal.closings() == [1]
    assert journal.trial(T0)["outcome"] == "stopped"


def test_failures_are_counted_apart_and_only_the_last_one_ends_a_trial(journal):
    journal.start_attempt(T0, 1)
    journal.fail(T0, "user", "raised", by_user=True, again=True)
    journal.fail(T0, "machine", "died", by_user=False, again=True)
    journal.fail(T0, "out_of_memory", "too large", by_user=True, again=True, batch_size=64)
    row = journal.trial(T0)
    assert (row["user_failures"], row["machine_failures"], row["batch_size"]) == (2, 1, 64)
    assert (row["outcome"], row["failure"], row["ended_at_ms"]) == ("running", None, None)
    journal.ask_to_cancel(T0)
    journal.fail(T0, "machine", "died again", by_user=False, again=False)
    row = journal.trial(T0)
    assert (row["outcome"], row["failure_kind"], row["failure"]) == ("failed", "machine", "died again")
    assert (row["machine_failures"], row["batch_size"], row["cancel_requested"]) == (2, 64, 0)
    assert row["ended_at_ms"] >= row["started_at_ms"]


def test_only_what_has_not_ended_is_cancelled(journal):
    for trial_id, outcome in ((T0, "completed"), (T1, "paused"), (T2, "running")):
        journal.record(epoch_row(trial_id, 1), None, outcome)
    for trial_id in (T0, T1, T2, T3):
        journal.ask_to_cancel(trial_id)
    assert {row["trial_id"] for row in journal.to_cancel()} == {T1, T2, T3}
    assert not journal.is_finished()
    for trial_id in (T1, T2, T3):
        journal.leave(trial_id, "cancelled")
    assert journal.to_cancel() == []
    assert journal.is_finished()


def test_a_look_and_what_follows_from_it_are_one_commit(journal):
    journal.record_look({"number": 1, "num_known": 4}, "1 of 2 rules decided", decides_all=False)
    assert (len(journal.get("looks")), journal.get("decided")) == (1, None)
    journal.record_look({"number": 2, "num_known": 4}, "all 2 rules decided", decides_all=True)
    looks = journal.get("looks")
    assert [look["number"] for look in looks] == [1, 2]
    assert looks[0]["taken_at_ms"] <= looks[1]["taken_at_ms"] == journal.latest_ms()
    assert journal.get("decided") == {"look": 2, "num_trials": 4}
    assert [(row["kind"], row["message"]) for row in journal.events()] == [
        ("looked", "1 of 2 rules decided"),
        ("decided", "all 2 rules decided"),
    ]


def test_trials_that_have_not_begun_end_together(journal):
    journal.record(epoch_row(T0, 1), decision_row(T0, 1, 20.0, None), "paused")
    journal.cancel_pending([T2, T3], "2 trials", earned=[(1, T0)])
    assert [row["outcome"] for row in journal.trials()] == ["running", "pending", "cancelled", "cancelled"]
    assert {row["ended_at_ms"] for row in journal.trials("outcome = 'cancelled'")} == {journal.latest_ms()}
    assert [(row["kind"], row["trial_id"], row["message"]) for row in journal.events()] == [
        ("cancelled", None, "2 trials")
    ]


def test_on_their_way_are_those_of_the_first_that_have_neither_ended_nor_come_so_far(journal):
    assert journal.num_on_their_way(4, {"small": 1}) == 4
    journal.record(epoch_row(T0, 1), None, "running")
    journal.record(epoch_row(T1, 1), None, "paused")
    journal.leave(T3, "cancelled")
    assert [journal.num_on_their_way(num, {"small": 1}) for num in range(5)] == [0, 0, 0, 1, 1]
    assert journal.num_on_their_way(4, {"small": 2, "large": 1}) == 3


def test_trials_are_added_all_or_none(journal):
    with pytest.raises(sqlite3.IntegrityError):
        journal.add_trials([trial_row(4), trial_row(3)], extensions=[{"spaces": ["anynet_c"], "trials": 2}])
    assert (len(journal.trials()), journal.get("extensions")) == (4, None)
    journal.add_trials(iter([trial_row(4), trial_row(5)]), extensions=[{"spaces": ["anynet_c"], "trials": 2}])
    assert journal.next_pending(3)["trial_id"] == "anynet_c-small-0004"
    assert journal.get("extensions") == [{"spaces": ["anynet_c"], "trials": 2}]


def test_the_best_are_of_those_that_trained_to_the_end(journal):
    outcomes = [(12.0, "stopped"), (15.0, "completed"), (14.0, "completed"), (math.nan, "completed")]
    for number, (error, outcome) in enumerate(outcomes):
        journal.record(epoch_row(f"anynet_c-small-{number:04d}", 3, error), None, outcome)
    assert journal.best_trials(5) == [(14.0, T2), (15.0, T1)]
    assert journal.best_trials(1) == [(14.0, T2)]


def test_a_second_journal_is_refused(journal, tmp_path):
    journal.note("known", "before")
    with pytest.raises(FileExistsError):
        Journal.create(tmp_path, META, [])
    assert count(tmp_path)["trials"] == 4
    assert count(tmp_path)["events"] == 1
    assert sorted(path.name for path in tmp_path.glob(".journal.sqlite*")) == []


def test_of_two_processes_that_create_at_once_one_does(tmp_path):
    with OtherProcess() as first, OtherProcess() as second:
        for number in range(15):
            run_dir = tmp_path / str(number)
            run_dir.mkdir()
            moment_s = time.monotonic() + 0.005
            for who, process in (("first", first), ("second", second)):
                process.send(f"at({moment_s!r}, create, {str(run_dir)!r}, {who!r})")
            answers = [first.answer(), second.answer()]
            winners = [answer for answer in answers if answer in ("first", "second")]
            assert len(winners) == 1, answers
            assert sum("FileExistsError" in answer for answer in answers) == 1
            with Journal.open(run_dir) as journal:
                journal.check_whole()
                assert journal.get("who") == winners[0]
                assert [row["message"] for row in journal.events()] == [f"{winners[0]} {n}" for n in range(3)]


def test_of_two_that_create_the_one_that_began_first_does(tmp_path):
    """The other one must not clear away, meanwhile, what belongs to the first."""
    with OtherProcess() as other:
        assert other.ask("META") == META  # it is awake

        def trials():
            yield trial_row(0)
            other.send(f"create({str(tmp_path)!r}, 'other')")
            readable, _, _ = select.select([other.process.stdout], [], [], 0.5)
            assert not readable, other.answer()
            yield trial_row(1)

        with Journal.create(tmp_path, META, trials()) as journal:
            journal.note("kept", "in the log")
            assert "FileExistsError" in other.answer()
            assert len(journal.trials()) == 2
    with Journal.open(tmp_path) as journal:
        journal.check_whole()
        assert len(journal.events()) == 1


def test_what_a_lost_journal_left_behind_is_not_read_into_a_new_one(tmp_path):
    with make_journal(tmp_path) as journal:
        journal.note("old", "in the log")
        (tmp_path / "journal.sqlite").unlink()
        with make_journal(tmp_path) as fresh:
            fresh.check_whole()
            assert fresh.events() == []


def test_a_failed_creation_leaves_nothing(tmp_path):
    def trials():
        yield trial_row(0)
        raise ValueError("no more networks")

    with pytest.raises(ValueError, match="no more networks"):
        Journal.create(tmp_path, META, trials())
    assert list(tmp_path.iterdir()) == []


def test_a_journal_of_another_version_is_refused(journal, tmp_path):
    journal.set_meta(schema_version=99)
    with pytest.raises(ValueError, match="schema version 99"):
        Journal.open(tmp_path)


def test_a_missing_journal_and_a_missing_run_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds no journal\.sqlite"):
        Journal.open(tmp_path)
    with pytest.raises(ValueError, match="no run directory"):
        find_run(tmp_path / "nothing")


def test_a_read_only_connection_cannot_write(journal, tmp_path):
    with Journal.open(tmp_path, read_only=True) as reader, pytest.raises(sqlite3.OperationalError):
        reader.set_meta(stop_requested=True)


# -- moments -------------------------------------------------------------------------------------------------------


def test_moments_never_go_back_where_the_clock_does(tmp_path, monkeypatch):
    hour_ms = 3_600_000
    with make_journal(tmp_path) as journal:
        journal.start_attempt(T0, 1)
        journal.record(epoch_row(T0, 1), decision_row(T0, 1, 20.0), "running", earned=[(1, T0)])
        before = journal_module.now_ms()
        monkeypatch.setattr(journal_module, "now_ms", lambda: before - hour_ms)
        journal.record(epoch_row(T0, 2), decision_row(T0, 2, 20.0), "running", earned=[(2, T0)])
        journal.start_attempt(T1, 1)
        journal.note("something", "happened")
        journal.close_waiting([])
        journal.fail(T1, "user", "raised", by_user=True, again=False)
    with Journal.open(tmp_path) as journal:  # nor in another process
        journal.record(epoch_row(T0, 3), None, "completed")
        monkeypatch.setattr(journal_module, "now_ms", lambda: before + hour_ms)
        journal.record(epoch_row(T2, 1), None, "running")
    moments = ask(tmp_path, "SELECT recorded_at_ms FROM epochs ORDER BY trial_id, epoch")
    assert moments == sorted(moments)
    assert moments[-1] == (before + hour_ms,)
    others = (
        "SELECT decided_at_ms FROM decisions UNION ALL SELECT promoted_at_ms FROM promotions UNION ALL"
        " SELECT closed_at_ms FROM closings UNION ALL SELECT at_ms FROM events UNION ALL"
        " SELECT started_at_ms FROM trials WHERE attempts UNION ALL SELECT ended_at_ms FROM trials WHERE ended_at_ms"
    )
    created = ask(tmp_path, "SELECT value FROM meta WHERE key = 'created_at_ms'")[0][0]
    assert all(moment >= int(created) for (moment,) in ask(tmp_path, others))


def test_a_restored_journal_goes_on_after_the_last_moment_that_it_knows(tmp_path, monkeypatch):
    trials = [vars(trial_row(0))]
    epochs = [vars(epoch_row(T0, 1)) | {"recorded_at_ms": 5_000}]
    monkeypatch.setattr(journal_module, "now_ms", lambda: 1_000)
    with Journal.restore(tmp_path, META | {"created_at_ms": 10}, {"trials": trials, "epochs": epochs}) as journal:
        journal.record(epoch_row(T0, 2), None, "running")
        assert [row["recorded_at_ms"] for row in journal.epochs()] == [5_000, 5_000]


# -- full storage --------------------------------------------------------------------------------------------------


def test_a_write_waits_for_room_and_nothing_is_lost(small_disk, monkeypatch):
    monkeypatch.setattr(journal_module, "_BLOCKED_PAUSE_S", 0.01)
    reasons = []

    def blocked(reason: str) -> None:
        reasons.append(reason)
        if len(reasons) % 3 == 0:
            small_disk.free()

    with make_journal(small_disk.folder) as journal:
        journal.blocked = blocked
        for epoch in range(1, 21):
            if epoch % 7 == 0:
                small_disk.fill()
            journal.record(epoch_row(T0, epoch), decision_row(T0, epoch, 20.0), "running", earned=[(epoch, T0)])
        small_disk.fill()
        journal.add_trials((trial_row(number) for number in (4, 5, 6)), extensions=[1])
        small_disk.free()
        journal.check_whole()
    assert len(reasons) >= 6
    assert "journal.sqlite" in reasons[0]
    found = count(small_disk.folder)
    assert [found[table] for table in ("epochs", "decisions", "promotions", "trials")] == [20, 20, 20, 7]
    assert ask(small_disk.folder, "SELECT commits FROM progress") == [(21,)] == [(marked_commits(small_disk.folder),)]


def test_without_anyone_to_wait_a_full_disk_is_an_error(small_disk):
    with make_journal(small_disk.folder) as journal:
        journal.record(epoch_row(T0, 1), None, "running")
        small_disk.fill()
        with pytest.raises(sqlite3.OperationalError):
            journal.note("fill", "x" * 100_000)
        small_disk.free()
        journal.record(epoch_row(T0, 2), None, "running")
        assert journal.num_epochs() == 2


def test_a_journal_that_cannot_be_opened_for_want_of_room_is_not_called_damaged(small_disk):
    make_journal(small_disk.folder).close()
    small_disk.fill()
    with pytest.raises(ValueError, match=r"journal\.sqlite.*look for room") as caught:
        Journal.open(small_disk.folder)
    assert "recover" not in str(caught.value)
    small_disk.free()
    with Journal.open(small_disk.folder) as journal:
        journal.check_whole()


# -- fencing -------------------------------------------------------------------------------------------------------


def holder(name: str) -> dict:
    return {"owner": name, "host": "here", "pid": 1, "pid_started": 1.0}


def test_each_method_that_writes_is_tried_below():
    writers = {
        name for name, method in inspect.getmembers(Journal, inspect.isfunction)
        if not name.startswith("_") and "self._write(" in inspect.getsource(method)
    }  # fmt: skip
    assert writers - {"take_lease"} == WRITES.keys()


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_an_older_token_writes_nothing(journal, tmp_path, write):
    journal.record(epoch_row(T0, 1), decision_row(T0, 1, 20.0, None), "paused")
    journal.mark_delivered(T0, [1])
    journal.set_run_id(T2, "run")
    journal.take_lease(0, **holder("old"))
    with Journal.open(tmp_path) as other:
        assert other.take_lease(1, **holder("new")) == 2
        before = content(tmp_path)
        with pytest.raises(LeaseLostError, match=r"journal\.sqlite: another process has taken this sweep over"):
            write(journal)
        assert content(tmp_path) == before
        write(other)
        assert content(tmp_path) != before


def test_a_lease_is_taken_only_after_the_owner_that_was_seen(journal, tmp_path):
    assert journal.take_lease(0, **holder("first")) == 1
    with Journal.open(tmp_path) as other, pytest.raises(LeaseLostError):
        other.take_lease(0, **holder("second"))
    assert journal.lease()["owner"] == "first"
    journal.note("still", "mine")


# -- tables --------------------------------------------------------------------------------------------------------


def test_tables_tell_what_became_of_each_trial(journal, tmp_path):
    journal.start_attempt(T0, 1)
    for epoch in (1, 2):
        stopped = epoch == 2
        journal.record(
            epoch_row(T0, epoch, 30.0 - epoch),
            decision_row(T0, epoch, 30.0 - epoch, stopped),
            "stopped" if stopped else "running",
        )
    journal.fail(T1, "machine", "the machine caught fire", by_user=False, again=False)
    write_tables(from_journal(journal), tmp_path)
    tables = read_tables(tmp_path)
    rows = tables.trials.to_pylist()
    assert rows[0] | {
        "outcome": "stopped", "epochs_trained": 2, "stopped_at_epoch": 2, "would_stop_at_epoch": 2,
        "last_val_error_pct": 28.0, "train_time_s": 4.0, "eval_time_s": 1.0, "attempts": 1,
    } == rows[0]  # fmt: skip
    assert rows[1]["failure"] == "the machine caught fire"
    assert rows[2]["outcome"] == "pending"
    assert rows[2]["last_val_error_pct"] is None
    assert tables.architectures["depths"].to_pylist()[0] == [2, 1]
    assert tables.architectures["depth"].to_pylist()[0] == 3
    assert tables.epochs["epoch"].to_pylist() == [1, 2]
    for key in ("study", "study_hash", "git_commit", "schema_version", "tables_version"):
        assert key in tables.metadata


def test_missing_tables_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"architectures\.parquet"):
        read_tables(tmp_path)
