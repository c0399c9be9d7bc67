"""Ray Tune around the decision core: the trainable that workers run and the scheduler that journals.

Worker side: `TrialTrainable` trains one trial after another in a process that lives as long as the sweep, writes a
checkpoint after each epoch and reports the epoch's result. Driver side: `JournalScheduler` takes each result, asks
`asha.py`, commits result and decision to the journal, and only then answers Tune.

A worker that takes up a trial reports the epoch of its checkpoint once more before it trains the next one. The
driver may have lost exactly that result; where it has not, the repetition is ignored.
"""

import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from sweep.records import DecisionRow, EpochRow, Journal
from sweep.records.journal import COMPLETED, DIVERGED, RUNNING, STOPPED
from sweep.scheduling.asha import CONTINUE, STOP, Asha, next_rung
from sweep.scheduling.sharing import Images, Stores
from sweep.studies import Recipe, Stopping

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class TrialSpec:
    """What a worker needs to know of one trial."""

    architecture: str
    seed: int
    scale: str


@dataclass(frozen=True)
class WorkerSettings:
    """What all trials of a sweep share, sent to each worker once."""

    trials: dict[str, TrialSpec]
    recipe: Recipe
    num_epochs: int
    num_train: int
    num_validation: int
    num_classes: int
    split_seed: int
    images: Images
    stores: Stores
    gpus_per_trial: float


