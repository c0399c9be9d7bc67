"""What a Ray worker does: it trains one stretch after another and reports (sweep/scheduling/conductor.py hears it).

In: the settings that all trials share, and a `Stretch` as Tune's config. Out: a dict a step. A step takes about
`_REPORT_EVERY_S` at most, so that a worker which says nothing for long is known to be dead:

* `begun`: where it runs and from where the trial goes on; `notes` name states that were refused.
* `tick`: still training. Every `_PARTIAL_EVERY_S` the state in the middle of an epoch is kept, and when it is let go.
* `epoch`: a result, whose state was written before.
* `waiting`: storage is full; the worker holds the result and tries again.
* `failed`: what the trial raised. The worker raises it next, for Tune gives a trial that failed a new process.

The process lives as long as the session: importing torch can cost more than a trial.
"""

import os
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import ray
from ray import tune

from sweep.scheduling.conductor import DATA, MACHINE, MEMORY, USER, Stretch
from sweep.scheduling.memory import num_oom_kills
from sweep.scheduling.sharing import Images, Stores
from sweep.spaces import network_from_json
from sweep.studies import TRAIN, Recipe
from sweep.training.results import EpochResult, Tick

_REPORT_EVERY_S = 5.0
_PARTIAL_EVERY_S = 60.0
_TRY_AGAIN_S = 2.0

Report = dict[str, Any]


@dataclass(frozen=True)
class WorkerSettings:
    """What all trials of a sweep share, sent to each worker once; `num_epochs` and `num_train` by scale."""

    objective: str
    recipe: Recipe
    num_epochs: dict[str, int]
    num_train: dict[str, int]
    num_validation: int
    num_classes: int
    split_seed: int
    images: Images
    stores: Stores
    gpus_per_trial: float


class StorageError(RuntimeError):
    """The trial's states can be neither read nor written, for another reason than that storage is full."""


class TrialTrainable(tune.Trainable):
    """One report a step. Reused from stretch to stretch."""

    def setup(self, config: dict[str, Any], settings: WorkerSettings) -> None:  # type: ignore[override]
        self._settings = settings
        if settings.objective == TRAIN:
            from sweep.training.device import limit_to_share

            limit_to_share(settings.gpus_per_trial)
        self._reports = self._reporting(Stretch(**config["stretch"]))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._reports.close()
        self._reports = self._reporting(Stretch(**new_config["stretch"]))
        return True

    def step(self) -> Report:
        return next(self._reports)

    def cleanup(self) -> None:
        self._reports.close()

    def _reporting(self, stretch: Stretch):
        from sweep.training.log import TrialLog

        with TrialLog() as log:

            def report(kind: str, **values: Any) -> Report:
                return {"kind": kind, "attempt": stretch.attempt, "log": log.take(), **values}

            try:
                work = _train if self._settings.objective == TRAIN else _evaluate
                yield from work(self._settings, stretch, report)
            except Exception as error:
                yield report("failed", failure_kind=kind_of(error), traceback=traceback.format_exc())
                raise


def _train(settings: WorkerSettings, stretch: Stretch, report: Callable[..., Report]) -> Iterator[Report]:
    from sweep.training import checkpoint
    from sweep.training.device import explained

    store = settings.stores(stretch.trial_id)
    with explained(settings.gpus_per_trial):
        trial = _build(settings, stretch)
        resumed = _stored(checkpoint.load, store, trial, last_epoch=stretch.last_epoch, known=stretch.known)
        yield report("begun", **_whereabouts(), resumed_epoch=resumed.epoch, resumed_step=resumed.step,
                     notes=resumed.refused)  # fmt: skip
        parent, kept_s = resumed.digest, time.monotonic()
        for result in trial.run(pause_s=_REPORT_EVERY_S):
            if isinstance(result, Tick):
                if time.monotonic() - kept_s > _PARTIAL_EVERY_S:
                    kept_s = time.monotonic()
                    _keep_partial(store, trial, stretch, parent)
                try:
                    yield report("tick", epoch=result.epoch, step=result.step)
                except GeneratorExit:  # let go in the middle of an epoch
                    _keep_partial(store, trial, stretch, parent)
                    raise
                continue
            while (parent := _saved(store, trial, result, stretch.attempt)) is None:
                yield report("waiting", message=f"{socket.gethostname()}: no room for the state of {stretch.trial_id}")
                time.sleep(_TRY_AGAIN_S)
            kept_s = time.monotonic()
            yield report("epoch", **result.to_dict(), checkpoint=parent)


