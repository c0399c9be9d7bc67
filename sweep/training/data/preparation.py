"""From a data set on this machine to the arrays that all trial processes map.

In: `[data]` of a study, and a resolution. Out: `DataFiles`. The arrays lie in `<cache>/<name>-<digest>`: images by
their resolution, labels, and for images that were decoded on the way a record of the bad ones, `<array>.bad.json`: for
people, and for whoever opens the arrays. A bad image keeps its row, which stays black and is never drawn.

What is there is verified at every call, as a whole; what is missing or damaged is made, a chunk at a time, and after a
kill from the last whole chunk (cache.py). A folder or a file of the user's own that was touched since has another
version, which is a part of the folder's name; what was made of the earlier one stays for sweeps that use it.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sweep.studies import PUBLISHED, Data
from sweep.training.data import cache as arrays
from sweep.training.data import published
from sweep.training.data.checking import verify
from sweep.training.data.folder import find_folder
from sweep.training.data.found import Found, Part
from sweep.training.data.images import BadImage
from sweep.training.data.own import find_own
from sweep.training.files import written_whole

FASHION_MNIST = Data()
_TELL_EVERY_S = 10.0
_NAMED = 3

Log = Callable[[str], None]


@dataclass(frozen=True)
class DataFiles:
    """Arrays on this node: images uint8 (N, H, W) or (N, H, W, 3), labels (N,), uint8 or with more than 256 classes
    uint16. `source` says where they came from, `digest` what they hold. `bad_train` and `bad_test` are the rows of bad
    images, which count as absent.
    """

    train_images: Path
    train_labels: Path
    test_images: Path
    test_labels: Path
    source: str
    digest: str
    bad_train: tuple[int, ...] = ()
    bad_test: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in vars(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DataFiles":
        paths = ("train_images", "train_labels", "test_images", "test_labels")
        rows = {key: tuple(values[key]) for key in ("bad_train", "bad_test")}
        return cls(**values | {key: Path(values[key]) for key in paths} | rows)


def find_source(data: Data = FASHION_MNIST, cache: Path | None = None) -> Path | None:
    """The directory from which a published set would be read, or None where a download is needed. Raises `ValueError`
    for a wrong one."""
    return published.find_source(data, cache or arrays.cache_dir())


def prepare(
    data: Data = FASHION_MNIST, *, resolution: int = 28, cache: Path | None = None, log: Log = lambda message: None
) -> DataFiles:
    """Find and check the data set, and make its arrays at `resolution` pixels if the cache lacks them.

    The source is `data.path`, else the directory in $SWEEP_DATA_DIR, and for a published set else Debian's package,
    else what was downloaded before, else a download. `log` is told how far a long preparation has come. Raises
    `ValueError` naming what is missing, damaged or not as stated, and the remedy.
    """
    cache = cache or arrays.cache_dir()
    found = _find(data, cache)
    folder = cache / "-".join(filter(None, (data.name.replace("_", "-"), found.digest, found.version)))
    # The same files, decoded as grey and as RGB.
    of = f"{resolution}-grey" if found.is_encoded and data.num_channels == 1 else f"{resolution}"
    names = f"train-images-{of}", "train-labels", f"test-images-{of}", "test-labels"
    files = [folder / f"{name}.npy" for name in names]
    with arrays.locked(folder, lambda: log(f"data: another process prepares {folder}; waiting for it")):
        if not _is_made(found, files):
            _Making(data, found, resolution, log).make(files)
            assert _is_made(found, files)
        bad = [_read_record(path) or [] for path in (files[0], files[2])]
    bad_train, bad_test = (tuple(image.row for image in images) for images in bad)
    result = DataFiles(files[0], files[1], files[2], files[3], found.source, found.digest, bad_train, bad_test)
    _check_numbers(data, result, bad)
    return result


def _find(data: Data, cache: Path) -> Found:
    if data.name == "image_folder":
        return find_folder(data)
    return find_own(data) if data.name == "arrays" else published.find_published(data, cache)


def _is_made(found: Found, files: Sequence[Path]) -> bool:
    is_recorded = not found.is_encoded or None not in (_read_record(files[0]), _read_record(files[2]))
    return is_recorded and all(map(verify, files))


def describe(data: Data, files: DataFiles) -> str:
    """Where the images are from, and how many of them are bad: one line for people."""
    text = f"{data.title} from {files.source}, {'checksums right' if data.name in PUBLISHED else 'cache verified'}"
    if num_bad := len(files.bad_train) + len(files.bad_test):
        text += f"; {num_bad} bad image{'s' if num_bad > 1 else ''} left out, named in {record_of(files.train_images)}"
        text += f" and {record_of(files.test_images).name}"
    return text


# -- making ------------------------------------------------------------------------------------------------------


class _Making:
    """The four arrays of a data set at a resolution, while they are made."""

    def __init__(self, data: Data, found: Found, resolution: int, log: Log):
        self._data, self._found, self._resolution, self._log = data, found, resolution, log
        self._parts = found.parts()
        self._num_images = sum(len(part.labels) for part in self._parts)
        self._num_bad = 0
        self._began = self._told = time.monotonic()
        self._num_done = 0

    def make(self, files: Sequence[Path]) -> None:
        colour = () if self._data.num_channels == 1 else (self._data.num_channels,)
        _check_enough(self._data, len(self._parts[0].labels), self._found.source)
        for part, images, labels in zip(self._parts, files[::2], files[1::2]):
            if self._found.is_encoded and _read_record(images) is None:
                arrays.remove(images)  # nobody knows which of its rows are black
                _write_record(images, [])
            shape = (len(part.labels), self._resolution, self._resolution, *colour)
            arrays.build(images, shape, np.dtype(np.uint8), self._rows_of(part, images))
            kind = np.dtype(np.uint8 if self._data.num_classes <= 256 else np.uint16)
            arrays.build(labels, part.labels.shape, kind, _rows_of_labels(part, kind))

    def _rows_of(self, part: Part, path: Path) -> arrays.Rows:
        def rows(first: int, end: int) -> np.ndarray:
            images, bad = part.read(first, end, self._resolution)
            if self._found.is_encoded:
                self._note_bad(path, first, end, bad)
            self._tell(end - first)
            return images

        return rows

    def _note_bad(self, path: Path, first: int, end: int, bad: list[BadImage]) -> None:
        """Before the chunk counts as made. Raises `ValueError` as soon as there are too many."""
        known = _read_record(path) or []
        others = [image for image in known if not first <= image.row < end]
        if bad or len(others) < len(known):
            _write_record(path, sorted([*others, *bad], key=lambda image: image.row))
        self._num_bad += len(bad)
        _check_bad(self._data, self._num_bad, self._num_images, bad or known, path)

    def _tell(self, num: int) -> None:
        self._num_done += num
        now = time.monotonic()
        if now - self._told >= _TELL_EVERY_S:
            self._told = now
            left_min = (now - self._began) / self._num_done * (self._num_images - self._num_done) / 60
            self._log(
                f"data: {self._num_done:,} of {self._num_images:,} images prepared at {self._resolution} pixels, "
                f"{max(0, left_min):.0f} minutes left at most"
            )


def _rows_of_labels(part: Part, kind: np.dtype) -> arrays.Rows:
    return lambda first, end: part.labels[first:end].astype(kind)


# -- bad images --------------------------------------------------------------------------------------------------


def record_of(images: Path) -> Path:
    """The file that names the bad images of an array."""
    return images.with_suffix(".bad.json")


def _write_record(images: Path, bad: Sequence[BadImage]) -> None:
    rows = [asdict(image) for image in bad]
    with written_whole(record_of(images)) as file:
        file.write(json.dumps({"num_bad": len(bad), "bad": rows, "sha256": _sum(rows)}, indent=1).encode())


def _read_record(images: Path) -> list[BadImage] | None:
    """None where there is none, or a damaged one."""
    try:
        known = json.loads(record_of(images).read_bytes())
        return [BadImage(**image) for image in known["bad"]] if known["sha256"] == _sum(known["bad"]) else None
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _sum(rows: list[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


# -- what was found, against what was stated -----------------------------------------------------------------------


def _check_numbers(data: Data, files: DataFiles, bad: Sequence[Sequence[BadImage]]) -> None:
    num_train, num_test = (arrays.Layout.of(path).shape[0] for path in (files.train_labels, files.test_labels))
    _check_enough(data, num_train - len(files.bad_train), files.source)
    worst = 0 if bad[0] else 1
    path = (files.train_images, files.test_images)[worst]
    _check_bad(data, len(bad[0]) + len(bad[1]), num_train + num_test, bad[worst], path)


def _check_enough(data: Data, there: int, source: str) -> None:
    wanted = data.num_train + data.num_validation
    if wanted > there:
        raise ValueError(
            f"data.num_train + data.num_validation = {wanted}, but {source} has {there} training images; lower one of "
            "them"
        )


def _check_bad(data: Data, num_bad: int, num_images: int, some: Sequence[BadImage], images: Path) -> None:
    if num_bad <= data.max_bad_share * num_images:
        return
    named = ", ".join(f"{image.name} ({image.why})" for image in some[:_NAMED])
    raise ValueError(
        f"data.max_bad_share = {data.max_bad_share:g}, but {num_bad} or more of {num_images} images cannot be used: "
        f"{named}{', …' if num_bad > _NAMED else ''}; replace or remove those that {record_of(images)} names, or raise "
        "data.max_bad_share"
    )