class TrialTrainable(tune.Trainable):
    """One epoch a step. Reused from trial to trial, for importing torch can cost more than a trial."""

    def setup(self, config: dict[str, Any], settings: WorkerSettings) -> None:  # type: ignore[override]
        from sweep.training.device import limit_to_share

        self._settings = settings
        limit_to_share(settings.gpus_per_trial)
        self._results = self._begin(config["trial_id"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._results = self._begin(new_config["trial_id"])
        return True

    def step(self) -> dict[str, Any]:
        return next(self._results)

    def _begin(self, trial_id: str) -> Iterator[dict[str, Any]]:
        from sweep.spaces import Architecture
        from sweep.training import checkpoint
        from sweep.training.data import open_split
        from sweep.training.device import explained
        from sweep.training.trial import Trial

        settings, spec = self._settings, self._settings.trials[trial_id]
        split = open_split(
            settings.images.files(spec.scale),
            num_train=settings.num_train,
            num_validation=settings.num_validation,
            seed=settings.split_seed,
        )
        store = settings.stores(trial_id)
        with explained(settings.gpus_per_trial):
            trial = Trial(
                Architecture.from_json(spec.architecture),
                settings.recipe,
                split,
                num_epochs=settings.num_epochs,
                seed=spec.seed,
                num_classes=settings.num_classes,
            )
            resumed = checkpoint.load_newest(store, trial)
            if resumed is not None:
                yield self._report(resumed)
            for result in trial.run():
                checkpoint.save(store, trial, result)
                yield self._report(result)

    @staticmethod
    def _report(result: Any) -> dict[str, Any]:
        return result.to_dict() | {"host": socket.gethostname()}


class JournalScheduler(FIFOScheduler):
    """Commits each result with the decision that it leads to, then acts on it.

    `ended` is called with the id of a trial that the journal has seen to its end.
    """

    def __init__(self, journal: Journal, stopping: Stopping, ended: Callable[[str], None]):
        super().__init__()
        self._journal, self._stopping, self._ended = journal, stopping, ended
        self._rungs = stopping.rungs
        self._asha = Asha(stopping.reduction_factor)
        # The rungs as the journal remembers them. A recovered journal can know a decision whose epoch it lacks: that
        # trial trains the epoch again, and what was decided then holds, for later arrivals were held against it.
        self._recorded: dict[tuple[str, int], DecisionRow] = {}
        for row in journal.decisions():
            self._asha.arrive(row["cohort"], row["rung_epochs"], row["error_pct"])
            recorded = DecisionRow(**{name: row[name] for name in DecisionRow.__dataclass_fields__})
            self._recorded[recorded.trial_id, recorded.rung_epochs] = recorded
        self._trials = {row["trial_id"]: row for row in journal.trials()}
        self._last_epoch = {row["trial_id"]: row["epoch"] for row in journal.epochs()}
        self._ended_trials: set[str] = set()
        self._attempts: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its scheduler into a state that we never read back; a journal cannot and need not be in it.
        return {}

    def on_trial_started(self, trial_id: str) -> None:
        self._attempts[trial_id] = self._journal.start_attempt(trial_id)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        trial_id, epoch = trial.config["trial_id"], result["epoch"]
        if epoch <= self._last_epoch.get(trial_id, 0):  # the epoch of a checkpoint, reported again
            return TrialScheduler.STOP if trial_id in self._ended_trials else TrialScheduler.CONTINUE
        if epoch > self._last_epoch.get(trial_id, 0) + 1:
            raise RuntimeError(
                f"{trial_id} reports epoch {epoch} after {self._last_epoch.get(trial_id, 0)}: one is lost"
            )
        rung = self._rung(result)
        recorded = None if rung is None else self._recorded.get((trial_id, rung))
        decision = None if rung is None or recorded is not None else self._decide(trial_id, rung, result)
        outcome = self._outcome(result, recorded or decision)
        self._journal.record(self._epoch_row(trial_id, result), decision, outcome)
        self._last_epoch[trial_id] = epoch
        if outcome == RUNNING:
            return TrialScheduler.CONTINUE
        self._ended_trials.add(trial_id)
        self._ended(trial_id)
        return TrialScheduler.STOP

    def _rung(self, result: dict[str, Any]) -> int | None:
        """The rung at which this result arrives, None between two."""
        if result["diverged"]:
            return next_rung(self._rungs, result["epoch"])
        return result["epoch"] if result["epoch"] in self._rungs else None

    def _decide(self, trial_id: str, rung: int, result: dict[str, Any]) -> DecisionRow:
        row = self._trials[trial_id]
        error_pct = None if result["diverged"] else result["val_error_pct"]
        judgement = self._asha.arrive(row["cohort"], rung, error_pct)
        return DecisionRow(
            trial_id=trial_id,
            cohort=row["cohort"],
            rung_epochs=rung,
            error_pct=error_pct,
            cutoff_pct=judgement.cutoff_pct,
            would_stop=judgement.would_stop,
            audited=bool(row["audited"]),
            decision=STOP if judgement.would_stop and not row["audited"] else CONTINUE,
        )

    def _outcome(self, result: dict[str, Any], decision: DecisionRow | None) -> str:
        if result["diverged"]:
            return DIVERGED
        if result["epoch"] >= self._stopping.max_epochs:
            return COMPLETED
        return STOPPED if decision is not None and decision.decision == STOP else RUNNING

    def _epoch_row(self, trial_id: str, result: dict[str, Any]) -> EpochRow:
        fields = EpochRow.__dataclass_fields__
        known = {key: result[key] for key in fields if key in result} | {"trial_id": trial_id}
        return EpochRow(**known, attempt=self._attempts.get(trial_id, 0))


class JournalCallback(tune.Callback):
    """Tells the scheduler of starts, and the journal of trials that failed for good."""

    def __init__(self, scheduler: JournalScheduler, journal: Journal):
        self._scheduler, self._journal = scheduler, journal

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._scheduler.on_trial_started(trial.config["trial_id"])

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        # Tune writes its file of errors here first; `trial.get_error` would look in storage, where it comes later.
        error = Path(trial.error_file or "")
        text = error.read_text(errors="replace") if error.is_file() else "the worker died without an error"
        self._journal.fail(trial.config["trial_id"], _COLOURS.sub("", text))

    def __getstate__(self) -> dict[str, Any]:
        return {}


class StopOnRequest(tune.Stopper):
    """Ends the Tune run when `requested` says so; the journal keeps the trials as unfinished."""

    def __init__(self, requested: Callable[[], bool]):
        self._requested = requested

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._requested()

    def __getstate__(self) -> dict[str, Any]:
        return {}
