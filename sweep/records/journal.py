"""The journal: the memory of one sweep, a SQLite file in WAL mode (DESIGN, sections 3 and 5).

In: the drawn population, then each epoch's result and each rung decision in the order of their arrival.
Out: what is unfinished, the rungs as they stood, and the rows that the tables are written from.

One transaction holds an epoch's result, the decision that it led to and the trial's outcome; it is committed
before anything acts on it. So a driver killed at any moment leaves a journal from which the sweep goes on with
each trial once. Columns named `delivered…` are the outbox: what the tracking server has not been told yet.

Reading it from outside (any SQLite client):

* `trials`: one row a trial; `outcome` is pending, running, completed, stopped, diverged or failed.
* `epochs`: one row a trial and epoch. Losses and errors that were not finite are NULL.
* `decisions`: one row a trial and rung, `arrival` counts them in order. `error_pct` NULL ranks as the worst.
  `would_stop` is what the rule said (sweep/scheduling/asha.py) given the earlier arrivals of the same cohort and
  rung; `decision` is what was done: a trial of the audit lottery continues all the same.
"""

import json
import math
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
FILE_NAME = "journal.sqlite"

PENDING, RUNNING = "pending", "running"
COMPLETED, STOPPED, DIVERGED, FAILED = "completed", "stopped", "diverged", "failed"
ENDED = (COMPLETED, STOPPED, DIVERGED, FAILED)

