"""Read a sweep back out of MLflow: everything that `delivery` told it, for a journal that is lost.

In: a tracking URI and the id of the sweep's run. Out: a `Recalled`: what the sweep is, its population, the log of
what decides places at the rungs, and each trial's run with its learning curve. Nothing in MLflow is changed.

Curves are read a hundred runs at a time, by the query that MLflow's own viewer makes: a thousand trials cost some
sixty requests instead of six thousand. A server that does not answer it is asked run by run.
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweep.records import TrialRow
from sweep.records.journal import FAILED, SCHEMA_VERSION
from sweep.records.tables import read_population
from sweep.tracking import content
from sweep.tracking.artifacts import is_claimed
from sweep.tracking.client import TrackingError, connect, patiently, runs_below
from sweep.tracking.preflight import preflight, strip_credentials

_RUNS_AT_ONCE = 100
_MAX_POINTS_AT_ONCE = 25_000  # a server cuts its answer here and does not say so
_BULK = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"


@dataclass(frozen=True)
class Arrival:
    """A trial, by its launch order, at a rung; `error_pct` None where it had diverged."""

    number: int
    launch_order: int
    rung_epochs: int
    error_pct: float | None
    decided_at_ms: int


@dataclass(frozen=True)
class Closing:
    """The moment after an arrival, by its number, at which the trials that waited were stopped."""

    after_arrival: int
    closed_at_ms: int


@dataclass(frozen=True)
class Leave:
    """A trial, by its launch order, that failed or was cancelled after so many arrivals; `outcome` says which."""

    launch_order: int
    outcome: str
    after_arrival: int
    left_at_ms: int


@dataclass
class RecalledRun:
    """A trial's run. `epochs`: number -> the columns of the journal that MLflow holds, and `recorded_at_ms`.

    `has_ended`: its end was told, whatever its tags say. `failure`: of a trial that failed, as much as MLflow holds.
    """

    run_id: str
    trial_id: str
    status: str
    tags: dict[str, str]
    started_at_ms: int
    ended_at_ms: int | None
    epochs: dict[int, dict[str, Any]] = field(default_factory=dict)
    has_ended: bool = False
    failure: str | None = None

    @property
    def is_empty(self) -> bool:
        """It was created and told nothing."""
        return content.ATTEMPTS_TAG not in self.tags and not self.epochs


@dataclass(frozen=True)
class Recalled:
    """A sweep as MLflow knows it; `origin` is the journal's meta as it was when the sweep began or was extended."""

    tracking_uri: str
    experiment_id: str
    parent_run_id: str
    status: str
    origin: dict[str, Any]
    population: list[TrialRow]
    arrivals: list[Arrival]
    closings: list[Closing]
    leaves: list[Leave]
    runs: list[RecalledRun]


def recall(tracking_uri: str, parent_run_id: str) -> Recalled:
    """Raises `ValueError` if there is no such run, it is no sweep's, or it lacks what a journal is rebuilt from;
    `TrackingError` if MLflow gives up on the way."""
    preflight(tracking_uri)
    try:
        return _recall(tracking_uri, parent_run_id)
    except (ValueError, TrackingError):
        raise
    except Exception as error:
        raise TrackingError(
            f"tracking: {strip_credentials(tracking_uri)} could not be read to the end "
            f"({strip_credentials(f'{type(error).__name__}: {error}')[:300]}); try again once MLflow answers"
        ) from error


class _Patient:
    """MLflow's client for one who only reads: what fails and may pass is asked again."""

    def __init__(self, client: Any):
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: patiently(lambda: getattr(self._client, name)(*args, **kwargs))


def _recall(tracking_uri: str, parent_run_id: str) -> Recalled:
    client = _Patient(connect(tracking_uri))
    parent = _find_parent(client, tracking_uri, parent_run_id)
    origin, population = _read_origin(client, parent)
    runs = {run.run_id: run for run in _trial_runs(client, parent)}
    study = origin["study"]
    max_epochs = max(study["stopping"]["max_epochs"], *(scale.get("max_epochs", 0) for scale in study["scale"]))
    for column, key in content.CURVES.items():
        for run_id, point in _histories(client, tracking_uri, list(runs), key, max_epochs):
            epoch = runs[run_id].epochs.setdefault(point["step"], {"recorded_at_ms": point["timestamp"]})
            epoch[column] = point["value"]
    for run_id, point in _histories(client, tracking_uri, list(runs), content.EPOCHS_TRAINED, 1):
        # The journal's; the run's own end may not have come through.
        runs[run_id].ended_at_ms, runs[run_id].has_ended = point["timestamp"], True
    for run in runs.values():
        run.failure = _failure(client, run)
    return Recalled(
        tracking_uri=tracking_uri,
        experiment_id=parent.info.experiment_id,
        parent_run_id=parent_run_id,
        status=parent.info.status,
        origin=origin,
        population=population,
        arrivals=list(_arrivals(client, parent_run_id)),
        closings=[
            Closing(point.step, point.timestamp) for point in client.get_metric_history(parent_run_id, content.CLOSED)
        ],
        leaves=list(_leaves(client, parent_run_id)),
        runs=list(runs.values()),
    )


