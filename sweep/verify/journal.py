"""A run directory's journal as plain rows, read with SQL of our own and never written.

In: a run directory; its sweep may be running. Out: a `JournalRows` of one moment. What the columns mean stands in
sweep/records/schema.py; no code of it is used here, so that a fault there cannot hide itself.
"""

import json
import math
import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

FILE_NAME, MARK_NAME = "journal.sqlite", ".journal-commits"
SCHEMA_VERSION = 3
METHODS = ("asha", "asha_promotion", "synchronous", "none")
_WAIT_S = 30.0

Row = dict[str, Any]
_TEXT, _INT, _REAL = str | None, int | None, float | None

# Table -> what its columns hold, and their order. Columns that no invariant speaks of are left out.
_COLUMNS: dict[str, dict[str, Any]] = {
    "trials": {
        "trial_id": str, "launch_order": int, "space": str, "scale": str, "cohort": str, "draw": int,
        "architecture_id": str, "architecture": str, "flops": int, "params": int, "activations": int, "seed": int,
        "audited": int, "audited_if_worst": int, "outcome": str, "attempts": int, "batch_size": _INT,
        "failure": _TEXT, "started_at_ms": _INT, "ended_at_ms": _INT, "run_id": _TEXT, "delivered_outcome": _TEXT,
    },
    "epochs": {
        "trial_id": str, "epoch": int, "train_loss": _REAL, "val_loss": _REAL, "val_error_pct": _REAL,
        "learning_rate": float, "train_time_s": float, "eval_time_s": float, "attempt": int, "recorded_at_ms": int,
        "delivered": int,
    },
    "decisions": {
        "arrival": int, "trial_id": str, "cohort": str, "rung_epochs": int, "error_pct": _REAL, "cutoff_pct": _REAL,
        "would_stop": _INT, "among_worst": int, "audited": int, "decision": str, "decided_at_ms": int,
    },
    "promotions": {"trial_id": str, "rung_epochs": int, "after_arrival": int, "promoted_at_ms": int},
    "closings": {"after_arrival": int, "closed_at_ms": int},
    "progress": {"commits": int, "latest_ms": int},
    "meta": {"key": str, "value": str},
}  # fmt: skip
_ORDER = {
    "trials": "launch_order", "epochs": "trial_id, epoch", "decisions": "arrival",
    "promotions": "after_arrival, trial_id, rung_epochs", "closings": "after_arrival", "progress": "1", "meta": "key",
}  # fmt: skip


class DamagedError(Exception):
    """The journal cannot be what a sweep has written; the message says what is wrong with it, a line each."""


class UnreadableError(Exception):
    """The journal cannot be read just now, whatever it holds."""


