"""A PostgreSQL of a test's own: `with postgres(folder) as uri`.

In: a folder for its log, and the address to listen on. Out: an SQLAlchemy URI with a random password that nobody can
do without (scram). PostgreSQL refuses to run as root, who therefore starts it as the user `postgres`, with its files
in a folder of that user's. When the `with` ends, the server has ended and its files are gone.
"""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from needs import needs

USER = "mlflow"
START_S = 60.0


@contextlib.contextmanager
def postgres(folder: Path, *, listen: str = "127.0.0.1") -> Iterator[str]:
    """`listen`: hosts of its network get in as well, with the password."""
    programs = needs("initdb", "postgres")
    own = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        password, port = secrets.token_urlsafe(24), free_port(listen)
        data = _create(programs["initdb"], own, password)
        log = folder / "postgres.log"
        settings = [f"listen_addresses={listen}", f"port={port}", f"unix_socket_directories={own}", "fsync=off"]
        command = [programs["postgres"], "-D", data, *(word for setting in settings for word in ("-c", setting))]
        with open(log, "wb") as output:
            server = subprocess.Popen(command, cwd=own, stdout=output, stderr=output, **_as_its_user())
        try:
            uri = f"postgresql://{USER}:{password}@{listen}:{port}/postgres"
            _wait_for(uri, server, log)
            yield uri
        finally:
            server.send_signal(signal.SIGINT)  # clients are cut off
            server.wait(timeout=30)
    finally:
        shutil.rmtree(own)


def query(uri: str, sql: str) -> list[tuple[Any, ...]]:
    """Asks the database itself, not MLflow and not our code."""
    with contextlib.closing(psycopg2.connect(uri)) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def free_port(address: str = "127.0.0.1") -> int:
    with socket.create_server((address, 0)) as listener:
        return listener.getsockname()[1]


def _create(initdb: Path, own: Path, password: str) -> Path:
    data, password_file = own / "data", own / "password"
    password_file.write_text(password)
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        for path in (own, password_file):
            os.chown(path, user.pw_uid, user.pw_gid)
    done = subprocess.run(
        [initdb, "--pgdata", data, "--username", USER, "--pwfile", password_file, "--auth", "scram-sha-256",
         "--encoding", "UTF8", "--locale", "C", "--no-sync"],
        cwd=own, capture_output=True, text=True, **_as_its_user(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    password_file.unlink()
    with open(data / "pg_hba.conf", "a") as rules:
        rules.write("host all all samenet scram-sha-256\n")
    return data


def _as_its_user() -> dict[str, Any]:
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}


def _wait_for(uri: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            query(uri, "SELECT 1")
        except psycopg2.OperationalError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"PostgreSQL did not start:\n{log.read_text(errors='replace')[-2000:]}")
