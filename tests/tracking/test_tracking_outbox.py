"""The outbox as the sweep uses it: started, closed three ways, resumed, killed, and delivered later."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tracking.journal_maker import make_journal, train

from sweep.tracking import Outbox, TrackingError, default_tracking_uri, deliver

T0, T1, T2 = (f"regnet_x-small-{draw:04d}" for draw in range(3))


@pytest.fixture
def journal(run_dir: Path):
    with make_journal(run_dir) as journal:
        yield journal


def start(run_dir: Path, uri: str = "") -> Outbox:
    outbox = Outbox(run_dir, uri or default_tracking_uri(run_dir), experiment="quickstart", interval_s=0.05)
    outbox.start()
    return outbox


def wait_until_delivered(outbox: Outbox) -> None:
    deadline = time.monotonic() + 30
    while outbox.backlog() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert outbox.backlog() == 0, outbox.error


def statuses(sql) -> dict[str, tuple[str, str]]:
    """Run name -> status and outcome."""
    return {
        name: (status, outcome)
        for name, status, outcome in sql(
            "SELECT name, status, value FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid AND key = 'outcome'"
        )
    }


def parent(found: dict[str, Any]) -> Any:
    return next(value for name, value in found.items() if name.startswith("quickstart-"))


@pytest.mark.parametrize(
    ("status", "mlflow_status"), [("finished", "FINISHED"), ("interrupted", "KILLED"), ("failed", "FAILED")]
)
def test_no_run_is_left_running_however_the_sweep_ends(journal, run_dir, sql, status, mlflow_status):
    train(journal, T0, [40.0], "completed")
    train(journal, T1, [50.0], "running")
    outbox = start(run_dir)
    outbox.close(status=status)
    found = statuses(sql)
    assert parent(found) == (mlflow_status, status)
    assert found["RegNetX-0000"] == ("FINISHED", "completed")
    assert found["RegNetX-0001"] == ("KILLED", "interrupted")
    assert sql("SELECT count(*) FROM runs WHERE status = 'RUNNING' OR end_time IS NULL") == [(0,)]
    assert outbox.backlog() == 0
    assert outbox.error is None


def test_a_resumed_sweep_goes_on_in_the_same_runs(journal, run_dir, sql):
    train(journal, T0, [40.0], "running")
    start(run_dir).close(status="interrupted")
    before = sql("SELECT run_uuid FROM runs ORDER BY 1")
    outbox = start(run_dir)
    deadline = time.monotonic() + 30
    while statuses(sql)["RegNetX-0000"][0] != "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert {status for status, _ in statuses(sql).values()} == {"RUNNING"}
    train(journal, T0, [30.0], "completed")
    outbox.close(status="finished")
    assert sql("SELECT run_uuid FROM runs ORDER BY 1") == before
    assert statuses(sql)["RegNetX-0000"] == ("FINISHED", "completed")
    assert parent(statuses(sql)) == ("FINISHED", "finished")
    assert sql("SELECT step, value FROM metrics WHERE key = 'error_pct' ORDER BY 1") == [(1, 40.0), (2, 30.0)]


def test_results_arrive_while_the_sweep_goes_on(journal, run_dir, sql):
    outbox = start(run_dir)
    for error_pct, outcome in ((40.0, "running"), (30.0, "completed")):
        train(journal, T0, [error_pct], outcome)
        wait_until_delivered(outbox)
        assert sql("SELECT value FROM latest_metrics WHERE key = 'error_pct'") == [(error_pct,)]
    outbox.close(status="finished")
    assert sql("SELECT run_uuid, key, step FROM metrics GROUP BY 1, 2, 3 HAVING count(*) > 1") == []


def test_the_end_brings_note_tags_metrics_and_artifacts(journal, run_dir, sql, tmp_path):
    report = tmp_path / "report.html"
    report.write_text("<html>")
    start(run_dir).close(
        status="finished",
        artifacts={"report.html": report, "tables/rules.csv": report},
        note="**Verdicts**: undecided",
        tags={"verdict.widths_up": "undecided"},
        metrics={"num_completed": 0.0},
    )
    parent_id = journal.get("parent_run_id")
    tags = dict(sql("SELECT key, value FROM tags WHERE run_uuid = ?", parent_id))
    assert "**Verdicts**: undecided" in tags["mlflow.note.content"]
    assert tags["verdict.widths_up"] == "undecided"
    assert sql("SELECT value FROM metrics WHERE run_uuid = ? AND key = 'num_completed'", parent_id) == [(0.0,)]
    stored = run_dir / "mlartifacts" / parent_id / "artifacts"
    assert {path.relative_to(stored).as_posix() for path in stored.rglob("*.*")} == {
        "sweep.json", "architectures.parquet", "report.html", "tables/rules.csv"
    }  # fmt: skip


def test_an_artifact_that_is_missing_leaves_no_run_open_and_is_sent_later(journal, run_dir, sql, tmp_path):
    train(journal, T0, [40.0], "completed")
    with pytest.raises(TrackingError, match=r"report\.html"):
        start(run_dir).close(status="finished", artifacts={"report.html": tmp_path / "report.html"})
    assert sql("SELECT count(*) FROM runs WHERE status = 'RUNNING'") == [(0,)]
    (tmp_path / "report.html").write_text("<html>")
    assert deliver(run_dir) == 0
    assert list((run_dir / "mlartifacts").rglob("report.html"))


_SWEEP = """
import sys, time
from pathlib import Path
from sweep.tracking import Outbox, default_tracking_uri
run_dir = Path(sys.argv[1])
outbox = Outbox(run_dir, default_tracking_uri(run_dir), experiment="quickstart", interval_s=0.05)
outbox.start()
time.sleep(600)
"""


def test_a_killed_sweep_is_closed_as_interrupted_by_a_later_delivery(journal, run_dir, sql):
    train(journal, T0, [40.0], "running")
    with subprocess.Popen([sys.executable, "-c", _SWEEP, str(run_dir)]) as sweep:
        deadline = time.monotonic() + 60
        while journal.num_undelivered() and time.monotonic() < deadline:
            time.sleep(0.05)
        sweep.kill()
    assert statuses(sql)["RegNetX-0000"] == ("RUNNING", "running")
    train(journal, T0, [30.0], "running")
    train(journal, T1, [50.0], "stopped")
    assert deliver(run_dir) == 4
    assert statuses(sql)["RegNetX-0000"] == ("KILLED", "interrupted")
    assert statuses(sql)["RegNetX-0001"] == ("KILLED", "stopped")
    assert parent(statuses(sql)) == ("KILLED", "interrupted")
    assert deliver(run_dir) == 0


def test_a_dead_server_never_raises_into_the_sweep_and_loses_nothing(journal, run_dir, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    outbox = start(run_dir, "http://user:canary@127.0.0.1:9")
    train(journal, T0, [40.0], "completed")
    deadline = time.monotonic() + 30
    while outbox.error is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert outbox.error is not None
    begun = time.monotonic()
    with pytest.raises(TrackingError, match="kept in the journal") as raised:
        outbox.close(status="finished", timeout_s=10)
    assert time.monotonic() - begun < 12
    assert "canary" not in str(raised.value) + str(outbox.error)
    assert outbox.backlog() == 2
    assert deliver(run_dir, default_tracking_uri(run_dir)) == 2
    assert deliver(run_dir) == 0


def test_a_sweep_that_was_delivered_is_not_delivered_again(journal, run_dir, monkeypatch):
    train(journal, T0, [40.0], "completed")
    start(run_dir).close(status="finished")
    monkeypatch.setattr("sweep.tracking.delivery.connect", lambda uri: pytest.fail("MLflow was asked"))
    assert deliver(run_dir) == 0
