"""Rows for a journal, small and plain, and questions to it in SQL of our own (import as `records.rows`).

Trials are named `anynet_c-small-0000` and so on.
"""

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sweep.records import DecisionRow, EpochRow, Journal, TrialRow
from sweep.spaces import Architecture, Stage

ARCHITECTURE = Architecture(stages=(Stage(depth=2, width=16, group_width=8), Stage(1, 32, 8)), stem_width=8)
META = {"study": {"name": "unit", "seed": 0, "spaces": ["anynet_c"]}, "study_hash": "0" * 12, "git_commit": None}
T0, T1, T2, T3 = (f"anynet_c-small-{draw:04d}" for draw in range(4))


def trial_row(number: int, **changes: Any) -> TrialRow:
    fields = {
        "trial_id": f"anynet_c-small-{number:04d}", "launch_order": number, "space": "anynet_c", "scale": "small",
        "cohort": "anynet_c/small", "draw": number, "architecture_id": ARCHITECTURE.id,
        "architecture": ARCHITECTURE.to_json(), "flops": 1000, "params": 100, "activations": 10,
        "seed": number, "audited": False, "audited_if_worst": changes.get("audited", False),
    }  # fmt: skip
    return TrialRow(**{**fields, **changes})


def epoch_row(trial_id: str, epoch: int, error: float = 20.0, **changes: Any) -> EpochRow:
    fields = {
        "train_loss": 1.0, "val_loss": 0.9, "learning_rate": 0.1, "train_time_s": 2.0, "eval_time_s": 0.5,
        "host": "here", "attempt": 1,
    }  # fmt: skip
    return EpochRow(trial_id=trial_id, epoch=epoch, val_error_pct=error, **{**fields, **changes})


def decision_row(trial_id: str, rung: int, error: float | None, would_stop: bool | None = False) -> DecisionRow:
    decision = "pause" if would_stop is None else "stop" if would_stop else "continue"
    return DecisionRow(trial_id, "anynet_c/small", rung, error, 15.0, would_stop, False, False, decision)


def make_journal(run_dir: Path, num: int = 4) -> Journal:
    run_dir.mkdir(parents=True, exist_ok=True)
    return Journal.create(run_dir, META, [trial_row(number) for number in range(num)])


@contextmanager
def memory_folder(otherwise: Path) -> Iterator[Path]:
    """A folder in memory, where the system has room for it: each commit waits for the disk, which is not what is
    tested, and can be slow."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield otherwise
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="sweep-tests-") as folder:
        yield Path(folder)


def ask(run_dir: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Asks the file itself; what it changes stays changed."""
    with closing(sqlite3.connect(run_dir / "journal.sqlite", isolation_level=None, timeout=30)) as db:
        return db.execute(query, values).fetchall()


def count(run_dir: Path) -> dict[str, int]:
    """Number of rows of each table."""
    tables = ("meta", "trials", "epochs", "decisions", "promotions", "closings", "events")
    return {table: ask(run_dir, f"SELECT count(*) FROM {table}")[0][0] for table in tables}


def marked_commits(run_dir: Path) -> int:
    return int((run_dir / ".journal-commits").read_bytes()[:20])


def content(run_dir: Path) -> list[list[tuple[Any, ...]]]:
    """All rows of all tables."""
    tables = [name for (name,) in ask(run_dir, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    return [ask(run_dir, f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]


WRITES: dict[str, Callable[[Journal], Any]] = {
    "set_meta": lambda journal: journal.set_meta(stop_requested=True),
    "start_attempt": lambda journal: journal.start_attempt(T1, 1),
    "record": lambda journal: journal.record(epoch_row(T0, 2), decision_row(T0, 2, 20.0), "running"),
    "leave": lambda journal: journal.leave(T0, "cancelled", lost=[(1, T0)]),
    "fail": lambda journal: journal.fail(T0, "user", "raised", by_user=True, again=False),
    "close_waiting": lambda journal: journal.close_waiting([(1, T0)]),
    "set_checkpoint": lambda journal: journal.set_checkpoint(T0, 1, "ab"),
    "note": lambda journal: journal.note("kind", "message"),
    "ask_to_cancel": lambda journal: journal.ask_to_cancel(T0),
    "record_look": lambda journal: journal.record_look({"number": 1, "num_known": 4}, "seen", decides_all=True),
    "cancel_pending": lambda journal: journal.cancel_pending([T3], "not needed"),
    "add_trials": lambda journal: journal.add_trials([trial_row(9)]),
    "beat": lambda journal: journal.beat(),
    "release_lease": lambda journal: journal.release_lease(),
    "mark_delivered": lambda journal: journal.mark_delivered(T0, [1], "running"),
    "set_run_id": lambda journal: journal.set_run_id(T0, "run"),
    "forget_trial_delivery": lambda journal: journal.forget_trial_delivery(T2, run_is_gone=True),
    "forget_delivery": lambda journal: journal.forget_delivery(),
}
"""Each method that writes, with arguments that change something in a journal in which T0 has one epoch."""
