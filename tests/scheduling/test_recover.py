"""A sweep whose run directory is lost, rebuilt from a real MLflow: on a server, and straight from its database.

The sweep is made up (tests/tracking/journal_maker.py), but its decisions, its journal and its delivery are the real
ones. What MLflow holds is asked of its database, not of our code.
"""

import random
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tracking.journal_maker import FAILURE, MadeUpSweep, asking, extend, make_journal

from sweep.records.journal import FILE_NAME, SCHEMA_VERSION, UNFINISHED, Journal, now_ms
from sweep.scheduling.recover import recover
from sweep.tracking import TrackingError, default_tracking_uri, serve
from sweep.tracking.content import INTERRUPTED
from sweep.tracking.delivery import Delivery, connect
from sweep.tracking.server import end_server

# What MLflow cannot know: where and in which attempt each epoch was trained, and the states after it. Marks of the
# outbox say what was delivered, which is all that a recovered journal holds.
UNKNOWN: dict[str, set[str]] = {
    "trials": {"delivered_outcome"},
    "epochs": {"host", "attempt", "checkpoint", "delivered"},
    "decisions": set(),
    "promotions": set(),
    "closings": set(),
}
ORDER = {
    "trials": "launch_order", "epochs": "trial_id, epoch", "decisions": "arrival", "closings": "after_arrival",
    "promotions": "after_arrival, trial_id, rung_epochs",
}  # fmt: skip
PAUSING = ("asha_promotion", "synchronous")
CANCELLED = "regnet_x-small-0006"


@pytest.fixture(autouse=True)
def each_moment_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is committed within one millisecond has an order that MLflow cannot know."""
    latest = 0

    def later() -> int:
        nonlocal latest
        latest = max(now_ms(), latest + 1)
        return latest

    monkeypatch.setattr("sweep.records.journal_file.now_ms", later)


@pytest.fixture(scope="module")
def mlflow_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlflow")
    connect(default_tracking_uri(folder))
    return folder


@pytest.fixture(scope="module")
def server(mlflow_dir: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    log_path = mlflow_dir / "server.log"
    process = serve(default_tracking_uri(mlflow_dir), mlflow_dir / "by-server", port=port, log_path=log_path)
    yield f"http://127.0.0.1:{port}"
    end_server(process)


@pytest.fixture
def uri(mlflow_dir: Path) -> str:
    return default_tracking_uri(mlflow_dir)


@pytest.fixture
def sql(mlflow_dir: Path) -> Callable[..., list[tuple[Any, ...]]]:
    return asking(mlflow_dir / "mlflow.db")


@dataclass
class Lost:
    """A sweep's run directory, and what the journal there was when it was lost."""

    run_dir: Path
    uri: str
    experiment: str = "quickstart"

    def begin(self, **settings: Any) -> "Lost":
        make_journal(
            self.run_dir, **{"spaces": ("regnet_x", "anynet_c"), "num": 7, "max_epochs": 8, **settings}
        ).close()
        return self

    def train(self, num_events: int = 100_000, *, seed: int = 1, shift_pct: float = 0.0) -> "Lost":
        with Journal.open(self.run_dir) as journal:
            MadeUpSweep(journal, seed=seed, shift_pct=shift_pct).go_on(num_events)
        return self

    def cancel(self, *trial_ids: str) -> "Lost":
        with Journal.open(self.run_dir) as journal:
            for trial_id in trial_ids:
                journal.ask_to_cancel(trial_id)
        return self

    def extend(self, num: int) -> "Lost":
        with Journal.open(self.run_dir) as journal:
            extend(journal, num)
        return self

    def deliver(self, *, cut: int = 0, before: bool = False, meanwhile: Callable[[], object] = lambda: None) -> "Lost":
        """As the outbox does in one pass; `cut`: the request in which the driver or the server dies. `meanwhile` is
        done before each request."""
        delivery = Delivery(self.run_dir, self.uri, experiment=self.experiment)
        try:
            if cut:
                delivery._client = DyingClient(connect(self.uri), cut, before, meanwhile)
            delivery.open(live=True)
            delivery.deliver(live=True)
        except ConnectionError:
            assert cut
        finally:
            delivery.close()
        return self

    def finish(self) -> None:
        delivery = Delivery(self.run_dir, self.uri, experiment=self.experiment)
        closing: dict[str, Any] = {
            "status": "finished", "note": "", "tags": {}, "metrics": {}, "artifacts": {}, "ended_at_ms": 1,
        }  # fmt: skip
        delivery.open(live=False)
        delivery.finish(closing)
        delivery.close()

    def parent(self) -> str:
        return self.meta()["parent_run_id"]

    def meta(self) -> dict[str, Any]:
        with Journal.open(self.run_dir, read_only=True) as journal:
            return journal.meta()

    def table(self, name: str) -> list[dict[str, Any]]:
        with Journal.open(self.run_dir, read_only=True) as journal:
            return [dict(row) for row in journal._db.execute(f"SELECT * FROM {name} ORDER BY {ORDER[name]}")]

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        return {name: self.table(name) for name in UNKNOWN}

    def lose(self) -> None:
        shutil.rmtree(self.run_dir)


