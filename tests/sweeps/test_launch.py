"""The main job, end to end: what a finished sweep has left, in the journal, in MLflow, in files, on stdout."""

import json

import pyarrow.parquet as pq
import pytest
from sweeps.outside import check_decisions, check_whole, journal, query

VERDICT_KEYS = [
    "rule", "space_without", "space_with", "scale", "rung_epochs", "n_without", "n_with", "effect_pct", "ci_low_pct",
    "ci_high_pct", "verdict",
]  # fmt: skip


def test_the_summary_is_the_contract(finished):
    summary = finished.summary
    assert summary["run_dir"] == str(finished.run_dir)
    assert summary["study"] == "quickstart"
    assert summary["tracking_uri"].startswith("sqlite:")
    assert summary["experiment_id"]
    assert summary["parent_run_id"]
    trials = summary["trials"]
    assert trials["completed"] + trials["stopped"] == 6
    assert trials["diverged"] == trials["failed"] == 0
    assert trials["stopped"] > 0
    assert 6 <= summary["epochs_trained"] < summary["epochs_if_all_completed"] == 24
    assert summary["wall_s"] > 0
    assert set(summary["best"]) >= {"architecture_id", "space", "error_pct", "epochs"}
    assert summary["best"]["epochs"] == 4


def test_each_trial_stands_once_in_journal_and_mlflow(finished):
    check_whole(finished.run_dir, num_trials=6, max_epochs=4)


def test_each_decision_is_what_the_rule_gives(finished):
    assert check_decisions(finished.run_dir, eta=2) >= 6


def test_audited_trials_are_never_stopped(finished):
    rows = journal(finished.run_dir, "SELECT outcome FROM trials WHERE audited")
    assert rows
    assert {row["outcome"] for row in rows} == {"completed"}


def test_stdout_was_json_alone_and_stderr_quiet(finished):
    assert "Traceback" not in finished.stderr
    assert "╭" not in finished.stderr  # none of Tune's boxes
    assert "6/6 trials ended" in finished.stderr


def test_the_files_are_there(finished):
    trials = pq.read_table(finished.run_dir / "trials.parquet")
    assert trials.num_rows == 6
    assert pq.read_table(finished.run_dir / "epochs.parquet").num_rows == finished.summary["epochs_trained"]
    assert pq.read_table(finished.run_dir / "architectures.parquet").num_rows == 6
    report = (finished.run_dir / "report.html").read_text(encoding="utf-8")
    assert "AnyNet D" in report
    assert (finished.run_dir / "summary.png").stat().st_size > 10_000
    assert (finished.run_dir / "mlartifacts").is_dir()
    kept = [list(folder.iterdir()) for folder in (finished.run_dir / "checkpoints").iterdir()]
    assert 1 <= len(kept) <= 3  # the best ones' last states, one each
    assert all(len(states) == 1 for states in kept)
    assert finished.run_dir.stat().st_mode & 0o777 == 0o700


def test_mlflow_holds_the_artifacts(finished):
    names = {path.name for path in (finished.run_dir / "mlartifacts").rglob("*") if path.is_file()}
    assert {"report.html", "summary.png", "architectures.parquet", "architecture.yaml", "study.json"} <= names


def test_judge_is_the_contract(finished, sweep_cli):
    done = sweep_cli("judge", finished.run_dir, "--json")
    assert done.returncode == 0
    findings = json.loads(done.stdout)
    assert set(findings) == {"verdicts", "estimates", "assumptions", "factors"}
    verdicts = [verdict for verdict in findings["verdicts"] if verdict["budget"] == "rung"]
    assert [verdict["rule"] for verdict in verdicts] == ["widths_up"]
    assert [estimate["num_networks"] for estimate in findings["estimates"]] == [3, 3]
    for verdict in verdicts:
        assert set(VERDICT_KEYS) <= set(verdict)
        assert verdict["verdict"] in {"helps", "free", "hurts", "undecided"}
        assert verdict["rung_epochs"] == 1
        assert verdict["n_without"] == verdict["n_with"] == 3


