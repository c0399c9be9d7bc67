"""The process in which Ray runs: one Tune run over what the journal says is unfinished.

In: one line of JSON on stdin (`Order`), then commands; when stdin ends, so does this process, for its supervisor is
gone. Out: the journal, and lines of JSON on stdout (`Message`). It is a process of its own because Ray's core ends the
process that it runs in when its head has died; the supervisor (supervisor.py) then starts another one, and nothing
but the epochs in flight is lost. Tune's own experiment state goes to a scratch folder and is thrown away.
"""

import errno
import json
import os
import shutil
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from cluster import Profile, Slots, ray_session
from cluster.profile import LOCAL
from sweep.records import Journal
from sweep.records.journal import LeaseLostError
from sweep.scheduling.conductor import Conductor
from sweep.scheduling.keeper import Keeper
from sweep.scheduling.logs import TrialLogs
from sweep.studies import Study, study_from_dict
from sweep.training.data import DataFiles

CHECKPOINTS = "checkpoints"
DRAIN, ABORT = "drain", "abort"
_ALIVE_EVERY_S = 2.0
_LOOK_EVERY_S = 1.0

# How an engine ends. done: nothing is left, or it was asked to stop. refused: bad input, nothing was trained. data: a
# data file is damaged. full: no room on disk. fenced: another process has the sweep. died: Ray, or a fault of ours.
End = Literal["done", "refused", "data", "full", "fenced", "died"]


@dataclass(frozen=True)
class Order:
    """What an engine is to do. `token`: of the lease under which it writes; `data`: the images of each scale."""

    run_dir: str
    token: int
    profile: dict[str, Any]
    data: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, run_dir: Path, token: int, profile: Profile, data: dict[str, DataFiles]) -> "Order":
        files = {name: files.to_dict() for name, files in data.items()}
        return cls(str(run_dir), token, profile.model_dump(mode="json"), files)

    def files(self) -> dict[str, DataFiles]:
        return {name: DataFiles.from_dict(files) for name, files in self.data.items()}


def main() -> None:
    tell = _telling()
    order = Order(**json.loads(sys.stdin.readline()))
    asked = threading.Event()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    end: End = "done"
    message = ""
    try:
        work(order, asked.is_set, tell)
    except ValueError as error:
        end, message = "refused", str(error)
    except LeaseLostError as error:
        end, message = "fenced", str(error)
    except DamagedDataFoundError as error:
        end, message = "data", str(error)
    except BaseException as error:  # whatever it is, the supervisor decides
        end, message = ("full" if _is_full(error) else "died"), f"{type(error).__name__}: {error}"
        traceback.print_exc()
    tell(end=end, message=message)


class DamagedDataFoundError(RuntimeError):
    """A worker found a data file damaged; it has to be made again before trials go on."""


def _telling() -> Callable[..., None]:
    """Keep stdout for messages; what libraries print goes to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def tell(**message: Any) -> None:
        print(json.dumps(message), file=out)

    return tell


def _listen(asked: threading.Event) -> None:
    for line in sys.stdin:
        if line.strip() == DRAIN:
            asked.set()
        else:
            break
    _end_at_once()  # aborted, or the supervisor is gone


def _end_at_once() -> None:
    """Ray's processes first, which else take their time."""
    for process in psutil.Process().children(recursive=True):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    os._exit(1)