class DyingClient:
    """MLflow's client until the given request, which it makes or does not make before the connection is gone."""

    def __init__(self, client: Any, num_requests: int, before: bool, meanwhile: Callable[[], object] = lambda: None):
        self._client, self._left, self._before, self._meanwhile = client, num_requests, before, meanwhile

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def request(*args: Any, **kwargs: Any) -> Any:
            self._meanwhile()
            self._left -= 1
            if self._left < 0 or (self._left == 0 and self._before):
                raise ConnectionError(name)
            answer = getattr(self._client, name)(*args, **kwargs)
            if self._left == 0:
                raise ConnectionError(name)
            return answer

        return request


@pytest.fixture
def lost(tmp_path: Path, uri: str) -> Lost:
    return Lost(tmp_path / "run", uri).begin()


def known(name: str, rows: list[dict[str, Any]], *also_unknown: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in UNKNOWN[name] and k not in also_unknown} for row in rows]


def told_of(sql: Any, parent: str) -> dict[str, int]:
    """Trial id -> number of its runs below the sweep's that are not deleted."""
    rows = sql(
        "SELECT id.value FROM runs JOIN tags AS id ON id.run_uuid = runs.run_uuid AND id.key = 'sweep.trial_id'"
        " JOIN tags AS up ON up.run_uuid = runs.run_uuid AND up.key = 'mlflow.parentRunId'"
        " WHERE up.value = ? AND lifecycle_stage = 'active'",
        parent,
    )
    return Counter(trial_id for (trial_id,) in rows)


def errors_stored(sql: Any, parent: str) -> list[tuple]:
    """Trial id, epoch and error of every point of the sweep's curves, one row a point."""
    return sql(
        "SELECT id.value, step, metrics.value FROM metrics"
        " JOIN tags AS id ON id.run_uuid = metrics.run_uuid AND id.key = 'sweep.trial_id'"
        " JOIN tags AS up ON up.run_uuid = metrics.run_uuid AND up.key = 'mlflow.parentRunId'"
        " WHERE metrics.key = 'error_pct' AND up.value = ? ORDER BY 1, 2",
        parent,
    )


def assert_nothing_twice(sql: Any, lost: Lost) -> None:
    """Each trial that has begun has one run, each point is there once, and it is the journal's."""
    parent = lost.parent()
    begun = [row["trial_id"] for row in lost.table("trials") if row["outcome"] != "pending"]
    assert told_of(sql, parent) == dict.fromkeys(begun, 1)
    assert sql("SELECT run_uuid, key, step FROM metrics GROUP BY 1, 2, 3 HAVING count(*) > 1") == []
    assert errors_stored(sql, parent) == [
        (row["trial_id"], row["epoch"], row["val_error_pct"])
        for row in lost.table("epochs")
        if row["val_error_pct"] is not None
    ]
    arrivals = sql("SELECT step FROM metrics WHERE run_uuid = ? AND key = 'arrivals/trial' ORDER BY 1", parent)
    assert [step for (step,) in arrivals] == [row["arrival"] for row in lost.table("decisions")]
    closed = sql("SELECT step FROM metrics WHERE run_uuid = ? AND key = 'arrivals/closed' ORDER BY 1", parent)
    assert [step for (step,) in closed] == [row["after_arrival"] for row in lost.table("closings")]


