"""Whatever is repeated, cut short or lost on the way: one run a trial, each point once, a status that tells the truth.

The database is asked by SQL, not through MLflow.
"""

import json
import shutil
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from tracking.journal_maker import STUDY, MadeUpSweep, asking, make_journal, train

from sweep.spaces import Architecture
from sweep.tracking import default_tracking_uri, delivery, record_run
from sweep.tracking.delivery import Delivery, TrackingError, connect

T0, T1, T2 = (f"regnet_x-small-{draw:04d}" for draw in range(3))


def deliver(run_dir: Path, *, live: bool = True) -> int:
    """What one session of a sweep does: open, deliver, end."""
    session = Delivery(run_dir, default_tracking_uri(run_dir), experiment="quickstart")
    try:
        session.open(live=live)
        return session.deliver(live=live)
    finally:
        session.close()


@pytest.fixture
def journal(run_dir: Path):
    with make_journal(run_dir) as journal:
        yield journal


def runs(sql) -> dict[str, dict[str, Any]]:
    """Trial id -> its run's status and tags; fails if a trial has two."""
    found: dict[str, dict[str, Any]] = {}
    for run_id, status, name in sql("SELECT run_uuid, status, name FROM runs"):
        tags = dict(sql("SELECT key, value FROM tags WHERE run_uuid = ?", run_id))
        if tags["kind"] == "trial":
            assert tags["sweep.trial_id"] not in found
            found[tags["sweep.trial_id"]] = {"run_id": run_id, "status": status, "name": name, **tags}
    return found


def assert_no_point_twice(sql) -> None:
    assert sql("SELECT run_uuid, key, step FROM metrics GROUP BY run_uuid, key, step HAVING count(*) > 1") == []


class Counted:
    """An MLflow client that counts its calls and can fail: with the answer lost after the n-th call."""

    def __init__(self, client: Any, fail_after: int = 0):
        self.calls: Counter[str] = Counter()
        self._client, self._fail_after = client, fail_after

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            answer = getattr(self._client, name)(*args, **kwargs)
            self.calls[name] += 1
            if self.calls.total() == self._fail_after:
                raise ConnectionError("the answer was lost")
            return answer

        return call


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch):
    """`counted(fail_after=n)` puts a fresh counting client in the place of MLflow's, and answers it."""

    def replace(fail_after: int = 0) -> Counted:
        holder = Counted(None, fail_after)

        def connected(uri: str) -> Counted:
            holder._client = connect(uri)
            return holder

        monkeypatch.setattr(delivery, "connect", connected)
        return holder

    return replace


def test_each_outcome_has_its_status_and_its_tag(journal, run_dir, sql):
    train(journal, T0, [40.0, 30.0], "completed")
    train(journal, T1, [50.0], "stopped")
    train(journal, T2, [80.0, float("nan")], "diverged")
    deliver(run_dir)
    found = runs(sql)
    assert {trial: (run["status"], run["outcome"], run["rung"]) for trial, run in found.items()} == {
        T0: ("FINISHED", "completed", "2"),
        T1: ("KILLED", "stopped", "1"),
        T2: ("FAILED", "diverged", "2"),
    }
    assert found[T1]["name"] == "RegNetX-0001"
    parent = sql("SELECT run_uuid FROM tags WHERE key = 'kind' AND value = 'sweep'")
    assert [(run["mlflow.parentRunId"],) for run in found.values()] == parent * 3


def test_a_trial_that_fails_before_and_after_its_start_says_why(journal, run_dir, sql):
    journal.fail(T0, "out_of_memory", "no memory", by_user=True, again=False)
    journal.start_attempt(T1, 1)
    journal.fail(T1, "machine", "worker killed three times", by_user=False, again=False)
    deliver(run_dir)
    found = runs(sql)
    assert [(run["status"], run["failure"]) for run in found.values()] == [
        ("FAILED", "no memory"),
        ("FAILED", "worker killed three times"),
    ]


def test_pending_trials_have_no_run_and_running_ones_are_running(journal, run_dir, sql):
    journal.start_attempt(T0, 1)
    deliver(run_dir)
    assert {trial: run["status"] for trial, run in runs(sql).items()} == {T0: "RUNNING"}


def test_curves_facts_and_architecture_arrive(journal, run_dir, sql):
    train(journal, T0, [40.0, 30.0], "completed")
    deliver(run_dir)
    run_id = runs(sql)[T0]["run_id"]
    trial = journal.trials()[0]
    points = sql("SELECT key, step, value FROM metrics WHERE run_uuid = ? AND is_nan = 0", run_id)
    assert ("error_pct", 2, 30.0) in points
    assert ("flops_m", 0, trial["flops"] / 1e6) in points
    assert len(points) == 2 * 6 + 5
    assert len({key for key, _, _ in points}) < 20
    params = dict(sql("SELECT key, value FROM params WHERE run_uuid = ?", run_id))
    assert params["space"] == "regnet_x"
    stored = next((run_dir / "mlartifacts").rglob(f"{run_id}/artifacts/architecture.yaml"))
    assert Architecture.from_yaml(stored.read_text()).id == trial["architecture_id"]


