"""A PostgreSQL of a test's own: `with postgres(folder) as uri`.

In: a folder for its log, and the address to listen on. Out: an SQLAlchemy URI with a random password that nobody can
do without (scram). PostgreSQL refuses to run as root, who therefore starts it as the user `postgres`, with its files
in a folder of that user's. When the `with` ends, the server has ended and its files are gone.

As a program, `python postgres.py FOLDER ADDRESS PORT` takes user, database and the password's file from the variables
that PostgreSQL's image knows, prints "ready" once it answers, and ends it when it is told to end.
"""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
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
def postgres(
    folder: Path,
    *,
    listen: str = "127.0.0.1",
    port: int | None = None,
    user: str = USER,
    password: str | None = None,
    database: str = "postgres",
) -> Iterator[str]:
    """`listen`: hosts of its network get in as well, with the password. Without a port or password: one is drawn."""
    programs = needs("initdb", "postgres")
    own = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        password, port = password or secrets.token_urlsafe(24), port or free_port(listen)
        data = _create(programs["initdb"], own, user, password)
        log = folder / "postgres.log"
        settings = [f"listen_addresses={listen}", f"port={port}", f"unix_socket_directories={own}", "fsync=off"]
        command = [programs["postgres"], "-D", data, *(word for setting in settings for word in ("-c", setting))]
        with open(log, "wb") as output:
            server = subprocess.Popen(command, cwd=own, stdout=output, stderr=output, **_as_its_user())
        try:
            server_uri = f"postgresql://{user}:{password}@{listen}:{port}"
            _wait_for(f"{server_uri}/postgres", server, log)
            if database != "postgres":
                _create_database(f"{server_uri}/postgres", database)
            yield f"{server_uri}/{database}"
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


def _create_database(uri: str, name: str) -> None:
    with contextlib.closing(psycopg2.connect(uri)) as connection:
        connection.autocommit = True  # PostgreSQL makes no database within a transaction
        connection.cursor().execute(f'CREATE DATABASE "{name}"')


def _create(initdb: Path, own: Path, user: str, password: str) -> Path:
    data, password_file = own / "data", own / "password"
    password_file.write_text(password)
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres")
        for path in (own, password_file):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    done = subprocess.run(
        [initdb, "--pgdata", data, "--username", user, "--pwfile", password_file, "--auth", "scram-sha-256",
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


def main(folder: str, address: str, port: str) -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    password = Path(os.environ["POSTGRES_PASSWORD_FILE"]).read_text()
    user, database = os.environ["POSTGRES_USER"], os.environ["POSTGRES_DB"]
    with postgres(
        Path(folder), listen=address, port=int(port), user=user, password=password, database=database
    ):  # fmt: skip
        print("ready", flush=True)  # noqa: T201 - it is read by whoever started this
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