@pytest.mark.parametrize(
    ("through", "method", "outcomes"),
    [
        ("server", "asha", {"pending", "running", "stopped", "diverged", "failed"}),
        ("database", "asha_promotion", {"pending", "running", "paused", "diverged", "failed"}),
        ("database", "synchronous", {"running", "paused", "stopped", "diverged"}),
    ],
)
def test_a_lost_journal_is_rebuilt_and_told_to_nobody_twice(
    tmp_path, uri, sql, request, through, method, outcomes, monkeypatch
):
    """Everything was delivered: what is rebuilt is what was lost, and MLflow is told nothing new."""
    at = uri
    if through == "server":  # curves come many runs at a time there, here in several parts
        at = request.getfixturevalue("server")
        monkeypatch.setattr("sweep.tracking.recall._RUNS_AT_ONCE", 3)
        monkeypatch.setattr("sweep.tracking.recall._one_by_one", lambda *_: pytest.fail("asked run by run"))
    lost = Lost(tmp_path / "run", at, experiment=through).begin(num=10, method=method)
    lost.cancel(CANCELLED).train(20).deliver().train(40, seed=3).deliver()
    tables = lost.tables()
    meta = lost.meta()
    outcomes = outcomes | {"cancelled"}
    assert {row["outcome"] for row in tables["trials"]} >= outcomes
    assert bool(tables["promotions"]) == (method in PAUSING)
    lost.lose()

    found = recover(at, meta["parent_run_id"], lost.run_dir)

    for name, rows in tables.items():
        assert known(name, lost.table(name)) == known(name, rows)
    for before, after in zip(tables["trials"], lost.table("trials"), strict=True):
        assert after["delivered_outcome"] == before["delivered_outcome"]
    assert {len(row["failure"] or "") for row in tables["trials"]} <= {0, len(FAILURE)}
    assert len(FAILURE) > 5000  # which is more than a tag holds
    own = ("recovered_at_ms", "tracking_close")
    assert {k: v for k, v in lost.meta().items() if k not in own and k != "study"} == {
        k: v for k, v in meta.items() if k not in own and k != "study"
    }
    assert lost.meta()["study"] == meta["study"] | {"tracking": {"uri": "http://host"}}  # no password in MLflow
    assert (found.trials, found.epochs) == (20, len(tables["epochs"]))
    assert found.arrivals == len(tables["decisions"])
    assert found.unfinished == sum(row["outcome"] in UNFINISHED for row in tables["trials"])
    assert [warning.split(" ")[:3] for warning in found.warnings] == [["MLflow", "had", "news"]]
    hosts = {row["trial_id"]: row["host"] for row in tables["epochs"]}  # that of the last epoch
    assert all(row["host"] == hosts[row["trial_id"]] for row in lost.table("epochs"))

    before = sql("SELECT * FROM metrics ORDER BY 1, 2, 3, 4, 5"), sql("SELECT run_uuid FROM runs ORDER BY 1")
    lost.deliver()
    assert (sql("SELECT * FROM metrics ORDER BY 1, 2, 3, 4, 5"), sql("SELECT run_uuid FROM runs ORDER BY 1")) == before
    lost.train(seed=3).finish()
    assert_nothing_twice(sql, lost)
    assert not [row for row in lost.table("trials") if row["outcome"] in UNFINISHED]
    assert len(told_of(sql, lost.parent())) == 20


def test_each_scale_is_recovered_with_its_own_rungs_and_budget(tmp_path, uri):
    """Rungs 1 and 2 of 4, and 3 and 6 of 12: an epoch of one is no rung, and no end, of the other."""
    large = {"name": "large", "resolution": 28, "flops_min": 4e5, "flops_max": 8e5, "max_epochs": 12, "grace_epochs": 3}
    lost = Lost(tmp_path / "run", uri).begin(max_epochs=4, method="synchronous", more_scales=(large,))
    lost.train().deliver()
    tables, parent = lost.tables(), lost.parent()
    ends = {(row["trial_id"].split("-")[1], row["outcome"]) for row in tables["trials"]}
    assert ends >= {(scale, outcome) for scale in ("small", "large") for outcome in ("completed", "stopped")}
    assert max(row["epoch"] for row in tables["epochs"]) == 12
    lost.lose()
    found = recover(uri, parent, lost.run_dir)
    assert found.unfinished == 0
    for name, rows in tables.items():
        assert known(name, lost.table(name)) == known(name, rows)


@pytest.mark.parametrize("method", ["asha", *PAUSING])
def test_a_sweep_that_was_over_is_recovered_as_over(tmp_path, uri, sql, method):
    lost = Lost(tmp_path / "run", uri).begin(method=method)
    lost.train().finish()
    tables, parent = lost.tables(), lost.parent()
    trials = tables["trials"]
    assert {row["outcome"] for row in trials} == {"completed", "stopped", "diverged", "failed"}
    assert len(tables["closings"]) == (method == "asha_promotion")
    lost.lose()
    found = recover(uri, parent, lost.run_dir)
    assert (found.unfinished, found.warnings) == (0, ())
    for name, rows in tables.items():
        assert known(name, lost.table(name)) == known(name, rows)
    assert [row["delivered_outcome"] for row in lost.table("trials")] == [row["outcome"] for row in trials]
    lost.deliver()
    assert_nothing_twice(sql, lost)


