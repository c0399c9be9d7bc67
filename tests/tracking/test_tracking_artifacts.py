"""What a run claims is there, whoever is killed in the middle of an upload; and what a failed trial leaves to read."""

import hashlib
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from tracking.faulty_proxy import FaultyProxy
from tracking.journal_maker import FAILURE, make_journal, train
from tracking.outside import assert_whole, claims_of
from tracking.test_tracking_server import free_port, kill, start_again, start_server

from sweep.records import Journal
from sweep.tracking import Outbox, artifacts, default_tracking_uri, deliver
from sweep.tracking.delivery import Delivery
from sweep.tracking.server import end_server

T0, T1 = "regnet_x-small-0000", "regnet_x-small-0001"
BIG, NUM_BYTES = "big.bin", 64_000_000

# Forks a delivery for each line that it reads: importing MLflow takes longer than what is to be interrupted.
_DELIVERIES = """
import os, sys
from pathlib import Path
import sweep.tracking.delivery, mlflow
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sweep.tracking import deliver
for uri in sys.stdin:
    pid = os.fork()
    if pid == 0:
        deliver(Path(sys.argv[1]), uri.strip())
        os._exit(0)
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("ended", flush=True)
"""


class Deliveries:
    """Deliveries of a run directory in processes of their own, that are killed."""

    def __init__(self, run_dir: Path):
        self._process = subprocess.Popen(
            [sys.executable, "-c", _DELIVERIES, str(run_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def begin(self, uri: str) -> psutil.Process:
        print(uri, file=self._process.stdin, flush=True)
        return psutil.Process(int(self._process.stdout.readline()))

    def wait(self, *, kill: psutil.Process | None = None) -> None:
        if kill is not None:
            with suppress(psutil.NoSuchProcess):  # it was quicker
                kill.kill()
        assert self._process.stdout.readline() == "ended\n"

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@contextmanager
def deliveries(run_dir: Path) -> Iterator[Deliveries]:
    found = Deliveries(run_dir)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def finished(run_dir: Path) -> Path:
    """A sweep that is over, and whose closing has a big artifact."""
    with make_journal(run_dir) as journal:
        train(journal, T0, [40.0], "completed")
        closing = {
            "status": "finished", "note": "", "tags": {}, "metrics": {}, "ended_at_ms": journal.latest_ms(),
            "artifacts": {BIG: str(run_dir / BIG)},
        }  # fmt: skip
        journal.set_meta(tracking_close=closing)
    change(run_dir, 0)
    return run_dir


def change(run_dir: Path, seed: int) -> None:
    """The artifact becomes another one, and is to be sent."""
    (run_dir / BIG).write_bytes(random.Random(seed).randbytes(1000) * (NUM_BYTES // 1000))
    with Journal.open(run_dir) as journal:
        journal.set_meta(tracking_close={**journal.get("tracking_close"), "delivered": False})


def wait_while(is_true: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while is_true() and time.monotonic() < deadline:
        time.sleep(0.002)


def is_claimed(sql: Any) -> bool:
    return sql("SELECT count(*) FROM tags WHERE key = 'sha256.big.bin'") == [(1,)]


def test_killed_during_an_upload_to_a_folder_no_run_claims_what_is_not_whole(finished, sql):
    chance, uri = random.Random(1), default_tracking_uri(finished)
    deliver(finished)
    assert is_claimed(sql)
    num_hits = 0
    with deliveries(finished) as processes:
        for number in range(40):  # six at least, and on until one was killed in time
            if number >= 6 and num_hits:
                break
            change(finished, number + 1)
            process = processes.begin(uri)
            wait_while(lambda process=process: is_claimed(sql) and process.is_running())
            time.sleep(chance.uniform(0, 0.3))
            processes.wait(kill=process)
            claims = claims_of(sql)
            assert all(claims.values()), claims
            num_hits += (parent_id(finished), BIG) not in claims
    assert num_hits > 0
    deliver(finished)
    assert_whole(finished, sql)
    assert claims_of(sql)[parent_id(finished), BIG]


def parent_id(run_dir: Path) -> str:
    with Journal.open(run_dir, read_only=True) as journal:
        return journal.get("parent_run_id")


@pytest.mark.slow
def test_killed_during_an_upload_to_a_server_no_run_claims_what_is_not_whole(finished, sql):
    """The sender is killed, or the server."""
    chance, port, stored = random.Random(3), free_port(), finished / "mlartifacts"
    uri = f"http://127.0.0.1:{port}"
    server = start_server(finished, port)
    try:
        deliver(finished, uri)
        with deliveries(finished) as processes:
            for number, kills_server in enumerate([False, True]):
                change(finished, 100 + number)
                process = processes.begin(uri)
                wait_while(lambda process=process: is_claimed(sql) and process.is_running())
                time.sleep(chance.uniform(0, 0.3))
                if kills_server:
                    kill(server)
                processes.wait(kill=None if kills_server else process)
                claims = claims_of(sql, stored)
                assert all(claims.values()), claims
                server = start_again(finished, port) if kills_server else server
        deliver(finished, uri)
        assert_whole(finished, sql, artifacts=stored)
        assert claims_of(sql, stored)[parent_id(finished), BIG]
    finally:
        end_server(server)


def test_a_claim_is_taken_back_before_the_upload_and_made_after_it(tmp_path):
    """And what is claimed already is not sent again."""
    done: list[str] = []
    old, same, new = (tmp_path / name for name in ("old.txt", "same.txt", "new.txt"))
    for path in (old, same, new):
        path.write_text(path.name)
    tags = {"sha256.report/old.txt": "0" * 64, "sha256.same.txt": hashlib.sha256(b"same.txt").hexdigest()}
    run = SimpleNamespace(info=SimpleNamespace(run_id="r", artifact_uri="there"), data=SimpleNamespace(tags=tags))
    client = SimpleNamespace(
        get_run=lambda run_id: run,
        delete_tag=lambda run_id, key: done.append(f"delete {key}"),
        upload=lambda uri, file, folder: done.append(f"upload {file.name} to {folder or '.'}: {file.read_text()}"),
        log_batch=lambda run_id, **told: done.append(f"claim {told['tags'][0].key}"),
    )
    artifacts.publish(client, "r", {"report/old.txt": old, "same.txt": same, "named.txt": new})
    assert done == [
        "delete sha256.report/old.txt", "upload old.txt to report: old.txt", "claim sha256.report/old.txt",
        "upload named.txt to .: new.txt", "claim sha256.named.txt",
    ]  # fmt: skip


def test_each_artifact_is_claimed_and_sent_once(run_dir, sql, monkeypatch):
    sent: list[str] = []
    upload = artifacts.upload

    def noting(client: Any, run: Any, files: Any) -> Any:
        claims = upload(client, run, files)
        sent.extend(claims)
        return claims

    monkeypatch.setattr(artifacts, "upload", noting)
    monkeypatch.setattr("sweep.tracking.delivery.upload", noting)
    report = run_dir / "report.html"
    with make_journal(run_dir) as journal:
        train(journal, T0, [40.0], "completed")
        for text in ("first", "first", "second"):
            report.write_text(text)
            outbox = Outbox(run_dir, default_tracking_uri(run_dir), experiment="quickstart")
            outbox.start()
            outbox.close(status="finished", artifacts={"report.html": report})
    assert sorted(sent) == [
        "sha256.architecture.yaml", "sha256.architectures.parquet", "sha256.report.html", "sha256.report.html",
        "sha256.sweep.json",
    ]  # fmt: skip
    assert_whole(run_dir, sql)


def test_a_store_that_is_away_leaves_no_run_open_and_gets_its_artifacts_later(run_dir, sql, tmp_path):
    """MLflow's database answers, and where artifacts lie does not."""
    (run_dir / "mlartifacts").write_text("no folder")
    with make_journal(run_dir) as journal:
        for trial_id in (T0, T1, "regnet_x-small-0002"):
            train(journal, trial_id, [40.0], "running")
        delivery = Delivery(run_dir, default_tracking_uri(run_dir), experiment="quickstart")
        closing = {
            "status": "interrupted", "note": "", "tags": {}, "metrics": {}, "artifacts": {},
            "ended_at_ms": journal.latest_ms(),
        }  # fmt: skip
        delivery.open(live=False)
        with pytest.raises(OSError, match="mlartifacts"):
            delivery.finish(closing)
        delivery.close()
        assert sql("SELECT count(*), status FROM runs GROUP BY status") == [(4, "KILLED")]
        assert journal.num_undelivered() == 3
    (run_dir / "mlartifacts").unlink()
    assert deliver(run_dir) == 3
    assert_whole(run_dir, sql)


# -- failed trials -----------------------------------------------------------------------------------------------------


@pytest.fixture
def failed(run_dir: Path) -> Path:
    """One trial that failed after an epoch, with a long log."""
    with make_journal(run_dir) as journal:
        train(journal, T0, [40.0], "running")
        journal.fail(T0, "stalled", "said nothing", by_user=False, again=True)
        journal.fail(T0, "out_of_memory", "", by_user=True, again=True, batch_size=64)
        journal.fail(T0, "user", FAILURE + "\0 is no text", by_user=True, again=False)
    (run_dir / "logs").mkdir()
    (run_dir / "logs" / f"{T0}.log").write_bytes(b"cut off" + b"\xff a line of it\n" * 20_000)
    return run_dir


def test_a_failed_trial_leaves_its_message_and_its_log(failed, sql):
    deliver(failed)
    ((run_id,),) = sql("SELECT run_uuid FROM tags WHERE key = 'sweep.trial_id'")
    tags = dict(sql("SELECT key, value FROM tags WHERE run_uuid = ?", run_id))
    assert (tags["failure"], tags["failure_kind"]) == (FAILURE[:5000], "user")
    assert (tags["user_failures"], tags["machine_failures"], tags["batch_size"]) == ("2", "1", "64")
    stored = failed / "mlartifacts" / run_id / "artifacts"
    assert (stored / "failure.txt").read_text() == FAILURE + "\ufffd is no text"
    log = (stored / "log.txt").read_bytes()
    assert len(log) == 256_000
    assert (failed / "logs" / f"{T0}.log").read_bytes().endswith(log)
    assert {name for (run, name) in claims_of(sql) if run == run_id} == {"architecture.yaml", "failure.txt", "log.txt"}
    assert_whole(failed, sql)


def test_what_is_not_set_is_no_tag(run_dir, sql):
    with make_journal(run_dir) as journal:
        train(journal, T0, [40.0], "completed")
    deliver(run_dir)
    told = {key for (key,) in sql("SELECT key FROM tags")}
    assert not told & {"user_failures", "machine_failures", "batch_size", "failure", "failure_kind"}


@pytest.mark.slow
def test_no_trial_costs_more_than_six_requests(failed):
    """A server asked for them one by one, whatever the number of epochs."""
    with Journal.open(failed) as journal:
        train(journal, T1, [50.0] * 60, "completed")
        train(journal, "regnet_x-small-0002", [50.0] * 60, "paused")
    port = free_port()
    server = start_server(failed, port)
    try:
        with FaultyProxy(f"http://127.0.0.1:{port}") as proxy:
            delivery = Delivery(failed, proxy.uri, experiment="quickstart")
            delivery.open(live=True)
            costs = []
            for trial in sorted(delivery.journal.undelivered_trials(live=True), key=lambda row: row["launch_order"]):
                before = len(proxy.requests)
                delivery._deliver_trial(delivery._with_epochs(dict(trial)), live=True)
                costs.append(len(proxy.requests) - before)
            delivery.close()
    finally:
        end_server(server)
    # The first one asks for runs without a mark, once a session.
    assert costs == [7, 4, 5]