@dataclass(frozen=True)
class JournalRows:
    """`marked_commits`: the commits that were made in this directory, by the mark beside the journal."""

    run_dir: Path
    meta: Row
    trials: list[Row]
    epochs: list[Row]
    decisions: list[Row]
    promotions: list[Row] = field(default_factory=list)
    closings: list[Row] = field(default_factory=list)
    commits: int = 0
    latest_ms: int = 0
    marked_commits: int = 0

    @property
    def study(self) -> Row:
        return self.meta["study"]

    @property
    def stopping(self) -> Row:
        return self.study["stopping"]

    @property
    def sweep_id(self) -> str:
        return f"{self.meta.get('study_hash', '')}-{self.meta['created_at_ms']}"

    @property
    def num_trials_told(self) -> int:
        """How many trials the sweep had when MLflow was last told its population; it may have been extended since."""
        match self.meta.get("origin_delivered"):
            case [_, int(number)]:
                return number
        return len(self.trials)

    @property
    def is_recovered(self) -> bool:
        """It was rebuilt from MLflow: an arrival may stand in it whose epoch was lost and trained again."""
        return "recovered_at_ms" in self.meta

    @cached_property
    def scales(self) -> dict[str, Row]:
        """Each scale of the study by name, with the `max_epochs`, `grace_epochs` and `num_train` that hold there."""
        common = {
            "max_epochs": self.stopping["max_epochs"],
            "grace_epochs": self.stopping["grace_epochs"],
            "num_train": self.study.get("data", {}).get("num_train"),
        }
        own = {scale["name"]: {key: scale[key] for key in common if scale.get(key)} for scale in self.study["scale"]}
        return {scale["name"]: {**scale, **common, **own[scale["name"]]} for scale in self.study["scale"]}

    @cached_property
    def _rungs(self) -> dict[str, tuple[int, ...]]:
        rungs: dict[str, tuple[int, ...]] = {}
        for name, scale in self.scales.items():
            rung = scale["grace_epochs"]
            while self.stopping["method"] != "none" and rung < scale["max_epochs"]:
                rungs[name] = (*rungs.get(name, ()), rung)
                rung *= self.stopping["reduction_factor"]
        return rungs

    def rungs_of(self, trial: Row) -> tuple[int, ...]:
        """In epochs: the grace period of its scale, then each time the reduction factor more, below the full budget."""
        return self._rungs.get(trial["scale"], ())

    def budget_of(self, trial: Row) -> int:
        """Its scale's full budget, in epochs."""
        return self.scales.get(trial["scale"], self.stopping)["max_epochs"]

    def original_of(self, trial: Row) -> Row | None:
        """The trial whose network this one's is, scaled; None where its scale draws its own, or where it is missing."""
        scale = self.scales.get(trial["scale"], {})
        return self._at.get((trial["space"], scale.get("of", ""), trial["draw"]))

    @cached_property
    def _at(self) -> dict[tuple[str, str, int], Row]:
        return {(trial["space"], trial["scale"], trial["draw"]): trial for trial in self.trials}

    def is_repeat(self, scale: str) -> bool:
        """Whether its networks are those of another scale, trained just as there."""
        here = self.scales.get(scale, {})
        there = self.scales.get(here.get("of", ""))
        if there is None or (here.get("width_factor", 1), here.get("depth_factor", 1)) != (1, 1):
            return False
        return all(here.get(key) == there.get(key) for key in ("resolution", "max_epochs", "num_train"))

    @cached_property
    def trial_of(self) -> dict[str, Row]:
        return {row["trial_id"]: row for row in self.trials}

    @cached_property
    def curves(self) -> dict[str, list[Row]]:
        """The epochs of each trial, in order; trials without any have an empty list."""
        curves: dict[str, list[Row]] = {row["trial_id"]: [] for row in self.trials}
        for row in self.epochs:
            curves.setdefault(row["trial_id"], []).append(row)
        return curves

    @cached_property
    def decision_at(self) -> dict[tuple[str, int], Row]:
        return {(row["trial_id"], row["rung_epochs"]): row for row in self.decisions}

    @cached_property
    def promoted_at(self) -> dict[tuple[str, int], Row]:
        return {(row["trial_id"], row["rung_epochs"]): row for row in self.promotions}

    def last_epoch(self, trial_id: str) -> int:
        curve = self.curves.get(trial_id)
        return curve[-1]["epoch"] if curve else 0

    def has_started(self, trial: Row) -> bool:
        return trial["outcome"] != "pending" or trial["attempts"] > 0


def read_journal(run_dir: Path) -> JournalRows:
    """Raises `ValueError` where there is no journal of this schema, else `DamagedError` or `UnreadableError`."""
    path = run_dir / FILE_NAME
    if not path.is_file():
        raise ValueError(f"run: {str(run_dir)!r} holds no {FILE_NAME}; name the directory that `sweep launch` printed")
    marked = _marked_commits(run_dir)  # before the journal: it is written after the commit that it counts
    tables = _read_tables(path)
    meta = _decoded(tables["meta"])
    if meta.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"run: {str(path)!r} has schema version {meta.get('schema_version')}, this program checks "
            f"{SCHEMA_VERSION}; use the version of designspace-sweep that wrote it"
        )
    if flaws := [*_flaws_of_rows(tables), *_flaws_of_meta(meta)]:
        raise DamagedError("\n".join(flaws))
    progress = tables["progress"][0]
    return JournalRows(
        run_dir=run_dir,
        meta=meta,
        commits=progress["commits"],
        latest_ms=progress["latest_ms"],
        marked_commits=marked,
        **{name: tables[name] for name in ("trials", "epochs", "decisions", "promotions", "closings")},
    )