@pytest.mark.parametrize("method", ["asha", *PAUSING])
def test_an_interrupted_sweep_goes_on_in_its_runs(tmp_path, uri, sql, method):
    """Its trials at work were ended as interrupted; they run, or wait, in the recovered journal."""
    lost = Lost(tmp_path / "run", uri).begin(method=method)
    lost.train(15).finish()
    trials, parent = lost.table("trials"), lost.parent()
    assert INTERRUPTED in {row["delivered_outcome"] for row in trials}
    lost.lose()
    recover(uri, parent, lost.run_dir)
    assert known("trials", lost.table("trials")) == known("trials", trials)
    lost.train(seed=2).finish()
    assert lost.parent() == parent
    assert_nothing_twice(sql, lost)
    assert sql("SELECT count(*) FROM runs WHERE run_uuid = ? AND status = 'RUNNING'", parent) == [(0,)]


def test_what_was_not_delivered_happens_anew(lost, uri, sql):
    """The last arrivals are lost with their epochs: the ones before are as they were, and theirs are new ones."""
    lost.train(30).deliver()
    decisions, epochs, parent = lost.table("decisions"), lost.table("epochs"), lost.parent()
    lost.train(20, seed=2)
    assert len(lost.table("decisions")) > len(decisions)
    lost.lose()
    recover(uri, parent, lost.run_dir)
    assert lost.table("decisions") == decisions
    assert known("epochs", lost.table("epochs")) == known("epochs", epochs)
    lost.train(seed=3).finish()
    assert lost.table("decisions")[: len(decisions)] == decisions
    assert_nothing_twice(sql, lost)


def test_epochs_lost_after_their_decision_are_trained_again_and_the_decision_holds(lost, uri, sql):
    """Cut between the arrivals and the curves. The second time over, errors are other ones, and then all is lost
    again: the log of arrivals remains the first one's."""
    lost.train(12).deliver().train(20, seed=2)
    decisions, num_epochs = lost.table("decisions"), len(lost.table("epochs"))
    lost.deliver(cut=_requests_until_arrivals(lost))
    parent = lost.parent()
    lost.lose()
    found = recover(uri, parent, lost.run_dir)
    assert lost.table("decisions") == decisions
    assert found.epochs < num_epochs
    orphans = {(row["trial_id"], row["rung_epochs"]) for row in decisions} - {
        (row["trial_id"], row["epoch"]) for row in lost.table("epochs")
    }
    assert orphans
    lost.train(40, seed=3, shift_pct=2.5).deliver()
    again = lost.table("decisions")
    assert again[: len(decisions)] == decisions
    judged_on = {(row["trial_id"], row["rung_epochs"]): row["error_pct"] for row in decisions}
    shown = {key: row["val_error_pct"] for row in lost.table("epochs") if (key := (row["trial_id"], row["epoch"]))}
    assert any(shown[key] != judged_on[key] for key in orphans & shown.keys())
    lost.lose()
    recover(uri, parent, lost.run_dir)
    assert lost.table("decisions") == again
    lost.train(seed=4).finish()
    assert_nothing_twice(sql, lost)


def _requests_until_arrivals(lost: Lost) -> int:
    """The number of the request, in the next pass, that sends the arrivals; asked of a copy that sends nothing."""
    names: list[str] = []

    class Counting:
        def __init__(self, client: Any):
            self._client = client

        def __getattr__(self, name: str) -> Callable[..., Any]:
            def request(*args: Any, **kwargs: Any) -> Any:
                names.append(name)
                if name == "log_batch" and any(point.key.startswith("arrivals/") for point in kwargs["metrics"]):
                    raise ConnectionError
                return getattr(self._client, name)(*args, **kwargs)

            return request

    delivery = Delivery(lost.run_dir, lost.uri, experiment=lost.experiment)
    delivery._client = Counting(connect(lost.uri))
    delivery.open(live=True)
    with pytest.raises(ConnectionError):
        delivery.deliver(live=True)
    delivery.close()
    return len(names)


@pytest.mark.parametrize(("method", "seed"), [(method, seed) for method in ("asha", *PAUSING) for seed in range(2)])
def test_wherever_it_is_cut_a_consistent_prefix_is_recovered(tmp_path, uri, sql, method, seed):
    """Lost three times over, at moments drawn by lot, each time with other errors of what is trained again."""
    chance = random.Random(seed)
    lost = Lost(tmp_path / "run", uri).begin(num=8, method=method).deliver()
    parent = lost.parent()
    for round_number in range(3):
        for part in range(2):
            lost.train(chance.randint(3, 9), seed=chance.random(), shift_pct=round_number)
            lost.deliver(cut=part * chance.randint(1, 30), before=chance.random() < 0.5)
        lost.train(chance.randint(0, 8), seed=chance.random(), shift_pct=round_number)
        tables = lost.tables()
        lost.lose()
        recover(uri, parent, lost.run_dir)
        assert_prefix(lost, tables)
    lost.train(seed=9).finish()
    assert lost.parent() == parent
    assert_nothing_twice(sql, lost)
    assert set(told_of(sql, parent)) == {row["trial_id"] for row in lost.table("trials")}
    assert len(lost.table("trials")) == 16
    open_runs = sql(
        "SELECT runs.run_uuid FROM runs LEFT JOIN tags ON tags.run_uuid = runs.run_uuid AND key = 'mlflow.parentRunId'"
        " WHERE status = 'RUNNING' AND ? IN (runs.run_uuid, tags.value)",
        parent,
    )
    assert open_runs == []


