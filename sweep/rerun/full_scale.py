"""A network at full scale: all training images, one or several workers.

In: a candidate, and what it begins from, if not afresh. Out: a `Trained`, kept with the weights in a folder of its own
below `rerun` of the run directory. The test images stay shut (sweep/rerun/testing.py opens them).

Ray Train holds the workers together: it starts them, opens their process group (gloo on CPUs, nccl on cards) and starts
them anew when one dies; they then go on from the last epoch in the store, as does a second call after the driver was
killed. The batch size of the recipe is that of all workers together, so the learning rate is the same for any number
of them, and they give the curve that one worker gives (sweep/training/distributed.py).
"""

import json
import logging
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweep.rerun.choose import Candidate
from sweep.rerun.confirm import Progress
from sweep.rerun.job import Job, Reports, Row, epoch_result, put_initial, read_rows, resume, start_trial, train
from sweep.rerun.result import FOLDER, HISTORY, folder_name, write_whole
from sweep.rerun.trained import Trained, keep_trained, packed, read_trained, save_weights
from sweep.rerun.warm_start import Source, warm_state
from sweep.rerun.workplace import Workplace, full_scale
from sweep.studies import derive_seed

_LOOK_EVERY_S = 0.5
# Ray Train looks at its workers every two seconds: half of a short training would be waiting.
_ENVIRONMENT = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"}


def check_workers(workers: int, place: Workplace) -> None:
    """Raises `ValueError` where so many workers find nothing to do, or no room."""
    recipe, concurrent = place.study.recipe, place.slots.concurrent
    if place.slots.gpus_per_trial:
        import ray

        concurrent = min(concurrent, int(ray.cluster_resources().get("GPU", 0)))  # nccl wants a card for each
    if workers > recipe.batch_size:
        raise ValueError(
            f"--workers: {workers} is more than recipe.batch_size = {recipe.batch_size}, and a worker without an image "
            "has nothing to do; name fewer"
        )
    if workers > (smallest := recipe.smallest_batch(place.num_train_images)):
        raise ValueError(
            f"--workers: {workers} is more than the {smallest} images of an epoch's last batch, which "
            "recipe.drop_last = false keeps, and a worker without an image has nothing to do; name fewer"
        )
    if workers > concurrent:
        raise ValueError(
            f"--workers: {workers} do not fit, there is room for {concurrent}; name fewer, or another profile (--on)"
        )


def train_at_full_scale(
    candidate: Candidate,
    place: Workplace,
    *,
    workers: int,
    progress: Progress,
    is_named: bool = False,
    source: Source | None = None,
) -> Path:
    """Train a network, unless that has been done; answers its folder. Raises `RuntimeError` where training fails."""
    began_from = source.weights_sha256 if source else ""
    folder = place.run_dir / FOLDER / folder_name(candidate.architecture_id, is_named=is_named, began_from=began_from)
    folder.mkdir(parents=True, exist_ok=True)
    job = job_of(candidate, place, folder.name)
    if read_trained(folder):
        job.store.clear()
        return folder
    if not read_rows(job.store):  # of weights that were trained and then damaged
        (folder / HISTORY).unlink(missing_ok=True)
    warm = warm_state(source, candidate, job, place.study.data.num_channels) if source else None
    if warm:
        job = replace(job, initial_sha256=put_initial(job.store, packed(warm.state)))
    stage = f"full scale {candidate.trial_id}"
    _train_over_workers(job, place, workers, folder, lambda row: progress(stage, epoch_result(row)))
    rows = read_rows(job.store)
    write_whole(folder / HISTORY, "".join(json.dumps(row) + "\n" for row in rows))
    trial = _at_its_end(job)
    trained = Trained(
        architecture_id=candidate.architecture_id,
        seed=job.seed,
        num_workers=workers,
        num_train=len(trial.split.train),
        pixel_mean=trial.split.mean,
        pixel_std=trial.split.std,
        train_time_s=sum(row["train_time_s"] for row in rows),
        weights_sha256=save_weights(trial.network.state_dict(), folder),
        warm_start=warm.origin if warm else None,
    )
    keep_trained(trained, candidate.architecture, folder)
    job.store.clear()
    return folder


