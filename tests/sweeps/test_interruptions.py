"""A sweep that is asked to stop, and what is said of one that is at work. Faults and signals: tests/faults."""

import json
import subprocess
import sys
import time

from sweeps.outside import journal, query


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


def test_stopped_on_request(sweep_cli, settings, tmp_path):
    run_dir = tmp_path / "stopped"
    settings = [*settings, "--set", "trials_per_space=40"]  # two more commands start before it is stopped
    process = start(run_dir, settings, "--json")
    wait_for_epochs(run_dir, process, 3)
    second = sweep_cli("launch", "quickstart", "--run-dir", run_dir, "--resume", *settings)
    assert second.returncode == 2
    assert f"process {process.pid}" in second.stderr
    assert sweep_cli("stop", run_dir).returncode == 0
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 3, stderr
    assert not json.loads(stdout)["finished"]
    assert "--resume" in stderr
    assert not query(run_dir / "mlflow.db", "SELECT 1 FROM runs WHERE status = 'RUNNING'")


def test_nothing_to_stop_is_said(finished, sweep_cli):
    done = sweep_cli("stop", finished.run_dir)
    assert done.returncode == 2
    assert "nothing to stop" in done.stderr