@pytest.mark.parametrize(("method", "seed"), [("asha", 0), *((method, seed) for method in PAUSING for seed in (0, 1))])
def test_a_journal_that_grows_while_it_is_delivered_is_recovered_as_a_prefix(tmp_path, uri, sql, method, seed):
    """Each request finds the sweep one step further: no epoch may overtake the arrivals before it."""
    chance = random.Random(seed)
    lost = Lost(tmp_path / "run", uri).begin(method=method)
    lost.train(5).deliver()
    parent = lost.parent()
    with Journal.open(lost.run_dir) as journal:
        sweep = MadeUpSweep(journal, seed=seed)
        for cut in (1000, chance.randint(5, 40)):
            lost.deliver(cut=cut, before=chance.random() < 0.5, meanwhile=lambda: sweep.go_on(1))
    tables = lost.tables()
    lost.lose()
    recover(uri, parent, lost.run_dir)
    assert_prefix(lost, tables)
    lost.train(seed=9, shift_pct=1.0).finish()
    assert_nothing_twice(sql, lost)


def assert_prefix(lost: Lost, tables: dict[str, list[dict[str, Any]]]) -> None:
    """Rebuilt: the first decisions, what they led to, the first epochs of each trial, none without its arrival."""
    rebuilt, unjudged = lost.table("decisions"), {"would_stop"}
    arrivals = tables["decisions"][: len(rebuilt)]
    assert [{k: v for k, v in row.items() if k not in unjudged} for row in rebuilt] == [
        {k: v for k, v in row.items() if k not in unjudged} for row in arrivals
    ]
    # A place may be decided in the lost part, by a later arrival: then it is open again.
    assert all(row["would_stop"] in (then["would_stop"], None) for row, then in zip(rebuilt, arrivals, strict=True))
    for name in ("promotions", "closings"):
        assert all(row in tables[name] for row in lost.table(name))
    epochs, curves = tables["epochs"], lost.table("epochs")
    rows = {(row["trial_id"], row["epoch"]): row for row in epochs}
    assert known("epochs", curves) == known("epochs", [rows[row["trial_id"], row["epoch"]] for row in curves])
    lengths = Counter(row["trial_id"] for row in curves)
    assert {row["trial_id"]: row["epoch"] for row in curves} == lengths
    arrived = {(row["trial_id"], row["rung_epochs"]) for row in rebuilt}
    at_rungs = {(row["trial_id"], row["epoch"]) for row in curves if row["epoch"] in (1, 2, 4)}
    assert at_rungs <= arrived
    assert_outcomes(lost.table("trials"), tables["trials"], lengths, Counter(row["trial_id"] for row in epochs))


def assert_outcomes(after: list[dict], before: list[dict], lengths: Counter, full: Counter) -> None:
    drawn = {
        "outcome", "attempts", "started_at_ms", "ended_at_ms", "run_id", "failure", "failure_kind", "user_failures"
    }  # fmt: skip
    assert known("trials", after, *drawn) == known("trials", before, *drawn)
    outcomes = {row["trial_id"]: row["outcome"] for row in before}
    for row in after:
        trial_id = row["trial_id"]
        then = {outcomes[trial_id], "failed"} if outcomes[trial_id] == "failed" else {outcomes[trial_id]}
        whole = lengths[trial_id] == full[trial_id]
        assert row["outcome"] in {"running", "pending", "paused", *(then if whole else then & {"failed"})}


