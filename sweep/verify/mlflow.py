"""What MLflow holds of one sweep as plain rows: from its database by SQL of our own, or from its server by REST.

In: a tracking URI and what tells the sweep from others (the tag `sweep.id`, its run's id). Out: `Records`: the sweep's
run or runs and all that stand below them, with status, tags, params and every metric point as it is stored, doubled
ones too. MLflow's own client is not used: what it would hide is what is looked for. Nothing is written.
"""

import hashlib
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

SWEEP_ID_TAG, TRIAL_ID_TAG, PARENT_TAG = "sweep.id", "sweep.trial_id", "mlflow.parentRunId"
_DATABASES = ("sqlite", "postgresql", "mysql")
_IDS_AT_ONCE = 200
_STATEMENT_S = 120
_CHUNK_BYTES = 1 << 20
# A user alone, or a user and a password, which may hold any sign: up to the last '@' of the word.
_USER_INFO = re.compile(r"(?<=://)(?:[^\s/@:]+@|[^\s/@:]*:[^\s'\"]*@)")
_SECRET = re.compile(r"(?i)([?&][^=&\s]*(?:pass|pwd|token|secret|key)[^=&\s]*=)[^&\s]+")


class UnreachableError(Exception):
    """MLflow, or one of its artifacts, cannot be looked at; the message says why, without credentials."""


class Point(NamedTuple):
    """A metric point as it is stored."""

    key: str
    step: int
    value: float
    timestamp_ms: int
    is_nan: bool


@dataclass
class Run:
    """`is_active`: not deleted. `points`: in no order."""

    run_id: str
    status: str
    is_active: bool
    artifact_uri: str
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return self.tags.get("kind", "")

    @property
    def trial_id(self) -> str:
        return self.tags.get(TRIAL_ID_TAG, "")

    def __str__(self) -> str:
        about = {"sweep": "the sweep's run", "trial": f"{self.trial_id}: run"}.get(self.kind, f"{self.kind or 'a'} run")
        return f"{about} {self.run_id}"


@dataclass(frozen=True)
class Records:
    """`runs`: those of the sweep and all below them. `sha256(run, path)`: of an artifact's content, None where there
    is no such artifact; raises `UnreachableError` where that cannot be told from here. To be closed after use."""

    runs: list[Run]
    sha256: Callable[[Run, str], str | None]
    close: Callable[[], None] = lambda: None

    @property
    def active(self) -> list[Run]:
        return [run for run in self.runs if run.is_active]


def read_records(tracking_uri: str, sweep_id: str, parent_run_id: str | None, *, timeout_s: float = 20.0) -> Records:
    """Raises `UnreachableError` if not everything could be read; `timeout_s`: for each answer of a server."""
    scheme = urlsplit(tracking_uri).scheme.partition("+")[0]
    if scheme in ("http", "https"):
        from sweep.verify.rest import read_server

        return read_server(tracking_uri, sweep_id, parent_run_id, timeout_s=timeout_s)
    if scheme not in _DATABASES:
        raise UnreachableError(f"{strip_credentials(tracking_uri)!r} is neither a database nor a server of MLflow")
    return Records(list(_read_database(tracking_uri, sweep_id, parent_run_id, timeout_s)), sha256_of_local)


def strip_credentials(text: str) -> str:
    """The same text without the user, password or secret of any address in it."""
    return _SECRET.sub(r"\1***", _USER_INFO.sub("", text))


# -- artifacts on this machine -----------------------------------------------------------------------------------------


def sha256_of_local(run: Run, path: str) -> str | None:
    root = local_folder(run)
    if root is None:
        raise UnreachableError(
            f"{run}: its artifacts lie at {strip_credentials(run.artifact_uri)}, which only MLflow's server can reach: "
            "name it with --tracking-uri"
        )
    file = (root / path).resolve()
    if not file.is_relative_to(root.resolve()) or not file.is_file():
        return None
    try:
        with file.open("rb") as opened:
            return digest(iter(lambda: opened.read(_CHUNK_BYTES), b""))
    except OSError as error:
        raise UnreachableError(f"{run}: {path} cannot be read: {error}") from error


