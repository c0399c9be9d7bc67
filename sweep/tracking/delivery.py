"""Bring MLflow to what the journal says, and mark in the journal what was brought.

In: a run directory's journal and a tracking URI. Out: one MLflow run for the sweep, one below it for each trial that
has started, and the journal's marks (`run_id`, `delivered_outcome`, `delivered`).

Each step may be repeated, so that a crash between it and its mark changes nothing: a run is looked up by its tags
before it is created, params and tags are set to what they are, and a metric point with the same time, step and value
is the same row (the times are the journal's). A tracking server that does not know the sweep's run, because it is
another one or lost its database, is told everything from the beginning.

What a lost journal is rebuilt from (sweep/scheduling/recover.py) goes with it: the sweep's origin (its meta and its
population, two artifacts), and the log of arrivals at the rungs. Each decision depends on the arrivals before it, so
MLflow must never know an epoch without the arrival that came with it and all earlier ones. Hence the order: first the
epochs of a few trials are read, then the arrivals; an epoch and its arrival are committed together, so arrivals that
are read later hold those of all epochs read before. Then the arrivals are sent, and only then the epochs.
"""

import fcntl
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from shutil import copyfile
from typing import Any

import pyarrow.parquet as pq

from sweep.records.journal import ARRIVALS_DELIVERED, ENDED, ORIGIN_DELIVERED, RUNNING, Journal
from sweep.records.tables import architectures_table
from sweep.spaces import Architecture
from sweep.tracking import content
from sweep.tracking.content import INTERRUPTED, Point
from sweep.tracking.preflight import ARTIFACTS_DIR, is_sqlite, sqlite_path, strip_credentials

# MLflow's own defaults keep a caller of a dead server waiting for four minutes; here the outbox does the waiting.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "GIT_PYTHON_REFRESH": "quiet",  # a machine without git is no reason for a page of warning
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # Through the server only, which alone is sure to reach the bucket: MLflow would hand out the bucket's own addresses
    # and try them for minutes.
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
}
# Two trials refused in one pass: the server is at fault, not a trial.
_MAX_FAILURES_A_PASS = 2
# Trials that are read, and wait in memory, while the arrivals that they depend on are sent.
_TRIALS_AT_ONCE = 50
# MLflow takes 1,000 points, params and tags in one request, and stores its points all or none.
_MAX_POINTS, _MAX_PARAMS_AND_TAGS = 900, 100


class TrackingError(RuntimeError):
    """MLflow could not be told, or not all of it; the message says where the rest is kept and what to do."""


def quiet_environment() -> dict[str, str]:
    """MLflow's settings for a client or server that sends nothing home; what the user has set stays."""
    return _ENVIRONMENT | {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}


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


def connect(tracking_uri: str) -> Any:
    """An `MlflowClient`; imports MLflow (1.3 s of CPU) and creates a SQLite database that is not there yet (1 s)."""
    os.environ.update(quiet_environment())
    from mlflow import MlflowClient

    # It warns of each retry, and the outbox tells of them once.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    with database_lock(tracking_uri):
        client = MlflowClient(tracking_uri=tracking_uri)
        client.search_experiments(max_results=1)
    return client