def _marked_commits(run_dir: Path) -> int:
    with suppress(OSError, ValueError):
        digits, check = (run_dir / MARK_NAME).read_bytes()[:30].split()
        return int(digits) if int(check, 16) == zlib.crc32(digits) else 0  # a damaged mark says nothing
    return 0


# -- SQLite --------------------------------------------------------------------------------------------------------


def _read_tables(path: Path) -> dict[str, list[Row]]:
    """All tables as they stood at one moment.

    A reader of a journal that nobody has open would leave two empty files beside it, and storage that cannot be
    written would refuse it: such a journal is read as one that never changes. Where it did change meanwhile, or its
    write-ahead log is there, the usual way is taken, which waits for nobody and hinders nobody.
    """
    before = _state(path)
    if before[-1] is None:
        try:
            tables = _select(path, "mode=ro&immutable=1")
        except (DamagedError, UnreadableError):
            if _state(path) == before:
                raise
        else:
            if _state(path) == before:
                return tables
    return _select(path, "mode=ro")


def _state(path: Path) -> tuple[Any, ...]:
    """Time and size of the file, and of its write-ahead log: None where there is none."""
    try:
        log = os.stat(f"{path}-wal").st_mtime_ns
    except OSError:
        log = None
    about = path.stat()
    return about.st_mtime_ns, about.st_size, about.st_ino, log


def _select(path: Path, mode: str) -> dict[str, list[Row]]:
    try:
        with closing(
            sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True, timeout=_WAIT_S, isolation_level=None)
        ) as db:
            db.execute("BEGIN")  # every table as of one moment
            if (found := db.execute("PRAGMA integrity_check(5)").fetchall()) != [("ok",)]:
                raise DamagedError("\n".join(f"{path.name} is damaged: {line}" for (line,) in found))
            return {table: _rows(db, table) for table in _COLUMNS}
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_ERROR:  # no such table or column
            raise DamagedError(f"{path.name} is no journal of schema {SCHEMA_VERSION}: {error}") from error
        raise UnreadableError(f"{path} cannot be read: {error}") from error
    except sqlite3.DatabaseError as error:
        raise DamagedError(f"{path.name} is damaged: {error}") from error


def _rows(db: sqlite3.Connection, table: str) -> list[Row]:
    names = list(_COLUMNS[table])
    found = db.execute(f"SELECT {', '.join(names)} FROM {table} ORDER BY {_ORDER[table]}")
    return [dict(zip(names, row, strict=True)) for row in found]


# -- what the rows must be for anything to be asked of them ------------------------------------------------------------


def _decoded(rows: list[Row]) -> Row:
    meta: Row = {}
    for row in rows:
        try:
            meta[row["key"]] = json.loads(row["value"])
        except (TypeError, ValueError) as error:
            raise DamagedError(f"meta {row['key']!r} is not JSON: {error}") from error
    return meta


def _flaws_of_rows(tables: dict[str, list[Row]]) -> Iterator[str]:
    for table, columns in _COLUMNS.items():
        for number, row in enumerate(tables[table]):
            for column, kind in columns.items():
                value = row[column]
                if not isinstance(value, kind) or (isinstance(value, float) and not math.isfinite(value)):
                    where = row.get("trial_id", f"row {number}")
                    yield f"{table}.{column} of {where} is {value!r}, which no journal can hold"
    if len(tables["progress"]) != 1:
        yield f"progress holds {len(tables['progress'])} rows instead of one"


