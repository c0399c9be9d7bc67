"""A run directory and what a sweep begins with: who may use it, the data, the journal with the drawn population.

In: a study, a run directory, a profile. Out: a journal, from which the supervisor and its engine go on.
"""

import fcntl
import os
import platform
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cluster import Profile, git_commit, machine
from sweep.records import Journal
from sweep.scheduling.forecast import forecast
from sweep.studies import Study
from sweep.training.data import DataFiles, prepare

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


def prepare_data(study: Study, log: Callable[[str], None]) -> dict[str, DataFiles]:
    """The arrays of each scale, by its name; checked. `log` is told how far a long preparation has come."""
    return {
        scale.name: prepare(study.data_at(scale.name), resolution=scale.resolution, log=log) for scale in study.scale
    }


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
        "forecast": forecast(study, trials, keep_best=profile.storage.keep_best).to_dict(),
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
