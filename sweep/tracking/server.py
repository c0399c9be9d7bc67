"""Looking at it: the links that open MLflow's viewer on a sweep, and a local MLflow server for a run directory.

In: a tracking URI, and the ids in the journal's meta. Out: links, and a server process that answers.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from sweep.tracking.client import TrackingError, database_lock, quiet_environment
from sweep.tracking.content import trials_filter
from sweep.tracking.preflight import is_sqlite, sqlite_path, strip_credentials


def experiment_url(base_url: str, experiment_id: str, parent_run_id: str = "", *, saved_view: bool = True) -> str:
    """The sweep's trials in the viewer. Without `workflowType` it would open on traces, of which there are none.

    `saved_view`: on the charts of `content.saved_view` (its table is a click away); else only
    filtered, and sorted by error.
    """
    url = f"{_base(base_url)}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    if not parent_run_id:
        return url
    if saved_view:
        return f"{url}&compareRunsMode=CHART&viewStateShareKey={parent_run_id}"
    sought, key = quote(trials_filter(parent_run_id), safe=""), quote("metrics.`error_pct`", safe="")
    return f"{url}&searchFilter={sought}&orderByKey={key}&orderByAsc=true"


def run_url(base_url: str, experiment_id: str, run_id: str) -> str:
    """One run in the viewer: the sweep's own (note, verdicts, report), a trial's or a rerun's."""
    return f"{_base(base_url)}/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def _base(url: str) -> str:
    return strip_credentials(url).rstrip("/")


def serve(
    tracking_uri: str,
    artifacts_dir: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 5000,
    log_path: Path,
    timeout_s: float = 60.0,
) -> subprocess.Popen[bytes]:
    """Start `mlflow server` on a database and wait until it answers; end it with `terminate()` and `wait()`.

    One worker, no job runner, no telemetry (0.5 GB instead of 3.1); what it prints goes to `log_path`. Raises
    `ValueError` if the port is taken or there is no database, `TrackingError` if it does not answer in time.
    """
    _check_database_exists(tracking_uri)
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": tracking_uri}  # its password is for no command line
    options = ["--artifacts-destination", str(artifacts_dir)]
    return start_server(host, port, options, environment, log_path=log_path, timeout_s=timeout_s)


def start_server(
    host: str, port: int, options: Sequence[str], environment: Mapping[str, str], *, log_path: Path, timeout_s: float
) -> subprocess.Popen[bytes]:
    """What `serve` and a team's server share: one worker that runs no jobs, and the wait until it answers."""
    _check_port(host, port)
    settings = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_LOGGING_LEVEL": "ERROR",  # a client is told of errors by exceptions; a server can only log them
    }
    with open(log_path, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1", *options],
            env={**environment, **quiet_environment(), **settings},
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        _wait_until_healthy(server, local_url(host, port), log_path, timeout_s)
    except BaseException:
        end_server(server)
        raise
    return server


def end_server(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    server.wait()


def local_url(host: str, port: int) -> str:
    """How this host reaches a server that listens on `host`."""
    address = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{address}:{port}"


def _check_database_exists(tracking_uri: str) -> None:
    if tracking_uri.startswith("http"):
        raise ValueError(
            f"tracking.uri = {strip_credentials(tracking_uri)!r} is a server already; open it in a browser"
        )
    if is_sqlite(tracking_uri) and not sqlite_path(tracking_uri).is_file():
        raise ValueError(f"tracking.uri = {tracking_uri!r}: there is no such file yet; launch a sweep first")
    with database_lock(tracking_uri):  # a sweep that has just begun may still be creating it
        pass


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(f"--port {port}: cannot be used on {host} ({error.strerror}); name another one") from error


def _wait_until_healthy(server: subprocess.Popen[bytes], url: str, log_path: Path, timeout_s: float) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and server.poll() is None:
        try:
            direct.open(f"{url}/health", timeout=2).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    what = f"ended with code {server.returncode}" if server.poll() is not None else f"no answer in {timeout_s:g} s"
    with open(log_path, errors="replace") as log:
        last_lines = "".join(deque(log, 8))
    raise TrackingError(f"mlflow server: {what}; the end of {log_path}:\n{strip_credentials(last_lines)}")
