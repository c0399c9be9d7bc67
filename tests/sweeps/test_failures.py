"""Networks that diverge and trials that fail: both are rows with a reason, and the sweep goes on to its report."""

import json

from sweeps.outside import journal, query

import sweep
from sweep.scheduling import driver


def test_diverged_networks_are_data(sweep_cli, settings, tmp_path):
    run_dir = tmp_path / "run"
    done = sweep_cli(
        "launch", "quickstart", "--run-dir", run_dir, "--json", *settings, "--set", "recipe.learning_rate=1e30",
        timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["trials"]["diverged"] == 6
    assert summary["best"] is None
    decisions = journal(run_dir, "SELECT * FROM decisions")
    assert [row["error_pct"] for row in decisions] == [None] * 6
    assert all(row["would_stop"] for row in decisions)
    tags = query(run_dir / "mlflow.db", "SELECT value FROM tags WHERE key = 'outcome'")
    assert sum(tag["value"] == "diverged" for tag in tags) == 6
    verdicts = json.loads(sweep_cli("judge", run_dir, "--json").stdout)
    assert [(verdict["n_with"], verdict["verdict"]) for verdict in verdicts] == [(3, "undecided")]
    rerun = sweep_cli("rerun", run_dir)
    assert rerun.returncode == 2
    assert "no trial of this sweep has trained to the end" in rerun.stderr


def test_a_trial_that_always_raises_is_retried_then_failed_with_its_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "CHECKPOINTS", "/proc/no/such/folder")  # the fault: no checkpoint can be written
    study = sweep.load_study(
        "quickstart", ['spaces=["anynet_d"]', "trials_per_space=2", "data.num_train=128", "max_failures=1"]
    )
    summary = sweep.launch(study, run_dir=tmp_path / "run")
    assert summary.trials["failed"] == 2
    assert summary.finished
    rows = journal(tmp_path / "run", "SELECT * FROM trials")
    assert [row["attempts"] for row in rows] == [2, 2]
    assert all("checkpoint.save" in row["failure"] and "FileNotFoundError" in row["failure"] for row in rows)
    runs = query(tmp_path / "run" / "mlflow.db", "SELECT status FROM runs")
    assert sorted(run["status"] for run in runs) == ["FAILED", "FAILED", "FINISHED"]