def local_folder(run: Run) -> Path | None:
    """The folder of its artifacts, None where they lie elsewhere."""
    parts = urlsplit(run.artifact_uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(run.artifact_uri) if parts.scheme == "" and run.artifact_uri else None


def digest(chunks: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for chunk in chunks:
        found.update(chunk)
    return found.hexdigest()


# -- a database --------------------------------------------------------------------------------------------------------


def _read_database(uri: str, sweep_id: str, parent_run_id: str | None, timeout_s: float) -> Iterator[Run]:
    import sqlalchemy

    try:
        engine = _engine(uri, timeout_s)
        with closing(engine.connect()) as db:
            ids = _run_ids(db, sweep_id, parent_run_id)
            for start in range(0, len(ids), _IDS_AT_ONCE):
                yield from _runs(db, ids[start : start + _IDS_AT_ONCE])
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, ImportError, ValueError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        raise UnreachableError(
            f"{strip_credentials(uri)} cannot be read as MLflow's database: {strip_credentials(reason)}"
        ) from error


def _engine(uri: str, timeout_s: float) -> "Engine":
    import sqlalchemy

    if uri.startswith("sqlite"):
        path = uri.partition(":///")[2].partition("?")[0]  # as SQLAlchemy reads it: nothing else is escaped
        if not Path(path).is_file():
            raise ValueError(f"there is no file {path!r}")
        address = f"file:{quote(path)}?mode=ro"
        return sqlalchemy.create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(address, uri=True, timeout=timeout_s),
            poolclass=sqlalchemy.NullPool,
        )
    settings: dict[str, Any] = {"connect_timeout": max(1, int(timeout_s))}
    if uri.startswith("postgresql://") and not find_spec("psycopg"):  # SQLAlchemy's own choice since 2.1
        uri = uri.replace("postgresql", "postgresql+psycopg2", 1)
    if uri.startswith("postgresql"):
        settings["options"] = f"-c default_transaction_read_only=on -c statement_timeout={_STATEMENT_S * 1000}"
    return sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool, connect_args=settings)


# Columns are named with their table: alone, `key` is a word of MySQL's own.
def _ask(db: "Connection", query: str, **values: Any) -> list[Any]:
    """Values that are lists stand for `IN`."""
    from sqlalchemy import bindparam, text

    lists: list[Any] = [bindparam(name, expanding=True) for name, value in values.items() if isinstance(value, list)]
    return list(db.execute(text(query).bindparams(*lists), values))


def _run_ids(db: "Connection", sweep_id: str, parent_run_id: str | None) -> list[str]:
    tagged = "SELECT tags.run_uuid FROM tags WHERE tags.key = :key AND tags.value IN :values"
    named = [row[0] for row in _ask(db, tagged, key=SWEEP_ID_TAG, values=[sweep_id])]
    sweeps = [row[0] for row in _ask(db, tagged, key="kind", values=["sweep"])]
    parents = sorted({*set(named).intersection(sweeps), *([parent_run_id] if parent_run_id else [])})
    below = [row[0] for row in _ask(db, tagged, key=PARENT_TAG, values=parents)]
    return sorted({*parents, *below})


def _runs(db: "Connection", ids: list[str]) -> Iterator[Run]:
    stored = _ask(
        db, "SELECT run_uuid, status, lifecycle_stage, artifact_uri FROM runs WHERE run_uuid IN :ids", ids=ids
    )
    runs = {row[0]: Run(row[0], row[1], row[2] == "active", row[3] or "") for row in stored}
    for table in ("tags", "params"):
        pairs = f"SELECT run_uuid, {table}.key, {table}.value FROM {table} WHERE run_uuid IN :ids"
        for run_id, key, value in _ask(db, pairs, ids=ids):
            if run_id in runs:
                getattr(runs[run_id], table)[key] = value
    points = "SELECT run_uuid, metrics.key, step, value, timestamp, is_nan FROM metrics WHERE run_uuid IN :ids"
    for run_id, *point in _ask(db, points, ids=ids):
        key, step, value, timestamp_ms, is_nan = point
        if run_id in runs:
            runs[run_id].points.append(Point(key, step, value, timestamp_ms, bool(is_nan)))
    yield from runs.values()
