"""The journal: the memory of one sweep, a SQLite file in WAL mode (DESIGN, sections 3 and 5; tables in schema.py).

In: the drawn population, then each epoch's result and each rung decision in the order of their arrival.
Out: what is unfinished, the rungs as they stood, and the rows that the tables are written from.

One transaction holds an epoch's result, the decision that it led to and what becomes of the trials; it is committed
before anything acts on it. So a driver killed at any moment leaves a journal from which the sweep goes on with
each trial once. Three guards keep it so:

* Whoever trains or delivers writes under a lease (sweep/records/lease.py): each of its transactions makes sure that no
  other process has taken it over since.
* Times never go back, also where the clock does: a moment is at least the last one that was recorded.
* A mark beside the file counts the commits. A journal that knows fewer has lost some (its log was cut, or it is an
  older copy) and is refused: MLflow was told of them, and would be told again under other times.
"""

import fcntl
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from sweep.records.schema import (
    CANCELLED,
    COMPLETED,
    DIVERGED,
    ENDED,
    FAILED,
    PAUSED,
    PENDING,
    RUNNING,
    SCHEMA,
    SCHEMA_VERSION,
    STOPPED,
    UNFINISHED,
    DecisionRow,
    EpochRow,
    TrialRow,
    finite,
)

__all__ = [
    "CANCELLED",
    "COMPLETED",
    "DIVERGED",
    "ENDED",
    "FAILED",
    "PAUSED",
    "PENDING",
    "RUNNING",
    "SCHEMA_VERSION",
    "STOPPED",
    "UNFINISHED",
    "DecisionRow",
    "EpochRow",
    "Journal",
    "TrialRow",
    "find_run",
    "now_ms",
]

FILE_NAME = "journal.sqlite"
_MARK = ".journal-commits"

# Keys of the meta that say how this run directory stands, not what the sweep is: no reader of its results needs
# them, and a recovered journal makes its own.
ARRIVALS_DELIVERED, CLOSINGS_DELIVERED = "arrivals_delivered", "closings_delivered"
ORIGIN_DELIVERED = "origin_delivered"
DELIVERED = (ARRIVALS_DELIVERED, CLOSINGS_DELIVERED, ORIGIN_DELIVERED)
PRIVATE_META = ("stop_requested", "tracking_close", "tracking_error", *DELIVERED)

# What a write meets on storage that is full or cannot be written just now: it may pass, and nothing was committed.
_BLOCKED = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
_BLOCKED_PAUSE_S = 1.0
_UNREACHABLE = (*_BLOCKED, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM)

Place = tuple[int, str]
"""A rung in epochs, and a trial's id."""


class LeaseLostError(RuntimeError):
    """Another process has taken the sweep over; this one must not write any more."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _code(error: Exception) -> int:
    """SQLite's own number of an error; 0 for an error that Python found."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _remedy(run_dir: Path) -> str:
    return (
        "restore it from a copy that is as new as MLflow's records, or rebuild it from them into another directory: "
        f"sweep recover --from TRACKING_URI --parent RUN_ID --run-dir {run_dir.name}-recovered"
    )


def _marked(run_dir: Path) -> int:
    """How many commits were made in this directory, as far as is known: a mark that is damaged says nothing."""
    with suppress(OSError, ValueError):
        line = (run_dir / _MARK).read_bytes()[: len(_mark_line(0))]
        commits = int(line[:20])
        return commits if line == _mark_line(commits) else 0
    return 0


def _mark_line(commits: int) -> bytes:
    digits = b"%020d" % commits
    return b"%s %08x\n" % (digits, zlib.crc32(digits))


