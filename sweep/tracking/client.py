"""The way to MLflow: its settings, its SQLite file, a client that sends nothing twice, and batches.

In: a tracking URI. Out: a `Client`, or a `TrackingError` that says what is wrong with the place and what to do.

MLflow's own client sends a request again whose answer was lost, and a run that is created twice is two runs. So here
each request is sent once, and whoever asks looks at what there is before it asks again. A SQLite database is made under
another name and then renamed: MLflow makes it in some forty migrations, and cannot go on where one was cut short.
"""

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from sweep.tracking.content import Point
from sweep.tracking.preflight import damage, is_sqlite, sqlite_path

# MLflow's own defaults keep a caller of a dead server waiting for four minutes; here the outbox does the waiting.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "GIT_PYTHON_REFRESH": "quiet",  # a machine without git is no reason for a page of warning
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "PGCONNECT_TIMEOUT": "10",  # PostgreSQL's library waits for ever
    # Through the server only, which alone is sure to reach the bucket: MLflow would hand out the bucket's own addresses
    # and try them for minutes.
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
}
_WHATEVER_THE_USER_SET = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
_PAUSES_S = (0.5, 2.0)
# MLflow takes 1,000 points, params and tags in one request, and stores its points all or none.
_MAX_POINTS, _MAX_PARAMS_AND_TAGS = 900, 100


class TrackingError(RuntimeError):
    """MLflow could not be told, or not all of it; the message says where the rest is kept and what to do."""


def quiet_environment() -> dict[str, str]:
    """MLflow's settings for a client or server that sends nothing home; what the user has set stays."""
    return _SETTINGS | {key: os.environ[key] for key in _SETTINGS if key in os.environ} | _WHATEVER_THE_USER_SET


class Client:
    """MLflow's own client (its methods are these), and the way for artifacts."""

    def __init__(self, client: Any, tracking_uri: str):
        self._client = client
        self._tracking_uri = tracking_uri

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def upload(self, artifact_uri: str, file: Path, folder: str) -> None:
        """One request; MLflow's `log_artifact` would first ask where a run's artifacts lie."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        repository = get_artifact_repository(artifact_uri, tracking_uri=self._tracking_uri)
        repository.log_artifact(str(file), folder or None)


def connect(tracking_uri: str) -> Any:
    """A `Client`; imports MLflow (1.3 s of CPU) and creates a SQLite database that is not there yet (1 s)."""
    os.environ.update(quiet_environment())
    from mlflow import MlflowClient

    # It warns of each retry, and the outbox tells of them once.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    with database_lock(tracking_uri):
        if is_sqlite(tracking_uri):
            _prepare_sqlite(tracking_uri)
        client = MlflowClient(tracking_uri=tracking_uri)
        client.search_experiments(max_results=1)
    return Client(client, tracking_uri)


@contextmanager
def database_lock(tracking_uri: str) -> Iterator[None]:
    """Held while a SQLite database is created: two processes that create it at once both fail in its migrations."""
    if not is_sqlite(tracking_uri):
        yield
        return
    path = sqlite_path(tracking_uri)
    with open(path.with_name(f".{path.name}.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _prepare_sqlite(uri: str) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    # MLflow keeps connections as long as the process lives, also to a file that was moved away since.
    if kept := getattr(SqlAlchemyStore, "_engine_map", {}).get(uri):
        kept.dispose()
    path = sqlite_path(uri)
    if path.exists() and path.stat().st_size > 0:
        if found := damage(path):
            raise TrackingError(found)
        return
    draft = path.with_name(f".{path.name}.new")
    # Of a process that was killed here; and of a database that was moved away, whose journal would be played into ours.
    for remains in (draft.name, f"{draft.name}-journal", *(path.name + end for end in ("-journal", "-wal", "-shm"))):
        path.with_name(remains).unlink(missing_ok=True)
    store = SqlAlchemyStore(f"sqlite:///{draft}", (path.parent / "mlartifacts").as_uri())
    store.engine.dispose()
    os.replace(draft, path)


Answer = TypeVar("Answer")


def patiently(step: Callable[[], Answer]) -> Answer:
    """For what can be asked again, where nobody else does: three tries at what may pass."""
    for pause_s in _PAUSES_S:
        try:
            return step()
        except Exception as error:
            if not _may_pass(error):
                raise
        time.sleep(pause_s)
    return step()


def _may_pass(error: Exception) -> bool:
    from requests import RequestException

    passing = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
    return isinstance(error, (ConnectionError, TimeoutError, RequestException)) or (
        getattr(error, "error_code", None) in passing
    )


# -- batches ---------------------------------------------------------------------------------------------------------


def log_batch(
    client: Any,
    run_id: str,
    params: Mapping[str, str] = {},
    points: Iterable[Point] = (),
    tags: Mapping[str, str] = {},
) -> None:
    """One request, more only beyond MLflow's limit. Values that are not finite must have been left out.

    A request holds whole steps, and params and tags come with the last one: a run whose tags say what became of it
    holds all its points, and an epoch's points are there all or none.
    """
    from mlflow.entities import Metric, Param, RunTag

    assert len(params) + len(tags) <= _MAX_PARAMS_AND_TAGS
    *full, last = _whole_steps(points)
    for some in full:
        client.log_batch(run_id, metrics=[Metric(*point) for point in some])
    client.log_batch(
        run_id,
        metrics=[Metric(*point) for point in last],
        params=[Param(key, value) for key, value in params.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )


def _whole_steps(points: Iterable[Point]) -> Iterator[list[Point]]:
    """Cut where the step changes, each part as long as one request may be; at least one part, maybe empty."""
    part: list[Point] = []
    for _, group in groupby(points, key=lambda point: point[3]):
        step = list(group)
        if len(part) + len(step) > _MAX_POINTS:
            yield part
            part = []
        part += step
    yield part


def runs_below(client: Any, experiment_id: str, sought: str) -> Iterator[Any]:
    """All runs of an experiment that a filter finds, a thousand a request."""
    token = None
    while True:
        page = client.search_runs([experiment_id], sought, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