def test_delivering_again_and_again_changes_nothing(journal, run_dir, sql):
    train(journal, T0, [40.0], "running")
    assert deliver(run_dir) == 2
    train(journal, T0, [30.0, 20.0], "completed")
    assert deliver(run_dir) == 3
    before = sql("SELECT * FROM metrics ORDER BY 1, 2, 3, 4, 5")
    assert deliver(run_dir) == 0
    assert sql("SELECT * FROM metrics ORDER BY 1, 2, 3, 4, 5") == before
    assert len(runs(sql)) == 1
    assert_no_point_twice(sql)


def test_not_finite_values_are_left_out(journal, run_dir, sql):
    train(journal, T0, [40.0, float("nan")], "diverged")
    deliver(run_dir)
    assert sql("SELECT count(*) FROM metrics WHERE is_nan = 1 OR abs(value) > 1e300") == [(0,)]
    assert sql("SELECT step FROM metrics WHERE key = 'error_pct'") == [(1,)]


def test_the_answer_lost_after_any_call_doubles_nothing(tmp_path, empty_database, counted):
    """MLflow does what it is asked, and then the n-th answer is lost: for every n."""
    curves: list[Any] = []
    for fail_after in range(1, 100):
        run_dir = tmp_path / str(fail_after)
        with make_journal(run_dir) as journal:
            shutil.copy(empty_database, run_dir / "mlflow.db")
            train(journal, T0, [40.0, 30.0], "completed")
            train(journal, T1, [50.0], "running")
        client = counted(fail_after)
        try:
            deliver(run_dir)
        except ConnectionError:
            counted()
            deliver(run_dir)
        sql = asking(run_dir / "mlflow.db")
        assert {trial: run["status"] for trial, run in runs(sql).items()} == {T0: "FINISHED", T1: "RUNNING"}
        assert sql("SELECT count(*) FROM runs") == [(3,)]
        curves.append(sql("SELECT key, value, step FROM metrics ORDER BY 1, 2, 3"))
        if client.calls.total() < fail_after:
            break
    assert fail_after > 12
    assert curves == [curves[-1]] * fail_after


def test_a_crash_between_a_run_and_its_mark_doubles_nothing(journal, run_dir, sql, monkeypatch):
    train(journal, T0, [40.0], "running")
    with monkeypatch.context() as patch:
        patch.setattr("sweep.records.journal.Journal.set_run_id", _disk_full)
        with pytest.raises(OSError, match="full"):
            deliver(run_dir)
    assert len(sql("SELECT * FROM runs")) == 2
    deliver(run_dir)
    assert len(sql("SELECT * FROM runs")) == 2
    assert journal.trials()[0]["run_id"] == runs(sql)[T0]["run_id"]


def test_a_crash_between_the_points_and_their_mark_doubles_nothing(journal, run_dir, sql, monkeypatch):
    train(journal, T0, [40.0, 30.0], "completed")
    with monkeypatch.context() as patch:
        patch.setattr("sweep.records.journal.Journal.mark_delivered", _disk_full)
        with pytest.raises(OSError, match="full"):
            deliver(run_dir)
    deliver(run_dir)
    assert_no_point_twice(sql)
    assert runs(sql)[T0]["status"] == "FINISHED"


def _disk_full(*_: Any) -> None:
    raise OSError("disk full")


def test_a_trial_at_work_waits_for_more_news_and_one_that_ended_does_not(journal, run_dir, sql):
    session = Delivery(run_dir, default_tracking_uri(run_dir), experiment="quickstart", unfinished_after_s=1.0)
    session.open(live=True)
    train(journal, T0, [40.0], "running")
    train(journal, T1, [50.0], "completed")
    assert session.deliver(live=True) == 2  # an epoch and an outcome
    assert runs(sql).keys() == {T1}
    time.sleep(1)
    assert session.deliver(live=True) == 2
    assert runs(sql).keys() == {T0, T1}
    train(journal, T0, [30.0], "running")
    assert session.deliver(live=True) == 0
    train(journal, T0, [20.0], "completed")
    assert session.deliver(live=True) == 3
    session.close()


