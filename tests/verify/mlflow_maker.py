"""MLflow's database as a delivered sweep leaves it, written row by row with SQL: no code of ours has a hand in it.

In: a finished or interrupted journal, an empty database that MLflow has made. Out: one run for the sweep and one for
each trial that has started, with their points and artifacts; the journal's marks say that it was delivered.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

STATUS = {
    "completed": "FINISHED", "stopped": "KILLED", "diverged": "FAILED", "failed": "FAILED", "cancelled": "KILLED",
    "running": "KILLED", "paused": "KILLED",
}  # fmt: skip
CURVES = {
    "error_pct": "val_error_pct", "train/loss": "train_loss", "val/loss": "val_loss",
    "train/learning_rate": "learning_rate", "perf/train_time_s": "train_time_s", "perf/eval_time_s": "eval_time_s",
}  # fmt: skip
PARENT = "a" * 32
EPOCH_FACTS = ("flops", "params", "activations")


def run_id_of(trial_id: str) -> str:
    return hashlib.md5(trial_id.encode()).hexdigest()


def deliver(run_dir: Path) -> None:
    """Fill `mlflow.db` of the run directory, and mark the journal."""
    with closing(_open(run_dir / "journal.sqlite")) as journal, closing(_open(run_dir / "mlflow.db")) as mlflow:
        meta = {key: json.loads(value) for key, value in journal.execute("SELECT key, value FROM meta")}
        trials = [dict(row) for row in journal.execute("SELECT * FROM trials ORDER BY launch_order")]
        _sweeps_run(run_dir, mlflow, journal, meta, trials)
        for trial in trials:
            if trial["outcome"] != "pending" or trial["attempts"]:
                _trials_run(run_dir, mlflow, journal, trial)
        _mark(journal, f"sqlite:///{run_dir / 'mlflow.db'}")


def move(run_dir: Path) -> None:
    """Say in both databases that they lie here now."""
    with closing(_open(run_dir / "journal.sqlite")) as journal, closing(_open(run_dir / "mlflow.db")) as mlflow:
        uri = json.dumps(f"sqlite:///{run_dir / 'mlflow.db'}")
        journal.execute("UPDATE meta SET value = ? WHERE key = 'tracking_uri'", (uri,))
        for (run_id,) in mlflow.execute("SELECT run_uuid FROM runs").fetchall():
            folder = (run_dir / "mlartifacts" / run_id / "artifacts").as_uri()
            mlflow.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", (folder, run_id))


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA synchronous = OFF")
    return db


def _sweeps_run(run_dir: Path, mlflow: Any, journal: Any, meta: dict[str, Any], trials: list[dict[str, Any]]) -> None:
    ended = all(trial["outcome"] not in ("pending", "running", "paused") for trial in trials)
    tags = {
        "kind": "sweep",
        "outcome": "finished" if ended else "interrupted",
        "sweep.id": f"{meta['study_hash']}-{meta['created_at_ms']}",
    }
    order = {trial["trial_id"]: trial["launch_order"] for trial in trials}
    points = []
    for row in journal.execute("SELECT * FROM decisions ORDER BY arrival"):
        values = {"trial": order[row["trial_id"]], "rung_epochs": row["rung_epochs"], "error_pct": row["error_pct"]}
        points += [
            (f"arrivals/{key}", row["arrival"], value, row["decided_at_ms"])
            for key, value in values.items()
            if value is not None
        ]
    _write(run_dir, mlflow, PARENT, "FINISHED" if ended else "KILLED", tags, {}, points, {"sweep.json": b"{}"})


def _trials_run(run_dir: Path, mlflow: Any, journal: Any, trial: dict[str, Any]) -> None:
    epochs = journal.execute("SELECT * FROM epochs WHERE trial_id = ? ORDER BY epoch", (trial["trial_id"],)).fetchall()
    ended, audited = trial["outcome"] not in ("running", "paused"), "yes" if trial["audited"] else "no"
    tags = {
        "kind": "trial", "mlflow.parentRunId": PARENT, "sweep.trial_id": trial["trial_id"], "audited": audited,
        "outcome": trial["outcome"] if ended else "interrupted", "rung": str(len(epochs)),
        "attempts": str(trial["attempts"]),
        **{key: trial[key] for key in ("space", "scale", "cohort", "architecture_id")},
    }  # fmt: skip
    params = {"space": trial["space"], "scale": trial["scale"], "seed": str(trial["seed"]), "audited": audited}
    params |= _network(trial["architecture"])
    begun = trial["started_at_ms"] or trial["ended_at_ms"]
    points = [(f"{column}_m", 0, trial[column] / 1e6, begun) for column in EPOCH_FACTS]
    for row in epochs:
        points += [
            (key, row["epoch"], row[column], row["recorded_at_ms"])
            for key, column in CURVES.items()
            if row[column] is not None
        ]
    if ended:
        points.append(("epochs_trained", 0, float(len(epochs)), trial["ended_at_ms"]))
    files = {"architecture.yaml": trial["architecture"].encode()}
    run_id = run_id_of(trial["trial_id"])
    _write(run_dir, mlflow, run_id, STATUS[trial["outcome"]], tags, params, points, files)
    journal.execute(
        "UPDATE trials SET run_id = ?, delivered_outcome = ? WHERE trial_id = ?",
        (run_id, tags["outcome"], trial["trial_id"]),
    )


def _network(architecture: str) -> dict[str, str]:
    stages = json.loads(architecture)["stages"]
    columns = {"depths": "depth", "widths": "width", "group_widths": "group_width"}
    columns |= {"bottleneck_ratios": "bottleneck_ratio"}
    return {key: ", ".join(f"{stage[column]:g}" for stage in stages) for key, column in columns.items()}


def _write(
    run_dir: Path, mlflow: Any, run_id: str, status: str, tags: dict[str, str], params: dict[str, str],
    points: list[tuple[str, int, float, int]], files: dict[str, bytes],
) -> None:  # fmt: skip
    folder = run_dir / "mlartifacts" / run_id / "artifacts"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
        tags = tags | {f"sha256.{name}": hashlib.sha256(content).hexdigest()}
    (folder / "half.bin").write_bytes(b"an upload that was cut off")
    mlflow.execute(
        "INSERT INTO runs (run_uuid, name, status, artifact_uri, lifecycle_stage, experiment_id, source_type, user_id,"
        " start_time) VALUES (?, ?, ?, ?, 'active', 0, 'UNKNOWN', 'someone', 1)",
        (run_id, "made up", status, folder.as_uri()),
    )
    mlflow.executemany("INSERT INTO tags (run_uuid, key, value) VALUES (?, ?, ?)", _rows(run_id, tags))
    mlflow.executemany("INSERT INTO params (run_uuid, key, value) VALUES (?, ?, ?)", _rows(run_id, params))
    for insert in ("INSERT INTO metrics", "INSERT OR REPLACE INTO latest_metrics"):
        mlflow.executemany(
            f"{insert} (run_uuid, key, step, value, timestamp, is_nan) VALUES (?, ?, ?, ?, ?, 0)",
            [(run_id, *point) for point in points],
        )


def _rows(run_id: str, values: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    return ((run_id, key, value) for key, value in values.items())


def _mark(journal: Any, tracking_uri: str) -> None:
    arrivals = journal.execute("SELECT coalesce(max(arrival), 0) FROM decisions").fetchone()[0]
    marks = {
        "tracking_uri": tracking_uri,
        "experiment_id": "0",
        "parent_run_id": PARENT,
        "arrivals_delivered": arrivals,
    }
    for key, value in marks.items():
        journal.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))
    journal.execute("UPDATE epochs SET delivered = 1")
