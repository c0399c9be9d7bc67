"""Servers, databases and disks that fail in the middle of it, for a while or for good: afterwards MLflow is whole.

What MLflow holds is asked of its database, and compared with the journal (outside.py).
"""

import os
import pwd
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from needs import needs
from postgres import postgres, query
from tracking.faulty_proxy import FAULTS, LATE_S, FaultyProxy
from tracking.journal_maker import MadeUpSweep, asking, make_journal
from tracking.outside import assert_whole
from tracking.test_tracking_server import free_port, kill, start_again, start_server

from sweep.tracking import Outbox, TrackingError, default_tracking_uri, deliver, serve
from sweep.tracking.delivery import Delivery
from sweep.tracking.server import end_server


@pytest.fixture(scope="module")
def server(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server's address, and the folder of its database and artifacts."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / "mlflow.db")
    port = free_port()
    process = serve(default_tracking_uri(folder), folder / "stored", port=port, log_path=folder / "server.log")
    yield f"http://127.0.0.1:{port}", folder
    end_server(process)


def closing_of(journal: Any, status: str = "finished") -> dict[str, Any]:
    return {
        "status": status, "note": "", "tags": {}, "metrics": {}, "artifacts": {}, "ended_at_ms": journal.latest_ms(),
    }  # fmt: skip


class Persistent:
    """What the outbox does, without its pauses: a pass after another, whatever they fail of."""

    def __init__(self, run_dir: Path, uri: str, experiment: str = "quickstart"):
        self.delivery = Delivery(run_dir, uri, experiment=experiment)
        self.errors: list[Exception] = []

    def attempt(self, step: Callable[[], object]) -> bool:
        try:
            step()
        except Exception as error:  # each of them may pass
            self.errors.append(error)
            self.delivery.doubt()
            return False
        return True

    def go_through(self) -> None:
        self.attempt(lambda: (self.delivery.open(live=True), self.delivery.deliver(live=True)))

    def finish(self, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.attempt(self._finish):
            assert time.monotonic() < deadline, self.errors[-1]
            time.sleep(0.2)
        self.delivery.close()

    def _finish(self) -> None:
        self.delivery.open(live=False)
        self.delivery.finish(closing_of(self.delivery.journal))


@pytest.mark.parametrize(("method", "seed"), [("asha", 0), ("asha_promotion", 1), ("synchronous", 2)])
def test_requests_and_answers_lost_by_chance_double_and_lose_nothing(run_dir, server, method, seed):
    uri, folder = server
    chance = random.Random(seed)
    with (
        make_journal(run_dir, num=6, method=method) as journal,
        FaultyProxy(uri, lambda *_: chance.choice(FAULTS) if chance.random() < 0.3 else None) as proxy,
    ):
        sweep, outbox = MadeUpSweep(journal, seed=seed), Persistent(run_dir, proxy.uri)
        for _ in range(12):
            sweep.go_on(5)
            outbox.go_through()
        sweep.go_on()
        for _ in range(5):
            outbox.attempt(outbox._finish)
        proxy.fault = lambda *_: None
        outbox.finish()
    assert len(outbox.errors) > 5
    assert_whole(run_dir, asking(folder / "mlflow.db"), artifacts=folder / "stored")


def test_runs_that_a_server_made_too_late_are_nobodys(run_dir, server):
    """The first requests for the sweep's run and for a trial's are given up, and carried out a moment later, when each
    has another run already."""
    uri, folder = server
    ask = asking(folder / "mlflow.db")
    created = 0

    def late(method: str, path: str) -> str | None:
        nonlocal created
        created += path.endswith("/runs/create")
        return "late" if path.endswith("/runs/create") and created in (1, 3) else None

    with make_journal(run_dir, num=2) as journal, FaultyProxy(uri, late) as proxy:
        sweep, outbox = MadeUpSweep(journal, seed=1), Persistent(run_dir, proxy.uri)
        sweep.go_on(4)
        for _ in range(3):
            outbox.go_through()
        assert len(outbox.errors) == 2
        time.sleep(2 * LATE_S)
        of_sweep = f"SELECT count(*) FROM tags WHERE key = 'sweep.id' AND value LIKE '%{journal.get('created_at_ms')}'"
        assert ask(of_sweep) == [(2,)]
        sweep.go_on()
        outbox.finish()
        assert ask(of_sweep) == [(1,)]
    assert_whole(run_dir, ask, artifacts=folder / "stored")
    assert ask("SELECT count(*) FROM runs WHERE lifecycle_stage = 'deleted' AND status = 'KILLED'") == [(2,)]
    assert ask("SELECT count(*) FROM runs WHERE status = 'RUNNING'") == [(0,)]


def test_a_server_out_of_order_for_a_while_is_told_of_and_waited_for(run_dir, server):
    uri, folder = server
    with make_journal(run_dir, num=3) as journal, FaultyProxy(uri, lambda *_: "before") as proxy:
        outbox = Outbox(run_dir, proxy.uri, experiment="quickstart", interval_s=0.05)
        outbox.start()
        MadeUpSweep(journal, seed=1).go_on()
        deadline = time.monotonic() + 30
        while outbox.error is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert outbox.error is not None
        assert "500" in outbox.error
        proxy.fault = lambda *_: None
        outbox.close(status="finished")
        assert outbox.error is None
    assert_whole(run_dir, asking(folder / "mlflow.db"), artifacts=folder / "stored")


def test_a_server_that_takes_every_request_and_answers_none_holds_nobody_up(run_dir, sql):
    with socket.create_server(("127.0.0.1", 0)) as silent, make_journal(run_dir, num=2) as journal:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        outbox = Outbox(run_dir, uri, experiment="quickstart", interval_s=0.05)
        outbox.start()
        MadeUpSweep(journal, seed=1).go_on()
        time.sleep(1)
        begun = time.monotonic()
        with pytest.raises(TrackingError, match=r"no end within 2 s.*kept in the journal.*sweep sync"):
            outbox.close(status="finished", timeout_s=2)
        assert time.monotonic() - begun < 4
        begun = time.monotonic()
        with pytest.raises(TrackingError, match=r"nothing answered within 6 s|does not answer"):
            deliver(run_dir)
        assert time.monotonic() - begun < 20
    assert deliver(run_dir, default_tracking_uri(run_dir)) > 0
    assert_whole(run_dir, sql)


@pytest.mark.slow
def test_a_server_that_is_stopped_and_killed_and_comes_back(run_dir, sql, monkeypatch):
    """Stopped for longer than its clients wait: then it takes up what they have given up."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    port = free_port()
    server = start_server(run_dir, port)
    try:
        with make_journal(run_dir, num=8) as journal:
            sweep, outbox = MadeUpSweep(journal, seed=1), Persistent(run_dir, f"http://127.0.0.1:{port}")
            for number in range(3):
                stop = threading.Timer(0.5 + number / 3, stop_for, args=(server.pid, 2.5))
                stop.start()
                go_on_for(outbox, sweep, 4.0)
                stop.join()
            kill(server)
            outbox.go_through()
            sweep.go_on()
            server = start_again(run_dir, port)
            outbox.finish()
        assert outbox.errors
        assert_whole(run_dir, sql, artifacts=run_dir / "mlartifacts")
    finally:
        end_server(server)


def stop_for(pid: int, seconds: float) -> None:
    workers = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for worker in workers:
        worker.suspend()
    time.sleep(seconds)
    for worker in workers:
        worker.resume()


def go_on_for(outbox: Persistent, sweep: MadeUpSweep, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        sweep.go_on(1)
        outbox.go_through()


# -- PostgreSQL ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres(tmp_path_factory.mktemp("postgres")) as uri:
        folder = data_folder(uri)
        try:
            yield uri
        finally:
            if (folder / "postmaster.pid").exists():
                pg_ctl(folder, "stop")


def data_folder(uri: str) -> Path:
    return Path(query(uri, "SHOW data_directory")[0][0])


def pg_ctl(folder: Path, verb: str) -> None:
    """As `pg_ctl VERB -m immediate`: its backends are killed, and it recovers from its log."""
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres")
        as_user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    command = [needs("pg_ctl")["pg_ctl"], verb, "-m", "immediate", "-w", "-s", "-D", folder, "-l", folder / "again.log"]
    subprocess.run(
        command if verb == "restart" else command[:-2], cwd=folder, check=True, stdout=subprocess.DEVNULL, **as_user
    )


@contextmanager
def reaching(database: str, through: str, folder: Path) -> Iterator[str]:
    uri = database.replace("postgresql://", "postgresql+psycopg2://")
    if through == "directly":
        yield uri
        return
    port = free_port()
    server = serve(uri, folder / "stored", port=port, log_path=folder / "server.log")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        end_server(server)


@pytest.mark.slow
@pytest.mark.parametrize("through", ["a server", "directly"])
def test_postgresql_restarted_at_once_under_load(run_dir, database, through, tmp_path):
    """Three times, at moments drawn by lot, with requests in flight."""
    chance = random.Random(through)
    data = data_folder(database)
    with reaching(database, through, tmp_path) as uri, make_journal(run_dir, num=60) as journal:
        sweep, outbox = MadeUpSweep(journal, seed=1), Persistent(run_dir, uri, experiment=through)
        outbox.go_through()
        for _ in range(3):
            restart = threading.Timer(chance.uniform(0.3, 1.2), pg_ctl, args=(data, "restart"))
            restart.start()
            go_on_for(outbox, sweep, 2.0)
            restart.join()
        sweep.go_on()
        outbox.finish()
        assert outbox.errors
    assert_whole(run_dir, lambda sql: query(database, sql.replace("%", "%%")), artifacts=tmp_path / "stored")


# -- a SQLite file -------------------------------------------------------------------------------------------------


def test_a_database_that_another_program_has_locked(run_dir, sql):
    with make_journal(run_dir, num=2) as journal:
        outbox = Outbox(run_dir, default_tracking_uri(run_dir), experiment="quickstart", interval_s=0.05)
        outbox.start()
        sweep = MadeUpSweep(journal, seed=1)
        sweep.go_on(3)
        deadline = time.monotonic() + 30
        while outbox.backlog() and time.monotonic() < deadline:
            time.sleep(0.05)
        with closing(sqlite3.connect(run_dir / "mlflow.db", timeout=30, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            sweep.go_on()
            time.sleep(0.5)
            begun = time.monotonic()
            with pytest.raises(TrackingError, match="sweep sync"):
                outbox.close(status="finished", timeout_s=1.5)
            assert time.monotonic() - begun < 4
            other.execute("ROLLBACK")
    deliver(run_dir)
    assert_whole(run_dir, sql)


@pytest.fixture
def small_disk(tmp_path: Path, empty_database: Path) -> Iterator[Path]:
    needs("mount", "umount", root=True)
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=True)
    try:
        shutil.copy(empty_database, folder / "mlflow.db")
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)  # MLflow keeps its connections


def test_a_disk_that_is_full_under_the_database(tmp_path, small_disk):
    run_dir, uri = tmp_path / "run", default_tracking_uri(small_disk)
    with make_journal(run_dir, num=6) as journal:
        sweep, outbox = MadeUpSweep(journal, seed=1), Persistent(run_dir, uri)
        sweep.go_on(8)
        outbox.go_through()
        assert not outbox.errors
        (small_disk / "others").write_bytes(bytes(shutil.disk_usage(small_disk).free))
        for _ in range(4):
            sweep.go_on(8)
            outbox.go_through()
        assert len(outbox.errors) == 4
        assert any("full" in str(error) or "No space" in str(error) for error in outbox.errors)
        (small_disk / "others").unlink()
        sweep.go_on()
        outbox.finish()
    assert_whole(run_dir, asking(small_disk / "mlflow.db"))


@pytest.mark.slow
def test_a_driver_killed_while_the_database_is_made_leaves_one_that_is_made_anew(tmp_path):
    """Several times, at moments drawn by lot; MLflow cannot go on with half of its tables."""
    chance, uri = random.Random(1), default_tracking_uri(tmp_path)
    code = "import sys, mlflow; print(flush=True); from sweep.tracking.delivery import connect; connect(sys.argv[1])"
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", code, uri], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            deadline = time.monotonic() + 30
            while not (tmp_path / ".mlflow.db.new").exists() and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.6))
            process.send_signal(signal.SIGKILL)
        if (tmp_path / "mlflow.db").exists():
            (tmp_path / "mlflow.db").unlink()
    with make_journal(tmp_path, num=2) as journal:
        MadeUpSweep(journal, seed=1).go_on()
    deliver(tmp_path)
    assert_whole(tmp_path, asking(tmp_path / "mlflow.db"))
    assert not (tmp_path / ".mlflow.db.new").exists()
