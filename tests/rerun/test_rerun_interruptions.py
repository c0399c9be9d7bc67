"""Whoever is killed, worker or driver: the rerun goes on from its last epoch to the result of an undisturbed one."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from rerun.small_sweep import make_sweep

import sweep
from sweep.rerun.result import read_results

SCRIPT = Path(__file__).with_name("rerun_few_images.py")


def losses(result) -> list[float]:
    return [row["train_loss"] for row in result.history]


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_the_curve_is_that_of_an_undisturbed_one(tmp_path, alone):
    run_dir, killed, told = make_sweep(tmp_path / "run"), [], []

    def kill_once(stage: str, epoch) -> None:
        told.append(epoch.epoch)
        if epoch.epoch != 2 or killed:
            return
        for process in psutil.Process().children(recursive=True):
            if "RayTrainWorker" in " ".join(process.cmdline()):
                process.send_signal(signal.SIGKILL)
                killed.append(process.pid)

    result, _ = sweep.rerun(run_dir, best=1, seeds=1, progress=kill_once)
    assert len(killed) == 1
    assert told == [1, 2, 3, 4]
    assert losses(result) == alone(1)  # to the last bit
    assert result.candidate.confirmed_error_pct == ()


def start(run_dir: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, SCRIPT, run_dir], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
    )


def kill_once_there(process: subprocess.Popen[bytes], pattern: str, run_dir: Path) -> None:
    deadline = time.monotonic() + 100
    while not list(run_dir.glob(pattern)):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_a_killed_driver_goes_on_when_called_again(tmp_path, alone):
    run_dir = make_sweep(tmp_path / "run")
    kill_once_there(start(run_dir), "rerun/*/history.jsonl", run_dir)
    confirmed = {path: path.stat().st_mtime_ns for path in run_dir.glob("rerun/confirmed/*.json")}
    (log,) = run_dir.glob("rerun/*/history.jsonl")
    before = [json.loads(line) for line in log.read_text().splitlines()]
    assert not list(run_dir.glob("rerun/*/result.json"))  # the test set is still shut
    finished = start(run_dir)
    output, _ = finished.communicate(timeout=120)
    assert finished.returncode == 0, output
    (result,) = read_results(run_dir)
    assert list(result["history"][: len(before)]) == before  # times included: no epoch was trained twice
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
