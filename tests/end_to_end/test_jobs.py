"""A study as a Ray job on one host: followed, let go, found again, stopped, gone on with; with this very code."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from postgres import free_port
from sweeps.outside import journal

from cluster import git_commit, node
from cluster.node import Resources

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

# Nothing is trained: another file's tests train on clusters, and here it matters who speaks with whom.
SETTINGS = [
    "objective=objectives:steady", "trials_per_space=4", 'spaces=["anynet_c", "anynet_d"]', "stopping.max_epochs=9",
    "stopping.grace_epochs=1", "judging.num_bootstrap=200",
]  # fmt: skip
OPTIONS = [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """A head with two cores, and the profile by which a laptop knows it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests" / "faults"))
    monkeypatch.setenv("FAULT_HOLD", str(tmp_path / "hold"))
    resources = Resources(num_cpus=2, object_store_memory=100_000_000)
    head = node.up(port=free_port(), dashboard_port=free_port(), resources=resources)
    path = tmp_path / "here.toml"
    text = f'name = "here"\naddress = "auto"\njobs = "{head.dashboard}"\nruns = "{tmp_path / "head"}"\n'
    path.write_text(f"{text}stall_after_s = 300\n")  # epochs are held back meanwhile
    yield path
    node.stop(head)


def test_a_study_is_followed_let_go_found_again_stopped_and_gone_on_with(profile, sweep_cli, tmp_path):
    laptop, hold = tmp_path / "laptop", tmp_path / "hold"
    laptop.mkdir()
    hold.touch()  # no epoch ends, nor does the sweep, before it is let go
    following = subprocess.Popen(
        [sys.executable, "-m", "sweep", "submit", "quickstart", "--on", profile, "--name", "mine", *OPTIONS],
        cwd=laptop, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in following.stdout:
        if "training, 2 trials at a time" in line:
            break
    following.send_signal(signal.SIGINT)
    _, said = following.communicate(timeout=30)
    assert following.returncode == 0, said
    (job,) = (path.stem for path in (laptop / "runs" / ".jobs").glob("*.json"))
    assert f"detached; the sweep goes on. Back: sweep attach {job}" in said

    hold.unlink()
    deadline = time.monotonic() + 60
    while not journal(tmp_path / "head" / "mine", "SELECT 1 FROM epochs"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    hold.touch()
    known = json.loads(sweep_cli("status", job, "--json", cwd=laptop).stdout)
    assert known["epochs_trained"] > 0
    assert (known["job_status"], known["running"], known["finished"]) == ("RUNNING", True, False)

    # The same name twice at once, while the first is at work: the second driver names the first and leaves it alone.
    again = ("submit", "quickstart", "--on", profile, "--name", "mine", *OPTIONS)
    second = sweep_cli(*again, cwd=laptop, timeout=100)
    assert second.returncode == 2
    assert "is in use by process" in second.stdout

    assert sweep_cli("stop", job, cwd=laptop).returncode == 0
    hold.unlink()
    attached = sweep_cli("attach", job, cwd=laptop, timeout=100)
    assert attached.returncode == 3
    assert "training, 2 trials at a time" in attached.stdout, "from its beginning"
    assert "stopped before its end" in attached.stdout
    late = sweep_cli("stop", job, cwd=laptop)
    assert late.returncode == 2
    assert "has ended (FAILED); there is nothing to stop" in late.stderr

    # From another folder, where nobody knows of it; then the rest, submitted again.
    elsewhere = sweep_cli("status", job, "--on", profile, "--json", cwd=tmp_path)
    stopped = json.loads(elsewhere.stdout)
    assert (stopped["job_status"], stopped["running"], stopped["finished"]) == ("FAILED", False, False)
    done = sweep_cli(*again, cwd=laptop, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resuming" in done.stdout

    outcomes = [row["outcome"] for row in journal(tmp_path / "head" / "mine", "SELECT outcome FROM trials")]
    assert len(outcomes) == 8
    assert set(outcomes) <= {"completed", "stopped"}
    (row,) = journal(tmp_path / "head" / "mine", "SELECT value FROM meta WHERE key = 'git_commit'")
    assert json.loads(row["value"]) == git_commit(), "the code that trained is the laptop's, named by its commit"
