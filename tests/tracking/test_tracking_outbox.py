"""The outbox as the sweep uses it: started, closed three ways, resumed, killed, and delivered later."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tracking.journal_maker import make_journal, train
from tracking.outside import assert_whole

from sweep.records.journal import Journal, LeaseLostError, now_ms
from sweep.records.lease import held
from sweep.tracking import Outbox, TrackingError, default_tracking_uri, deliver

T0, T1, T2 = (f"regnet_x-small-{draw:04d}" for draw in range(3))


@pytest.fixture
def journal(run_dir: Path):
    with make_journal(run_dir) as journal:
        yield journal


def start(run_dir: Path, uri: str = "", token: int | None = None) -> Outbox:
    uri = uri or default_tracking_uri(run_dir)
    outbox = Outbox(run_dir, uri, experiment="quickstart", interval_s=0.05, token=token)
    outbox.start()
    return outbox


def wait_until(is_true: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert is_true()


def wait_until_delivered(outbox: Outbox) -> None:
    wait_until(lambda: outbox.backlog() == 0)


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
    wait_until(lambda: statuses(sql)["RegNetX-0000"][0] == "RUNNING")
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
        wait_until(lambda: journal.num_undelivered() == 0, 60)
        sweep.kill()
    assert statuses(sql)["RegNetX-0000"] == ("RUNNING", "running")
    train(journal, T0, [30.0], "running")
    train(journal, T1, [50.0], "stopped")
    assert deliver(run_dir) == 4
    assert statuses(sql)["RegNetX-0000"] == ("KILLED", "interrupted")
    assert statuses(sql)["RegNetX-0001"] == ("KILLED", "stopped")
    assert parent(statuses(sql)) == ("KILLED", "interrupted")
    assert deliver(run_dir) == 0


def test_a_dead_server_never_raises_into_the_sweep_and_loses_nothing(journal, run_dir):
    outbox = start(run_dir, "http://user:canary@127.0.0.1:9")
    train(journal, T0, [40.0], "completed")
    wait_until(lambda: outbox.error is not None)
    begun = time.monotonic()
    with pytest.raises(TrackingError, match=r"kept in the journal, and `sweep sync .*` delivers them") as raised:
        outbox.close(status="finished", timeout_s=10)
    assert time.monotonic() - begun < 12
    assert "canary" not in str(raised.value) + str(outbox.error)
    assert outbox.backlog() == 2
    with pytest.raises(TrackingError, match=r"2 results are not delivered.*does not answer.*start the MLflow server"):
        deliver(run_dir)
    assert deliver(run_dir, default_tracking_uri(run_dir)) == 2
    assert deliver(run_dir) == 0


def test_a_paused_trial_waits_is_interrupted_and_goes_on_in_one_run(journal, run_dir, sql):
    """In a sweep that is interrupted while it waits, and in one that ends with it cancelled."""
    train(journal, T0, [40.0], "paused")
    train(journal, T1, [50.0], "running")
    outbox = start(run_dir)
    wait_until_delivered(outbox)
    assert statuses(sql)["RegNetX-0000"] == ("SCHEDULED", "paused")
    outbox.close(status="interrupted")
    assert statuses(sql)["RegNetX-0000"] == ("KILLED", "interrupted")
    assert sql("SELECT count(*) FROM runs WHERE status IN ('RUNNING', 'SCHEDULED')") == [(0,)]
    outbox = start(run_dir)
    wait_until(lambda: statuses(sql)["RegNetX-0000"] == ("SCHEDULED", "paused"))
    journal._db.execute("UPDATE trials SET outcome = 'running' WHERE trial_id = ?", (T0,))  # it has earned its place
    wait_until(lambda: statuses(sql)["RegNetX-0000"] == ("RUNNING", "running"))
    train(journal, T0, [30.0], "completed")
    journal.leave(T1, "cancelled")
    outbox.close(status="finished")
    assert statuses(sql)["RegNetX-0000"] == ("FINISHED", "completed")
    assert statuses(sql)["RegNetX-0001"] == ("KILLED", "cancelled")
    assert_whole(run_dir, sql)


def test_the_end_of_a_sweep_is_not_before_its_last_epoch_though_the_clock_was_set_back(
    journal, run_dir, sql, monkeypatch
):
    train(journal, T0, [40.0], "completed")
    recorded_at_ms = journal.epochs()[0]["recorded_at_ms"]
    for place in ("sweep.records.journal_file.now_ms", "sweep.tracking.outbox.now_ms"):
        monkeypatch.setattr(place, lambda: now_ms() - 3_600_000)
    train(journal, T1, [50.0, 45.0], "running")
    start(run_dir).close(status="interrupted")
    assert sql("SELECT count(*) FROM runs WHERE end_time < ?", recorded_at_ms) == [(0,)]
    assert sql("SELECT count(*) FROM metrics WHERE timestamp < ?", recorded_at_ms) == [(4,)]  # facts of the first trial
    assert_whole(run_dir, sql)


def test_who_has_lost_the_lease_tells_mlflow_nothing_more(journal, run_dir, sql):
    with held(journal, lambda message: None) as token:
        outbox = start(run_dir, token=token)
        train(journal, T0, [40.0], "running")
        wait_until_delivered(outbox)
    with Journal.open(run_dir) as other, held(other, lambda message: None):
        train(other, T1, [50.0], "stopped")
        wait_until(lambda: outbox.error is not None)
        assert "taken this sweep over" in outbox.error
        with pytest.raises(LeaseLostError):
            outbox.close(status="finished")
        assert sql("SELECT count(*) FROM runs") == [(2,)]
        assert sql("SELECT status FROM runs WHERE name = 'RegNetX-0000'") == [("RUNNING",)]
    deliver(run_dir)
    assert_whole(run_dir, sql)
