"""The driver: from a study to a journal in which every trial has ended.

In: a study, a run directory, a profile. Out: a journal; nothing else is relied upon. `create` checks everything and
draws the population before anything starts; `run` is one Ray Tune run over what the journal says is unfinished, so
that a resumed sweep is no special case. Tune's own experiment state goes to a scratch folder and is thrown away.
"""

import fcntl
import os
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cluster import Profile, Slots, git_commit, machine
from cluster.profile import LOCAL
from sweep.records import Journal
from sweep.scheduling.forecast import forecast
from sweep.studies import Study
from sweep.training.data import DataFiles, prepare

CHECKPOINTS = "checkpoints"
_LOCK = ".lock"


@contextmanager
def owned(run_dir: Path) -> Iterator[None]:
    """Hold the run directory for this process. Raises `ValueError` naming the owner if another one holds it.

    A lock of the operating system, so it is gone with its owner however that ends.
    """
    with _open_private(run_dir / _LOCK) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = lock.read().strip() or "another process"
            raise ValueError(
                f"--run-dir: {str(run_dir)!r} is in use by {owner}; wait for it, or end it with `sweep stop {run_dir}`"
            ) from error
        lock.seek(0)
        lock.truncate()
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield


def is_owned(run_dir: Path) -> bool:
    """Whether a driver is at work on this run directory, on this host."""
    path = run_dir / _LOCK
    if not path.exists():
        return False
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _open_private(path: Path):
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+")


