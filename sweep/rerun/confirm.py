"""The best of many is lucky: each candidate is trained again with fresh seeds, at the sweep's own budget.

In: candidates, and how many seeds each gets. Out: the same candidates with their confirmed errors, the best first. The
trainings are Ray tasks side by side, as many as fit. One that ended is kept in `rerun/confirmed` and not trained
again, one that was cut off goes on from its last epoch; so `seeds` can be raised later at the cost of the new ones.

The mean of the confirmed errors decides. A divergence counts as chance: it is what the network does under that seed.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweep.rerun.choose import Candidate
from sweep.rerun.job import Job, Reports, Row, epoch_result, train
from sweep.rerun.result import FOLDER, write_whole
from sweep.rerun.workplace import Workplace
from sweep.studies import derive_seed

Progress = Callable[[str, Any], None]
_LOOK_EVERY_S = 0.5


def confirm(candidates: list[Candidate], place: Workplace, *, seeds: int, progress: Progress) -> list[Candidate]:
    """Raises `RuntimeError` if a training failed for a reason that is not its network's; what ended is kept."""
    missing = _missing(candidates, place.run_dir, seeds)
    if missing:
        _train_missing(missing, place, seeds, progress)
    found = confirmed(candidates, place.run_dir, seeds=seeds)
    assert found is not None
    return found


def confirmed(candidates: list[Candidate], run_dir: Path, *, seeds: int) -> list[Candidate] | None:
    """The candidates with their confirmed errors, the best first; None while one of them is missing."""
    if _missing(candidates, run_dir, seeds):
        return None
    known = [
        replace(
            candidate,
            confirmed_error_pct=tuple(
                json.loads(_kept(run_dir, candidate, number).read_text(encoding="utf-8"))["error_pct"]
                for number in range(seeds)
            ),
        )
        for candidate in candidates
    ]
    return sorted(known, key=lambda candidate: (candidate.validation_error_pct, candidate.trial_id))


def _missing(candidates: list[Candidate], run_dir: Path, seeds: int) -> list[tuple[Candidate, int]]:
    return [
        (candidate, number)
        for candidate in candidates
        for number in range(seeds)
        if not _kept(run_dir, candidate, number).is_file()
    ]


def _kept(run_dir: Path, candidate: Candidate, number: int) -> Path:
    return run_dir / FOLDER / "confirmed" / f"{candidate.trial_id}-{number + 1}.json"


def _train_missing(missing: list[tuple[Candidate, int]], place: Workplace, seeds: int, progress: Progress) -> None:
    import ray

    reports = Reports()
    task = ray.remote(_train).options(
        num_cpus=place.slots.cpus_per_trial,
        num_gpus=place.slots.gpus_per_trial,
        max_retries=place.study.max_failures,
    )
    jobs = {f"confirm {c.trial_id}, seed {n + 1} of {seeds}": (c, n, _job(c, n, place)) for c, n in missing}
    running = {task.remote(job, reports, stage): stage for stage, (_, _, job) in jobs.items()}
    while running:
        ended, _ = ray.wait(list(running), timeout=_LOOK_EVERY_S)
        _tell(reports, progress)
        for reference in ended:
            stage = running.pop(reference)
            candidate, number, job = jobs[stage]
            try:
                rows = ray.get(reference)
            except ray.exceptions.RayError as error:
                raise RuntimeError(
                    f"rerun: {stage} failed ({_last_line(error)}); call it again: what ended is kept, the rest goes "
                    "on from its last epoch"
                ) from error
            _keep(place, candidate, number, job, rows)
    _tell(reports, progress)


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


def _tell(reports: Reports, progress: Progress) -> None:
    for stage, row in reports.drain():
        progress(stage, epoch_result(row))


def _train(job: Job, reports: Reports, stage: str) -> list[Row]:
    return train(job, lambda row: reports.put(stage, row))


def _job(candidate: Candidate, number: int, place: Workplace) -> Job:
    study = place.study
    return Job(
        architecture=candidate.architecture,
        recipe=study.recipe,
        num_epochs=study.stopping_at(candidate.scale).max_epochs,
        seed=derive_seed(study.seed, "confirm", candidate.trial_id, number),
        num_train=study.data_at(candidate.scale).num_train,
        num_validation=study.data.num_validation,
        num_classes=study.data.num_classes,
        split_seed=study.seed,
        data=place.data,
        data_name=candidate.scale,
        store=place.store(f"checkpoints-{candidate.trial_id}-{number + 1}"),
    )


def _keep(place: Workplace, candidate: Candidate, number: int, job: Job, rows: list[Row]) -> None:
    """The file first, whole; then the checkpoints are of no more use."""
    last = rows[-1]
    chance_pct = 100 - 100 / job.num_classes
    kept = {
        "trial_id": candidate.trial_id,
        "architecture_id": candidate.architecture_id,
        "seed": job.seed,
        "diverged": last["diverged"],
        "error_pct": chance_pct if last["diverged"] else last["val_error_pct"],
        "history": rows,
    }
    write_whole(_kept(place.run_dir, candidate, number), json.dumps(kept, indent=1))
    job.store.clear()
