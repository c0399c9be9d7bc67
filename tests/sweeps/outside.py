"""A sweep seen from outside: own SQL on its journal and on MLflow's database, none of the project's code."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np


def query(path: Path, sql: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(sql)]


def journal(run_dir: Path, sql: str) -> list[dict[str, Any]]:
    return query(run_dir / "journal.sqlite", sql)


def curves(run_dir: Path) -> dict[str, list[tuple[int, float, float, float]]]:
    """Every trial's figures, epoch by epoch; floats as stored, so that equality is bit for bit."""
    found: dict[str, list[tuple[int, float, float, float]]] = {}
    for row in journal(run_dir, "SELECT * FROM epochs ORDER BY trial_id, epoch"):
        figures = (row["epoch"], row["train_loss"], row["val_loss"], row["val_error_pct"])
        found.setdefault(row["trial_id"], []).append(figures)
    return found


def check_decisions(run_dir: Path, eta: int) -> int:
    """Each decision must be what the rule gives on the journal's own sequence of arrivals; answers their number."""
    arrived: dict[tuple[str, int], list[float]] = {}
    lost: set[str] = set()
    decisions = journal(run_dir, "SELECT * FROM decisions ORDER BY arrival")
    for row in decisions:
        earlier = arrived.setdefault((row["cohort"], row["rung_epochs"]), [])
        error = np.inf if row["error_pct"] is None else row["error_pct"]
        has_lost = row["trial_id"] in lost
        would_stop = has_lost or error == np.inf or (bool(earlier) and error > np.percentile(earlier, 100 / eta))
        assert bool(row["would_stop"]) == would_stop, row
        assert row["decision"] == ("stop" if would_stop and not row["audited"] else "continue"), row
        if not has_lost:
            earlier.append(error)
        if would_stop:
            lost.add(row["trial_id"])
    return len(decisions)


def check_whole(run_dir: Path, num_trials: int, max_epochs: int) -> None:
    """Each trial once, ended, its epochs 1..k without a gap, its outcome true; MLflow says the same."""
    trials = journal(run_dir, "SELECT * FROM trials")
    assert len({row["trial_id"] for row in trials}) == len(trials) == num_trials
    stops = {
        row["trial_id"]: row["rung_epochs"]
        for row in journal(run_dir, "SELECT * FROM decisions WHERE decision = 'stop'")
    }
    for row in trials:
        epochs = [epoch for epoch, *_ in curves(run_dir)[row["trial_id"]]]
        assert epochs == list(range(1, len(epochs) + 1))
        if row["outcome"] == "completed":
            assert len(epochs) == max_epochs
        else:
            assert row["outcome"] == "stopped"
            assert len(epochs) == stops[row["trial_id"]]
    check_mlflow(run_dir, {row["trial_id"]: row["outcome"] for row in trials})


def check_mlflow(run_dir: Path, outcomes: dict[str, str]) -> None:
    """One run a trial and one of the sweep, none RUNNING; each epoch's error once, with the value of the journal."""
    database = run_dir / "mlflow.db"
    tags: dict[str, dict[str, str]] = {}
    for row in query(database, "SELECT * FROM tags"):
        tags.setdefault(row["run_uuid"], {})[row["key"]] = row["value"]
    runs = query(database, "SELECT * FROM runs WHERE lifecycle_stage = 'active'")
    assert not [row for row in runs if row["status"] == "RUNNING"]
    parents = [row for row in runs if tags[row["run_uuid"]]["kind"] == "sweep"]
    assert [row["status"] for row in parents] == ["FINISHED"]
    trials = {row["run_uuid"]: row for row in runs if tags[row["run_uuid"]]["kind"] == "trial"}
    assert sorted(tags[run]["sweep.trial_id"] for run in trials) == sorted(outcomes)
    errors: dict[str, list[tuple[int, float]]] = {}
    for row in query(database, "SELECT * FROM metrics WHERE key = 'error_pct' ORDER BY step"):
        errors.setdefault(row["run_uuid"], []).append((row["step"], row["value"]))
    for run in trials:
        trial_id = tags[run]["sweep.trial_id"]
        assert tags[run]["outcome"] == outcomes[trial_id]
        assert tags[run]["mlflow.parentRunId"] == parents[0]["run_uuid"]
        assert errors.get(run, []) == [(epoch, error) for epoch, _, _, error in curves(run_dir).get(trial_id, [])]
