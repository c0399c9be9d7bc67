"""Networks that diverge: rows with a reason, and the sweep goes on to its report. Trials that fail: tests/faults."""

import json

from sweeps.outside import journal, query


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
