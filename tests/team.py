"""A team's services: `with team(folder) as services` has PostgreSQL, a bucket (moto's S3), and `serve_team` on both.

As a program, `python team.py FOLDER ADDRESS [NAME …]` prints one line of JSON (uri, password, database) once all of
it answers at ADDRESS, and ends it when it is told to end.
"""

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from postgres import free_port, postgres, query

from sweep.tracking import serve_team

BUCKET, PREFIX = "artifacts", "mlflow"
_KEYS = {"AWS_ACCESS_KEY_ID": "team", "AWS_SECRET_ACCESS_KEY": "canary-of-the-store"}
_MOTO = (
    "import sys, time; from moto.server import ThreadedMotoServer as S;"
    "s = S(ip_address='127.0.0.1', port=0, verbose=False); s.start(); print(s.get_host_and_port()[1], flush=True);"
    "sys.stdin.read()"
)


class Team:
    """`uri`: MLflow's address; `password`: its administrator's; `database`: PostgreSQL's URI; `state`: MLflow's own."""

    def __init__(self, folder: Path, address: str, names: tuple[str, ...], database: str, store: str):
        self.database, self.state, self.log = database, folder / "state", folder / "server.log"
        self.address, self.port, self._names, self._store = address, free_port(address), names, store
        self.uri = f"http://{address}:{self.port}"
        self._server: subprocess.Popen[bytes] | None = None

    def start(self, **changed: Any) -> None:
        """The server alone gets the keys of the store, as a container of its own would."""
        settings = {"allowed_hosts": self._names, "state": self.state, "log_path": self.log} | changed
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**_KEYS, "MLFLOW_S3_ENDPOINT_URL": self._store, "AWS_DEFAULT_REGION": "eu-1"}.items():
                patch.setenv(name, value)
            self._server = serve_team(
                self.database, f"s3://{BUCKET}/{PREFIX}", host=self.address, port=self.port, **settings
            )

    def stop(self) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait(timeout=30)
            self._server = None

    @property
    def password(self) -> str:
        return (self.state / "password").read_text().strip()

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return query(self.database, sql)

    def objects(self) -> dict[str, bytes]:
        """What lies in the bucket: key -> content."""
        store = _store_client(self._store)
        keys = [item["Key"] for item in store.list_objects_v2(Bucket=BUCKET).get("Contents", [])]
        return {key: store.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}


@contextlib.contextmanager
def team(folder: Path, *, address: str = "127.0.0.1", names: tuple[str, ...] = ()) -> Iterator[Team]:
    with postgres(folder, listen=address) as database, _store() as store:
        services = Team(folder, address, names, database, store)
        try:
            services.start()
            yield services
        finally:
            services.stop()


@contextlib.contextmanager
def _store() -> Iterator[str]:
    """A bucket behind a URL that this host alone reaches. It ends with whoever holds the other end of its input."""
    with subprocess.Popen(
        [sys.executable, "-c", _MOTO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        try:
            url = f"http://127.0.0.1:{int(server.stdout.readline())}"
            _wait_for(url)
            _store_client(url).create_bucket(Bucket=BUCKET)
            yield url
        finally:
            server.kill()


def _store_client(url: str) -> Any:
    return boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id=_KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=_KEYS["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.1)
        else:
            return


def main(folder: str, address: str, *names: str) -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    with team(Path(folder), address=address, names=names) as services:
        known = {"uri": services.uri, "password": services.password, "database": services.database}
        print(json.dumps(known), flush=True)  # noqa: T201 - it is read by whoever started this
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
