"""Whoever is killed, worker or driver: the rerun goes on from its last epoch to the result of an undisturbed one."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rerun.small_sweep import make_sweep

from sweep.rerun.result import read_results

SCRIPT = Path(__file__).with_name("rerun_few_images.py")


def rerun(run_dir: Path, *kill: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, run_dir, *map(str, kill)]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=200)


@pytest.mark.slow
def test_driver_and_worker_are_killed_and_the_curve_is_that_of_an_undisturbed_one(tmp_path, alone):
    run_dir = make_sweep(tmp_path / "run")
    assert rerun(run_dir, "driver", 2).returncode == -signal.SIGKILL
    confirmed = {path: path.stat().st_mtime_ns for path in run_dir.glob("rerun/confirmed/*.json")}
    (log,) = run_dir.glob("rerun/*/history.jsonl")
    before = [json.loads(line) for line in log.read_text().splitlines()]
    assert not list(run_dir.glob("rerun/*/result.json"))  # the test set is still shut

    finished = rerun(run_dir, "worker", 3)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (result,) = read_results(run_dir)
    assert list(result["history"][: len(before)]) == before  # times included: no epoch was trained twice
    assert [row["epoch"] for row in result["history"]] == [1, 2, 3, 4]
    assert [row["train_loss"] for row in result["history"]] == alone(int(result["candidate"]["trial_id"][-4:]))
    assert len(confirmed) == 2
    assert {path: path.stat().st_mtime_ns for path in run_dir.glob("rerun/confirmed/*.json")} == confirmed  # kept


def test_a_sweep_at_work_is_not_disturbed(tmp_path):
    from sweep.scheduling.driver import owned

    run_dir = make_sweep(tmp_path / "run")
    command = [sys.executable, "-c", "import sys, sweep; sweep.rerun(sys.argv[1])", run_dir]
    with owned(run_dir):
        done = subprocess.run(command, capture_output=True, text=True)
    assert "ValueError" in done.stderr
    assert "is in use by process" in done.stderr
    shutil.rmtree(run_dir)


@pytest.mark.parametrize("damage", [lambda text: "", lambda text: text[: len(text) // 2]])
def test_a_log_cut_short_does_no_harm(rerun_done, tmp_path, damage):
    from sweep.rerun.full_scale import known_epochs

    text = Path(rerun_done.result.directory, "history.jsonl").read_text()
    log = tmp_path / "history.jsonl"
    log.write_text(damage(text))
    assert known_epochs(log) == damage(text).count("\n") == log.read_text().count("\n")