def test_a_trial_costs_six_requests_at_most_whatever_its_epochs(journal, run_dir, counted):
    deliver(run_dir)
    train(journal, T0, [40.0] * 100, "completed")
    client = counted()
    session = Delivery(run_dir, default_tracking_uri(run_dir), experiment="quickstart")
    session.open(live=True)
    before = client.calls.copy()
    session.deliver(live=True)
    session.close()
    calls = client.calls - before
    # search_runs is one for a whole session.
    assert calls == {"search_runs": 1, "create_run": 1, "upload": 1, "log_batch": 1, "set_terminated": 1}


def test_one_trial_that_is_refused_does_not_hold_up_the_others(journal, run_dir, sql, monkeypatch):
    for trial_id in (T0, T1, T2):
        train(journal, trial_id, [40.0], "completed")
    log_batch = delivery.log_batch

    def refuse_one(client: Any, run_id: str, *told: Any, **named: Any) -> None:
        if told and "depths" in told[0] and told[0]["seed"] == "0":
            raise ValueError("refused")
        log_batch(client, run_id, *told, **named)

    monkeypatch.setattr(delivery, "log_batch", refuse_one)
    with pytest.raises(ValueError, match="refused"):
        deliver(run_dir)
    assert {trial: run["status"] for trial, run in runs(sql).items()} == {
        T0: "RUNNING",
        T1: "FINISHED",
        T2: "FINISHED",
    }
    assert journal.num_undelivered() == 2


def test_a_server_that_does_not_know_the_sweep_is_told_everything(journal, run_dir, sql, tmp_path, empty_database):
    train(journal, T0, [40.0, 30.0], "completed")
    deliver(run_dir)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    session = Delivery(run_dir, default_tracking_uri(tmp_path), experiment="quickstart")
    session.open(live=True)
    assert session.deliver(live=True) == 3
    session.close()
    other = asking(tmp_path / "mlflow.db")
    points = "SELECT key, value, timestamp, step FROM metrics ORDER BY 1, 2, 3, 4"
    assert other(points) == sql(points)
    assert runs(other)[T0]["status"] == "FINISHED"


def test_a_deleted_sweep_run_or_experiment_is_said_with_the_remedy(journal, run_dir):
    deliver(run_dir)
    client = connect(default_tracking_uri(run_dir))
    client.delete_run(journal.get("parent_run_id"))
    with pytest.raises(TrackingError, match="mlflow runs restore"):
        deliver(run_dir)
    client.delete_experiment(journal.get("experiment_id"))
    journal._db.execute("DELETE FROM meta WHERE key = 'parent_run_id'")
    with pytest.raises(TrackingError, match="mlflow experiments restore"):
        deliver(run_dir)


def test_two_sweeps_of_one_study_share_an_experiment_and_nothing_else(journal, run_dir, sql, tmp_path):
    train(journal, T0, [40.0], "completed")
    deliver(run_dir)
    with make_journal(tmp_path / "second") as second:
        train(second, T0, [41.0], "completed")
    session = Delivery(tmp_path / "second", default_tracking_uri(run_dir), experiment="quickstart")
    session.open(live=True)
    session.deliver(live=True)
    session.close()
    assert sql("SELECT count(*) FROM experiments WHERE name = 'quickstart'") == [(1,)]
    assert sql("SELECT count(*) FROM tags WHERE key = 'kind' AND value = 'sweep'") == [(2,)]
    assert sql("SELECT count(DISTINCT value) FROM tags WHERE key = 'mlflow.parentRunId'") == [(2,)]


def test_the_sweep_run_says_what_it_is(journal, run_dir, sql):
    deliver(run_dir)
    parent_id = journal.get("parent_run_id")
    tags = dict(sql("SELECT key, value FROM tags WHERE run_uuid = ?", parent_id))
    assert (tags["kind"], tags["study"], tags["study_hash"]) == ("sweep", "quickstart", "0123456789ab")
    assert tags["mlflow.note.content"].startswith("Do networks get better")
    assert sql("SELECT key FROM experiment_tags") == [(f"mlflow.sharedViewState.{parent_id}",)]
    assert sql("SELECT name FROM datasets") == [("fashion_mnist",)]
    assert journal.get("tracking_uri") == default_tracking_uri(run_dir)
    assert b"canary" not in (run_dir / "mlflow.db").read_bytes()


def test_what_a_lost_journal_is_rebuilt_from_is_there_from_the_beginning(journal, run_dir):
    deliver(run_dir)
    stored = run_dir / "mlartifacts" / journal.get("parent_run_id") / "artifacts"
    origin = json.loads((stored / "sweep.json").read_text())
    assert (origin["study"]["stopping"], origin["created_at_ms"]) == (STUDY["stopping"], journal.get("created_at_ms"))
    assert origin["study"]["tracking"] == {"uri": "http://host"}
    assert not {"tracking_uri", "parent_run_id", "origin_delivered"} & origin.keys()
    drawn = pq.read_table(stored / "architectures.parquet", columns=["trial_id", "seed", "architecture"]).to_pylist()
    assert drawn == [{key: row[key] for key in ("trial_id", "seed", "architecture")} for row in journal.trials()]


