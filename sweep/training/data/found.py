"""A data set as it was found on this machine, before it lies in the cache.

In: `data.name` and `data.path`, read by published.py, folder.py or own.py. Out: `Found`, which costs little; its two
`Part`s, which may cost as much as reading all images, are asked for where the cache lacks something.

Shapes: N images, R resolution.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sweep.studies import Data
from sweep.training.data.images import BadImage, fitted

DIR_VARIABLE = "SWEEP_DATA_DIR"
HELD_OUT = 0.1
"""Share of the images that is the test set of a data set that has none."""


@dataclass(frozen=True)
class Part:
    """The training images, or the test images. `labels` (N,).

    `read(first, end, resolution)` answers the images of these rows as uint8 (N, R, R) or (N, R, R, 3), and those among
    them that are bad.
    """

    labels: np.ndarray
    read: Callable[[int, int, int], tuple[np.ndarray, list[BadImage]]]


@dataclass(frozen=True)
class Found:
    """`source` says where it lies, `digest` what it holds. `version` changes when a file was touched, too: of another
    version other arrays are made. `is_encoded`: images are decoded on the way, so some may be bad.
    """

    source: str
    digest: str
    parts: Callable[[], tuple[Part, Part]]
    version: str = ""
    is_encoded: bool = False


def part_of(images: np.ndarray, labels: np.ndarray) -> Part:
    """Decoded images in memory: uint8 (N, H, W) or (N, H, W, 3)."""

    def read(first: int, end: int, resolution: int) -> tuple[np.ndarray, list[BadImage]]:
        return fitted(images[first:end], resolution), []

    return Part(labels, read)


def given_path(data: Data) -> Path | None:
    """What the study names, else the environment."""
    given = data.path or os.environ.get(DIR_VARIABLE, "")
    return Path(given).expanduser() if given else None


def given_by(data: Data) -> str:
    return "data.path" if data.path else DIR_VARIABLE


def own_path(data: Data) -> Path:
    """The user's own files. Raises `ValueError` where neither the study nor the environment names them."""
    if path := given_path(data):
        return path
    raise ValueError(f"data.path is empty, and {data.name} is nowhere else; name the place of your images")


def short_digest(texts: Iterable[str]) -> str:
    """Twelve hex digits; names may hold bytes that are no text."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(os.fsencode(text))
    return digest.hexdigest()[:12]


def held_out(names: Sequence[str]) -> np.ndarray:
    """Which of the images (N,) are the test set: the `HELD_OUT` share whose names come first in an order drawn from
    them and a fixed seed. It depends neither on the study nor on the machine, and hardly changes as images are added.
    """
    order = sorted(
        range(len(names)), key=lambda number: hashlib.sha256(b"held out/" + os.fsencode(names[number])).digest()
    )
    chosen = np.zeros(len(names), bool)
    chosen[order[: max(1, round(HELD_OUT * len(names)))]] = True
    return chosen


def check_labels(train: np.ndarray, test: np.ndarray, num_classes: int, source: str) -> None:
    """Raises `ValueError` where they are not those of `num_classes` classes."""
    for name, labels in (("training", train), ("test", test)):
        if len(labels) == 0:
            raise ValueError(f"data.path: there are no {name} images in {source!r}; add some")
        if labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(
                f"data.num_classes = {num_classes}, but the {name} labels in {source!r} go from {labels.min()} to "
                f"{labels.max()}; labels count from 0 to num_classes - 1: correct one of them"
            )
    missing = np.flatnonzero(np.bincount(train, minlength=num_classes) == 0)
    if len(missing):
        raise ValueError(
            f"data.num_classes = {num_classes}, but no training image in {source!r} has the label "
            f"{', '.join(map(str, missing[:5]))}; correct num_classes, or add images"
        )