@pytest.mark.parametrize("fails", [True, False])
def test_a_trial_that_left_stays_away_though_only_the_log_of_it_came_through(tmp_path, uri, sql, fails):
    """Its leave decided a rung, and others went on by it: it must not arrive after all."""
    lost = Lost(tmp_path / "run", uri).begin(spaces=("regnet_x",), num=4, method="synchronous")
    who, outcome = ("regnet_x-small-0003", "failed" if fails else "cancelled")
    lost.train(4).deliver()
    with Journal.open(lost.run_dir) as journal:
        assert journal.trial(who)["outcome"] != "paused"
        sweep = MadeUpSweep(journal, seed=2)
        if fails:
            sweep.fail(who)
        else:
            journal.ask_to_cancel(who)
        sweep.go_on(40)
        assert journal.trial(who)["outcome"] == outcome
    decisions, promotions = lost.table("decisions"), lost.table("promotions")
    assert promotions
    ended_at_ms = next(row["ended_at_ms"] for row in lost.table("trials") if row["trial_id"] == who)
    lost.deliver(cut=_requests_until_arrivals(lost))
    parent = lost.parent()
    lost.lose()
    recover(uri, parent, lost.run_dir)
    assert (lost.table("decisions"), lost.table("promotions")) == (decisions, promotions)
    row = next(row for row in lost.table("trials") if row["trial_id"] == who)
    assert (row["outcome"], row["ended_at_ms"]) == (outcome, ended_at_ms)
    assert ("had not been told" in (row["failure"] or "")) == fails
    lost.train(seed=3).finish()
    assert lost.table("decisions")[: len(decisions)] == decisions
    assert_nothing_twice(sql, lost)


def test_an_exempt_trial_that_diverged_is_not_awaited_though_its_last_epoch_was_lost(tmp_path, uri, sql):
    """It is awaited at each rung, and others went on without it."""
    lost = Lost(tmp_path / "run", uri).begin(spaces=("regnet_x",), num=8, method="synchronous")
    lost.deliver().train(60)
    diverged = next(row for row in lost.table("trials") if row["trial_id"] == "regnet_x-small-0005")
    assert (diverged["outcome"], diverged["audited"]) == ("diverged", 1)
    decisions, promotions = lost.table("decisions"), lost.table("promotions")
    lost.deliver(cut=_requests_until_arrivals(lost))
    parent = lost.parent()
    lost.lose()
    recover(uri, parent, lost.run_dir)
    assert (lost.table("decisions"), lost.table("promotions")) == (decisions, promotions)
    lost.train(seed=3).finish()
    assert lost.table("decisions")[: len(decisions)] == decisions
    assert_nothing_twice(sql, lost)


@pytest.mark.parametrize("method", ["asha", *PAUSING])
def test_a_sweep_that_was_extended_is_recovered_with_all_its_trials(tmp_path, uri, sql, method):
    """Extended when it was over, and again lost when the new ones are at work."""
    lost = Lost(tmp_path / "run", uri).begin(spaces=("regnet_x",), num=6, method=method)
    lost.train().finish()
    lost.extend(4).train(12, seed=2).deliver()
    tables, meta = lost.tables(), lost.meta()
    lost.lose()
    found = recover(uri, meta["parent_run_id"], lost.run_dir)
    assert found.trials == 10
    for name, rows in tables.items():
        assert known(name, lost.table(name)) == known(name, rows)
    assert lost.meta()["extensions"] == meta["extensions"]
    lost.train(seed=3).finish()
    assert_nothing_twice(sql, lost)
    assert len(told_of(sql, lost.parent())) == 10


def test_an_extension_that_was_cut_short_on_its_way_is_to_be_repeated(lost, uri, mlflow_dir, sql):
    """The driver dies between its two files: the networks are there, and the sweep does not know of them."""
    lost.train(10).deliver()
    parent = lost.parent()
    stored = mlflow_dir / "mlartifacts" / parent / "artifacts"
    before = (stored / "sweep.json").read_bytes()
    lost.extend(3).deliver()
    (stored / "sweep.json").write_bytes(before)
    sql("DELETE FROM tags WHERE run_uuid = ? AND key = 'sha256.sweep.json'", parent)
    lost.lose()
    found = recover(uri, parent, lost.run_dir)
    assert found.trials == 14
    assert any("by 3 trials, had not reached MLflow" in warning for warning in found.warnings)
    assert "extensions" not in lost.meta()
    lost.extend(3).train(seed=2).finish()
    assert_nothing_twice(sql, lost)
    assert len(told_of(sql, parent)) == 17


def test_failures_are_counted_on_and_a_smaller_batch_stays(lost, uri):
    lost.train(10)
    with Journal.open(lost.run_dir) as journal:
        trial_id = journal.trials("outcome = 'running'")[0]["trial_id"]
        journal.fail(trial_id, "out_of_memory", "no room", by_user=True, again=True, batch_size=64)
        journal.fail(trial_id, "stalled", "silence", by_user=False, again=True)
        journal.fail(trial_id, "data", "bit 7 of\r\nbyte 3\0", by_user=False, again=False)
    row = next(row for row in lost.table("trials") if row["trial_id"] == trial_id)
    assert (row["user_failures"], row["machine_failures"], row["batch_size"]) == (1, 2, 64)
    lost.deliver()
    parent = lost.parent()
    lost.lose()
    recover(uri, parent, lost.run_dir)
    again = next(row for row in lost.table("trials") if row["trial_id"] == trial_id)
    assert again == row | {
        "run_id": again["run_id"], "delivered_outcome": "failed", "failure": row["failure"].replace("\0", "\ufffd")
    }  # fmt: skip


