"""The driver: from a study to a journal in which every trial has ended.

In: a study, a run directory, a profile. Out: a journal; nothing else is relied upon. `create` checks everything and
draws the population before anything starts; `run` is one Ray Tune run over what the journal says is unfinished, so
that a resumed sweep is no special case. Tune's own experiment state goes to a scratch folder and is thrown away.
"""

import fcntl
import logging
import os
import platform
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cluster import Profile, machine
from sweep.records import Journal
from sweep.scheduling.forecast import forecast
from sweep.studies import Study
from sweep.training.data import DataFiles, prepare

CHECKPOINTS = "checkpoints"
_LOCK = ".lock"
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray's workers would run at nice 15, and a trial beside any other program crawl.
    "RAY_worker_niceness": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # its other output engine prints a box even when told to be silent
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    # A snapshot of the experiment is of no use to us and costs driver time with each trial.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
}
_OBJECT_STORE_BYTES = 200_000_000


@dataclass(frozen=True)
class Slots:
    """How many trials run at once, and what each occupies."""

    concurrent: int
    cpus_per_trial: float
    gpus_per_trial: float


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


def git_commit() -> str | None:
    """The commit of this project's own checkout, "+" where it is changed; None from an installed wheel."""
    here = Path(__file__).resolve().parent
    try:
        top, commit, changes = (
            subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True).stdout
            for arguments in (
                ["rev-parse", "--show-toplevel"],
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no"],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    if Path(top.strip()) != here.parents[1]:
        return None  # a checkout of something else in which this package happens to be installed
    return commit.strip() + ("+" if changes else "")


@contextmanager
def ray_session(profile: Profile, run_dir: Path) -> Iterator[Slots]:
    """A Ray of our own in this process, ended with it; answers how many trials fit at once.

    Ray listens on every address of the machine, so its ports want a token: no one else there or on the network can
    run code through them (CVE-2023-48022). Ray's own way would leave the token readable in the home directory.
    """
    os.environ.update({key: value for key, value in _QUIET.items() if key not in os.environ})
    import ray

    with _token(run_dir):
        ray.init(
            address="local",
            num_cpus=profile.num_cpus or None,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=_OBJECT_STORE_BYTES,
            runtime_env={
                # Ray hands it to a shell: a path with a space or a quote must come quoted.
                "py_executable": shlex.quote(sys.executable),
                "env_vars": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            },
        )
        try:
            yield _slots(profile, ray.cluster_resources())
        finally:
            ray.shutdown()


@contextmanager
def _token(run_dir: Path) -> Iterator[None]:
    """Make Ray want a token of this session's own; leaves the environment as it was."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    path = run_dir / ".ray-token"
    with _open_private(path) as file:
        file.truncate()
        file.write(secrets.token_hex(32))
    names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)})

    def look_again() -> None:  # Ray reads both once, when it is imported
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()

    look_again()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        look_again()
        path.unlink(missing_ok=True)


def _slots(profile: Profile, resources: dict[str, float]) -> Slots:
    cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    gpus_per_trial = float(gpus > 0) if profile.gpus_per_trial == "auto" else profile.gpus_per_trial
    concurrent = int(cpus / profile.cpus_per_trial)
    if gpus_per_trial:
        concurrent = min(concurrent, int(gpus / gpus_per_trial))
    if concurrent < 1:
        raise ValueError(
            f"profile {profile.name!r}: cpus_per_trial = {profile.cpus_per_trial:g} and gpus_per_trial = "
            f"{gpus_per_trial:g} do not fit this machine ({cpus:g} CPUs, {gpus:g} GPUs); lower them"
        )
    return Slots(concurrent, profile.cpus_per_trial, gpus_per_trial)


def run(
    journal: Journal, study: Study, run_dir: Path, data: dict[str, DataFiles], slots: Slots, stop: Callable[[], bool]
) -> None:
    """Train everything that the journal says is unfinished. Returns early when `stop()` turns true."""
    import ray.tune as tune

    from sweep.scheduling.tune import JournalCallback, JournalScheduler, StopOnRequest, TrialTrainable
    from sweep.training import checkpoint

    unfinished = [row["trial_id"] for row in journal.unfinished()]
    if not unfinished or stop():
        return
    scheduler = JournalScheduler(
        journal, study.stopping, ended=lambda trial_id: checkpoint.remove(run_dir / CHECKPOINTS / trial_id)
    )
    trainable = tune.with_resources(
        tune.with_parameters(TrialTrainable, settings=_worker_settings(journal, study, run_dir, data)),
        {"CPU": slots.cpus_per_trial, "GPU": slots.gpus_per_trial},
    )
    with _scratch(run_dir) as scratch:
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


@contextmanager
def _scratch(run_dir: Path) -> Iterator[Path]:
    """Where Tune keeps a state that we never read; what a killed driver left there goes first."""
    folder = run_dir / ".tune"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _worker_settings(journal: Journal, study: Study, run_dir: Path, data: dict[str, DataFiles]) -> Any:
    from sweep.scheduling.tune import TrialSpec, WorkerSettings

    return WorkerSettings(
        trials={
            row["trial_id"]: TrialSpec(row["architecture"], row["seed"], data[row["scale"]])
            for row in journal.unfinished()
        },
        recipe=study.recipe,
        num_epochs=study.stopping.max_epochs,
        num_train=study.data.num_train,
        num_validation=study.data.num_validation,
        num_classes=study.data.num_classes,
        split_seed=study.seed,
        checkpoints=run_dir / CHECKPOINTS,
    )


class StopSwitch:
    """Whether the sweep was asked to end: by a signal handler of this process, or by `sweep stop` in the journal."""

    def __init__(self, journal: Journal, interval_s: float = 0.5):
        self._journal, self._interval_s, self._next_look = journal, interval_s, 0.0
        self.requested = False

    def __call__(self) -> bool:
        if not self.requested and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + self._interval_s
            self.requested = bool(self._journal.get("stop_requested", False))
        return self.requested
