"""Against a real MLflow server: what `sweep ui` starts, and an outage in the middle of a sweep."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from tracking.journal_maker import make_journal, train

from sweep.tracking import (
    Outbox,
    TrackingError,
    default_tracking_uri,
    deliver,
    experiment_url,
    preflight,
    run_url,
    serve,
    strip_credentials,
)

T0, T1 = "regnet_x-small-0000", "regnet_x-small-0001"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def start_server(run_dir: Path, port: int) -> subprocess.Popen[bytes]:
    return serve(
        default_tracking_uri(run_dir), run_dir / "mlartifacts", port=port, log_path=run_dir / "mlflow-server.log"
    )


def start_again(run_dir: Path, port: int) -> subprocess.Popen[bytes]:
    """On the port of one that was killed, which some other connection may have been given for a moment."""
    deadline = time.monotonic() + 90
    while True:
        try:
            return start_server(run_dir, port)
        except ValueError:
            assert time.monotonic() < deadline
            time.sleep(0.5)


def kill(server: subprocess.Popen[bytes]) -> None:
    """SIGKILL, the worker too."""
    for process in [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]:
        os.kill(process.pid, signal.SIGKILL)
    server.wait()


def test_a_server_killed_in_mid_sweep_loses_nothing(run_dir, sql):
    """Also: preflight accepts a living server, its pages answer, and `terminate` leaves nothing behind."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    server = start_server(run_dir, port)
    preflight(uri)
    with pytest.raises(ValueError, match=f"--port {port}: cannot be used"):
        start_server(run_dir, port)
    with make_journal(run_dir, num=2) as journal:
        outbox = Outbox(run_dir, uri, experiment="quickstart", interval_s=0.05)
        train(journal, T0, [40.0], "running")
        outbox.start()
        deadline = time.monotonic() + 30
        while outbox.backlog() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert outbox.backlog() == 0, outbox.error
        kill(server)
        train(journal, T0, [30.0], "completed")
        train(journal, T1, [50.0], "stopped")
        with pytest.raises(TrackingError, match=r"4 results and the end of the sweep are not delivered"):
            outbox.close(status="finished", timeout_s=10)
        assert sql("SELECT count(*) FROM runs WHERE status = 'RUNNING'") == [(2,)]

        server = start_again(run_dir, port)
        assert deliver(run_dir) == 4
        found = sql("SELECT name, status FROM runs ORDER BY name")
        assert [(name[:12], status) for name, status in found] == [
            ("RegNetX-0000", "FINISHED"),
            ("RegNetX-0001", "KILLED"),
            ("quickstart-1", "FINISHED"),
        ]
        assert sql("SELECT step, value FROM metrics WHERE key = 'error_pct' ORDER BY run_uuid, step")
        assert sql("SELECT run_uuid, key, step FROM metrics GROUP BY 1, 2, 3 HAVING count(*) > 1") == []
        assert sql("SELECT count(*) FROM metrics WHERE key = 'error_pct'") == [(3,)]
        assert len(list((run_dir / "mlartifacts").rglob("architecture.yaml"))) == 2
        with urllib.request.urlopen(experiment_url(uri, journal.get("experiment_id"))) as page:
            assert page.status == 200
    workers = psutil.Process(server.pid).children(recursive=True)
    server.terminate()
    server.wait(timeout=20)
    assert not [worker for worker in workers if worker.is_running()]


def test_links_open_the_trials_and_hide_the_password():
    base = "http://user:canary@host:5000/"
    view = experiment_url(base, "7", "abc")
    assert view == (
        "http://host:5000/#/experiments/7/runs?workflowType=machine_learning"
        "&compareRunsMode=CHART&viewStateShareKey=abc"
    )
    plain = experiment_url(base, "7", "abc", saved_view=False)
    assert "searchFilter=tags.%60mlflow.parentRunId%60%20%3D%20%27abc%27" in plain
    assert run_url(base, "7", "abc") == "http://host:5000/#/experiments/7/runs/abc?workflowType=machine_learning"
    assert strip_credentials(view) == view


def test_there_is_nothing_to_serve_without_a_database(tmp_path):
    with pytest.raises(ValueError, match="launch a sweep first"):
        start_server(tmp_path, free_port())
    with pytest.raises(ValueError, match="open it in a browser"):
        serve("http://host:5000", tmp_path, port=free_port(), log_path=tmp_path / "log")


def test_a_server_that_cannot_start_says_why(tmp_path):
    (tmp_path / "mlflow.db").write_text("this is no database, but it is long enough to be taken for a broken one")
    with pytest.raises(TrackingError, match="file is not a database"):
        start_server(tmp_path, free_port())


def test_two_processes_create_one_database(tmp_path):
    code = "import sys; from sweep.tracking.delivery import connect; connect(sys.argv[1])"
    uri = default_tracking_uri(tmp_path)
    both = [subprocess.Popen([sys.executable, "-c", code, uri]) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