class Delivery:
    """One thread's way from a journal to MLflow. Its methods raise whatever MLflow, the network or the disk raises."""

    def __init__(self, run_dir: Path, tracking_uri: str, *, experiment: str):
        self.journal = Journal.open(run_dir)
        self._run_dir = run_dir
        self._uri = tracking_uri
        self._experiment = content.experiment_name(experiment)
        self._client: Any = None
        self._experiment_id = ""
        self._parent_id = ""
        # Runs that a crash may have left without their mark: looked for once, and after each doubtful creation.
        self._in_doubt = True
        self._unmarked: dict[str, str] = {}
        self._refused: set[str] = set()
        self._several_scales = len(self.journal.get("study", {}).get("scale", [])) > 1

    def close(self) -> None:
        self.journal.close()

    # -- the sweep's run --------------------------------------------------------------------------------------

    def open(self, *, live: bool) -> None:
        """Find or create the experiment and the sweep's run, and write their ids into the journal's meta.

        `live`: trials are going on, so a run that an interruption ended is set RUNNING again.
        """
        if self._parent_id:
            return
        if self._client is None:
            self._client = connect(self._uri)
        meta = self.journal.meta()
        run = self._known_parent(meta) or self._unmarked_parent(meta) or self._create_parent(meta)
        if run.info.lifecycle_stage == "deleted":
            raise TrackingError(
                f"the sweep's run {run.info.run_id} was deleted in MLflow; "
                f"bring it back with `mlflow runs restore --run-id {run.info.run_id}`"
            )
        self._experiment_id = run.info.experiment_id
        self.journal.set_meta(
            tracking_uri=strip_credentials(self._uri),
            experiment_id=run.info.experiment_id,
            parent_run_id=run.info.run_id,
        )
        self._describe_parent(run.info.run_id, meta)
        if live:
            self._deliver_origin(run.info.run_id)
        if live and run.info.status != RUNNING.upper():
            self._reopen(run.info.run_id)
        self._parent_id = run.info.run_id

    def _known_parent(self, meta: Mapping[str, Any]) -> Any:
        from mlflow.exceptions import MlflowException

        if "parent_run_id" not in meta:
            return None
        try:
            return self._client.get_run(meta["parent_run_id"])
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        self.journal.forget_delivery()
        return None

    def _unmarked_parent(self, meta: Mapping[str, Any]) -> Any:
        self._experiment_id = self._find_or_create_experiment()
        sought = f"tags.`{content.SWEEP_ID_TAG}` = '{content.sweep_id(meta)}' AND tags.kind = 'sweep'"
        return next(iter(self._client.search_runs([self._experiment_id], sought, max_results=1)), None)

    def _create_parent(self, meta: Mapping[str, Any]) -> Any:
        return self._client.create_run(
            self._experiment_id,
            start_time=meta["created_at_ms"],
            tags=content.parent_tags(meta),
            run_name=content.parent_name(meta),
        )

    def _find_or_create_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            try:
                return self._client.create_experiment(self._experiment, artifact_location=self._artifact_root())
            except MlflowException as error:
                # Another sweep of the same study was quicker.
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self._client.get_experiment_by_name(self._experiment)
        if found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"the experiment {self._experiment!r} was deleted in MLflow; bring it back with "
                f"`mlflow experiments restore --experiment-id {found.experiment_id}`, or name the study otherwise"
            )
        return found.experiment_id

    def _artifact_root(self) -> str | None:
        """Beside a SQLite file; in the run directory for another database; a server knows its own."""
        if self._uri.startswith("http"):
            return None
        home = sqlite_path(self._uri).parent if is_sqlite(self._uri) else self._run_dir.absolute()
        return (home / ARTIFACTS_DIR).as_uri()

    def _describe_parent(self, run_id: str, meta: Mapping[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        study = meta["study"]
        self._log(run_id, params=content.parent_params(study), tags={"mlflow.note.content": content.note(study)})
        described = Dataset(**content.dataset(study))
        self._client.log_inputs(run_id, [DatasetInput(described, [InputTag("mlflow.data.context", "training")])])
        view = content.saved_view(run_id, meta["created_at_ms"])
        self._client.set_experiment_tag(self._experiment_id, content.VIEW_TAG + run_id, view)

    # -- what a lost journal is rebuilt from -------------------------------------------------------------------

    def _deliver_origin(self, run_id: str) -> None:
        """What the sweep is and the networks that were drawn for it; once, for it never changes."""
        if self.journal.get(ORIGIN_DELIVERED) == run_id:
            return
        origin = content.origin(self.journal.meta())
        self._log_text(run_id, content.ORIGIN_FILE, json.dumps(origin, indent=1))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, content.POPULATION_FILE)
            pq.write_table(architectures_table(map(dict, self.journal.trials())), path)
            self._client.log_artifact(run_id, str(path))
        self.journal.set_meta(**{ORIGIN_DELIVERED: run_id})

    def _deliver_arrivals(self) -> None:
        """All arrivals at rungs that the journal holds by now and MLflow was not told."""
        known = self.journal.get(ARRIVALS_DELIVERED, 0)
        arrivals = self.journal.decisions_after(known)
        if not arrivals:
            return
        launch_order = {row["trial_id"]: row["launch_order"] for row in self.journal.trials()}
        points = content.arrival_points(dict(row) | {"launch_order": launch_order[row["trial_id"]]} for row in arrivals)
        self._log(self._parent_id, points=points)
        self.journal.set_meta(**{ARRIVALS_DELIVERED: arrivals[-1]["arrival"]})

    # -- the trials ------------------------------------------------------------------------------------------

    def deliver(self, *, live: bool, until: float = float("inf")) -> int:
        """Deliver what the journal holds and MLflow was not told; answers the number of points and outcomes.

        Unless `live`, trials that have not ended are ended as interrupted. Stops between two trials at `until`
        (`time.monotonic`). One trial that MLflow refuses does not hold up the others; its error is raised at the end.
        """
        delivered, errors = 0, []
        undelivered = self.journal.undelivered_trials(running_as=RUNNING if live else INTERRUPTED)
        trials = iter(sorted(undelivered, key=lambda row: row["trial_id"] in self._refused))
        self._deliver_arrivals()  # also where no trial has news: a journal may be older than the log of arrivals
        while some := [self._with_epochs(dict(row)) for row in islice(trials, _TRIALS_AT_ONCE)]:
            self._deliver_arrivals()
            for trial in some:
                if time.monotonic() > until:
                    raise TrackingError("time is up")
                try:
                    delivered += self._deliver_trial(trial, live)
                    self._refused.discard(trial["trial_id"])
                except Exception as error:  # the first is raised below, once the other trials had their turn
                    errors.append(error)
                    self._refused.add(trial["trial_id"])
                    if len(errors) == _MAX_FAILURES_A_PASS:
                        raise errors[0] from None
        if errors:
            raise errors[0]
        return delivered

    def _with_epochs(self, row: dict[str, Any]) -> dict[str, Any]:
        """A trial with what may be told of it once the arrivals are: the epochs that the journal holds now."""
        epochs = [dict(epoch) for epoch in self.journal.undelivered_epochs_of(row["trial_id"])]
        last_epoch = epochs[-1]["epoch"] if epochs else self.journal.last_epoch(row["trial_id"])
        host = epochs[-1]["host"] if epochs else self.journal.last_host_of(row["trial_id"])
        return {**row, "epochs": epochs, "last_epoch": last_epoch, "host": host}

    def _deliver_trial(self, trial: dict[str, Any], live: bool) -> int:
        outcome = INTERRUPTED if trial["outcome"] == RUNNING and not live else trial["outcome"]
        is_news = outcome != trial["delivered_outcome"]
        run_id = self._find_or_create_run(trial)
        epochs, rung = trial["epochs"], trial["last_epoch"]
        params: dict[str, str] = {}
        points = list(content.epoch_points(epochs))
        if trial["delivered_outcome"] is None:
            architecture = Architecture.from_json(trial["architecture"])
            self._log_text(run_id, "architecture.yaml", architecture.to_yaml())
            params = content.trial_params(trial, architecture)
            points += content.static_points(trial, architecture)
        if outcome in ENDED:
            points.append((content.EPOCHS_TRAINED, float(rung), trial["ended_at_ms"], 0))
        tags = {"outcome": outcome, "rung": str(rung), content.ATTEMPTS_TAG: str(trial["attempts"])}
        if trial["host"]:
            tags[content.HOST_TAG] = trial["host"]
        if trial["failure"]:
            tags["failure"] = trial["failure"][:5000]
        self._log(run_id, params, points, tags)
        self.journal.mark_epochs_delivered((row["trial_id"], row["epoch"]) for row in epochs)
        if is_news:
            self._set_status(run_id, trial, outcome)
            self.journal.mark_outcome_delivered(trial["trial_id"], outcome)
        return len(epochs) + is_news

    def _find_or_create_run(self, trial: Mapping[str, Any]) -> str:
        if trial["run_id"]:
            return trial["run_id"]
        trial_id = trial["trial_id"]
        if self._in_doubt:
            self._unmarked = self._open_runs()
            self._in_doubt = False
        run_id = self._unmarked.get(trial_id)
        if run_id is None:
            self._in_doubt = True  # until the mark is set: the server may create it, and the answer be lost
            run_id = self._client.create_run(
                self._experiment_id,
                start_time=content.begun_at_ms(trial),
                tags=content.trial_tags(trial, self._parent_id),
                run_name=content.trial_name(trial, several_scales=self._several_scales),
            ).info.run_id
        self.journal.set_run_id(trial_id, run_id)
        self._in_doubt = False
        return run_id

    def _open_runs(self) -> dict[str, str]:
        """Trial id -> run id of this sweep's runs that are tagged as running: a run without its mark is one of them."""
        sought = f"{content.trials_filter(self._parent_id)} AND tags.kind = 'trial' AND tags.outcome = '{RUNNING}'"
        found: dict[str, str] = {}
        token = None
        while True:
            page = self._client.search_runs([self._experiment_id], sought, max_results=1000, page_token=token)
            found |= {run.data.tags[content.TRIAL_ID_TAG]: run.info.run_id for run in page}
            token = page.token
            if not token:
                return found

    def _set_status(self, run_id: str, trial: Mapping[str, Any], outcome: str) -> None:
        if outcome != RUNNING:
            self._client.set_terminated(run_id, content.RUN_STATUS[outcome], trial["ended_at_ms"])
        elif trial["delivered_outcome"] is not None:
            self._client.update_run(run_id, status=content.RUN_STATUS[RUNNING])

    # -- the end ---------------------------------------------------------------------------------------------

    def finish(self, closing: Mapping[str, Any], *, until: float = float("inf")) -> int:
        """Deliver the rest, end every run, then send the artifacts: a store that is away leaves no run open.

        `closing`: status, note, tags, metrics, artifacts (path in the run -> local file), ended_at_ms.
        """
        delivered = self.deliver(live=False, until=until)
        study = self.journal.get("study")
        tags = {"outcome": closing["status"], "mlflow.note.content": content.note(study, closing["note"])}
        metrics = closing["metrics"].items()
        points = [(key, value, closing["ended_at_ms"], 0) for key, value in metrics if content.is_finite(value)]
        self._log(self._parent_id, points=points, tags=tags | closing["tags"])
        status = content.PARENT_STATUS[closing["status"]]
        self._client.set_terminated(self._parent_id, status, closing["ended_at_ms"])
        self._deliver_origin(self._parent_id)  # of a sweep that was over before its first pass
        for name, path in closing["artifacts"].items():
            log_artifact(self._client, self._parent_id, name, Path(path))
        return delivered

    # -- single steps -------------------------------------------------------------------------------------------

    def _log(
        self, run_id: str, params: Mapping[str, str] = {}, points: Iterable[Point] = (), tags: Mapping[str, str] = {}
    ) -> None:
        log_batch(self._client, run_id, params, points, tags)

    def _log_text(self, run_id: str, name: str, text: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.write_text(text, encoding="utf-8")
            self._client.log_artifact(run_id, str(path))

    def _reopen(self, run_id: str) -> None:
        self._client.update_run(run_id, status=content.RUN_STATUS[RUNNING])
        self._client.set_tag(run_id, "outcome", RUNNING)


def log_batch(
    client: Any, run_id: str, params: Mapping[str, str], points: Iterable[Point], tags: Mapping[str, str]
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


def log_artifact(client: Any, run_id: str, name: str, path: Path) -> None:
    """`name` is the artifact's path in the run, folders and file name; the local file may be called otherwise."""
    folder, _, file_name = name.rpartition("/")
    if path.name == file_name:
        client.log_artifact(run_id, str(path), folder or None)
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, file_name)
        copyfile(path, copy)
        client.log_artifact(run_id, str(copy), folder or None)


def record_run(
    tracking_uri: str,
    *,
    experiment_id: str,
    parent_run_id: str,
    rerun_id: str,
    name: str,
    params: Mapping[str, Any],
    epochs: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, float],
    artifacts: Mapping[str, Path],
    tags: Mapping[str, str] = {},
    status: str = "FINISHED",
) -> str:
    """Record a finished rerun as one run below the sweep's; answers its run id. Called again, it is the same run.

    `rerun_id` tells reruns of one sweep apart. `epochs`: rows with the journal's column names (`val_error_pct`, …),
    in order and at least one; `metrics`: the final numbers, such as `test/error_pct`; `artifacts`: path in the run ->
    file; `status`: FINISHED or FAILED. Raises `TrackingError` if MLflow cannot be told.
    """
    try:
        client = connect(tracking_uri)
        sought = f"{content.trials_filter(parent_run_id)} AND tags.`{content.RERUN_ID_TAG}` = '{rerun_id}'"
        run = next(iter(client.search_runs([experiment_id], sought, max_results=1)), None) or client.create_run(
            experiment_id,
            start_time=epochs[0]["recorded_at_ms"] - int(1000 * epochs[0]["train_time_s"]),
            tags={**content.rerun_tags(parent_run_id, rerun_id), **tags},
            run_name=name,
        )
        ended_at_ms = epochs[-1]["recorded_at_ms"]
        final = [(key, value, ended_at_ms, 0) for key, value in metrics.items() if content.is_finite(value)]
        shown = {key: content.shown(value) for key, value in params.items()}
        log_batch(client, run.info.run_id, shown, [*content.epoch_points(epochs), *final], tags)
        for artifact, path in artifacts.items():
            log_artifact(client, run.info.run_id, artifact, path)
        client.set_terminated(run.info.run_id, status, ended_at_ms)
    except Exception as error:
        raise TrackingError(
            f"tracking: the rerun {rerun_id!r} is not recorded in {strip_credentials(tracking_uri)} "
            f"({strip_credentials(str(error))}); its results are in the run directory"
        ) from error
    return run.info.run_id
