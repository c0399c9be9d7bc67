"""What an MLflow server holds of one sweep, by its REST API.

In: the server's address. Out: `Records` (sweep/verify/mlflow.py). Each request has its own deadline, the first one that
fails ends it all. Whoever asks logs in as MLflow's client does: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD,
else ~/.mlflow/credentials, else MLFLOW_TRACKING_TOKEN.
"""

import configparser
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from sweep.verify.mlflow import (
    PARENT_TAG,
    SWEEP_ID_TAG,
    Point,
    Records,
    Run,
    UnreachableError,
    digest,
    local_folder,
    sha256_of_local,
    strip_credentials,
)

_API = "/api/2.0/mlflow"
_RUNS_A_PAGE, _POINTS_A_PAGE, _EXPERIMENTS_AT_ONCE = 1000, 10_000, 100
_REQUESTS_AT_ONCE = 4
_CHUNK_BYTES = 1 << 20


def read_server(uri: str, sweep_id: str, parent_run_id: str | None, *, timeout_s: float) -> Records:
    """Raises `UnreachableError` where the server does not answer, or does not let this user read."""
    server = _Server(uri, timeout_s)
    try:
        return Records(_read(server, sweep_id, parent_run_id), server.sha256, server.close)
    except BaseException:
        server.close()
        raise


def _read(server: "_Server", sweep_id: str, parent_run_id: str | None) -> list[Run]:
    experiments = list(server.experiments())
    runs = {run.run_id: run for run in server.search(experiments, f"tags.`{SWEEP_ID_TAG}` = '{sweep_id}'")}
    parents = {run_id: run for run_id, run in runs.items() if run.kind == "sweep"}
    if parent_run_id and parent_run_id not in parents and (known := server.run(parent_run_id)):
        parents[parent_run_id] = known
    found = dict(parents)
    for parent in parents:
        found |= {run.run_id: run for run in server.search(experiments, f"tags.`{PARENT_TAG}` = '{parent}'")}
    active = [run for run in found.values() if run.is_active]
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
        for run, points in zip(active, pool.map(server.points, active), strict=True):
            run.points = points
    return list(found.values())