def _find_parent(client: Any, tracking_uri: str, run_id: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        parent = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ValueError(
            f"--parent: {run_id!r} is no run of {strip_credentials(tracking_uri)}; name the run of the sweep: "
            "`sweep launch` printed its id, and it carries the tag kind = sweep"
        ) from error
    if parent.data.tags.get("kind") != "sweep":
        above = parent.data.tags.get("mlflow.parentRunId")
        raise ValueError(
            f"--parent: the run {run_id!r} is not a sweep's"
            + (f"; name the run that it stands below, {above!r}" if above else "; name one with the tag kind = sweep")
        )
    if parent.info.lifecycle_stage == "deleted":
        raise ValueError(
            f"--parent: the run {run_id!r} was deleted in MLflow; "
            f"bring it back with `mlflow runs restore --run-id {run_id}`"
        )
    return parent


def _read_origin(client: Any, parent: Any) -> tuple[dict[str, Any], list[TrialRow]]:
    run_id, names = parent.info.run_id, (content.ORIGIN_FILE, content.POPULATION_FILE)
    # Asked first: a store that does not answer now is another matter than one that has lost them.
    if not {file.path for file in client.list_artifacts(run_id)}.issuperset(names):
        raise ValueError(
            f"--parent: the run {run_id!r} does not hold {' and '.join(names)}, from "
            f"which a journal is rebuilt (its artifacts: {strip_credentials(parent.info.artifact_uri)}); bring "
            "that place back, or launch the study anew: the same study draws the same population"
        )
    with tempfile.TemporaryDirectory() as folder:
        origin, population = (Path(client.download_artifacts(run_id, name, folder)) for name in names)
        try:
            for name, path in zip(names, (origin, population)):
                if is_claimed(parent.data.tags, name, path) is False:
                    raise ValueError(f"{name} is not what the run claims")
            found = json.loads(origin.read_text(encoding="utf-8")), read_population(population)
        except (ValueError, KeyError, TypeError) as error:
            raise TrackingError(
                f"tracking: {' or '.join(names)} of the run {run_id!r} is damaged ({error}); restore it from a backup, "
                "or launch the study anew: the same study draws the same population"
            ) from error
    _check_version(parent, found[0])
    return found


def _check_version(parent: Any, origin: dict[str, Any]) -> None:
    version = origin.get("schema_version", 1)
    if version != SCHEMA_VERSION:  # its rule may have decided otherwise
        raise ValueError(
            f"--parent: the sweep of run {parent.info.run_id!r} was recorded with schema version {version}, and this "
            f"program reads {SCHEMA_VERSION}; recover it with the version of designspace-sweep that recorded it "
            f"(git commit {origin.get('git_commit')})"
        )


def _trial_runs(client: Any, parent: Any) -> Iterator[RecalledRun]:
    sought = f"{content.trials_filter(parent.info.run_id)} AND tags.kind = 'trial'"
    for run in runs_below(client, parent.info.experiment_id, sought):
        if content.TRIAL_ID_TAG in run.data.tags:  # else it is nobody's (repair.py)
            yield RecalledRun(
                run_id=run.info.run_id,
                trial_id=run.data.tags[content.TRIAL_ID_TAG],
                status=run.info.status,
                tags=dict(run.data.tags),
                started_at_ms=run.info.start_time,
                ended_at_ms=run.info.end_time,
            )


def _failure(client: Any, run: RecalledRun) -> str | None:
    """Of the tag; of the artifact where that is longer, and is what the run claims."""
    if run.tags.get("outcome") != FAILED:
        return None
    told = run.tags.get(content.FAILURE_TAG)
    if told is None or len(told) < content.FAILURE_TAG_LENGTH:
        return told
    with tempfile.TemporaryDirectory() as folder, suppress(Exception):  # the tag will do
        path = Path(client.download_artifacts(run.run_id, content.FAILURE_FILE, folder))
        if is_claimed(run.tags, content.FAILURE_FILE, path):
            return path.read_bytes().decode()
    return told


def _arrivals(client: Any, run_id: str) -> Iterator[Arrival]:
    """In their order, as far as they are whole."""
    trials, rungs, errors = (
        {point.step: point for point in client.get_metric_history(run_id, key)}
        for key in (content.ARRIVAL_TRIAL, content.ARRIVAL_RUNG, content.ARRIVAL_ERROR)
    )
    for number in sorted(trials.keys() & rungs.keys()):
        yield Arrival(
            number=number,
            launch_order=int(trials[number].value),
            rung_epochs=int(rungs[number].value),
            error_pct=errors[number].value if number in errors else None,
            decided_at_ms=trials[number].timestamp,
        )


def _leaves(client: Any, run_id: str) -> Iterator[Leave]:
    for outcome, key in content.LEFT.items():
        for point in client.get_metric_history(run_id, key):
            yield Leave(point.step, outcome, int(point.value), point.timestamp)


def _histories(
    client: Any, tracking_uri: str, run_ids: Sequence[str], key: str, max_points: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run id and point (step, value, timestamp) of one metric of many runs, each with `max_points` at most."""
    num_runs = min(_RUNS_AT_ONCE, _MAX_POINTS_AT_ONCE // (max_points + 1))
    if num_runs == 0 or not tracking_uri.startswith("http"):
        yield from _one_by_one(client, run_ids, key)
        return
    for start in range(0, len(run_ids), num_runs):
        some = run_ids[start : start + num_runs]
        points = _bulk(tracking_uri, some, key)
        if points is None:
            yield from _one_by_one(client, some, key)
        else:
            yield from ((point["run_id"], point) for point in points)


def _bulk(tracking_uri: str, run_ids: Sequence[str], key: str) -> list[dict[str, Any]] | None:
    """None where the server has no such query."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    answer = http_request(
        get_default_host_creds(tracking_uri.rstrip("/")),
        _BULK,
        "GET",
        max_retries=3,  # whoever reads may ask again
        params=[*(("run_id", run_id) for run_id in run_ids), ("metric_key", key)],
    )
    if answer.status_code == 404:
        return None
    answer.raise_for_status()
    return answer.json()["metrics"]


def _one_by_one(client: Any, run_ids: Iterable[str], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for run_id in run_ids:
        for point in client.get_metric_history(run_id, key):
            yield run_id, {"step": point.step, "value": point.value, "timestamp": point.timestamp}
