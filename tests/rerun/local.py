"""A rerun in this process: the images and stores of a folder, one worker, no Ray and no MLflow."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rerun.small_sweep import NUM_TRAIN_AT_FULL_SCALE

from cluster import Profile, Slots
from sweep.records import Journal, from_journal
from sweep.rerun import full_scale, job, work
from sweep.rerun.workplace import Workplace
from sweep.studies import Study, study_from_dict
from sweep.training.data import prepare
from sweep.training.store import FolderStore


@contextmanager
def _place(study: Study, run_dir: Path, profile: Profile, **_: Any) -> Iterator[Workplace]:
    images = SimpleNamespace(files=lambda name: prepare(resolution=study.scale[0].resolution))
    stores = run_dir / "stores"
    yield Workplace(
        study, run_dir, Slots(1, 1, 0), images, lambda name: FolderStore(stores / name), NUM_TRAIN_AT_FULL_SCALE
    )


def _train(training: job.Job, place: Any, workers: int, folder: Path, progress: Callable[[Any], None]) -> None:
    job.train(training, progress)


def train_here(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(work, "open_workplace", _place)
    patch.setattr(full_scale, "_train_over_workers", _train)


def work_of(run_dir: Path, told: Callable[[str, Any], None] = lambda stage, epoch: None) -> work.Work:
    with Journal.open(run_dir, read_only=True) as journal:
        tables = from_journal(journal)
    study = study_from_dict(tables.metadata["study"])
    return work.Work(tables, study, run_dir, Profile(name="here"), 1, told)
