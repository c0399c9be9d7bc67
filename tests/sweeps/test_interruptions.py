"""A sweep that is killed, interrupted or asked to stop goes on to the table of an undisturbed one."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from sweeps.outside import check_decisions, check_whole, curves, journal, query


def start(run_dir, settings, *more):
    command = [sys.executable, "-m", "sweep", "launch", "quickstart", "--run-dir", str(run_dir), *settings, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_epochs(run_dir, process, number, timeout_s=150):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if (run_dir / "journal.sqlite").exists() and len(journal(run_dir, "SELECT 1 FROM epochs")) >= number:
            return
        time.sleep(0.05)
    process.kill()
    raise AssertionError(f"{number} epochs not seen in {timeout_s} s: {process.communicate()}")


def assert_common_epochs_equal(run_dir, other):
    """Which trials an asynchronous rule stops depends on who arrives first; what both trained must be the same."""
    mine, theirs = curves(run_dir), curves(other)
    assert mine.keys() == theirs.keys()
    for trial_id, curve in mine.items():
        common = min(len(curve), len(theirs[trial_id]))
        assert curve[:common] == theirs[trial_id][:common]


def test_killed_twice_and_resumed(finished, sweep_cli, settings, tmp_path):
    run_dir = tmp_path / "killed"
    for epochs in (4, 10):
        process = start(run_dir, settings, "--resume")
        wait_for_epochs(run_dir, process, epochs)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert journal(run_dir, "SELECT 1 FROM trials WHERE outcome IN ('pending', 'running')")
    done = sweep_cli("launch", "quickstart", "--run-dir", run_dir, "--resume", "--json", *settings, timeout=200)
    assert done.returncode == 0, done.stderr
    check_whole(run_dir, num_trials=6, max_epochs=4)
    check_decisions(run_dir, eta=2)
    assert_common_epochs_equal(run_dir, finished.run_dir)


@pytest.mark.parametrize("how", ["sweep stop", "SIGINT", "SIGTERM"])
def test_stopped_on_request_and_resumed(how, finished, sweep_cli, settings, tmp_path):
    run_dir = tmp_path / "stopped"
    if how == "sweep stop":  # two more commands start before it is stopped: it must still be at work then
        settings = [*settings, "--set", "trials_per_space=40"]
    process = start(run_dir, settings, "--json")
    wait_for_epochs(run_dir, process, 3)
    if how == "sweep stop":
        second = sweep_cli("launch", "quickstart", "--run-dir", run_dir, "--resume", *settings)
        assert second.returncode == 2
        assert f"process {process.pid}" in second.stderr
        assert sweep_cli("stop", run_dir).returncode == 0
    else:
        os.kill(process.pid, getattr(signal, how))
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 3, stderr
    summary = json.loads(stdout)
    assert not summary["finished"]
    assert "--resume" in stderr
    assert not query(run_dir / "mlflow.db", "SELECT 1 FROM runs WHERE status = 'RUNNING'")
    if how != "SIGINT":  # one of them goes on to the end; going on is the same for all
        return
    done = sweep_cli("launch", "quickstart", "--run-dir", run_dir, "--resume", *settings, timeout=200)
    assert done.returncode == 0, done.stderr
    check_whole(run_dir, num_trials=6, max_epochs=4)
    assert_common_epochs_equal(run_dir, finished.run_dir)


def test_a_second_ctrl_c_ends_it_at_once_with_nothing_left_running(settings, tmp_path):
    run_dir = tmp_path / "run"
    process = start(run_dir, settings)
    wait_for_epochs(run_dir, process, 2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.4)  # two signals in one call of C count as one
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    stdout, stderr = process.communicate(timeout=60)
    assert time.monotonic() - started < 15
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert "--resume" in stderr
    assert "Traceback" not in stderr
    assert not query(run_dir / "mlflow.db", "SELECT 1 FROM runs WHERE status = 'RUNNING'")


def test_nothing_to_stop_is_said(finished, sweep_cli):
    done = sweep_cli("stop", finished.run_dir)
    assert done.returncode == 2
    assert "nothing to stop" in done.stderr