def test_a_run_of_a_request_whose_answer_was_lost_is_left_out(lost, uri, sql):
    """Beside the one that the driver made when it asked again; it is ended when the sweep is."""
    lost.train(20).deliver()
    twin, parent, meta = lost.table("trials")[0], lost.parent(), lost.meta()
    tags = {
        "mlflow.parentRunId": parent, "kind": "trial", "sweep.trial_id": twin["trial_id"], "outcome": "running"
    }  # fmt: skip
    connect(uri).create_run(meta["experiment_id"], tags=tags)
    lost.lose()
    found = recover(uri, parent, lost.run_dir)
    assert any(f"{twin['trial_id']}: its run" in warning for warning in found.warnings)
    lost.train(seed=2).finish()
    assert_nothing_twice(sql, lost)
    below = "SELECT count(*) FROM runs JOIN tags USING (run_uuid) WHERE key = 'mlflow.parentRunId' AND value = ?"
    assert sql(f"{below} AND status = 'RUNNING'", parent) == [(0,)]


# -- what cannot be recovered says so ------------------------------------------------------------------------------


def test_a_run_deleted_by_hand_is_trained_again_in_a_new_run(lost, uri, sql):
    lost.train(60).deliver()
    gone = next(row for row in lost.table("trials") if row["outcome"] == "stopped")
    decisions, parent = lost.table("decisions"), lost.parent()
    connect(uri).delete_run(gone["run_id"])
    lost.lose()
    recover(uri, parent, lost.run_dir)
    row = next(row for row in lost.table("trials") if row["trial_id"] == gone["trial_id"])
    assert (row["outcome"], row["run_id"]) == ("pending", None)
    assert lost.table("decisions") == decisions
    lost.train(seed=2, shift_pct=1.5).finish()
    assert lost.table("decisions")[: len(decisions)] == decisions
    assert set(told_of(sql, parent).values()) == {1}
    assert len(told_of(sql, parent)) == 14


def refused(lost: Lost, *, uri: str, parent: str, error: type[Exception], says: str) -> str:
    """`recover` ends in this error and leaves no journal."""
    with pytest.raises(error, match=says) as raised:
        recover(uri, parent, lost.run_dir)
    assert not (lost.run_dir / FILE_NAME).exists()
    return str(raised.value)


def test_two_runs_of_one_trial_are_refused_and_named(lost, uri):
    lost.train(20).deliver()
    twin, parent, meta = lost.table("trials")[0], lost.parent(), lost.meta()
    tags = {"mlflow.parentRunId": parent, "kind": "trial", "sweep.trial_id": twin["trial_id"]}
    connect(uri).create_run(meta["experiment_id"], tags=tags)
    lost.lose()
    refused(lost, uri=uri, parent=parent, error=RuntimeError, says=f"two runs of one trial.*{twin['trial_id']}")


def test_the_run_of_a_trial_is_no_parent(lost, uri):
    lost.train(5).deliver()
    child, parent = lost.table("trials")[0]["run_id"], lost.parent()
    lost.lose()
    refused(lost, uri=uri, parent=child, error=ValueError, says=f"--parent: .*not a sweep's.*{parent}")


@pytest.mark.parametrize("run_id", ["f" * 32, "../x"])
def test_a_run_that_is_not_there_is_refused(lost, uri, run_id):
    lost.lose()
    refused(lost, uri=uri, parent=run_id, error=ValueError, says="--parent: .*is no run of sqlite")


def test_a_deleted_sweep_is_to_be_restored_first(lost, uri):
    lost.train(5).deliver()
    parent = lost.parent()
    connect(uri).delete_run(parent)
    lost.lose()
    refused(lost, uri=uri, parent=parent, error=ValueError, says=f"deleted.*mlflow runs restore --run-id {parent}")
    connect(uri).restore_run(parent)
    recover(uri, parent, lost.run_dir)


def test_a_directory_with_a_journal_is_left_alone(lost, uri):
    lost.train(5).deliver()
    content = (lost.run_dir / FILE_NAME).read_bytes()
    with pytest.raises(ValueError, match=r"--run-dir: .*holds a journal already.*--resume"):
        recover(uri, lost.parent(), lost.run_dir)
    assert (lost.run_dir / FILE_NAME).read_bytes() == content


