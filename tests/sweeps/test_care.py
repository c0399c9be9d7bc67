"""Verbs that look after a sweep: it is extended, looked into, verified; one of its trials is ended."""

import json
import shutil

import pytest
from sweeps.outside import curves, journal

FOUR = ("trials", "epochs", "decisions", "promotions")


@pytest.fixture(scope="module")
def extended(finished, sweep_cli, settings, tmp_path_factory):
    """A copy of the finished sweep, extended by one network of each space and by a new space, and gone on with."""
    run_dir = tmp_path_factory.mktemp("care") / "run"
    shutil.copytree(finished.run_dir, run_dir)
    done = sweep_cli("extend", run_dir, "--trials", 1, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["added"] == 2
    done = sweep_cli("extend", run_dir, "--trials", 2, "--spaces", "anynet_e")
    assert done.returncode == 0, done.stderr
    assert "added 2 trials (2 of anynet_e/small); 10 in all" in done.stdout
    assert "--resume" in done.stderr
    trial = journal(run_dir, "SELECT trial_id FROM trials WHERE outcome = 'pending' ORDER BY launch_order")[-1]
    done = sweep_cli("stop", run_dir, "--trial", trial["trial_id"])
    assert done.returncode == 0, done.stderr
    done = sweep_cli("launch", "quickstart", "--run-dir", run_dir, "--resume", "--json", *settings, timeout=200)
    assert done.returncode == 0, done.stderr
    return run_dir


def test_an_extension_leaves_what_was_there(extended, finished):
    before, after = curves(finished.run_dir), curves(extended)
    assert {trial_id: after[trial_id] for trial_id in before} == before
    assert len(after) == len(before) + 3
    names = "trial_id, launch_order, seed, architecture, audited, outcome"
    old = journal(finished.run_dir, f"SELECT {names} FROM trials ORDER BY launch_order")
    assert journal(extended, f"SELECT {names} FROM trials ORDER BY launch_order")[: len(old)] == old


def test_a_trial_that_was_ended_never_trains(extended, sweep_cli):
    (row,) = journal(extended, "SELECT * FROM trials WHERE outcome = 'cancelled'")
    assert row["attempts"] == 0
    again = sweep_cli("stop", extended, "--trial", row["trial_id"])
    assert again.returncode == 2
    assert "has ended already (cancelled)" in again.stderr
    unknown = sweep_cli("stop", extended, "--trial", row["trial_id"] + "0")
    assert unknown.returncode == 2
    assert f"did you mean {row['trial_id']}" in unknown.stderr


def test_all_of_it_is_verified_and_judged(extended, sweep_cli):
    done = sweep_cli("verify", extended, "--json")
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["holds"]
    verdicts = json.loads(sweep_cli("judge", extended, "--json").stdout)["verdicts"]
    assert {verdict["space_with"] for verdict in verdicts} == {"anynet_d", "anynet_e"}


def test_logs_and_status_tell_what_happened(extended, sweep_cli):
    (row,) = journal(extended, "SELECT * FROM trials WHERE outcome = 'completed' ORDER BY launch_order LIMIT 1")
    log = sweep_cli("logs", extended, row["trial_id"]).stdout
    assert "attempt 1 on" in log
    assert "epoch 4: validation error" in log
    assert "cancelled" in sweep_cli("logs", extended).stdout
    status = sweep_cli("status", extended)
    assert "1 cancelled" in status.stdout
    assert "checkpoints" in status.stdout
    kept = list((extended / "checkpoints").iterdir())
    assert 1 <= len(kept) <= 3  # the last states of the best


def test_nothing_is_left_to_deliver(extended, sweep_cli):
    done = sweep_cli("sync", extended)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "nothing was left\n"