class _Server:
    def __init__(self, uri: str, timeout_s: float):
        self._uri, self._timeout_s = uri.rstrip("/"), timeout_s
        self._session = requests.Session()
        self._session.auth = _auth()
        self._session.verify = _verify()
        if (token := os.environ.get("MLFLOW_TRACKING_TOKEN")) and self._session.auth is None:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def close(self) -> None:
        self._session.close()

    def experiments(self) -> Iterator[str]:
        for page in self._pages("experiments/search", "POST", max_results=1000, view_type="ALL"):
            yield from (experiment["experiment_id"] for experiment in page.get("experiments", []))

    def search(self, experiments: list[str], sought: str) -> Iterator[Run]:
        for start in range(0, len(experiments), _EXPERIMENTS_AT_ONCE):
            some = experiments[start : start + _EXPERIMENTS_AT_ONCE]
            settings = {"experiment_ids": some, "filter": sought, "run_view_type": "ALL", "max_results": _RUNS_A_PAGE}
            for page in self._pages("runs/search", "POST", **settings):
                yield from map(_run, page.get("runs", []))

    def run(self, run_id: str) -> Run | None:
        """None where the server knows none of that id."""
        answer = self._request("GET", f"{_API}/runs/get", params={"run_id": run_id})
        if answer.status_code == 404:
            return None
        return _run(self._json(answer)["run"])

    def points(self, run: Run) -> list[Point]:
        """Every point that is stored. `run.points` holds one a key: the latest, which is all that a search tells."""
        found: list[Point] = []
        for key in sorted({point.key for point in run.points}):
            for page in self._pages(
                "metrics/get-history", "GET", run_id=run.run_id, metric_key=key, max_results=_POINTS_A_PAGE
            ):
                found += map(_point, page.get("metrics", []))
        return found

    def sha256(self, run: Run, path: str) -> str | None:
        """Read from this machine where the artifacts lie on it, else through the server."""
        folder = local_folder(run)
        if folder is not None and folder.is_dir():
            return sha256_of_local(run, path)
        address, params = self._artifact(run, path)
        answer = self._request("GET", address, params=params, stream=True)
        with answer:
            if answer.ok:
                return self._digest(answer)
        if self._lists(run, path):
            raise UnreachableError(f"{run}: {self._named()} answers {answer.status_code} for its artifact {path}")
        return None

    def _artifact(self, run: Run, path: str) -> tuple[str, dict[str, str]]:
        """Where the server hands it out: by its proxy of the store, else by what its own viewer asks."""
        parts = urlsplit(run.artifact_uri)
        if parts.scheme == "mlflow-artifacts":
            return f"/api/2.0/mlflow-artifacts/artifacts/{parts.path.strip('/')}/{quote(path)}", {}
        return "/get-artifact", {"run_id": run.run_id, "path": path}

    def _digest(self, answer: requests.Response) -> str:
        try:
            return digest(answer.iter_content(_CHUNK_BYTES))
        except requests.RequestException as error:
            raise UnreachableError(f"{self._named()} broke off: {_reason(error)}") from error

    def _lists(self, run: Run, path: str) -> bool:
        folder = path.rpartition("/")[0]
        for page in self._pages("artifacts/list", "GET", run_id=run.run_id, **({"path": folder} if folder else {})):
            if any(file["path"] == path for file in page.get("files", [])):
                return True
        return False

    def _pages(self, name: str, method: str, **settings: Any) -> Iterator[dict[str, Any]]:
        token = None
        while True:
            asked = settings | ({"page_token": token} if token else {})
            how = {"json": asked} if method == "POST" else {"params": asked}
            page = self._json(self._request(method, f"{_API}/{name}", **how))
            yield page
            token = page.get("next_page_token")
            if not token:
                return

    def _request(self, method: str, path: str, **how: Any) -> requests.Response:
        try:
            return self._session.request(method, f"{self._uri}{path}", timeout=self._timeout_s, **how)
        except requests.RequestException as error:
            raise UnreachableError(f"{self._named()} does not answer: {_reason(error)}") from error

    def _json(self, answer: requests.Response) -> dict[str, Any]:
        if answer.status_code in (401, 403):
            raise UnreachableError(
                f"{self._named()} refuses this user ({answer.status_code}); set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD"
            )
        if not answer.ok:
            raise UnreachableError(f"{self._named()} answers {answer.status_code}: {answer.text[:200]}")
        try:
            found = answer.json()
        except requests.JSONDecodeError as error:
            raise UnreachableError(f"{self._named()} does not answer as an MLflow server does") from error
        return found if isinstance(found, dict) else {}

    def _named(self) -> str:
        return strip_credentials(self._uri)


def _run(stored: dict[str, Any]) -> Run:
    info, data = stored["info"], stored.get("data", {})
    tags, params = ({item["key"]: item.get("value", "") for item in data.get(name, [])} for name in ("tags", "params"))
    return Run(
        run_id=info["run_id"],
        status=info["status"],
        is_active=info["lifecycle_stage"] == "active",
        artifact_uri=info.get("artifact_uri", ""),
        tags=tags,
        params=params,
        points=[_point(item) for item in data.get("metrics", [])],
    )


def _point(stored: dict[str, Any]) -> Point:
    """Numbers of 64 bits are text in this JSON, and so is what is not finite."""
    value = float(stored["value"])
    return Point(stored["key"], int(stored.get("step", 0)), value, int(stored["timestamp"]), value != value)


def _auth() -> tuple[str, str] | None:
    file = configparser.ConfigParser(interpolation=None)
    try:
        file.read(Path("~/.mlflow/credentials").expanduser())
    except configparser.Error:  # its text would repeat a line of the file, and that may be the password
        raise UnreachableError("~/.mlflow/credentials cannot be read as MLflow's file of credentials") from None
    name, password = (
        os.environ.get(key) or file.get("mlflow", key.lower(), fallback=None)
        for key in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    )
    return (name, password) if name and password else None


def _verify() -> bool | str:
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        return False
    return os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True


def _reason(error: Exception) -> str:
    return strip_credentials(str(error).rpartition(": ")[2].strip("()\"' ")) or type(error).__name__
