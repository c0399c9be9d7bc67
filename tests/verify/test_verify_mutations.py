"""Each table and column that an invariant depends on, in the journal and in MLflow: a changed value is found.

What may change unseen is named here, with the reason. A column that is new and in neither list fails this test.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from verify import mlflow_maker
from verify.sweep_maker import Events

from sweep.records.schema import SCHEMA
from sweep.verify import verify

SWEEP = Events(diverges=0.06, fails=0.03, retries=0.05, levels=500)
# Column -> the query that picks the row to change: one that means something.
OF_A_TRIAL = "trial_id = (SELECT trial_id FROM trials WHERE outcome = 'completed' ORDER BY launch_order LIMIT 1)"
OF_AN_EPOCH = f"{OF_A_TRIAL} AND epoch = 2"
ROWS = {
    "trials": OF_A_TRIAL, "epochs": OF_AN_EPOCH, "decisions": "arrival = 3", "closings": "1", "progress": "1",
    "promotions": "after_arrival = (SELECT max(after_arrival) FROM promotions)",
}  # fmt: skip
UNSEEN = {
    "trials": {
        "delivered_outcome": "a mark of the outbox; MLflow itself is asked",
        "failure_kind": "told nowhere else", "user_failures": "told nowhere else",
        "machine_failures": "told nowhere else", "cancel_requested": "a wish, and no result",
        "batch_size": "seen beside an undisturbed sweep", "failure": "a text of its own, for failed trials",
    },
    "epochs": {
        "delivered": "a mark of the outbox", "host": "told nowhere else", "checkpoint": "a digest of what workers keep",
    },
    "progress": {"only_one": "a key without a meaning"},
    "events": "what happened is no result", "lease": "who writes is no result",
    "meta": "its study and marks are tested in test_verify_broken.py",
}  # fmt: skip


def columns() -> list[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(SCHEMA)
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [
            (table, row[1])
            for table in tables
            if not table.startswith("sqlite_") and not isinstance(UNSEEN.get(table), str)
            for row in db.execute(f"PRAGMA table_info({table})")
        ]


def changed(value: Any, column: str = "") -> Any:
    if value is None:
        return 1
    if column in ("launch_order", "epoch", "arrival"):  # no two rows may have the same
        return value + 1000
    return value + "x" if isinstance(value, str) else value + 0.5 if isinstance(value, float) else value - 1


def change_one(path: Path, table: str, column: str, where: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        rowid = "rowid" if table != "epochs" else "epoch"  # that table has none
        picked = db.execute(f"SELECT {column} FROM {table} WHERE {where} ORDER BY {rowid} LIMIT 1").fetchone()
        assert picked is not None, f"{table} has no row where {where}"
        found = db.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (changed(picked[0], column),)).rowcount
        assert found == 1


CASES = [
    (method, table, column)
    for method in ("asha_promotion", "synchronous")
    for table, column in columns()
    if (method, table) != ("synchronous", "closings")  # a mode without any
]


@pytest.mark.parametrize(("method", "table", "column"), CASES)
def test_a_changed_value_of_the_journal_is_found(make, method, table, column):
    run_dir = make(method, events=SWEEP, trials_per_space=6)
    where = ROWS[table]
    if table == "promotions":
        where += " LIMIT 1"
        where = f"(trial_id, rung_epochs) = (SELECT trial_id, rung_epochs FROM promotions WHERE {where})"
    change_one(run_dir / "journal.sqlite", table, column, where)
    assert verify(run_dir).holds == (column in UNSEEN.get(table, {})), f"{table}.{column}"


@pytest.mark.parametrize("method", ["asha_promotion", "synchronous"])
def test_nothing_is_found_before_it_is_changed(make, method):
    assert verify(make(method, events=SWEEP, trials_per_space=6)).holds


MLFLOW = [
    *(("runs", column) for column in ("run_uuid", "status", "artifact_uri", "lifecycle_stage")),
    *(("tags", column) for column in ("key", "value", "run_uuid")),
    *(("params", column) for column in ("key", "value", "run_uuid")),
    *(("metrics", column) for column in ("key", "value", "timestamp", "step", "is_nan", "run_uuid")),
]


@pytest.mark.parametrize(("table", "column"), MLFLOW)
def test_a_changed_value_of_mlflow_is_found(make, table, column):
    run_dir = make("asha", events=SWEEP)
    with closing(sqlite3.connect(run_dir / "mlflow.db", isolation_level=None)) as db:
        key = "'none'" if table == "runs" else "key"
        rows = db.execute(f"SELECT rowid, {column}, {key} FROM {table}").fetchall()
    keys = [key for _, _, key in rows]
    # Every 7th row, and where keys tell rows apart, one of each key; a claim may be missing, it may only not be wrong.
    picked = {*range(0, len(rows), 7), *(keys.index(key) for key in set(keys))}
    if column != "value":
        picked = {number for number in picked if not keys[number].startswith("sha256.")}
    for rowid, value, _ in (rows[number] for number in sorted(picked)):
        _set(run_dir, table, column, rowid, 1 - value if column == "is_nan" else changed(value))
        assert not verify(run_dir).holds, (table, column, value)
        _set(run_dir, table, column, rowid, value)
    assert verify(run_dir).holds


def _set(run_dir: Path, table: str, column: str, rowid: int, value: Any) -> None:
    with closing(sqlite3.connect(run_dir / "mlflow.db", isolation_level=None)) as db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, rowid))


def test_every_key_that_is_written_is_one_that_is_asked_for(make, change):
    """`mlflow_maker` writes no key for nothing: without any of them the sweep does not hold."""
    run_dir = make("asha", events=SWEEP)
    for table in ("tags", "params", "metrics"):
        for (key,) in change(run_dir / "mlflow.db", f"SELECT DISTINCT key FROM {table}"):
            if key.startswith("sha256."):
                continue
            change(run_dir / "mlflow.db", f"UPDATE {table} SET key = 'x ' || key WHERE key = ?", key)
            assert not verify(run_dir).holds, (table, key)
            change(run_dir / "mlflow.db", f"UPDATE {table} SET key = ? WHERE key = 'x ' || ?", key, key)
    assert verify(run_dir).holds
    assert len(mlflow_maker.CURVES) == 6