@contextmanager
def _watching_ray(tell: Callable[..., None]) -> Iterator[None]:
    """End this process as soon as one of its own Ray's core processes has ended: Ray itself takes up to a minute."""
    core = [child for child in psutil.Process().children() if child.name() in ("gcs_server", "raylet")]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_EVERY_S):
            for process in core:
                if _has_ended(process):
                    tell(end="died", message=f"Ray's {names[process.pid]} has ended")
                    _end_at_once()

    names = {process.pid: process.name() for process in core}
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def work(order: Order, asked: Callable[[], bool], tell: Callable[..., None]) -> None:
    """Train everything that the journal says is unfinished. Returns early when `asked()` turns true."""
    run_dir = Path(order.run_dir)
    profile = Profile.model_validate(order.profile)
    with (
        ray_session(profile, run_dir) as slots,
        _watching_ray(tell),
        Journal.open(run_dir, token=order.token) as journal,
    ):
        where = f" on {slots.num_nodes} hosts" if slots.num_nodes > 1 else ""

        def blocked(reason: str) -> None:
            tell(waiting=f"no room or no right to write: {reason}")
            if asked():
                raise OSError(errno.ENOSPC, reason)

        journal.blocked = blocked
        images, stores = shared(profile, order.files(), run_dir / CHECKPOINTS, sweep_id(journal.meta()))
        tell(log=f"training, {slots.concurrent} trials at a time{where}")
        _run(journal, run_dir, profile, images, stores, slots, asked, tell)


def _run(
    journal: Journal,
    run_dir: Path,
    profile: Profile,
    images: Any,
    stores: Any,
    slots: Slots,
    asked: Callable[[], bool],
    tell: Callable[..., None],
) -> None:
    import ray.tune as tune

    from sweep.scheduling.tune import ConductorCallback, ConductorScheduler, Feed, StopWhenDrained
    from sweep.scheduling.worker import TrialTrainable

    study = study_from_dict(journal.get("study"))
    next_sign_s = 0.0

    def alive() -> None:
        nonlocal next_sign_s
        conductor.draining = conductor.draining or asked()
        if time.monotonic() >= next_sign_s:
            next_sign_s = time.monotonic() + _ALIVE_EVERY_S
            tell(alive=True)

    # Clearing away can mean many requests to a bucket: not while Tune waits for a decision.
    with _scratch(run_dir) as scratch, ThreadPoolExecutor(1) as sweeper:
        keeper = Keeper(journal, stores, profile.storage.keep_best, sweeper.submit)
        conductor = Conductor(
            journal, study, stall_after_s=profile.stall_after_s, ended=keeper.ended, log=TrialLogs(run_dir).append
        )
        trainable = tune.with_resources(
            tune.with_parameters(TrialTrainable, settings=_worker_settings(study, images, stores, slots)),
            {"CPU": slots.cpus_per_trial, "GPU": slots.gpus_per_trial},
        )
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=Feed(conductor, alive),
                scheduler=ConductorScheduler(conductor),
                reuse_actors=True,
                max_concurrent_trials=slots.concurrent,
                num_samples=-1,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(scratch),
                verbose=0,
                # States are ours (sweep/training/checkpoint.py); Tune's would cost a snapshot each.
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=0),
                callbacks=[ConductorCallback(conductor, alive)],
                stop=StopWhenDrained(conductor),
            ),
        ).fit()
    if conductor.damaged_data:
        raise DamagedDataFoundError(conductor.damaged_data)


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
    """Where Tune keeps a state that we never read; what a killed engine left there goes first."""
    folder = run_dir / ".tune"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _worker_settings(study: Study, images: Any, stores: Any, slots: Slots) -> Any:
    from sweep.scheduling.worker import WorkerSettings

    return WorkerSettings(
        objective=study.objective,
        recipe=study.recipe,
        num_epochs={scale.name: study.stopping_at(scale.name).max_epochs for scale in study.scale},
        num_train={scale.name: study.data_at(scale.name).num_train for scale in study.scale},
        num_validation=study.data.num_validation,
        num_classes=study.data.num_classes,
        split_seed=study.seed,
        images=images,
        stores=stores,
        gpus_per_trial=slots.gpus_per_trial,
    )


def _is_full(error: BaseException | None) -> bool:
    """Whether storage that is full, or not to be written, stands behind an error, as far as its causes go."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return True
        if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
            return True
        if "No space left on device" in str(error):  # Tune hands some errors on as the text of a traceback
            return True
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    main()
