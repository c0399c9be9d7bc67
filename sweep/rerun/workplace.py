"""Where a rerun trains: the Ray that stands, and what its workers reach of data and checkpoints.

In: a study, a run directory, a profile. Out: slots, the images by name, a store for each training's state.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import Profile, Slots, ray_session
from sweep.rerun.result import FOLDER
from sweep.scheduling.engine import shared
from sweep.studies import Study
from sweep.training.data import num_train_images, prepare
from sweep.training.store import Store


@dataclass(frozen=True)
class Workplace:
    """`data` answers `files(name)` on any node: name is a scale's, or its `full_scale`. `store(name)` is reached by
    all."""

    study: Study
    run_dir: Path
    slots: Slots
    data: Any
    store: Callable[[str], Store]
    num_train_images: int


def full_scale(scale: str) -> str:
    """The name under which a scale's images at the resolution of the full-scale training lie."""
    return f"{scale} at full scale"


def resolution_at_full_scale(study: Study, scale: str) -> int:
    return study.rerun.resolution or study.get_scale(scale).resolution


@contextmanager
def open_workplace(
    study: Study, run_dir: Path, profile: Profile, *, sweep_id: str, scales: Iterable[str]
) -> Iterator[Workplace]:
    """Ray, the images of `scales` at both resolutions, and stores below this sweep's own folder."""
    resolutions: dict[str, int] = {}
    for scale in scales:
        resolutions[scale] = study.get_scale(scale).resolution
        resolutions[full_scale(scale)] = resolution_at_full_scale(study, scale)
    files = {name: prepare(study.data, resolution=pixels) for name, pixels in resolutions.items()}
    with ray_session(profile, run_dir) as slots:
        images, stores = shared(profile, files, run_dir / FOLDER, f"{sweep_id}/{FOLDER}")
        num_images = num_train_images(next(iter(files.values())))  # the same at any resolution
        yield Workplace(study, run_dir, slots, images, stores, num_images)
