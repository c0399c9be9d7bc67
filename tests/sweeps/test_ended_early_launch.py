"""A sweep that ends early by itself, through the command line, on a real Ray into a real MLflow."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from sweeps.outside import check_mlflow, journal

# Synchronous, so that it is known who has begun: a look after 8 of 16 trials comes before the ninth.
SETTINGS = [
    "objective=rising:error_pct", "trials_per_space=8", 'spaces=["vionet_widths_down", "anynet_e"]', "seed=3",
    "stopping.max_epochs=2", "stopping.method=synchronous", "stopping.reduction_factor=2",
    "judging.stop_when=decided", "judging.looks=2", "judging.num_bootstrap=2000",
]  # fmt: skip


@pytest.fixture(scope="module")
def ended(sweep_cli, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("ended early") / "run"
    options = [word for setting in SETTINGS for word in ("--set", setting)]
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = sweep_cli("launch", "quickstart", "--run-dir", run_dir, "--json", *options, env={"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    return run_dir, json.loads(done.stdout), done.stderr


def test_the_half_that_was_not_needed_never_began(ended):
    run_dir, summary, stderr = ended
    rows = journal(run_dir, "SELECT launch_order, outcome, attempts FROM trials ORDER BY launch_order")
    assert [row["outcome"] == "cancelled" for row in rows] == [False] * 8 + [True] * 8
    assert {row["attempts"] for row in rows[8:]} == {0}
    assert summary["finished"]
    assert summary["trials"]["cancelled"] == 8
    assert summary["looks"]["ended_early"]
    assert (summary["looks"]["decided_at_look"], summary["looks"]["decided_at_trial"]) == (1, 8)
    assert "look 1 of 2, at 8 of 16 trials: its one rule is decided" in stderr


def test_verdict_report_and_status_say_so(ended, sweep_cli):
    run_dir, *_ = ended
    [verdict] = json.loads((run_dir / "verdicts.json").read_text(encoding="utf-8"))
    assert (verdict["verdict"], verdict["decided_at_look"], verdict["looks_taken"]) == ("helps", 1, 1)
    assert verdict["n_without"] + verdict["n_with"] == 8
    assert "Ended early after look 1 of 2 (8 of 16 trials), as the study wanted" in (run_dir / "report.html").read_text(
        encoding="utf-8"
    )
    status = sweep_cli("status", run_dir).stdout
    assert "looks    ended early after look 1 of 2 (8 of 16 trials), as the study wanted" in status


def test_mlflow_knows_each_trial_and_its_end(ended, sweep_cli):
    run_dir, *_ = ended
    rows = journal(run_dir, "SELECT trial_id, outcome FROM trials")
    check_mlflow(run_dir, {row["trial_id"]: row["outcome"] for row in rows})
    assert Counter(row["outcome"] for row in rows)["cancelled"] == 8
    found = sweep_cli("verify", run_dir, "--json")
    assert found.returncode == 0, found.stdout
    assert json.loads(found.stdout)["holds"]
