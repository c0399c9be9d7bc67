"""MLflow that goes away: its server, its database, in the middle of a request or for good; an upload cut short."""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest
from faults.harness import STUDY, THOROUGH, Sweep, rounds
from postgres import free_port, postgres

from sweep.tracking import serve

pytestmark = pytest.mark.slow

SYNCHRONOUS = [*STUDY, "stopping.method=synchronous"]


class Server:
    """An MLflow server that can be killed, with all its workers, and started again at the same port."""

    def __init__(self, folder: Path, database: str):
        self.folder, self.database, self.port = folder, database, free_port()
        self.artifacts = folder / "artifacts"
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.database.startswith("sqlite"):
            Path(self.database.removeprefix("sqlite:///")).touch()
        self._process = serve(self.database, self.artifacts, port=self.port, log_path=self.folder / "server.log")

    def kill(self) -> None:
        if self._process is None:
            return
        family = [psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        self._process = None


@contextlib.contextmanager
def server(folder: Path, database: str = "") -> Iterator[Server]:
    one = Server(folder, database or f"sqlite:///{folder}/server.db")
    one.start()
    try:
        yield one
    finally:
        one.kill()


def tracked(tmp_path: Path, mlflow: Server, **env: str) -> Sweep:
    return Sweep(tmp_path / "run", [*SYNCHRONOUS, f"tracking.uri={mlflow.uri}"], env=env)


@pytest.mark.parametrize("seed", rounds())
def test_a_server_killed_for_a_while_misses_nothing(seed, tmp_path, undisturbed, injected):
    chance = random.Random(f"{seed} server")
    with server(tmp_path) as mlflow:
        sweep = tracked(tmp_path, mlflow, FAULT_EPOCH_S="0.6").start()
        sweep.at(chance, last=8)
        mlflow.kill()
        known = sweep.num_epochs()
        time.sleep(3 + 5 * chance.random())
        assert sweep.num_epochs() > known  # training goes on
        mlflow.start()
        sweep.finish()
        sweep.check(against=undisturbed)
        injected(6, "MLflow server killed for a while")


@pytest.mark.parametrize("seed", rounds())
def test_a_server_killed_for_good_and_what_sync_delivers(seed, tmp_path, sweep_cli, undisturbed, injected):
    chance = random.Random(f"{seed} for good")
    with server(tmp_path) as mlflow:
        sweep = tracked(tmp_path, mlflow).start()
        sweep.at(chance, last=8)
        mlflow.kill()
        code, summary = sweep.end()
        assert code == 1
        assert summary["finished"]
        assert "sweep sync" in sweep.stderr
        mlflow.start()
        began_s = time.monotonic()
        done = sweep_cli("sync", sweep.run_dir)
        assert done.returncode == 0, done.stderr
        injected(6, "MLflow server killed for good, then `sweep sync`", recovery_s=time.monotonic() - began_s)
        sweep.check(against=undisturbed)
        assert "nothing was left" in sweep_cli("sync", sweep.run_dir).stdout


@pytest.mark.parametrize("seed", rounds())
def test_postgres_restarted_at_once_under_load(seed, tmp_path, undisturbed, injected):
    """What `pg_ctl restart -m immediate` does: every back end ends in the middle of its work, then it recovers."""
    chance = random.Random(f"{seed} postgres")
    with postgres(tmp_path) as uri, server(tmp_path, uri.replace("postgresql:", "postgresql+psycopg2:")) as mlflow:
        sweep = tracked(tmp_path, mlflow).start()
        for _ in range(3):
            sweep.at(chance, last=4)
            crash(uri)
            injected(7, "PostgreSQL restarted (immediate)")
        sweep.finish()
        sweep.check(against=undisturbed)


def crash(uri: str) -> None:
    """SIGKILL a back end: the postmaster ends all others at once and recovers, as after an immediate restart."""
    with (
        contextlib.suppress(psycopg2.OperationalError),
        contextlib.closing(psycopg2.connect(uri)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT pg_backend_pid()")
        os.kill(cursor.fetchone()[0], signal.SIGKILL)
        cursor.execute("SELECT 1")


@pytest.mark.parametrize("seed", rounds())
def test_killed_while_it_uploads_no_run_claims_what_is_not_there(seed, tmp_path, undisturbed, injected):
    chance = random.Random(f"{seed} upload")
    sweep = Sweep(tmp_path / "run", SYNCHRONOUS)
    for _ in range(3 if THOROUGH else 1):
        sweep.start()
        # Artifacts are uploaded while trials run, and the report at the end.
        folder = sweep.run_dir / "mlartifacts"
        known = len(list(folder.rglob("*")))
        sweep.until(lambda: len(list(folder.rglob("*"))) > known)  # noqa: B023 - it is called at once
        time.sleep(0.2 * chance.random())
        sweep.hurt("driver", chance=chance)
        injected(22, "SIGKILL during an artifact upload")
    sweep.finish()
    sweep.check(against=undisturbed)