def test_status_report_and_judge_print_for_people(finished, sweep_cli):
    status = sweep_cli("status", finished.run_dir)
    assert "finished" in status.stdout
    assert json.loads(sweep_cli("status", finished.run_dir, "--json").stdout)["running"] is False
    assert "widths_up" in sweep_cli("judge", finished.run_dir).stdout
    report = sweep_cli("report", finished.run_dir, "--json")
    assert json.loads(report.stdout)["report"] == str(finished.run_dir / "report.html")


def test_launching_into_it_again_is_refused_and_changes_nothing(finished, sweep_cli, settings):
    before = (finished.run_dir / "journal.sqlite").read_bytes()
    done = sweep_cli("launch", "quickstart", "--run-dir", finished.run_dir, *settings)
    assert done.returncode == 2
    assert "--resume" in done.stderr
    assert (finished.run_dir / "journal.sqlite").read_bytes() == before


def test_resuming_a_changed_study_names_the_change(finished, sweep_cli, settings):
    done = sweep_cli(
        "launch", "quickstart", "--run-dir", finished.run_dir, "--resume", *settings, "--set", "recipe.momentum=0.5"
    )
    assert done.returncode == 2
    assert "recipe.momentum (0.9 became 0.5)" in done.stderr


def test_resuming_a_finished_sweep_is_harmless(finished, sweep_cli, settings):
    done = sweep_cli("launch", "quickstart", "--run-dir", finished.run_dir, "--resume", "--json", *settings)
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert again["parent_run_id"] == finished.summary["parent_run_id"]
    assert again["trials"] == finished.summary["trials"]
    check_whole(finished.run_dir, num_trials=6, max_epochs=4)


def test_rerun_confirms_trains_the_best_and_opens_the_test_set_once(finished, sweep_cli):
    command = ("rerun", finished.run_dir, "--best", 2, "--seeds", 2, "--json")
    done = sweep_cli(*command, timeout=280)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["num_train"] == 60_000
    assert result["num_test"] == 10_000
    assert 5 < result["test_error_pct"] < 60  # one epoch on all images: far from chance, far from done
    # Each candidate trained twice: 4 epochs a seed, told on stderr; the winner carries its own two errors.
    completed = journal(
        finished.run_dir,
        "SELECT trial_id, val_error_pct FROM epochs JOIN trials USING (trial_id)"
        " WHERE outcome = 'completed' AND epoch = 4 ORDER BY val_error_pct, trial_id LIMIT 2",
    )
    for row in completed:
        assert done.stderr.count(f"confirm {row['trial_id']}") == 8
    winner = result["candidate"]
    assert winner["trial_id"] in {row["trial_id"] for row in completed}
    assert len(winner["confirmed_error_pct"]) == 2
    assert all(0 < error < 90 for error in winner["confirmed_error_pct"])

    again = json.loads(sweep_cli(*command).stdout)
    # What the first opening of the test set found, not a second opening.
    assert again == {**result, "why": "it is the champion already"}
    rows = query(
        finished.run_dir / "mlflow.db",
        "SELECT runs.run_uuid, runs.status, parent.value AS parent FROM runs"
        " JOIN tags AS kind ON kind.run_uuid = runs.run_uuid AND kind.key = 'kind' AND kind.value = 'rerun'"
        " JOIN tags AS parent ON parent.run_uuid = runs.run_uuid AND parent.key = 'mlflow.parentRunId'",
    )
    assert rows == [{"run_uuid": result["run_id"], "status": "FINISHED", "parent": finished.summary["parent_run_id"]}]


def test_from_python(finished):
    import sweep

    assert sweep.status(finished.run_dir).finished
    assert [verdict.rule for verdict in sweep.judge(finished.run_dir)] == ["widths_up"]
    assert sweep.report(finished.run_dir).name == "report.html"
    with pytest.raises(ValueError, match="no run directory"):
        sweep.rerun(finished.run_dir / "nothing")
