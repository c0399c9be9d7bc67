"""The file of a journal: made whole or not at all, checked before it is relied upon, written under guards.

In: a run directory. Out: an open SQLite database in WAL mode, of which each transaction is whole, under the lease,
counted, and no earlier than the last one (journal.py says why).
"""

import fcntl
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any, Self

from sweep.records.schema import SCHEMA, SCHEMA_VERSION, TrialRow

FILE_NAME = "journal.sqlite"
_MARK = ".journal-commits"

# What a write meets on storage that is full or cannot be written just now: it may pass, and nothing was committed.
_BLOCKED = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
_BLOCKED_PAUSE_S = 1.0
_UNREACHABLE = (*_BLOCKED, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM)


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


class JournalFile:
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
    def create(cls, run_dir: Path, meta: Mapping[str, Any], trials: Iterable[TrialRow]) -> Self:
        """The journal appears whole or not at all: it is filled under another name and then renamed."""
        return cls.restore(run_dir, {"created_at_ms": now_ms(), **meta}, {"trials": map(vars, trials)})

    @classmethod
    def restore(cls, run_dir: Path, meta: Mapping[str, Any], tables: Mapping[str, Iterable[Mapping[str, Any]]]) -> Self:
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
    def open(cls, run_dir: Path, *, read_only: bool = False, token: int | None = None) -> Self:
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

    def __enter__(self) -> Self:
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

    def _insert(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        for names, alike in groupby(rows, key=tuple):
            columns, values = ", ".join(names), ", ".join(f":{name}" for name in names)
            self._db.executemany(f"INSERT INTO {table} ({columns}) VALUES ({values})", alike)

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