def make_run_dir(run_dir: Path) -> None:
    """Create it for this user alone, or accept an existing one that is ours and writable."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if run_dir.stat().st_uid != os.geteuid():
            raise ValueError(f"--run-dir: {str(run_dir)!r} belongs to another user; choose a directory of your own")
        with tempfile.TemporaryFile(dir=run_dir):
            pass
    except OSError as error:
        raise ValueError(
            f"--run-dir: {str(run_dir)!r} cannot be written ({error.strerror}); choose another with --run-dir"
        ) from error


def prepare_data(study: Study) -> dict[str, DataFiles]:
    """The arrays of each scale, by its name; checked against their published sums."""
    return {scale.name: prepare(path=study.data.path, resolution=scale.resolution) for scale in study.scale}


def create(
    study: Study, run_dir: Path, profile: Profile, data: dict[str, DataFiles], population: tuple[list, list]
) -> Journal:
    """Write the journal that the sweep will fill; `population` is what `draw_population` found."""
    trials, draws = population
    source = next(iter(data.values()))
    meta = {
        "study": study.to_dict(),
        "study_hash": study.hash,
        "profile": profile.model_dump(mode="json"),
        "data": {"source": source.source, "digest": source.digest},
        "draws": [vars(draw) for draw in draws],
        "forecast": forecast(study, trials).to_dict(),
        **provenance(),
    }
    return Journal.create(run_dir, meta, trials)


def provenance() -> dict[str, Any]:
    """What a number must be traced by (DESIGN 4.5): commit, package versions, machine."""
    packages = ("designspace-sweep", "torch", "torchvision", "ray", "mlflow", "numpy", "scipy", "pyarrow")
    return {
        "git_commit": git_commit(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "machine": machine.describe(),
    }


def run(
    journal: Journal,
    study: Study,
    run_dir: Path,
    profile: Profile,
    data: dict[str, DataFiles],
    slots: Slots,
    stop: Callable[[], bool],
) -> None:
    """Train everything that the journal says is unfinished. Returns early when `stop()` turns true.

    Raises `ValueError` before the first trial where a host of the cluster cannot take part.
    """
    import ray.tune as tune

    from sweep.scheduling.tune import JournalCallback, JournalScheduler, StopOnRequest, TrialTrainable

    unfinished = [row["trial_id"] for row in journal.unfinished()]
    if not unfinished or stop():
        return
    images, stores = shared(profile, data, run_dir / CHECKPOINTS, sweep_id(journal.meta()))
    if journal.get("recovered_at_ms"):
        _fit_checkpoints(journal, unfinished, stores)
    # Clearing away can mean many requests to a bucket: not while Tune waits for a decision.
    with _scratch(run_dir) as scratch, ThreadPoolExecutor(1) as sweeper:

        def ended(trial_id: str) -> None:
            sweeper.submit(stores(trial_id).clear)

        scheduler = JournalScheduler(journal, study.stopping, ended)
        trainable = tune.with_resources(
            tune.with_parameters(TrialTrainable, settings=_worker_settings(journal, study, images, stores, slots)),
            {"CPU": slots.cpus_per_trial, "GPU": slots.gpus_per_trial},
        )
        tune.Tuner(
            trainable,
            param_space={"trial_id": tune.grid_search(unfinished)},
            tune_config=tune.TuneConfig(
                scheduler=scheduler, reuse_actors=True, max_concurrent_trials=slots.concurrent, num_samples=1
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(scratch),
                verbose=0,
                # Checkpoints are ours (sweep/training/checkpoint.py); Tune's would cost a snapshot each.
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=study.max_failures),
                callbacks=[JournalCallback(scheduler, journal)],
                stop=StopOnRequest(stop),
            ),
        ).fit()


def _fit_checkpoints(journal: Journal, trials: list[str], stores: Callable[[str], Any]) -> None:
    """Of a recovered sweep: a trial goes on from the epoch after its last known one at most, so that none is missed."""
    from sweep.training import checkpoint

    last_epochs = {trial_id: journal.last_epoch(trial_id) for trial_id in trials}
    with ThreadPoolExecutor(16) as pool:  # a bucket takes its time to answer
        for _ in pool.map(
            lambda trial_id: checkpoint.forget_after(stores(trial_id), last_epochs[trial_id] + 1), trials
        ):
            pass


def sweep_id(meta: dict[str, Any]) -> str:
    """Tells sweeps apart in storage that they share: the study and when its journal was made."""
    return f"{meta['study_hash']}-{meta['created_at_ms']}"


def shared(profile: Profile, data: dict[str, DataFiles], checkpoints: Path, sweep_id: str) -> tuple[Any, Any]:
    """Images and stores as the workers of this profile reach them; a cluster's hosts are examined first.

    `checkpoints`: the folder of this host to use where the profile names no storage.
    """
    from sweep.scheduling import hosts, sharing

    if profile.address == LOCAL and not profile.storage.checkpoints:
        return sharing.Images(data), sharing.local_stores(checkpoints)
    stores = sharing.share_stores(profile.storage, checkpoints, sweep_id)
    hosts.examine_hosts(stores)
    return sharing.share_images(data), stores


@contextmanager
def _scratch(run_dir: Path) -> Iterator[Path]:
    """Where Tune keeps a state that we never read; what a killed driver left there goes first."""
    folder = run_dir / ".tune"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _worker_settings(journal: Journal, study: Study, images: Any, stores: Any, slots: Slots) -> Any:
    from sweep.scheduling.tune import TrialSpec, WorkerSettings

    return WorkerSettings(
        trials={
            row["trial_id"]: TrialSpec(row["architecture"], row["seed"], row["scale"]) for row in journal.unfinished()
        },
        recipe=study.recipe,
        num_epochs=study.stopping.max_epochs,
        num_train=study.data.num_train,
        num_validation=study.data.num_validation,
        num_classes=study.data.num_classes,
        split_seed=study.seed,
        images=images,
        stores=stores,
        gpus_per_trial=slots.gpus_per_trial,
    )


class StopSwitch:
    """Whether the sweep was asked to end: by a signal handler of this process, or by `sweep stop` in the journal."""

    def __init__(self, journal: Journal, interval_s: float = 0.5):
        self._journal, self._interval_s, self._next_look = journal, interval_s, 0.0
        self.requested = self.aborted = False

    def __call__(self) -> bool:
        if self.aborted:
            raise KeyboardInterrupt
        if not self.requested and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + self._interval_s
            self.requested = bool(self._journal.get("stop_requested", False))
        return self.requested