def test_the_log_of_arrivals_is_the_journals_sequence(tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    with make_journal(tmp_path, num=6, max_epochs=8) as journal:
        sweep = MadeUpSweep(journal, seed=1)
        for _ in range(4):
            sweep.go_on(8)
            deliver(tmp_path)
        decisions, parent_id = journal.decisions(), journal.get("parent_run_id")
        launch_order = {row["trial_id"]: row["launch_order"] for row in journal.trials()}
        assert journal.get("arrivals_delivered") == len(decisions)
    ask = asking(tmp_path / "mlflow.db")
    points = ask("SELECT step, key, value, timestamp FROM metrics WHERE run_uuid = ? ORDER BY 1, 2", parent_id)
    expected = []
    for row in decisions:
        values = {
            "error_pct": row["error_pct"],
            "rung_epochs": row["rung_epochs"],
            "trial": launch_order[row["trial_id"]],
        }
        for key, value in values.items():
            if value is not None:  # a trial that had diverged has no error
                expected.append((row["arrival"], f"arrivals/{key}", value, row["decided_at_ms"]))
    assert points == expected
    assert any(row["error_pct"] is None for row in decisions)


def test_the_last_host_and_the_attempts_are_tags(journal, run_dir, sql):
    train(journal, T0, [40.0], "running")
    journal.start_attempt(T0, 2)
    train(journal, T0, [30.0], "completed")
    deliver(run_dir)
    assert (runs(sql)[T0]["host"], runs(sql)[T0]["attempts"]) == ("local", "2")


def test_a_request_too_long_is_cut_between_steps_and_tags_come_last():
    sent: list[dict[str, Any]] = []
    client = SimpleNamespace(log_batch=lambda run_id, **content: sent.append(content))
    points = [(key, 1.0, 7, step) for step in range(500) for key in ("arrivals/trial", "arrivals/rung_epochs", "x")]
    delivery.log_batch(client, "run", {}, points, {"outcome": "running"})
    steps = [[point.step for point in request["metrics"]] for request in sent]
    assert sum(map(len, steps)) == 1500
    assert max(map(len, steps)) <= 1000
    assert not set(steps[0]) & set(steps[1])
    assert ["tags" in request for request in sent] == [False, True]


def test_a_rerun_is_one_linked_run_however_often_it_is_recorded(journal, run_dir, sql, tmp_path):
    train(journal, T0, [40.0, 30.0], "completed")
    epochs = [dict(row) for row in journal.epochs()]
    epochs[0]["train_loss"] = float("nan")
    deliver(run_dir)
    report = tmp_path / "report of mine.txt"
    report.write_text("x")
    recorded = [
        record_run(
            default_tracking_uri(run_dir),
            experiment_id=journal.get("experiment_id"),
            parent_run_id=journal.get("parent_run_id"),
            rerun_id="best-1",
            name="rerun RegNetX-0000",
            params={"epochs": 2, "widths": (16, 16, 32)},
            epochs=epochs,
            metrics={"test/error_pct": 29.5, "test/loss": float("nan")},
            artifacts={"model/report.txt": report},
        )
        for _ in range(2)
    ]
    assert recorded[0] == recorded[1]
    assert sql("SELECT status FROM runs WHERE run_uuid = ?", recorded[0]) == [("FINISHED",)]
    tags = dict(sql("SELECT key, value FROM tags WHERE run_uuid = ?", recorded[0]))
    assert (tags["kind"], tags["mlflow.parentRunId"]) == ("rerun", journal.get("parent_run_id"))
    assert sql("SELECT value FROM metrics WHERE run_uuid = ? AND key LIKE 'test/%'", recorded[0]) == [(29.5,)]
    assert sql("SELECT count(*) FROM metrics WHERE is_nan = 1") == [(0,)]
    assert_no_point_twice(sql)
    assert list((run_dir / "mlartifacts").rglob("model/report.txt"))


def test_a_rerun_that_cannot_be_recorded_says_so(tmp_path):
    with pytest.raises(TrackingError, match="best-1"):
        record_run(
            f"sqlite:///{tmp_path}/no/folder/mlflow.db", experiment_id="1", parent_run_id="0" * 32, rerun_id="best-1",
            name="x", params={}, epochs=[], metrics={}, artifacts={},
        )  # fmt: skip
