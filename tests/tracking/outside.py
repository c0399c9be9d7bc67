"""Whether MLflow holds exactly what a journal says: invariants I1 to I4 and the claims, asked from outside.

In: a run directory, and `ask(query)` of MLflow's database. Out: nothing, or an assertion that names what is wrong. SQL
of our own on both sides; no code of the delivery's is used.
"""

import hashlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

Ask = Callable[[str], list[tuple[Any, ...]]]

STATUS = {
    "completed": "FINISHED", "stopped": "KILLED", "diverged": "FAILED", "failed": "FAILED", "cancelled": "KILLED",
    "running": "RUNNING", "paused": "SCHEDULED", "interrupted": "KILLED",
}  # fmt: skip
CURVES = {
    "val_error_pct": "error_pct", "train_loss": "train/loss", "val_loss": "val/loss",
    "learning_rate": "train/learning_rate", "train_time_s": "perf/train_time_s", "eval_time_s": "perf/eval_time_s",
}  # fmt: skip


def assert_whole(run_dir: Path, ask: Ask, *, live: bool = False, artifacts: Path | None = None) -> None:
    """`live`: the sweep goes on, so trials may run or wait. `artifacts`: the folder behind `mlflow-artifacts:`."""
    meta = {row["key"]: json.loads(row["value"]) for row in rows_of(run_dir, "meta")}
    trials = {row["trial_id"]: row for row in rows_of(run_dir, "trials")}
    runs = runs_of(ask, meta["parent_run_id"])
    assert_one_run_a_trial(trials, runs, live)
    points = points_of(ask)
    own = {run["run_id"]: "architecture.yaml" for run in runs.values()} | {
        meta["parent_run_id"]: "architectures.parquet"
    }
    for run_id in own:
        doubled = [key for key, found in points[run_id].items() if len(found) > 1]
        assert not doubled, f"stored twice: {doubled[:5]}"
    assert_curves(run_dir, trials, runs, points)
    assert_arrivals(run_dir, trials, points[meta["parent_run_id"]])
    claims = {at: is_right for at, is_right in claims_of(ask, artifacts).items() if at[0] in own}
    assert all(claims.values()), f"claimed, and not there: {claims}"
    assert own.items() <= claims.keys(), "an artifact that is not claimed"


def rows_of(run_dir: Path, table: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(run_dir / "journal.sqlite")) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(f"SELECT * FROM {table}")]


def runs_of(ask: Ask, parent_id: str) -> dict[str, dict[str, Any]]:
    """Trial -> its run below the sweep's, with its tags; there is one at most that is not deleted."""
    tags: dict[str, dict[str, str]] = defaultdict(dict)
    for run_id, key, value in ask("SELECT run_uuid, key, value FROM tags"):
        tags[run_id][key] = value
    found: dict[str, dict[str, Any]] = {}
    for run_id, status, stage in ask("SELECT run_uuid, status, lifecycle_stage FROM runs"):
        told = tags[run_id]
        if stage != "active" or told.get("mlflow.parentRunId") != parent_id or told.get("kind") != "trial":
            continue
        trial_id = told["sweep.trial_id"]
        assert trial_id not in found, f"{trial_id} has two runs"
        found[trial_id] = {"run_id": run_id, "status": status, **told}
    return found


def assert_one_run_a_trial(trials: dict[str, Any], runs: dict[str, Any], live: bool) -> None:
    assert runs.keys() == {trial_id for trial_id, row in trials.items() if row["outcome"] != "pending"}
    for trial_id, run in runs.items():
        outcome = trials[trial_id]["outcome"]
        outcome = "interrupted" if outcome in ("running", "paused") and not live else outcome
        assert (run["outcome"], run["status"]) == (outcome, STATUS[outcome]), trial_id
        assert run["run_id"] == trials[trial_id]["run_id"], trial_id


def points_of(ask: Ask) -> dict[str, dict[tuple[str, int], list[tuple[float, int]]]]:
    """Run -> (key, step) -> values and times."""
    found: dict[str, dict[tuple[str, int], list[tuple[float, int]]]] = defaultdict(lambda: defaultdict(list))
    for run_id, key, step, value, timestamp in ask("SELECT run_uuid, key, step, value, timestamp FROM metrics"):
        found[run_id][key, step].append((value, timestamp))
    return found


def assert_curves(run_dir: Path, trials: dict[str, Any], runs: dict[str, Any], points: Any) -> None:
    expected: dict[str, dict[tuple[str, int], list[tuple[float, int]]]] = defaultdict(dict)
    for row in rows_of(run_dir, "epochs"):
        for column, key in CURVES.items():
            if row[column] is not None:
                expected[row["trial_id"]][key, row["epoch"]] = [(row[column], row["recorded_at_ms"])]
    for trial_id, run in runs.items():
        stored = {place: found for place, found in points[run["run_id"]].items() if place[0] in CURVES.values()}
        assert stored == expected[trial_id], trial_id
        trial = trials[trial_id]
        begun = trial["started_at_ms"] or trial["ended_at_ms"]
        assert points[run["run_id"]]["flops_m", 0] == [(trial["flops"] / 1e6, begun)], trial_id


def assert_arrivals(run_dir: Path, trials: dict[str, Any], stored: Any) -> None:
    expected: dict[tuple[str, int], list[tuple[float, int]]] = {}
    for row in rows_of(run_dir, "decisions"):
        values = {
            "trial": trials[row["trial_id"]]["launch_order"],
            "rung_epochs": row["rung_epochs"],
            "error_pct": row["error_pct"],
        }
        for name, value in values.items():
            if value is not None:
                expected[f"arrivals/{name}", row["arrival"]] = [(value, row["decided_at_ms"])]
    for row in rows_of(run_dir, "closings"):
        expected["arrivals/closed", row["after_arrival"]] = [(1.0, row["closed_at_ms"])]
    others = ("arrivals/failed", "arrivals/cancelled")
    assert {at: found for at, found in stored.items() if at[0].startswith("arrivals/") and at[0] not in others} == (
        expected
    )


def claims_of(ask: Ask, artifacts: Path | None = None) -> dict[tuple[str, str], bool]:
    """(Run, artifact) -> whether the file has the digest that the run claims; of all runs that are not deleted."""
    places = dict(ask("SELECT run_uuid, artifact_uri FROM runs WHERE lifecycle_stage = 'active'"))
    found = {}
    for run_id, key, claim in ask("SELECT run_uuid, key, value FROM tags WHERE key LIKE 'sha256.%'"):
        if run_id not in places:
            continue
        place, name = urlsplit(places[run_id]), key.removeprefix("sha256.")
        if place.scheme == "mlflow-artifacts":
            assert artifacts is not None
            path = artifacts / place.path.lstrip("/") / name
        else:
            path = Path(unquote(place.path)) / name
        found[run_id, name] = path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == claim
    return found
