"""Bring MLflow to what the journal says, and mark in the journal what was brought.

In: a run directory's journal and a tracking URI. Out: one MLflow run for the sweep, one below it for each trial that
has started, and the journal's marks (`run_id`, `delivered_outcome`, `delivered`).

Each step may be repeated, so that a crash between it and its mark changes nothing: a run is looked up by its tags
before it is created, params and tags are set to what they are, and a metric point with the same time, step and value
is the same row (the times are the journal's, never this clock's). A tracking server that does not know the sweep's run,
because it is another one or lost its database, is told everything from the beginning.

MLflow must never know an epoch without the arrival at a rung that came with it and all that decided places before it
(origin.py). Hence the order: first the epochs of a few trials are read, then the log; an epoch and its arrival are
committed together, so a log that is read later holds those of all epochs read before. Then the log is sent, and only
then the epochs.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from sweep.records.journal import ENDED, FAILED, PAUSED, RUNNING, Journal, LeaseLostError
from sweep.records.tables import extended_study
from sweep.spaces import network_from_json
from sweep.studies import Study, study_from_dict
from sweep.tracking import content
from sweep.tracking.artifacts import Target, log_artifact, publish, target_of, upload
from sweep.tracking.client import TrackingError, connect, log_batch, runs_below
from sweep.tracking.content import INTERRUPTED
from sweep.tracking.origin import deliver_log, deliver_origin, is_origin_delivered, undelivered_log
from sweep.tracking.preflight import artifact_root, strip_credentials
from sweep.tracking.repair import end_strays, forget_what_differs

__all__ = ["Delivery", "TrackingError", "connect", "log_artifact"]

# Two trials refused in one pass: the server is at fault, not a trial.
_MAX_FAILURES_A_PASS = 2
# Trials that are read, and wait in memory, while the arrivals that they depend on are sent.
_TRIALS_AT_ONCE = 50
_LOGS = "logs"

Progress = Callable[[int, int], None]
"""Trials that were delivered, and how many there are to deliver."""


class Delivery:
    """One thread's way from a journal to MLflow. Its methods raise whatever MLflow, the network or the disk raises, and
    `LeaseLostError` once another process owns the sweep. `token`: of the lease under which it marks what it did.
    `unfinished_after_s`: how long the news of a trial that has not ended wait for more of them."""

    def __init__(
        self,
        run_dir: Path,
        tracking_uri: str,
        *,
        experiment: str,
        token: int | None = None,
        unfinished_after_s: float = 0.0,
    ):
        self.journal = Journal.open(run_dir, token=token)
        self._run_dir = run_dir
        self._uri = tracking_uri
        self._experiment = content.experiment_name(experiment)
        self._client: Any = None
        self._experiment_id = ""
        self._parent_id = ""
        # Runs that a crash may have left without their mark: looked for once, and after each doubtful creation.
        self._in_doubt = True
        self._unmarked: dict[str, Target] = {}
        self._refused: set[str] = set()
        self._unfinished_after_s = unfinished_after_s
        # When a trial was told last, or first had news (`time.monotonic`).
        self._told_at: dict[str, float] = {}
        # Of the end of a sweep: what kept artifacts from being sent. The runs are told their end all the same.
        self._store_error: Exception | None = None
        self._is_new = False
        self._known_study: tuple[int, Study] | None = None  # and how many extensions it has

    @property
    def _study(self) -> Study:
        """With the spaces that joined it meanwhile, so that each has the colour of the report."""
        num_extensions = len(self.journal.get("extensions", []))
        if self._known_study is None or self._known_study[0] != num_extensions:
            self._known_study = num_extensions, study_from_dict(extended_study(self.journal.meta()))
        return self._known_study[1]

    def close(self) -> None:
        self.journal.close()

    def doubt(self) -> None:
        """Something failed: the server may have lost the sweep, or the database been moved. `open` looks again."""
        self._client = None
        self._parent_id = ""

    # -- the sweep's run --------------------------------------------------------------------------------------

    def open(self, *, live: bool) -> None:
        """Find or create the experiment and the sweep's run, and write their ids into the journal's meta.

        `live`: trials are going on, so a run that an interruption ended is set RUNNING again.
        """
        if self._parent_id:
            return
        if self._client is None:
            self._client = connect(self._uri)
        self._check_lease()
        meta = self.journal.meta()
        run = self._known_parent(meta)
        self._is_new = self._is_new or run is None
        run = run or self._unmarked_parent(meta) or self._create_parent(meta)
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
        if live:
            self._describe_parent(run.info.run_id)
        if live and run.info.status != content.RUN_STATUS[RUNNING]:
            self._reopen(run.info.run_id)
        self._parent_id = run.info.run_id

    def _check_lease(self) -> None:
        """Before something is made that another owner would make once more."""
        lease = self.journal.lease()
        if self.journal.token is not None and (lease is None or lease["token"] != self.journal.token):
            raise LeaseLostError(f"{self.journal.path}: another process has taken this sweep over")

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
        sought = content.sweep_filter(meta)
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
            root = artifact_root(self._uri, self._run_dir)
            try:
                return self._client.create_experiment(self._experiment, artifact_location=root)
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

    def _describe_parent(self, run_id: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        meta = self.journal.meta()
        study = meta["study"]
        tags = {"mlflow.note.content": content.note(study)}
        log_batch(self._client, run_id, params=content.parent_params(study), tags=tags)
        described = Dataset(**content.dataset(meta))
        self._client.log_inputs(run_id, [DatasetInput(described, [InputTag("mlflow.data.context", "training")])])
        view = content.saved_view(run_id, meta["created_at_ms"])
        self._client.set_experiment_tag(self._experiment_id, content.VIEW_TAG + run_id, view)

    def _reopen(self, run_id: str) -> None:
        self._client.update_run(run_id, status=content.RUN_STATUS[RUNNING])
        self._client.set_tag(run_id, "outcome", RUNNING)

    def _deliver_log(self, live: bool) -> None:
        log = undelivered_log(self.journal)
        # What was added to the sweep is known before anything speaks of it.
        self._send(lambda: deliver_origin(self._client, self.journal, self._parent_id), live)
        deliver_log(self._client, self.journal, self._parent_id, log)

    # -- the trials ------------------------------------------------------------------------------------------

    def deliver(self, *, live: bool, until: float = float("inf"), progress: Progress = lambda *_: None) -> int:
        """Deliver what the journal holds and MLflow was not told; answers the number of points and outcomes.

        Unless `live`, trials that have not ended are ended as interrupted. Stops between two trials at `until`
        (`time.monotonic`). One trial that MLflow refuses does not hold up the others; its error is raised at the end.
        """
        delivered = self._deliver(live, until, progress)
        if self._store_error is not None:
            raise self._store_error
        return delivered

    def _deliver(self, live: bool, until: float, progress: Progress) -> int:
        delivered, errors = 0, []
        self._store_error = None
        undelivered = self.journal.undelivered_trials(live=live)
        if live:
            undelivered = [row for row in undelivered if self._is_due(row["trial_id"], row["outcome"])]
        trials = iter(sorted(undelivered, key=lambda row: row["trial_id"] in self._refused))
        self._deliver_log(live)  # also where no trial has news: a journal may be older than the log of arrivals
        num_done = 0
        while some := [self._with_epochs(dict(row)) for row in islice(trials, _TRIALS_AT_ONCE)]:
            self._deliver_log(live)
            for trial in some:
                if time.monotonic() > until:
                    raise TrackingError("time is up")
                self._check_lease()
                try:
                    delivered += self._deliver_trial(trial, live)
                    self._refused.discard(trial["trial_id"])
                except LeaseLostError:
                    raise
                except Exception as error:  # the first is raised below, once the other trials had their turn
                    errors.append(error)
                    self._refused.add(trial["trial_id"])
                    if len(errors) == _MAX_FAILURES_A_PASS:
                        raise errors[0] from None
                num_done += 1
                progress(num_done, len(undelivered))
        if errors:
            raise errors[0]
        return delivered

    def _is_due(self, trial_id: str, outcome: str) -> bool:
        """A trial that has not ended waits a while for more news, so that short ones are told once."""
        if outcome in ENDED:
            return True
        now = time.monotonic()
        return now - self._told_at.setdefault(trial_id, now) >= self._unfinished_after_s

    def _with_epochs(self, row: dict[str, Any]) -> dict[str, Any]:
        """A trial with what may be told of it once the log is: the epochs that the journal holds now."""
        epochs = [dict(epoch) for epoch in self.journal.undelivered_epochs_of(row["trial_id"])]
        last_epoch = epochs[-1]["epoch"] if epochs else self.journal.last_epoch(row["trial_id"])
        host = epochs[-1]["host"] if epochs else self.journal.last_host_of(row["trial_id"])
        return {**row, "epochs": epochs, "last_epoch": last_epoch, "host": host}

    def _deliver_trial(self, trial: dict[str, Any], live: bool) -> int:
        outcome = INTERRUPTED if trial["outcome"] in (RUNNING, PAUSED) and not live else trial["outcome"]
        is_news = outcome != trial["delivered_outcome"]
        files = self._files(trial, outcome) if is_news else {}
        run = self._run_of(trial, with_files=bool(files))
        claims: dict[str, str] = {}
        all_sent = self._send(lambda: claims.update(upload(self._client, run, files)), live)
        params: dict[str, str] = {}
        points = list(content.epoch_points(trial["epochs"]))
        if trial["delivered_outcome"] is None:
            network = network_from_json(trial["architecture"])
            params = content.trial_params(trial, network, self._study.varied_parts)
            points += content.static_points(trial, network)
        if outcome in ENDED:
            points.append((content.EPOCHS_TRAINED, float(trial["last_epoch"]), trial["ended_at_ms"], 0))
        log_batch(self._client, run.run_id, params, points, content.state_tags(trial, outcome) | claims)
        if is_news:
            self._set_status(run.run_id, trial, outcome)
        epochs = (row["epoch"] for row in trial["epochs"])
        self.journal.mark_delivered(trial["trial_id"], epochs, outcome if is_news and all_sent else None)
        self._told_at[trial["trial_id"]] = time.monotonic()
        return len(trial["epochs"]) + is_news

    def _files(self, trial: Mapping[str, Any], outcome: str) -> dict[str, Path | bytes]:
        files: dict[str, Path | bytes] = {}
        if trial["delivered_outcome"] is None:
            files[content.ARCHITECTURE_FILE] = network_from_json(trial["architecture"]).to_yaml().encode()
        if outcome == FAILED:
            files |= content.failure_files(trial, self._run_dir / _LOGS / f"{trial['trial_id']}.log")
        return files

    def _send(self, step: Callable[[], object], live: bool) -> bool:
        """Send artifacts; answers whether it was done. At the end of a sweep a store that is away is asked once."""
        if live:
            step()
            return True
        if self._store_error is None:
            try:
                step()
            except LeaseLostError:
                raise
            except Exception as error:  # raised once every run has been told its end
                self._store_error = error
        return self._store_error is None

    def _run_of(self, trial: Mapping[str, Any], *, with_files: bool) -> Target:
        """The trial's run, found or created; what it claims is known if it is to get files."""
        run_id = trial["run_id"]
        if run_id:
            return target_of(self._client.get_run(run_id)) if with_files else Target(run_id, "", {})
        trial_id = trial["trial_id"]
        if self._in_doubt:
            open_runs = self._runs_below(f"tags.outcome = '{RUNNING}'")
            self._unmarked = {run.data.tags.get(content.TRIAL_ID_TAG, ""): target_of(run) for run in open_runs}
            self._in_doubt = False
        found = self._unmarked.get(trial_id)
        if found is None:
            self._in_doubt = True  # until the mark is set: the server may create it, and the answer be lost
            found = target_of(self._create_run(trial))
        self.journal.set_run_id(trial_id, found.run_id)
        self._in_doubt = False
        return found

    def _create_run(self, trial: Mapping[str, Any]) -> Any:
        return self._client.create_run(
            self._experiment_id,
            start_time=content.begun_at_ms(trial),
            tags=content.trial_tags(trial, self._parent_id, self._study.colour_of(trial["space"])),
            run_name=content.trial_name(trial, several_scales=len(self._study.scale) > 1),
        )

    def _runs_below(self, sought: str) -> Iterator[Any]:
        below = f"{content.trials_filter(self._parent_id)} AND tags.kind = 'trial'"
        return runs_below(self._client, self._experiment_id, f"{below} AND {sought}")

    def _set_status(self, run_id: str, trial: Mapping[str, Any], outcome: str) -> None:
        status = content.RUN_STATUS[outcome]
        if outcome in (RUNNING, PAUSED):
            if outcome == PAUSED or trial["delivered_outcome"] is not None:
                self._client.update_run(run_id, status=status)
        else:
            self._client.set_terminated(run_id, status, trial["ended_at_ms"] or self.journal.latest_ms())

    # -- the end ---------------------------------------------------------------------------------------------

    def compare(self) -> None:
        """Where MLflow is not what the journal's marks say, for it was set back to an older copy or a run was deleted
        by hand: forget the marks, so that it is told again."""
        forget_what_differs(self._client, self.journal, self._experiment_id, self._parent_id)

    def has_news(self) -> bool:
        """Whether MLflow lacks anything once nothing trains any more, the closing itself aside."""
        told = is_origin_delivered(self.journal, self._parent_id) and not undelivered_log(self.journal).points
        return self._is_new or not told or bool(self.journal.undelivered_trials(live=False))

    def finish(
        self, closing: Mapping[str, Any], *, until: float = float("inf"), progress: Progress = lambda *_: None
    ) -> int:
        """Deliver the rest, end every run, then send the artifacts: a store that is away leaves no run open.

        `closing`: status, note, tags, metrics, artifacts (path in the run -> local file), ended_at_ms.
        """
        self._describe_parent(self._parent_id)
        delivered = self._deliver(False, until, progress)
        self._set_right()
        study = self.journal.get("study")
        tags = {"outcome": closing["status"], "mlflow.note.content": content.note(study, closing["note"])}
        metrics = closing["metrics"].items()
        points = [(key, value, closing["ended_at_ms"], 0) for key, value in metrics if content.is_finite(value)]
        log_batch(self._client, self._parent_id, points=points, tags=tags | closing["tags"])
        status = content.PARENT_STATUS[closing["status"]]
        self._client.set_terminated(self._parent_id, status, closing["ended_at_ms"])
        if self._store_error is not None:
            raise self._store_error
        artifacts = {name: Path(path) for name, path in closing["artifacts"].items()}
        publish(self._client, self._parent_id, artifacts)
        return delivered

    def _set_right(self) -> None:
        """All have been told their end. A run that says otherwise was told something older by a request that the server
        took late, and is told again; or it was made by one, and is nobody's."""
        still = {
            run.info.run_id: run
            for sought in (f"tags.outcome = '{RUNNING}'", f"attributes.status = '{content.RUN_STATUS[RUNNING]}'")
            for run in list(self._runs_below(sought))
        }
        strays = []
        for run_id, run in still.items():
            trial = self.journal.trial(run.data.tags.get(content.TRIAL_ID_TAG, ""))
            if trial is not None and trial["run_id"] == run_id:
                self._deliver_trial(self._with_epochs({**trial, "delivered_outcome": RUNNING}), live=False)
            else:
                strays.append(run)
        sweeps = runs_below(self._client, self._experiment_id, content.sweep_filter(self.journal.meta()))
        strays += [run for run in list(sweeps) if run.info.run_id != self._parent_id]
        end_strays(self._client, strays, ended_at_ms=self.journal.latest_ms())