@contextmanager
def _alone(run_dir: Path) -> Iterator[None]:
    """One process of this host at a time may put a journal into a directory."""
    folder = os.open(run_dir, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def find_run(run: str | Path) -> Path:
    """A run directory by its path, or by its name under `runs`."""
    for path in (Path(run), Path("runs") / run):
        if path.is_dir():
            return path.resolve()
    raise ValueError(f"run: {str(run)!r} is no run directory; name the one that `sweep launch` printed")


class Journal:
    """One connection to a sweep's journal. Not shared between threads: each opens its own.

    `blocked` is called with the reason each time that a write meets full or read-only storage, and the write is tried
    again after it, for nothing of it was committed; without it such a write raises `sqlite3.OperationalError`.

    Raises `FileExistsError` from `create` if there is one already, `ValueError` from `open` if the file is missing,
    is not a journal, was written by another schema version or lost what it knew.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, *, token: int | None = None):
        self.path = path
        self.token = token
        self.blocked: Callable[[str], None] | None = None
        self._db = connection
        self._db.row_factory = sqlite3.Row
        self._mark: int | None = None

    @classmethod
    def create(cls, run_dir: Path, meta: Mapping[str, Any], trials: Iterable[TrialRow]) -> "Journal":
        """The journal appears whole or not at all: it is filled under another name and then renamed."""
        return cls.restore(run_dir, {"created_at_ms": now_ms(), **meta}, {"trials": map(vars, trials)})

    @classmethod
    def restore(
        cls, run_dir: Path, meta: Mapping[str, Any], tables: Mapping[str, Iterable[Mapping[str, Any]]]
    ) -> "Journal":
        """A journal as it stood: rows of its tables by the names of their columns, the decisions in the order of their
        arrival. Appears whole or not at all, as with `create`."""
        draft = run_dir / f".{FILE_NAME}.{os.getpid()}"
        with _alone(run_dir):
            try:
                cls._fill(draft, meta, tables)
                cls._put(draft, run_dir / FILE_NAME)
            finally:
                draft.unlink(missing_ok=True)
        return cls.open(run_dir)

    @classmethod
    def _fill(cls, draft: Path, meta: Mapping[str, Any], tables: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
        draft.unlink(missing_ok=True)
        with closing(sqlite3.connect(draft)) as db:
            db.executescript(f"BEGIN; {SCHEMA} COMMIT;")  # else the disk is waited for after each of them
            journal = cls(draft, db)
            with db:
                journal._set_meta({"schema_version": SCHEMA_VERSION, **meta})
                for table, rows in tables.items():
                    journal._insert(table, rows)
                db.execute(
                    "UPDATE progress SET latest_ms = max(?, (SELECT coalesce(max(recorded_at_ms), 0) FROM epochs),"
                    " (SELECT coalesce(max(decided_at_ms), 0) FROM decisions),"
                    " (SELECT coalesce(max(ended_at_ms), 0) FROM trials),"
                    " (SELECT coalesce(max(closed_at_ms), 0) FROM closings))",
                    (journal.get("created_at_ms", 0),),
                )

    @staticmethod
    def _put(draft: Path, path: Path) -> None:
        if path.exists():
            raise FileExistsError(f"{path} exists already")
        # What a lost journal of this name left behind: its log would be read into this one.
        for name in (f"{FILE_NAME}-wal", f"{FILE_NAME}-shm", _MARK):
            path.with_name(name).unlink(missing_ok=True)
        try:
            os.link(draft, path)  # unlike a rename it never replaces the journal of another process
        except FileExistsError:
            raise FileExistsError(f"{path} exists already") from None
        except OSError:  # a file system without links
            os.replace(draft, path)

    @classmethod
    def open(cls, run_dir: Path, *, read_only: bool = False, token: int | None = None) -> "Journal":
        """`token`: of the lease under which this connection writes; without one it may only ask for something."""
        path = run_dir / FILE_NAME
        if not path.is_file():
            raise ValueError(
                f"run: {str(run_dir)!r} holds no {FILE_NAME}; name the directory that `sweep launch` printed"
            )
        db = None
        try:
            db = sqlite3.connect(path, timeout=30, isolation_level=None)
            version = cls._version(db)
            if version == SCHEMA_VERSION:
                db.execute("PRAGMA query_only = ON" if read_only else "PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
                return cls(path, db, token=token)
        except (sqlite3.Error, ValueError) as error:
            remedy = _remedy(run_dir)
            if _code(error) in _UNREACHABLE:
                remedy = "nothing says that it is damaged: look for room on the disk and the right to read and write"
            if db is not None:
                db.close()
            raise ValueError(f"run: {str(path)!r} cannot be read as a journal ({error}); {remedy}") from error
        db.close()
        raise ValueError(
            f"run: {str(path)!r} has schema version {version}, this program reads {SCHEMA_VERSION}; "
            "use the version of designspace-sweep that wrote it"
        )

    @staticmethod
    def _version(db: sqlite3.Connection) -> Any:
        row = db.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
        return row and json.loads(row[0])

    def close(self) -> None:
        self._db.close()
        if self._mark is not None:
            os.close(self._mark)
            self._mark = None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check_whole(self) -> None:
        """Raises `ValueError` if the file is damaged, or knows fewer commits than were made in this directory."""
        run_dir = self.path.parent
        try:
            found = self._db.execute("PRAGMA integrity_check(1)").fetchone()[0]
            commits = self._db.execute("SELECT commits FROM progress").fetchone()[0]
            self.meta()
            for table in ("trials", "epochs", "decisions", "events"):  # SQLite does not look into what is text
                for _ in self._db.execute(f"SELECT * FROM {table}"):
                    pass
        except (sqlite3.DatabaseError, ValueError) as error:
            found, commits = str(error), 0
        if found != "ok":
            raise ValueError(f"run: {str(self.path)!r} is damaged ({found}); {_remedy(run_dir)}")
        if commits < (made := _marked(run_dir)):
            raise ValueError(
                f"run: {str(self.path)!r} has lost the last {made - commits} of its {made} commits (its -wal file was "
                f"cut, or it is an older copy), and MLflow may know of them; {_remedy(run_dir)}"
            )

    # -- writing ---------------------------------------------------------------------------------------------

    def _write(self, body: Callable[[int], Any]) -> Any:
        """One transaction; `body` gets its moment, in ms, which is never before that of an earlier one."""
        while True:
            try:
                return self._write_once(body)
            except sqlite3.OperationalError as error:
                if self.blocked is None or _code(error) not in _BLOCKED:
                    raise
                self.blocked(f"{self.path}: {error}")
                time.sleep(_BLOCKED_PAUSE_S)

    def _write_once(self, body: Callable[[int], Any]) -> Any:
        # IMMEDIATE takes the write lock at once, so two writers wait for each other instead of failing at commit.
        self._db.execute("BEGIN IMMEDIATE")
        try:
            if self.token is not None and self.token != self._token():
                raise LeaseLostError(f"{self.path}: another process has taken this sweep over")
            commits, moment = self._db.execute(
                "UPDATE progress SET commits = commits + 1, latest_ms = max(latest_ms, ?) RETURNING commits, latest_ms",
                (now_ms(),),
            ).fetchone()
            answer = body(moment)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._set_mark(commits)
        return answer

    def _set_mark(self, commits: int) -> None:
        """Written in place: a mark that is too low, or none, only refuses less."""
        with suppress(OSError):
            if self._mark is None:
                self._mark = os.open(self.path.with_name(_MARK), os.O_WRONLY | os.O_CREAT, 0o600)
            os.pwrite(self._mark, _mark_line(commits), 0)

    # -- meta ------------------------------------------------------------------------------------------------

    def meta(self) -> dict[str, Any]:
        return {row["key"]: json.loads(row["value"]) for row in self._db.execute("SELECT key, value FROM meta")}

    def get(self, key: str, default: Any = None) -> Any:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return default if row is None else json.loads(row[0])

    def set_meta(self, **values: Any) -> None:
        self._write(lambda moment: self._set_meta(values))

    def _set_meta(self, values: Mapping[str, Any]) -> None:
        self._db.executemany(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [(key, json.dumps(value)) for key, value in values.items()],
        )

    # -- the sweep goes on ---------------------------------------------------------------------------------------

    def _insert(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        for names, alike in groupby(rows, key=tuple):
            columns, values = ", ".join(names), ", ".join(f":{name}" for name in names)
            self._db.executemany(f"INSERT INTO {table} ({columns}) VALUES ({values})", alike)

    def start_attempt(self, trial_id: str, attempt: int) -> None:
        """The trial is about to train for the `attempt`th time, counted from 1."""
        self._write(
            lambda moment: self._db.execute(
                "UPDATE trials SET outcome = 'running', attempts = ?, started_at_ms = coalesce(started_at_ms, ?)"
                " WHERE trial_id = ?",
                (attempt, moment, trial_id),
            )
        )

    def record(
        self,
        epoch: EpochRow,
        decision: DecisionRow | None,
        outcome: str,
        *,
        earned: Collection[Place] = (),
        lost: Collection[Place] = (),
    ) -> None:
        """Commit an epoch, the decision taken on it, the trial's outcome and whose places it decided, all or none."""

        def body(moment: int) -> None:
            self._insert("epochs", [finite(epoch) | {"recorded_at_ms": moment}])
            if decision is not None:
                self._insert("decisions", [finite(decision) | {"decided_at_ms": moment}])
            self._end(epoch.trial_id, outcome, moment)
            self._place(earned, lost, moment)

        self._write(body)

    def leave(
        self, trial_id: str, outcome: str, *, earned: Collection[Place] = (), lost: Collection[Place] = ()
    ) -> None:
        """The trial ends from outside: it was cancelled."""

        def body(moment: int) -> None:
            self._leave(trial_id, outcome, moment)
            self._place(earned, lost, moment)

        self._write(body)

    def _leave(
        self, trial_id: str, outcome: str, moment: int, kind: str | None = None, failure: str | None = None
    ) -> None:
        self._end(trial_id, outcome, moment)
        self._db.execute(
            "UPDATE trials SET failure_kind = ?, failure = ?, cancel_requested = 0 WHERE trial_id = ?",
            (kind, failure, trial_id),
        )

    def fail(
        self,
        trial_id: str,
        kind: str,
        failure: str,
        *,
        by_user: bool,
        again: bool,
        batch_size: int | None = None,
        earned: Collection[Place] = (),
        lost: Collection[Place] = (),
    ) -> None:
        """An attempt failed; `again`: another one follows, with `batch_size` where memory forces a smaller one."""
        column = "user_failures" if by_user else "machine_failures"
        failure = failure.encode("utf-8", "backslashreplace").decode()  # a file name in it may be no UTF-8

        def body(moment: int) -> None:
            self._db.execute(
                f"UPDATE trials SET {column} = {column} + 1, batch_size = coalesce(?, batch_size) WHERE trial_id = ?",
                (batch_size, trial_id),
            )
            if not again:
                self._leave(trial_id, FAILED, moment, kind, failure)
                self._place(earned, lost, moment)

        self._write(body)

    def close_waiting(self, lost: Collection[Place]) -> None:
        """Nothing is left to train: the trials that still wait have not earned their places."""

        def body(moment: int) -> None:
            self._db.execute(
                "INSERT OR IGNORE INTO closings SELECT coalesce(max(arrival), 0), ? FROM decisions", (moment,)
            )
            self._place((), lost, moment)

        self._write(body)

    def _place(self, earned: Collection[Place], lost: Collection[Place], moment: int) -> None:
        for rung_epochs, trial_id in earned:
            self._db.execute(
                "INSERT INTO promotions SELECT ?, ?, coalesce(max(arrival), 0), ? FROM decisions",
                (trial_id, rung_epochs, moment),
            )
            self._judge(trial_id, rung_epochs, False)
            self._db.execute(
                "UPDATE trials SET outcome = 'running' WHERE trial_id = ? AND outcome = 'paused'", (trial_id,)
            )
        for rung_epochs, trial_id in lost:
            self._judge(trial_id, rung_epochs, True)
            self._db.execute(
                "UPDATE trials SET outcome = 'stopped', ended_at_ms = ? WHERE trial_id = ? AND outcome = 'paused'",
                (moment, trial_id),
            )

    def _judge(self, trial_id: str, rung_epochs: int, would_stop: bool) -> None:
        self._db.execute(
            "UPDATE decisions SET would_stop = ? WHERE trial_id = ? AND rung_epochs = ?",
            (would_stop, trial_id, rung_epochs),
        )

    def _end(self, trial_id: str, outcome: str, moment: int) -> None:
        self._db.execute(
            "UPDATE trials SET outcome = ?, ended_at_ms = ? WHERE trial_id = ?",
            (outcome, moment if outcome in ENDED else None, trial_id),
        )

    def set_checkpoint(self, trial_id: str, epoch: int, digest: str | None) -> None:
        """An epoch that is known was trained again: this is the state after it now."""
        self._write(
            lambda moment: self._db.execute(
                "UPDATE epochs SET checkpoint = ? WHERE trial_id = ? AND epoch = ?", (digest, trial_id, epoch)
            )
        )

    def note(self, kind: str, message: str, trial_id: str | None = None) -> None:
        """Something happened that is no result."""
        self._write(
            lambda moment: self._insert(
                "events", [{"at_ms": moment, "kind": kind, "trial_id": trial_id, "message": message}]
            )
        )

    # -- asked for from outside: needs no lease -------------------------------------------------------------------

    def ask_to_cancel(self, trial_id: str) -> None:
        self._write(
            lambda moment: self._db.execute("UPDATE trials SET cancel_requested = 1 WHERE trial_id = ?", (trial_id,))
        )

    def add_trials(self, trials: Iterable[TrialRow], **meta: Any) -> None:
        """Trials that were drawn later, with what is to be known of them; all or none."""
        rows = list(map(vars, trials))  # they are written twice where the first try finds no room

        def body(moment: int) -> None:
            self._insert("trials", rows)
            self._set_meta(meta)

        self._write(body)

    # -- the lease (sweep/records/lease.py) ----------------------------------------------------------------------

    def lease(self) -> sqlite3.Row | None:
        return self._db.execute("SELECT * FROM lease").fetchone()

    def _token(self) -> int:
        row = self._db.execute("SELECT token FROM lease").fetchone()
        return row[0] if row else 0

    def take_lease(self, after: int, **holder: Any) -> int:
        """Become the owner if nobody else has since token `after`; answers the new token. Raises `LeaseLostError`."""

        def body(moment: int) -> int:
            if self._token() != after:
                raise LeaseLostError(f"{self.path}: another process was quicker")
            self._db.execute("DELETE FROM lease")
            self._insert("lease", [{"only_one": 1, "token": after + 1, "heartbeat": 0, "released": 0, **holder}])
            return after + 1

        self.token = None
        self.token = self._write(body)
        return self.token

    def beat(self) -> None:
        """Say that the owner is alive. Raises `LeaseLostError` where another has taken over."""
        self._write(lambda moment: self._db.execute("UPDATE lease SET heartbeat = heartbeat + 1"))

    def release_lease(self) -> None:
        self._write(lambda moment: self._db.execute("UPDATE lease SET released = 1"))

    # -- reading -------------------------------------------------------------------------------------------------

    def trials(self, where: str = "1") -> list[sqlite3.Row]:
        return self._db.execute(f"SELECT * FROM trials WHERE {where} ORDER BY launch_order").fetchall()

    def trial(self, trial_id: str) -> sqlite3.Row | None:
        return self._db.execute("SELECT * FROM trials WHERE trial_id = ?", (trial_id,)).fetchone()

    def next_pending(self, after: int) -> sqlite3.Row | None:
        """The first trial that has not begun, in launch order, beyond `after`."""
        return self._db.execute(
            "SELECT trial_id, launch_order FROM trials WHERE outcome = 'pending' AND launch_order > ?"
            " ORDER BY launch_order LIMIT 1",
            (after,),
        ).fetchone()

    def to_cancel(self) -> list[sqlite3.Row]:
        return self._db.execute(
            "SELECT trial_id, cohort FROM trials WHERE cancel_requested = 1"
            " AND outcome IN ('pending', 'running', 'paused')"
        ).fetchall()

    def has_open_places(self) -> bool:
        """Whether some decision on an arrival is still to come."""
        return self._db.execute("SELECT 1 FROM decisions WHERE would_stop IS NULL LIMIT 1").fetchone() is not None

    def is_finished(self) -> bool:
        """Whether every trial has ended."""
        sought = "SELECT 1 FROM trials WHERE outcome IN ('pending', 'running', 'paused') LIMIT 1"
        return self._db.execute(sought).fetchone() is None

    def last_epochs(self) -> dict[str, int]:
        """The last committed epoch of each trial that has any."""
        return dict(self._db.execute("SELECT trial_id, max(epoch) FROM epochs GROUP BY trial_id").fetchall())

    def last_epoch(self, trial_id: str) -> int:
        """The last epoch that is committed, 0 for none."""
        return self._db.execute(
            "SELECT coalesce(max(epoch), 0) FROM epochs WHERE trial_id = ?", (trial_id,)
        ).fetchone()[0]

    def checkpoints(self, trial_id: str) -> dict[int, str]:
        """The digest of the state after each epoch, where one was kept."""
        rows = self._db.execute(
            "SELECT epoch, checkpoint FROM epochs WHERE trial_id = ? AND checkpoint IS NOT NULL", (trial_id,)
        )
        return dict(rows.fetchall())

    def epochs(self) -> list[sqlite3.Row]:
        return self._db.execute(
            "SELECT * FROM epochs JOIN trials USING (trial_id) ORDER BY launch_order, epoch"
        ).fetchall()

    def decisions(self) -> list[sqlite3.Row]:
        """All rung decisions in the order of their arrival."""
        return self.decisions_after(0)

    def decisions_after(self, arrival: int) -> list[sqlite3.Row]:
        return self._db.execute("SELECT * FROM decisions WHERE arrival > ? ORDER BY arrival", (arrival,)).fetchall()

    def promotions(self) -> list[sqlite3.Row]:
        return self._db.execute("SELECT * FROM promotions ORDER BY after_arrival, trial_id, rung_epochs").fetchall()

    def closings(self) -> list[int]:
        """The arrivals after which those that waited were stopped."""
        return [row[0] for row in self._db.execute("SELECT after_arrival FROM closings ORDER BY 1")]

    def events(self, after: int = 0) -> list[sqlite3.Row]:
        return self._db.execute("SELECT * FROM events WHERE number > ? ORDER BY number", (after,)).fetchall()

    def last_event(self) -> sqlite3.Row | None:
        return self._db.execute("SELECT * FROM events ORDER BY number DESC LIMIT 1").fetchone()

    def num_events(self) -> dict[str, int]:
        """How many there were of each kind."""
        return dict(self._db.execute("SELECT kind, count(*) FROM events GROUP BY kind ORDER BY kind").fetchall())

    def counts(self) -> dict[str, int]:
        """Number of trials by outcome; every outcome is a key."""
        counts = dict.fromkeys((*UNFINISHED, *ENDED), 0)
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

    def best_trials(self, limit: int) -> list[tuple[float, str]]:
        """Error in percent and id of the best that trained to the end, best first."""
        rows = self._db.execute(
            "SELECT val_error_pct, trial_id FROM trials JOIN epochs USING (trial_id) WHERE outcome = 'completed'"
            " AND val_error_pct IS NOT NULL"
            " AND epoch = (SELECT max(epoch) FROM epochs AS other WHERE other.trial_id = trials.trial_id)"
            " ORDER BY 1, 2 LIMIT ?",
            (limit,),
        )
        return [tuple(row) for row in rows]

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
        known = list(keys)
        self._write(
            lambda moment: self._db.executemany(
                "UPDATE epochs SET delivered = 1 WHERE trial_id = ? AND epoch = ?", known
            )
        )

    def mark_outcome_delivered(self, trial_id: str, outcome: str) -> None:
        self._write(
            lambda moment: self._db.execute(
                "UPDATE trials SET delivered_outcome = ? WHERE trial_id = ?", (outcome, trial_id)
            )
        )

    def set_run_id(self, trial_id: str, run_id: str) -> None:
        self._write(
            lambda moment: self._db.execute("UPDATE trials SET run_id = ? WHERE trial_id = ?", (run_id, trial_id))
        )

    def undelivered_trials(self, *, live: bool) -> list[sqlite3.Row]:
        """Trials that the tracking server has not been told of in full. Unless `live`, those that have not ended are
        to be told as interrupted."""
        return self._db.execute(
            "SELECT * FROM trials WHERE outcome != 'pending' AND ("
            " (CASE WHEN ? AND outcome IN ('running', 'paused') THEN 'interrupted' ELSE outcome END)"
            " IS NOT delivered_outcome"
            " OR trial_id IN (SELECT trial_id FROM epochs WHERE delivered = 0)) ORDER BY launch_order",
            (not live,),
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

    def undelivered_leaves(self) -> list[sqlite3.Row]:
        """Trials that left before their time, until the tracking server knows their outcome; `after_arrival` counts the
        arrivals before, by their moments, so that it stays what it is."""
        return self._db.execute(
            "SELECT launch_order, outcome, ended_at_ms,"
            " max((SELECT count(*) FROM decisions WHERE decided_at_ms < trials.ended_at_ms), coalesce("
            "(SELECT max(arrival) FROM decisions WHERE trial_id = trials.trial_id), 0)) AS after_arrival FROM trials"
            " WHERE outcome IN ('failed', 'cancelled') AND outcome IS NOT delivered_outcome ORDER BY ended_at_ms"
        ).fetchall()

    def closings_after(self, num: int) -> list[sqlite3.Row]:
        """All but the first `num` closings, with their moments."""
        return self._db.execute("SELECT * FROM closings ORDER BY after_arrival LIMIT -1 OFFSET ?", (num,)).fetchall()

    def latest_ms(self) -> int:
        """The moment of the last commit: none that was recorded is later."""
        return self._db.execute("SELECT latest_ms FROM progress").fetchone()[0]

    def num_undelivered(self) -> int:
        """Epochs and outcomes that the tracking server has not been told; one told as interrupted counts as told."""
        return self._db.execute(
            "SELECT (SELECT count(*) FROM epochs WHERE delivered = 0) + (SELECT count(*) FROM trials"
            " WHERE outcome != 'pending' AND outcome IS NOT delivered_outcome"
            " AND NOT (outcome IN ('running', 'paused') AND delivered_outcome IS 'interrupted'))"
        ).fetchone()[0]

    def forget_trial_delivery(self, trial_id: str, *, run_is_gone: bool) -> None:
        """Take back the marks of one trial: its run is not there any more, or does not hold what it was told."""

        def body(moment: int) -> None:
            self._db.execute(
                "UPDATE trials SET delivered_outcome = NULL, run_id = CASE WHEN ? THEN NULL ELSE run_id END"
                " WHERE trial_id = ?",
                (run_is_gone, trial_id),
            )
            self._db.execute("UPDATE epochs SET delivered = 0 WHERE trial_id = ?", (trial_id,))

        self._write(body)

    def forget_delivery(self) -> None:
        """Take back every mark: the tracking server is another one, or lost what it knew."""

        def body(moment: int) -> None:
            self._db.execute("UPDATE trials SET run_id = NULL, delivered_outcome = NULL")
            self._db.execute("UPDATE epochs SET delivered = 0 WHERE delivered = 1")
            self._db.executemany("DELETE FROM meta WHERE key = ?", [(key,) for key in DELIVERED])

        self._write(body)
