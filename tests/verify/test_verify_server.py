"""MLflow behind a server, or in PostgreSQL: the same records, and the same verdicts, as from its SQLite file."""

import contextlib
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests
from postgres import free_port, postgres
from verify import mlflow_maker
from verify.sweep_maker import Events

from sweep.verify import mlflow, rest, verify
from sweep.verify.journal import read_journal

SWEEP = Events(diverges=0.06, fails=0.03, retries=0.05, levels=500)


@contextlib.contextmanager
def serving(run_dir: Path) -> Iterator[str]:
    """MLflow's own server of a run directory's database, which hands out its artifacts."""
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{run_dir / 'mlflow.db'}",
        "--artifacts-destination", str(run_dir / "mlartifacts"), "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with open(run_dir / "server.log", "wb") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=run_dir)
    try:
        uri = f"http://127.0.0.1:{port}"
        _wait_for(uri, server, run_dir / "server.log")
        yield uri
    finally:
        for process in [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]:
            process.kill()
        server.wait()


def _wait_for(uri: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while True:
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            requests.get(f"{uri}/health", timeout=5).raise_for_status()
        except requests.RequestException:
            time.sleep(0.2)
        else:
            return


def canonical(records: mlflow.Records) -> list[tuple]:
    return sorted(
        (run.run_id, run.status, run.is_active, run.artifact_uri, sorted(run.tags.items()), sorted(run.params.items()),
         sorted(run.points) if run.is_active else [])
        for run in records.runs
    )  # fmt: skip


@pytest.mark.slow
def test_a_server_tells_what_its_database_holds(make, change, monkeypatch):
    """Whatever is broken there; by pages of a few; artifacts from this disk, by its proxy and by its viewer's way."""
    monkeypatch.setattr(rest, "_RUNS_A_PAGE", 2)
    monkeypatch.setattr(rest, "_POINTS_A_PAGE", 3)
    run_dir = make("asha", events=SWEEP)
    journal, database, local = read_journal(run_dir), run_dir / "mlflow.db", f"sqlite:///{run_dir / 'mlflow.db'}"
    change(database, "UPDATE experiments SET artifact_location = 'mlflow-artifacts:/0' WHERE experiment_id = 0")

    def both() -> list[list[tuple]]:
        found = []
        for uri in (local, served):
            with contextlib.closing(mlflow.read_records(uri, journal.sweep_id, mlflow_maker.PARENT)) as records:
                found.append(canonical(records))
        return found

    with serving(run_dir) as served:
        by_sql, by_rest = both()
        assert by_rest == by_sql
        assert len(by_sql) == 9
        here, there = verify(run_dir), verify(run_dir, served)
        assert there.holds, there
        assert there.checked == here.checked
        # The same artifacts, which are now to be had from the server alone.
        change(database, "UPDATE runs SET artifact_uri = 'mlflow-artifacts:/' || run_uuid || '/artifacts'")
        assert set(verify(run_dir).not_checked) == {"artifacts"}
        assert verify(run_dir, served).checked["artifacts"] == here.checked["artifacts"]
        assert verify(run_dir, served).holds
        first, second, *_ = sorted((run_dir / "mlartifacts").rglob("architecture.yaml"))
        first.write_bytes(b"damaged")
        second.unlink()
        wrong = verify(run_dir, served).violations["artifacts"]
        assert len(wrong) == 2
        assert "and it has" in wrong[0] + wrong[1]
        assert "and there is none" in wrong[0] + wrong[1]
        mlflow_maker.move(run_dir)
        with monkeypatch.context() as patch:
            patch.setattr(rest, "local_folder", lambda run: None)  # as on another machine
            assert sorted(verify(run_dir, served).violations["artifacts"]) == sorted(wrong)
        # What is broken in the database is seen through the server.
        change(
            database, "INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid) SELECT key, value,"
            " timestamp + 1, step, is_nan, run_uuid FROM metrics WHERE key = 'error_pct' AND step = 1 LIMIT 1",
        )  # fmt: skip
        change(database, "UPDATE runs SET status = 'RUNNING' WHERE run_uuid = (SELECT min(run_uuid) FROM runs)")
        change(
            database, "UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = (SELECT max(run_uuid) FROM runs)"
        )
        by_sql, by_rest = both()
        assert by_rest == by_sql
        assert verify(run_dir, served).violations == verify(run_dir).violations
    assert "does not answer" in verify(run_dir, served).not_checked["I2"]


@pytest.mark.slow
def test_postgresql_tells_the_same_as_sqlite(make, tmp_path):
    """The tables that are read, copied row by row; MLflow's other ones do not matter."""
    import sqlalchemy

    run_dir = make("asha", events=SWEEP)
    with postgres(tmp_path) as uri:
        source = sqlalchemy.create_engine(f"sqlite:///{run_dir / 'mlflow.db'}")
        target = sqlalchemy.create_engine(uri.replace("postgresql", "postgresql+psycopg2", 1))
        for name in ("runs", "tags", "params", "metrics"):
            table = sqlalchemy.Table(name, sqlalchemy.MetaData(), autoload_with=source)
            bare = sqlalchemy.Table(
                name, sqlalchemy.MetaData(),
                *(sqlalchemy.Column(column.name, _portable(column.type)) for column in table.columns),
            )  # fmt: skip
            bare.create(target)
            with source.connect() as read, target.begin() as write:
                if rows := [dict(row) for row in read.execute(table.select()).mappings()]:
                    write.execute(bare.insert(), rows)
        source.dispose()
        target.dispose()
        findings = verify(run_dir, uri)
        assert findings.holds, findings
        assert findings.checked == verify(run_dir).checked
        assert uri.partition("@")[2] in findings.tracking_uri
        assert uri.partition("@")[0].rpartition(":")[2] not in str(findings)
    assert "cannot be read as MLflow's database" in verify(run_dir, uri).not_checked["I1"]


def _portable(kind: object) -> type:
    """REAL of SQLite has 64 bits, that of PostgreSQL 32."""
    import sqlalchemy

    return sqlalchemy.Double if isinstance(kind, sqlalchemy.types.Float) else kind  # type: ignore[return-value]


@contextlib.contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[str, list[str]]]:
    """A server that gives everybody the same answer; and how each asked to be let in."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append(self.headers.get("Authorization", ""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b"", "refuses this user (401)"),
        (403, b"{}", "refuses this user (403)"),
        (500, b"out of order", "answers 500: out of order"),
        (200, b"<html>", "does not answer as an MLflow server does"),
    ],
)
def test_a_server_that_refuses_or_is_none_is_not_checked(make, status, body, words):
    run_dir = make("asha")
    with answering(status, body) as (uri, _):
        findings = verify(run_dir, uri)
    assert words in findings.not_checked["I1"]
    assert findings.violations == {}


def test_a_server_that_never_answers_is_given_up(make):
    run_dir = make("asha")
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        begun = time.monotonic()
        findings = verify(run_dir, f"http://127.0.0.1:{deaf.getsockname()[1]}", timeout_s=0.5)
        assert time.monotonic() - begun < 5
    assert "does not answer" in findings.not_checked["I4"]


def test_whoever_asks_logs_in_as_mlflows_client_does(make, monkeypatch, tmp_path):
    run_dir = make("asha")
    monkeypatch.setenv("HOME", str(tmp_path))
    with answering(401, b"") as (uri, asked):
        verify(run_dir, uri)
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token-of-mine")
        verify(run_dir, uri)
        (tmp_path / ".mlflow").mkdir()
        (tmp_path / ".mlflow" / "credentials").write_text(
            "[mlflow]\nmlflow_tracking_username = me\nmlflow_tracking_password = %canary\n"
        )
        verify(run_dir, uri)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another")
        verify(run_dir, uri)
        (tmp_path / ".mlflow" / "credentials").write_text("canary = is no section")
        unreadable = verify(run_dir, uri)
    assert asked == ["", "Bearer token-of-mine", "Basic bWU6JWNhbmFyeQ==", "Basic bWU6YW5vdGhlcg=="]
    assert "credentials cannot be read" in unreadable.not_checked["I1"]
    assert "canary" not in str(unreadable)