def _flaws_of_meta(meta: Row) -> Iterator[str]:
    """What the invariants need to know of the study."""
    study = meta.get("study")
    if not isinstance(study, dict):
        yield "meta has no study"
        return
    stopping = study.get("stopping")
    stopping = stopping if isinstance(stopping, dict) else {}
    if stopping.get("method") not in METHODS:
        yield f"the study's stopping.method is {stopping.get('method')!r}, none of {', '.join(METHODS)}"
    for name, least in (("max_epochs", 1), ("grace_epochs", 1), ("reduction_factor", 2)):
        if not _is_int(stopping.get(name), least):
            yield f"the study's stopping.{name} is {stopping.get(name)!r}"
    if not _is_int(study.get("trials_per_space"), 1) or not isinstance(study.get("spaces"), list):
        yield f"the study has trials_per_space {study.get('trials_per_space')!r} of spaces {study.get('spaces')!r}"
    yield from _flaws_of_scales(study.get("scale"))
    for extension in meta.get("extensions", []):
        known = extension if isinstance(extension, dict) else {}
        if not (_is_int(known.get("trials"), 1) and isinstance(known.get("spaces"), list)):
            yield f"meta extensions holds {extension!r}"
    yield from _flaws_of_looks(meta)
    if not _is_int(meta.get("created_at_ms"), 0):
        yield f"meta created_at_ms is {meta.get('created_at_ms')!r}"


def _flaws_of_scales(scales: object) -> Iterator[str]:
    """Fields that came later are missing in older journals."""
    if not isinstance(scales, list) or not all(isinstance(scale, dict) and "name" in scale for scale in scales):
        yield f"the study's scale is {scales!r}"
        return
    earlier: set[str] = set()
    for scale in scales:
        for name in ("max_epochs", "grace_epochs", "num_train", "trials_per_space"):
            if not _is_int(scale.get(name, 0), 0):
                yield f"the {name} of scale {scale['name']} is {scale[name]!r}"
        for name in ("width_factor", "depth_factor"):
            if not isinstance(factor := scale.get(name, 1), int | float) or not factor > 0:
                yield f"the {name} of scale {scale['name']} is {factor!r}"
        if (of := scale.get("of", "")) and of not in earlier:
            yield f"the scale {scale['name']} is of {of!r}, which is no earlier one"
        earlier.add(scale["name"])


_LOOK = {
    "number": 1, "num_trials": 1, "num_begun": 0, "num_known": 1, "num_decided": 0, "taken_at_ms": 0,
}  # fmt: skip
_COMPARED = {
    "space_without": str, "space_with": str, "scale": str, "n_without": int, "n_with": int, "effect_pct": _REAL,
    "p_different": float, "p_equivalent": float,
}  # fmt: skip


def _flaws_of_looks(meta: Row) -> Iterator[str]:
    looks, decided = meta.get("looks", []), meta.get("decided", {"look": 1, "num_trials": 1})
    for look in looks if isinstance(looks, list) else [looks]:
        known = look if isinstance(look, dict) else {}
        compared = known.get("compared")
        are_counts = all(_is_int(known.get(name), least) for name, least in _LOOK.items())
        if not (are_counts and isinstance(compared, list) and _are_epochs(known.get("rung_epochs"))):
            yield f"meta looks holds {look!r}"
        elif not all(isinstance(one, dict) and _is_compared(one) for one in compared):
            yield f"meta looks holds the comparisons {compared!r}"
    if not (isinstance(decided, dict) and all(_is_int(decided.get(name), 1) for name in ("look", "num_trials"))):
        yield f"meta decided is {decided!r}"
    study = meta["study"]
    judging = study.get("judging", {})
    if isinstance(judging, dict) and judging.get("stop_when") == "decided":
        confidence, num_looks = judging.get("confidence"), judging.get("looks")
        if not (isinstance(confidence, float) and 0 < confidence < 1 and _is_int(num_looks, 2)):
            yield f"the study's judging has confidence {confidence!r} and looks {num_looks!r}"
        if not _is_int((study.get("data") or {}).get("num_classes"), 2):
            yield f"the study's data are {study.get('data')!r}"
    elif not isinstance(judging, dict):
        yield f"the study's judging is {judging!r}"


def _are_epochs(by_scale: object) -> bool:
    return isinstance(by_scale, dict) and all(_is_int(number, 1) for number in by_scale.values())


def _is_compared(one: Row) -> bool:
    return all(isinstance(one.get(name), kind) and one.get(name) == one.get(name) for name, kind in _COMPARED.items())


def _is_int(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