# Keys of the meta that say how this run directory stands, not what the sweep is: no reader of its results needs
# them, and a recovered journal makes its own.
ARRIVALS_DELIVERED, ORIGIN_DELIVERED = "arrivals_delivered", "origin_delivered"
PRIVATE_META = ("stop_requested", "tracking_close", "tracking_error", ARRIVALS_DELIVERED, ORIGIN_DELIVERED)

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE trials (
    trial_id TEXT PRIMARY KEY,
    launch_order INTEGER NOT NULL UNIQUE,
    space TEXT NOT NULL, scale TEXT NOT NULL, cohort TEXT NOT NULL, draw INTEGER NOT NULL,
    architecture_id TEXT NOT NULL, architecture TEXT NOT NULL,
    flops INTEGER NOT NULL, params INTEGER NOT NULL, activations INTEGER NOT NULL,
    seed INTEGER NOT NULL, audited INTEGER NOT NULL,
    outcome TEXT NOT NULL DEFAULT 'pending',
    attempts INTEGER NOT NULL DEFAULT 0,
    failure TEXT, started_at_ms INTEGER, ended_at_ms INTEGER,
    run_id TEXT, delivered_outcome TEXT
);
CREATE TABLE epochs (
    trial_id TEXT NOT NULL REFERENCES trials, epoch INTEGER NOT NULL,
    train_loss REAL, val_loss REAL, val_error_pct REAL, learning_rate REAL NOT NULL,
    train_time_s REAL NOT NULL, eval_time_s REAL NOT NULL,
    host TEXT NOT NULL, attempt INTEGER NOT NULL, recorded_at_ms INTEGER NOT NULL,
    delivered INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (trial_id, epoch)
) WITHOUT ROWID;
CREATE INDEX undelivered_epochs ON epochs (trial_id) WHERE delivered = 0;
CREATE TABLE decisions (
    arrival INTEGER PRIMARY KEY AUTOINCREMENT,
    trial_id TEXT NOT NULL REFERENCES trials, cohort TEXT NOT NULL, rung_epochs INTEGER NOT NULL,
    error_pct REAL, cutoff_pct REAL, would_stop INTEGER NOT NULL, audited INTEGER NOT NULL,
    decision TEXT NOT NULL, decided_at_ms INTEGER NOT NULL,
    UNIQUE (trial_id, rung_epochs)
);
"""


@dataclass(frozen=True)
class TrialRow:
    """A trial as it is drawn, before anything starts. `seed` sets its initial weights and its batches."""

    trial_id: str
    launch_order: int
    space: str
    scale: str
    cohort: str
    draw: int
    architecture_id: str
    architecture: str
    flops: int
    params: int
    activations: int
    seed: int
    audited: bool


@dataclass(frozen=True)
class EpochRow:
    """One epoch of one trial; losses in nats, the error in percent of the validation images, times in seconds."""

    trial_id: str
    epoch: int
    train_loss: float
    val_loss: float
    val_error_pct: float
    learning_rate: float
    train_time_s: float
    eval_time_s: float
    host: str
    attempt: int


@dataclass(frozen=True)
class DecisionRow:
    """What the rule said of a trial at a rung and what was done; `error_pct` None ranks as the worst."""

    trial_id: str
    cohort: str
    rung_epochs: int
    error_pct: float | None
    cutoff_pct: float | None
    would_stop: bool
    audited: bool
    decision: str


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _finite(row: EpochRow | DecisionRow) -> dict[str, Any]:
    """The row as a dict, its NaN and infinities as None: SQLite has no NaN, and JSON and MLflow no infinity."""
    values = asdict(row)
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def find_run(run: str | Path) -> Path:
    """A run directory by its path, or by its name under `runs`."""
    for path in (Path(run), Path("runs") / run):
        if path.is_dir():
            return path.resolve()
    raise ValueError(f"run: {str(run)!r} is no run directory; name the one that `sweep launch` printed")


class Journal:
    """One connection to a sweep's journal. Not shared between threads: each opens its own.

    Raises `FileExistsError` from `create` if there is one already, `ValueError` from `open` if the file is missing,
    is not a journal or was written by another schema version.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection):
        self.path = path
        self._db = connection
        self._db.row_factory = sqlite3.Row

    @classmethod
    def create(cls, run_dir: Path, meta: Mapping[str, Any], trials: Iterable[TrialRow]) -> "Journal":
        """The journal appears whole or not at all: it is filled under another name and then renamed."""
        return cls.restore(run_dir, {"created_at_ms": now_ms(), **meta}, map(asdict, trials), (), ())

    @classmethod
    def restore(
        cls,
        run_dir: Path,
        meta: Mapping[str, Any],
        trials: Iterable[Mapping[str, Any]],
        epochs: Iterable[Mapping[str, Any]],
        decisions: Iterable[Mapping[str, Any]],
    ) -> "Journal":
        """A journal as it stood: rows of the three tables by the names of their columns, the decisions in the order
        of their arrival. Appears whole or not at all, as with `create`."""
        path = run_dir / FILE_NAME
        if path.exists():
            raise FileExistsError(f"{path} exists already")
        draft = run_dir / f".{FILE_NAME}.{os.getpid()}"
        draft.unlink(missing_ok=True)
        with closing(sqlite3.connect(draft)) as db:
            db.executescript(_SCHEMA)
            journal = cls(draft, db)
            with db:
                journal._set_meta({"schema_version": SCHEMA_VERSION, **meta})
                for table, rows in (("trials", trials), ("epochs", epochs), ("decisions", decisions)):
                    journal._insert(table, rows)
        # A log that a lost journal of this name left behind would be read into this one.
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        os.replace(draft, path)
        return cls.open(run_dir)

    @classmethod
    def open(cls, run_dir: Path, *, read_only: bool = False) -> "Journal":
        path = run_dir / FILE_NAME
        if not path.is_file():
            raise ValueError(
                f"run: {str(run_dir)!r} holds no {FILE_NAME}; name the directory that `sweep launch` printed"
            )
        db = sqlite3.connect(path, timeout=30, isolation_level=None)
        try:
            version = db.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
        except sqlite3.DatabaseError as error:
            db.close()
            raise ValueError(
                f"run: {str(path)!r} cannot be read as a journal ({error}); restore it from a copy, "
                "or launch into another run directory"
            ) from error
        if version is None or json.loads(version[0]) != SCHEMA_VERSION:
            db.close()
            found = version and version[0]
            raise ValueError(
                f"run: {str(path)!r} has schema version {found}, this program reads {SCHEMA_VERSION}; "
                "use the version of designspace-sweep that wrote it"
            )
        if read_only:
            db.execute("PRAGMA query_only = ON")
        else:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
        return cls(path, db)

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # IMMEDIATE takes the write lock at once, so two writers wait for each other instead of failing at commit.
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # -- meta ------------------------------------------------------------------------------------------------

    def meta(self) -> dict[str, Any]:
        return {row["key"]: json.loads(row["value"]) for row in self._db.execute("SELECT key, value FROM meta")}

    def get(self, key: str, default: Any = None) -> Any:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return default if row is None else json.loads(row[0])

    def set_meta(self, **values: Any) -> None:
        with self._transaction():
            self._set_meta(values)

    def _set_meta(self, values: Mapping[str, Any]) -> None:
        self._db.executemany(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [(key, json.dumps(value)) for key, value in values.items()],
        )

    # -- the sweep goes on ---------------------------------------------------------------------------------------

    def _insert(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            columns, values = ", ".join(row), ", ".join(f":{column}" for column in row)
            self._db.execute(f"INSERT INTO {table} ({columns}) VALUES ({values})", row)

    def start_attempt(self, trial_id: str) -> int:
        """The trial is about to train; answers the number of this attempt, from 1."""
        with self._transaction():
            self._db.execute(
                "UPDATE trials SET outcome = 'running', attempts = attempts + 1,"
                " started_at_ms = coalesce(started_at_ms, ?) WHERE trial_id = ?",
                (now_ms(), trial_id),
            )
            return self._db.execute("SELECT attempts FROM trials WHERE trial_id = ?", (trial_id,)).fetchone()[0]

    def last_epoch(self, trial_id: str) -> int:
        """The last epoch that is committed, 0 for none."""
        return self._db.execute(
            "SELECT coalesce(max(epoch), 0) FROM epochs WHERE trial_id = ?", (trial_id,)
        ).fetchone()[0]

    def record(self, epoch: EpochRow, decision: DecisionRow | None, outcome: str) -> None:
        """Commit an epoch, the decision taken on it and the trial's outcome, all or none."""
        with self._transaction():
            moment = now_ms()
            self._insert("epochs", [_finite(epoch) | {"recorded_at_ms": moment}])
            if decision is not None:
                self._insert("decisions", [_finite(decision) | {"decided_at_ms": moment}])
            self._end(epoch.trial_id, outcome, None, moment)

    def fail(self, trial_id: str, failure: str) -> None:
        """The trial ends as failed, for a reason that is not the network's; `failure` says which."""
        with self._transaction():
            self._end(trial_id, FAILED, failure, now_ms())

    def _end(self, trial_id: str, outcome: str, failure: str | None, moment: int) -> None:
        self._db.execute(
            "UPDATE trials SET outcome = ?, failure = ?, ended_at_ms = ? WHERE trial_id = ?",
            (outcome, failure, moment if outcome in ENDED else None, trial_id),
        )

    # -- reading -------------------------------------------------------------------------------------------------

    def trials(self, where: str = "1") -> list[sqlite3.Row]:
        return self._db.execute(f"SELECT * FROM trials WHERE {where} ORDER BY launch_order").fetchall()

    def unfinished(self) -> list[sqlite3.Row]:
        """Trials that have not ended, those that had begun first, then the others in launch order."""
        return self._db.execute(
            "SELECT * FROM trials WHERE outcome IN ('pending', 'running') ORDER BY outcome = 'pending', launch_order"
        ).fetchall()

    def epochs(self) -> list[sqlite3.Row]:
        return self._db.execute(
            "SELECT * FROM epochs JOIN trials USING (trial_id) ORDER BY launch_order, epoch"
        ).fetchall()

    def decisions(self) -> list[sqlite3.Row]:
        """All rung decisions in the order of their arrival."""
        return self.decisions_after(0)

    def decisions_after(self, arrival: int) -> list[sqlite3.Row]:
        return self._db.execute("SELECT * FROM decisions WHERE arrival > ? ORDER BY arrival", (arrival,)).fetchall()

    def counts(self) -> dict[str, int]:
        """Number of trials by outcome; every outcome is a key."""
        counts = dict.fromkeys((PENDING, RUNNING, *ENDED), 0)
        counts.update(self._db.execute("SELECT outcome, count(*) FROM trials GROUP BY outcome").fetchall())
        return counts

    def num_epochs(self) -> int:
        return self._db.execute("SELECT count(*) FROM epochs").fetchone()[0]

    def best_completed(self) -> sqlite3.Row | None:
        """The last epoch of the trial with the lowest error among those that trained to the end."""
        return self._db.execute(
            "SELECT trials.*, epochs.epoch, epochs.val_error_pct FROM trials JOIN epochs USING (trial_id)"
            " WHERE outcome = 'completed'"
            " AND epoch = (SELECT max(epoch) FROM epochs AS other WHERE other.trial_id = trials.trial_id)"
            " ORDER BY val_error_pct, trial_id LIMIT 1"
        ).fetchone()

    def arrivals_by_rung(self) -> dict[int, int]:
        """Number of trials that a decision was taken on, by the epochs of the rung."""
        return dict(
            self._db.execute("SELECT rung_epochs, count(*) FROM decisions GROUP BY rung_epochs ORDER BY 1").fetchall()
        )

    def time_span_ms(self) -> tuple[int | None, int | None]:
        """When the first trial started and the last epoch came in."""
        return self._db.execute(
            "SELECT (SELECT min(started_at_ms) FROM trials), (SELECT max(recorded_at_ms) FROM epochs)"
        ).fetchone()

    # -- the outbox: what the tracking server has not been told -------------------------------------------------------

    def mark_epochs_delivered(self, keys: Iterable[tuple[str, int]]) -> None:
        with self._transaction():
            self._db.executemany("UPDATE epochs SET delivered = 1 WHERE trial_id = ? AND epoch = ?", list(keys))

    def mark_outcome_delivered(self, trial_id: str, outcome: str) -> None:
        with self._transaction():
            self._db.execute("UPDATE trials SET delivered_outcome = ? WHERE trial_id = ?", (outcome, trial_id))

    def set_run_id(self, trial_id: str, run_id: str) -> None:
        with self._transaction():
            self._db.execute("UPDATE trials SET run_id = ? WHERE trial_id = ?", (run_id, trial_id))

    def undelivered_trials(self, *, running_as: str) -> list[sqlite3.Row]:
        """Trials that the tracking server has not been told of in full; `running_as` is what it is to be told of
        those that have not ended."""
        return self._db.execute(
            "SELECT * FROM trials WHERE outcome != 'pending' AND ("
            " (CASE outcome WHEN 'running' THEN ? ELSE outcome END) IS NOT delivered_outcome"
            " OR trial_id IN (SELECT trial_id FROM epochs WHERE delivered = 0)) ORDER BY launch_order",
            (running_as,),
        ).fetchall()

    def last_host_of(self, trial_id: str) -> str | None:
        """The host that trained the trial's last epoch."""
        row = self._db.execute(
            "SELECT host FROM epochs WHERE trial_id = ? ORDER BY epoch DESC LIMIT 1", (trial_id,)
        ).fetchone()
        return row and row[0]

    def undelivered_epochs_of(self, trial_id: str) -> list[sqlite3.Row]:
        return self._db.execute(
            "SELECT * FROM epochs WHERE delivered = 0 AND trial_id = ? ORDER BY epoch", (trial_id,)
        ).fetchall()

    def num_undelivered(self) -> int:
        """Epochs and outcomes that the tracking server has not been told; one told as interrupted counts as told."""
        return self._db.execute(
            "SELECT (SELECT count(*) FROM epochs WHERE delivered = 0) + (SELECT count(*) FROM trials"
            " WHERE outcome != 'pending' AND outcome IS NOT delivered_outcome"
            " AND NOT (outcome = 'running' AND delivered_outcome IS 'interrupted'))"
        ).fetchone()[0]

    def forget_delivery(self) -> None:
        """Take back every mark: the tracking server is another one, or lost what it knew."""
        with self._transaction():
            self._db.execute("UPDATE trials SET run_id = NULL, delivered_outcome = NULL")
            self._db.execute("UPDATE epochs SET delivered = 0 WHERE delivered = 1")
            self._db.execute("DELETE FROM meta WHERE key IN (?, ?)", (ARRIVALS_DELIVERED, ORIGIN_DELIVERED))
