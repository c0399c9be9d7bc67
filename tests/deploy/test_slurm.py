"""cluster/slurm/sweep.sbatch for real: a Slurm of this host's own runs it, and leaves a report and nothing else."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from deploy.slurm import field, slurm
from needs import needs
from sweeps.outside import journal

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "cluster" / "slurm" / "sweep.sbatch"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "sinfo")
# Nothing is trained: what the job does around it is the matter.
SETTINGS = [
    "objective=objectives:steady", 'spaces=["anynet_c", "regnet_x"]', "trials_per_space=4", "stopping.grace_epochs=1",
    "judging.num_bootstrap=200", "stopping.max_epochs=9",
]  # fmt: skip
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Not below pytest's own folder, which is closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def submit(
    slurm_environment: dict[str, str],
    folder: Path,
    *options: str,
    study: str = "quickstart",
    **own: str,
) -> str:
    """The job's id. Slurm hands the environment to the job; Ray's folder is the script's own matter."""
    sweep = folder / "sweep"
    if not sweep.exists():
        path = f"{ROOT}:{ROOT / 'tests' / 'faults'}"
        sweep.write_text(f'#!/bin/sh\nPYTHONPATH="{path}" exec "{sys.executable}" -m sweep "$@"\n')
        sweep.chmod(0o755)
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    command = [
        "sbatch", "--parsable", "--output=job.out", "--cpus-per-task=2", *options,
        SCRIPT, study, folder / "a run", *words,
    ]  # fmt: skip
    environment = {key: value for key, value in slurm_environment.items() if key != "RAY_TMPDIR"}
    answer = subprocess.run(
        list(map(str, command)), env=environment | {"SWEEP": str(sweep), "SWEEP_STORE": "100000000"} | own, cwd=folder,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def end_of(job: str, environment: dict[str, str], patience_s: float = 240) -> str:
    deadline = time.monotonic() + patience_s
    while (state := field("JobState", job, environment)) not in ENDED and time.monotonic() < deadline:
        time.sleep(0.5)
    return state


def left_over(job: str) -> list[str]:
    """Processes and files of a job that should have gone with it."""
    processes = [process for process in psutil.process_iter() if of_job(process, job)]
    return [*(str(process) for process in processes), *(str(path) for path in Path("/tmp").glob(f"ray-{job}"))]


def of_job(process: psutil.Process, job: str) -> bool:
    try:
        environment = process.environ()
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return False
    return (
        environment.get("SLURM_JOB_ID") == job
        and environment.get("SWEEP_TEST_SESSION") == os.environ["SWEEP_TEST_SESSION"]
    )


def wait_for_an_epoch(run_dir: Path, patience_s: float = 240) -> None:
    deadline = time.monotonic() + patience_s
    while not ((run_dir / "journal.sqlite").exists() and journal(run_dir, "SELECT 1 FROM epochs")):
        assert time.monotonic() < deadline, (run_dir.parent / "job.out").read_text()
        time.sleep(0.5)


def assert_ended(job: str, environment: dict[str, str], folder: Path, state: str, code: int) -> str:
    """The job ended so, and nothing of it is left; answers what it printed."""
    ended, said = end_of(job, environment), (folder / "job.out").read_text()
    assert (ended, field("ExitCode", job, environment)) == (state, f"{code}:0"), said
    assert list((folder / "a run").glob(".slurm-*")) == [], "the job's token was left behind"
    assert left_over(job) == []
    return said


@pytest.mark.slow
def test_a_job_over_two_nodes_whose_time_is_up_goes_on_in_the_next_and_ends_with_a_report(open_folder: Path):
    with slurm(open_folder, needs(*PROGRAMS), num_nodes=2) as environment:
        job = submit(environment, open_folder, "--nodes=2")
        wait_for_an_epoch(open_folder / "a run")
        # As Slurm does two minutes before the end.
        subprocess.run(["scancel", "--signal=TERM", "--batch", job], env=environment, check=True, timeout=60)
        said = assert_ended(job, environment, open_folder, "FAILED", 3)
        assert "2 node(s) with 2 cores each" in said
        assert "go on with" in said
        assert not (open_folder / "a run" / "report.html").exists()

        job = submit(environment, open_folder, "--nodes=1")
        said = assert_ended(job, environment, open_folder, "COMPLETED", 0)
        assert (open_folder / "a run" / "report.html").is_file(), said


@pytest.mark.slow
def test_a_job_that_cannot_run_says_why_and_leaves_nothing(open_folder: Path):
    with slurm(open_folder, needs(*PROGRAMS), num_nodes=1) as environment:
        job = submit(environment, open_folder, "--nodes=1", SWEEP_ADDRESS="203.0.113.1")
        said = assert_ended(job, environment, open_folder, "FAILED", 1)
        assert "203.0.113.1" in said
        assert "Ray did not come up" in said

        job = submit(environment, open_folder, "--nodes=1", study="no_such_study")
        assert "no_such_study" in assert_ended(job, environment, open_folder, "FAILED", 2)
