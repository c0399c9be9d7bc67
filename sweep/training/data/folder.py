"""A folder of images in ImageNet's layout.

In: a folder with `train/<class>/…`. The test set is `test/<class>/…`, else `val/<class>/…`; where neither has folders,
a share of the training images is held out for it (found.py). Out: a `Found`.

Classes are numbered in the order of their folders' names. Below a class every image counts, at any depth and behind
symbolic links; what is hidden, and what has no suffix of an image, does not. The order is that of the names.

The digest is over the names of all files, their sizes and their labels, not over what they hold: that is read once,
when the cache is made. It is made anew when the time at which a file was modified changes.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from sweep.studies import Data
from sweep.training.data.found import Found, Part, check_labels, given_by, held_out, own_path, short_digest
from sweep.training.data.images import BadImage, decoded

# Those of torchvision's `ImageFolder`.
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_TEST_FOLDERS = ("test", "val")


@dataclass(frozen=True)
class _File:
    """`name`: from the data set's folder."""

    name: str
    label: int
    size: int
    mtime_ns: int


def find_folder(data: Data) -> Found:
    """Raises `ValueError` where the folder does not hold what the study states."""
    root = own_path(data)
    train = root / "train"
    if not train.is_dir():
        raise ValueError(
            f"{given_by(data)} = {str(root)!r} has no folder 'train'; put the images into train/<class>/, and those to "
            "test with into val/<class>/ if there are some"
        )
    classes = _classes_in(train)
    if len(classes) != data.num_classes:
        raise ValueError(
            f"data.num_classes = {data.num_classes}, but {str(train)!r} has {len(classes)} folders of classes; correct "
            "one of them"
        )
    train_files, test_files, how = _both_sets(root, classes)
    check_labels(_labels(train_files), _labels(test_files), data.num_classes, str(root))
    everything = [*train_files, *test_files]
    return Found(
        source=f"{root} ({how})",
        digest=short_digest(f"{file.name}\0{file.size}\0{file.label}\0" for file in everything),
        parts=partial(_parts, root, train_files, test_files, data.num_channels),
        version=short_digest(f"{file.name}\0{file.mtime_ns}\0" for file in everything),
        is_encoded=True,
    )


def _classes_in(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _both_sets(root: Path, classes: list[str]) -> tuple[list[_File], list[_File], str]:
    """Training and test files, and how the test set was found."""
    train = _files(root, "train", classes)
    for name in _TEST_FOLDERS:
        if (root / name).is_dir() and (found := _classes_in(root / name)):
            if unknown := sorted(set(found) - set(classes)):
                raise ValueError(
                    f"data.path: {str(root / name)!r} has a class {unknown[0]!r} that {str(root / 'train')!r} lacks; "
                    "rename the folder, or add it there"
                )
            return train, _files(root, name, classes), f"test set: {name}/"
    chosen = held_out([file.name for file in train])
    both = [[file for file, is_held_out in zip(train, chosen) if is_held_out == which] for which in (False, True)]
    return both[0], both[1], f"test set: {len(both[1])} of its images, held out"


def _files(root: Path, name: str, classes: list[str]) -> list[_File]:
    found: list[_File] = []
    for label, folder in enumerate(classes):
        of_class = [
            _File(path, label, size, mtime_ns)
            for path, size, mtime_ns in _walk(f"{root}/", f"{name}/{folder}", frozenset())
        ]
        if not of_class and name == "train":
            raise ValueError(
                f"data.path: the class {str(root / name / folder)!r} has no images ({', '.join(SUFFIXES)}); add some, "
                "or remove the folder and lower data.num_classes"
            )
        found += of_class
    return found


def _walk(root: str, folder: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of each image below, in order; a link that leads back up is not followed."""
    if not os.path.isdir(root + folder):
        return
    here = os.stat(root + folder)
    if (here.st_dev, here.st_ino) in above:
        return
    above |= {(here.st_dev, here.st_ino)}
    with os.scandir(root + folder) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in visible:
        name = f"{folder}/{entry.name}"
        if entry.is_dir():
            yield from _walk(root, name, above)
        elif entry.name.lower().endswith(SUFFIXES):
            try:
                found = entry.stat()
            except OSError:  # a link to nothing: a bad image
                yield name, 0, 0
                continue
            yield name, found.st_size, found.st_mtime_ns


def _parts(root: Path, train: list[_File], test: list[_File], num_channels: int) -> tuple[Part, Part]:
    return _part(root, train, num_channels), _part(root, test, num_channels)


def _part(root: Path, files: list[_File], num_channels: int) -> Part:
    def read(first: int, end: int, resolution: int) -> tuple[np.ndarray, list[BadImage]]:
        paths = [root / file.name for file in files[first:end]]
        return decoded(paths, lambda row: files[row].name, first, num_channels=num_channels, resolution=resolution)

    return Part(_labels(files), read)


def _labels(files: list[_File]) -> np.ndarray:
    return np.array([file.label for file in files], np.int64)
