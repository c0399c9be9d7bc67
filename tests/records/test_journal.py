"""The journal: all or nothing, one row a trial and epoch, and what a killed driver leaves."""

import math
import os
import signal
import sqlite3
import subprocess
import sys

import pytest

from sweep.records import DecisionRow, EpochRow, Journal, TrialRow, find_run, from_journal, read_tables, write_tables
from sweep.spaces import Architecture, Stage

ARCHITECTURE = Architecture(stages=(Stage(depth=2, width=16, group_width=8), Stage(1, 32, 8)), stem_width=8)
META = {"study": {"name": "unit", "seed": 0}, "study_hash": "0" * 12, "git_commit": None}


def trial_row(number: int, **changes) -> TrialRow:
    fields = {
        "trial_id": f"anynet_c-small-{number:04d}", "launch_order": number, "space": "anynet_c", "scale": "small",
        "cohort": "anynet_c/small", "draw": number, "architecture_id": ARCHITECTURE.id,
        "architecture": ARCHITECTURE.to_json(), "flops": 1000, "params": 100, "activations": 10,
        "seed": number, "audited": False,
    }  # fmt: skip
    return TrialRow(**{**fields, **changes})


def epoch_row(trial_id: str, epoch: int, error: float = 20.0, **changes) -> EpochRow:
    fields = {
        "train_loss": 1.0, "val_loss": 0.9, "learning_rate": 0.1, "train_time_s": 2.0, "eval_time_s": 0.5,
        "host": "here", "attempt": 1,
    }  # fmt: skip
    return EpochRow(trial_id=trial_id, epoch=epoch, val_error_pct=error, **{**fields, **changes})


def decision_row(trial_id: str, rung: int, error: float | None, would_stop: bool) -> DecisionRow:
    return DecisionRow(
        trial_id, "anynet_c/small", rung, error, 15.0, would_stop, False, "stop" if would_stop else "continue"
    )


@pytest.fixture
def journal(tmp_path):
    with Journal.create(tmp_path, META, [trial_row(number) for number in range(4)]) as opened:
        yield opened


def test_results_and_decisions_come_back_exactly(journal):
    error = 100 / 3
    journal.start_attempt("anynet_c-small-0000")
    journal.record(
        epoch_row("anynet_c-small-0000", 1, error), decision_row("anynet_c-small-0000", 1, error, False), "running"
    )
    assert journal.epochs()[0]["val_error_pct"] == error
    assert journal.decisions()[0]["error_pct"] == error
    assert journal.counts() == {
        "pending": 3, "running": 1, "completed": 0, "stopped": 0, "diverged": 0, "failed": 0
    }  # fmt: skip


def test_an_epoch_cannot_stand_twice_and_takes_nothing_with_it(journal):
    journal.record(epoch_row("anynet_c-small-0000", 1), None, "running")
    with pytest.raises(sqlite3.IntegrityError):
        journal.record(epoch_row("anynet_c-small-0000", 1), None, "completed")
    assert journal.counts()["running"] == 1
    assert journal.num_epochs() == 1


def test_a_refused_decision_takes_its_epoch_back(journal):
    journal.record(epoch_row("anynet_c-small-0000", 1), decision_row("anynet_c-small-0000", 1, 20.0, False), "running")
    with pytest.raises(sqlite3.IntegrityError):
        journal.record(
            epoch_row("anynet_c-small-0000", 2), decision_row("anynet_c-small-0000", 1, 20.0, False), "running"
        )
    assert journal.num_epochs() == 1


def test_what_is_not_finite_is_null(journal):
    journal.record(
        epoch_row("anynet_c-small-0000", 1, math.nan, train_loss=math.inf),
        decision_row("anynet_c-small-0000", 1, math.nan, True),
        "diverged",
    )
    row = journal.epochs()[0]
    assert row["val_error_pct"] is None
    assert row["train_loss"] is None
    assert journal.decisions()[0]["error_pct"] is None


def test_unfinished_trials_come_begun_ones_first(journal):
    journal.start_attempt("anynet_c-small-0002")
    journal.record(epoch_row("anynet_c-small-0001", 1), None, "completed")
    journal.fail("anynet_c-small-0003", "the machine caught fire")
    assert [row["trial_id"][-1] for row in journal.unfinished()] == ["2", "0"]


def test_the_best_is_of_those_that_trained_to_the_end(journal):
    for number, (error, outcome) in enumerate([(12.0, "stopped"), (15.0, "completed"), (14.0, "completed")]):
        journal.record(epoch_row(f"anynet_c-small-{number:04d}", 3, error), None, outcome)
    assert journal.best_completed()["trial_id"].endswith("2")


def test_a_second_journal_is_refused(journal, tmp_path):
    with pytest.raises(FileExistsError):
        Journal.create(tmp_path, META, [])


@pytest.mark.parametrize("content", [b"", b"not a database at all, but long enough to look like a file" * 40])
def test_a_broken_journal_is_named(tmp_path, content):
    (tmp_path / "journal.sqlite").write_bytes(content)
    with pytest.raises(ValueError, match="journal"):
        Journal.open(tmp_path)


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


def test_what_was_committed_outlives_a_kill(journal, tmp_path):
    """A process that is killed in the middle of writing leaves whole epochs, counted from 1 without a gap."""
    script = f"""
import sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from pathlib import Path
from test_journal import Journal, decision_row, epoch_row
journal = Journal.open(Path({str(tmp_path)!r}))
for epoch in range(1, 100_000):
    decision = decision_row("anynet_c-small-0000", epoch, 1.0, False)
    journal.record(epoch_row("anynet_c-small-0000", epoch), decision, "running")
    print(epoch, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        printed = [int(writer.stdout.readline()) for _ in range(50)]
        writer.send_signal(signal.SIGKILL)
        printed += [int(line) for line in writer.stdout.read().split()]
    epochs = [row["epoch"] for row in journal.epochs()]
    assert epochs == list(range(1, len(epochs) + 1))
    assert len(epochs) >= max(printed)  # nothing that was acted on is missing
    assert [row["rung_epochs"] for row in journal.decisions()] == epochs


def test_tables_tell_what_became_of_each_trial(journal, tmp_path):
    journal.start_attempt("anynet_c-small-0000")
    for epoch in (1, 2):
        stopped = epoch == 2
        journal.record(
            epoch_row("anynet_c-small-0000", epoch, 30.0 - epoch),
            decision_row("anynet_c-small-0000", epoch, 30.0 - epoch, stopped),
            "stopped" if stopped else "running",
        )
    journal.fail("anynet_c-small-0001", "the machine caught fire")
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