def job_of(candidate: Candidate, place: Workplace, name: str) -> Job:
    study = place.study
    learning_rate = study.rerun.learning_rate or study.recipe.learning_rate
    return Job(
        architecture=candidate.architecture,
        recipe=study.recipe.model_copy(update={"learning_rate": learning_rate}),
        num_epochs=study.rerun.epochs,
        seed=derive_seed(study.seed, "rerun", candidate.architecture_id),
        num_train=place.num_train_images,
        num_validation=0,
        num_classes=study.data.num_classes,
        split_seed=study.seed,
        data=place.data,
        data_name=full_scale(candidate.scale),
        store=place.store(f"checkpoints-{name}"),
    )


def read_history(folder: Path) -> list[Row]:
    """The epochs of a training that has ended."""
    return [json.loads(line) for line in (folder / HISTORY).read_text(encoding="utf-8").splitlines()]


def _train_over_workers(
    job: Job, place: Workplace, workers: int, folder: Path, progress: Callable[[Row], None]
) -> None:
    """Ray Train in a thread: in the main thread it would take over Ctrl-C, and the rows would wait for its end."""
    reports, raised = Reports(), list[Exception]()
    log = folder / HISTORY
    reports.skip("", known_epochs(log))

    def fit() -> None:
        try:
            _fit(job, place, workers, folder, reports)
        except Exception as error:  # carried over to the calling thread below
            raised.append(error)

    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    diverged_in = 0
    while True:
        is_last_look = not thread.is_alive()
        for _, row in reports.drain(wait_s=0 if is_last_look else _LOOK_EVERY_S):
            if row["diverged"]:
                diverged_in = row["epoch"]
                continue
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
            progress(row)
        if is_last_look:
            break
    if raised:
        raise RuntimeError(
            f"rerun: training at full scale failed ({_cause(raised[0])}); call it again: it goes on from its last epoch"
        ) from raised[0]
    if diverged_in:
        raise RuntimeError(
            f"rerun: training diverged in epoch {diverged_in}; launch the study again with a lower "
            "rerun.learning_rate, into another run directory"
        )


def known_epochs(log: Path) -> int:
    """How many epochs a driver that was killed had written down; what it was writing at that moment goes."""
    lines = log.read_text().splitlines(keepends=True) if log.is_file() else []
    whole = [line for line in lines if line.endswith("\n")]
    if whole != lines:
        write_whole(log, "".join(whole))
    return len(whole)


def _cause(error: Exception) -> str:
    """The last line of the innermost error, which Ray Train wraps in a page of text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _fit(job: Job, place: Workplace, workers: int, folder: Path, reports: Reports) -> None:
    os.environ.update({key: value for key, value in _ENVIRONMENT.items() if key not in os.environ})
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    logging.getLogger("ray.train").setLevel(logging.ERROR)
    on_cards = place.slots.gpus_per_trial > 0
    resources = {"CPU": place.slots.cpus_per_trial} | ({"GPU": 1.0} if on_cards else {})
    scratch = folder / ".train"  # Ray Train's own notes; the state of the training is in our store
    try:
        TorchTrainer(
            _work,
            train_loop_config={"job": job, "reports": reports},
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=on_cards, resources_per_worker=resources),
            run_config=RunConfig(
                name="rerun",
                storage_path=str(scratch),
                failure_config=FailureConfig(max_failures=place.study.max_failures),
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _work(config: dict[str, Any]) -> None:
    """What each worker does."""
    from ray.train import get_context
    from ray.train.torch import get_device

    from sweep.training.distributed import Share

    job, reports, context = config["job"], config["reports"], get_context()
    share = Share(context.get_world_rank(), context.get_world_size())
    train(job, lambda row: reports.put("", row), share=share, device=get_device())


def _at_its_end(job: Job) -> Any:
    """The trial as its last checkpoint has it, in this process."""
    trial = start_trial(job)
    resume(job, trial)
    if trial.epoch != job.num_epochs:
        raise RuntimeError(
            f"rerun: the checkpoint of the last epoch is damaged, the newest whole one is of epoch {trial.epoch}; "
            "call it again: it goes on from there"
        )
    return trial