def _evaluate(settings: WorkerSettings, stretch: Stretch, report: Callable[..., Report]) -> Iterator[Report]:
    """A function of the user's own in place of training: it has no state but the epoch, and needs no torch."""
    from sweep.training.objective import ObjectiveTrial, load_objective

    architecture = network_from_json(stretch.architecture)
    objective = load_objective(settings.objective)
    num_epochs = settings.num_epochs[stretch.scale]
    trial = ObjectiveTrial(objective, architecture, num_epochs=num_epochs, seed=stretch.seed)
    trial.epoch = stretch.last_epoch
    yield report("begun", **_whereabouts(), resumed_epoch=trial.epoch, resumed_step=0, notes=())
    for result in trial.run():
        assert isinstance(result, EpochResult)
        yield report("epoch", **result.to_dict(), checkpoint=None)


def _build(settings: WorkerSettings, stretch: Stretch) -> Any:
    from sweep.training.data import open_split
    from sweep.training.trial import Trial

    split = open_split(
        settings.images.files(stretch.scale),
        num_train=settings.num_train[stretch.scale],
        num_validation=settings.num_validation,
        seed=settings.split_seed,
    )
    recipe = settings.recipe
    if stretch.batch_size is not None:
        recipe = recipe.model_copy(update={"batch_size": stretch.batch_size})
    return Trial(
        network_from_json(stretch.architecture),
        recipe,
        split,
        num_epochs=settings.num_epochs[stretch.scale],
        seed=stretch.seed,
        num_classes=settings.num_classes,
    )


def _whereabouts() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "node_id": ray.get_runtime_context().get_node_id(),
        "oom_kills": num_oom_kills(),
    }


def _stored(operation: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """A storage that fails is not the trial's fault."""
    try:
        return operation(*arguments, **options)
    except (OSError, ray.exceptions.RayError) as error:
        raise StorageError(f"the states of the trial cannot be reached: {error}") from error


def _saved(store: Any, trial: Any, result: Any, attempt: int) -> str | None:
    """The digest of the state after an epoch, once it is written; None while there is no room for it."""
    from sweep.training import checkpoint
    from sweep.training.store import is_full

    try:
        return _stored(checkpoint.save, store, trial, result, attempt)
    except Exception as error:
        if is_full(error):
            return None
        raise


def _keep_partial(store: Any, trial: Any, stretch: Stretch, parent: str | None) -> None:
    """Worth a try: without it the epoch is trained again."""
    from sweep.training import checkpoint
    from sweep.training.store import is_full

    try:
        _stored(checkpoint.save_partial, store, trial, stretch.attempt, parent)
    except Exception as error:
        if not is_full(error):
            raise


def kind_of(error: BaseException) -> str:
    """Whose doing an exception of a trial is."""
    from sweep.training.data import DamagedDataError

    if isinstance(error, DamagedDataError):
        return DATA
    if isinstance(error, (StorageError, ray.exceptions.RayError)):
        return MACHINE
    text = str(error)
    no_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return MEMORY if no_memory or "can't allocate memory" in text or "CUDA out of memory" in text else USER


def to_config(stretch: Stretch) -> dict[str, Any]:
    """A stretch as Tune carries it."""
    return {"stretch": asdict(stretch)}