@pytest.mark.parametrize(
    "wrong", ["http://user:canary@127.0.0.1:9", "ftp://user:canary@host", "sqlite:////no/such/x.db"]
)
def test_an_address_where_nothing_answers_is_refused(lost, wrong):
    lost.lose()
    begun = time.monotonic()
    assert "canary" not in refused(lost, uri=wrong, parent="f" * 32, error=ValueError, says=r"tracking\.uri = ")
    assert time.monotonic() - begun < 60


def test_a_server_that_dies_on_the_way_leaves_nothing_half_done(lost, uri, monkeypatch):
    monkeypatch.setattr("sweep.tracking.client._PAUSES_S", (0.0, 0.0))
    lost.train(20).deliver()
    parent = lost.parent()
    lost.lose()
    for cut in (2, 5, 9, 30):
        with monkeypatch.context() as patched:
            patched.setattr("sweep.tracking.recall.connect", lambda uri, cut=cut: DyingClient(connect(uri), cut, True))
            refused(lost, uri=uri, parent=parent, error=TrackingError, says="could not be read to the end.*try again")
    recover(uri, parent, lost.run_dir)


def test_a_sweep_without_its_artifacts_says_what_is_missing(lost, uri, mlflow_dir):
    lost.train(5).deliver()
    parent = lost.parent()
    shutil.rmtree(mlflow_dir / "mlartifacts" / parent)
    lost.lose()
    refused(
        lost, uri=uri, parent=parent, error=ValueError, says=r"does not hold sweep\.json and architectures\.parquet"
    )


@pytest.mark.parametrize("version", [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1])
def test_a_sweep_of_another_program_is_refused(lost, uri, mlflow_dir, sql, version):
    lost.train(5).deliver()
    parent = lost.parent()
    lost.lose()
    path = mlflow_dir / "mlartifacts" / parent / "artifacts" / "sweep.json"
    path.write_text(path.read_text().replace(f'"schema_version": {SCHEMA_VERSION}', f'"schema_version": {version}'))
    sql("DELETE FROM tags WHERE run_uuid = ? AND key = 'sha256.sweep.json'", parent)
    says = f"schema version {version}, and this program reads {SCHEMA_VERSION}; recover it with the version.*commit f"
    refused(lost, uri=uri, parent=parent, error=ValueError, says=says)


@pytest.mark.parametrize("name", ["sweep.json", "architectures.parquet"])
def test_a_damaged_artifact_is_named(lost, uri, mlflow_dir, name):
    lost.train(5).deliver()
    parent = lost.parent()
    path = mlflow_dir / "mlartifacts" / parent / "artifacts" / name
    path.write_bytes(path.read_bytes()[:100])
    lost.lose()
    refused(lost, uri=uri, parent=parent, error=TrackingError, says=f"{name}.*damaged.*backup")


def test_a_hole_in_the_log_of_arrivals_is_refused(lost, uri, sql):
    lost.train(30).deliver()
    parent = lost.parent()
    lost.lose()
    sql("DELETE FROM metrics WHERE run_uuid = ? AND key = 'arrivals/trial' AND step = 3", parent)
    refused(lost, uri=uri, parent=parent, error=RuntimeError, says="log of arrivals in MLflow is broken at number 3")


def test_epochs_that_the_log_of_arrivals_does_not_know_are_refused(lost, uri, sql):
    """Never so by our delivery, which sends arrivals first: somebody's hand, or a database restored in part."""
    lost.train(30).deliver()
    parent, last = lost.parent(), lost.table("decisions")[-1]
    lost.lose()
    sql("DELETE FROM metrics WHERE run_uuid = ? AND key LIKE 'arrivals/%' AND step = ?", parent, last["arrival"])
    says = f"contradicts itself.*{last['trial_id']} has passed the rung of {last['rung_epochs']}"
    refused(lost, uri=uri, parent=parent, error=RuntimeError, says=says)


def test_an_error_changed_by_hand_is_refused(lost, uri, sql):
    lost.train(30).deliver()
    parent, first = lost.parent(), lost.table("decisions")[0]
    run_id = next(row["run_id"] for row in lost.table("trials") if row["trial_id"] == first["trial_id"])
    lost.lose()
    sql("UPDATE metrics SET value = value + 1 WHERE run_uuid = ? AND key = 'error_pct' AND step = 1", run_id)
    refused(
        lost, uri=uri, parent=parent, error=RuntimeError, says=f"{first['trial_id']} arrived at 1 epochs with error"
    )
