"""Published data sets: found where torchvision stores them, checked by their published sums, read by its readers.

In: a directory, or none. Out: a `Found`. Without a directory they are looked for in Debian's package (Fashion-MNIST)
and in the cache, where torchvision's download puts them. Below a directory lie, as torchvision has it:

    fashion_mnist, mnist    {train,t10k}-{images-idx3,labels-idx1}-ubyte, with .gz or without, there or in
                            FashionMNIST/raw and MNIST/raw
    cifar10, cifar100       cifar-10-batches-py/, cifar-100-python/
    svhn                    train_32x32.mat, test_32x32.mat

CIFAR's files are pickles, so that reading one runs what it holds: torchvision reads none whose sum is not the published
one.
"""

import gzip
import hashlib
import tempfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sweep.studies import PUBLISHED, Data
from sweep.training.data.found import DIR_VARIABLE, Found, Part, given_by, given_path, part_of, short_digest

DEBIAN_DIR = Path("/usr/share/datasets/fashion-mnist")
# Sums of the uncompressed files: the same whoever compressed them.
FASHION_MNIST = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
MNIST = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
_CLASSES = {
    "fashion_mnist": "FashionMNIST",
    "mnist": "MNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
}


def find_source(data: Data, cache: Path) -> Path | None:
    """The directory that would be read, or None where a download is needed. Raises `ValueError` for a wrong one."""
    if given := given_path(data):
        if not given.is_dir():
            raise ValueError(f"{given_by(data)} = {str(given)!r} is no directory; {_remedy(data.name)}")
        return given
    places = [DEBIAN_DIR] if data.name == "fashion_mnist" else []
    for folder in (*places, _download_dir(data.name, cache)):
        if any(_locate(folder, data.name, name) for name in _sums(data.name)):
            return folder
    return None


def find_published(data: Data, cache: Path) -> Found:
    """Raises `ValueError` naming the file that is missing or damaged, and the remedies."""
    folder = find_source(data, cache) or _download(data.name, _download_dir(data.name, cache))
    sums = _sums(data.name)
    if data.name in ("fashion_mnist", "mnist"):
        payloads = {name: _read_checked(folder, data.name, name) for name in sums}
        parts = partial(_parts_of_idx, data.name, payloads)
    else:
        for name in sums:
            _check(folder, data.name, name)
        parts = partial(_parts, data.name, folder)
    return Found(str(folder), short_digest(sums.values()), parts)


def _sums(name: str) -> dict[str, str]:
    """The published sum of each file, by its path below the folder."""
    if name in ("fashion_mnist", "mnist"):
        return FASHION_MNIST if name == "fashion_mnist" else MNIST
    reader = _reader(name)
    if name == "svhn":
        return {file: md5 for split in ("train", "test") for _, file, md5 in [reader.split_list[split]]}
    listed = [*reader.train_list, *reader.test_list, (reader.meta["filename"], reader.meta["md5"])]
    return {f"{reader.base_folder}/{file}": md5 for file, md5 in listed}


def _reader(name: str) -> Any:
    import torchvision

    return getattr(torchvision.datasets, _CLASSES[name])


def _download_dir(name: str, cache: Path) -> Path:
    return cache / name.replace("_", "-")


def _remedy(name: str) -> str:
    internet = f"let torchvision download the files (needs the internet; leave data.path and {DIR_VARIABLE} empty)"
    if name == "fashion_mnist":
        return f"either install Debian's package (apt-get install dataset-fashion-mnist) or {internet}"
    return f"either name the directory in which torchvision stored {PUBLISHED[name].title}, or {internet}"


def _locate(folder: Path, name: str, file: str) -> Path | None:
    tried = [folder / file]
    if name in ("fashion_mnist", "mnist"):
        places = (folder, folder / _CLASSES[name] / "raw")
        tried = [place / f"{file}{suffix}" for place in places for suffix in (".gz", "")]
    return next((path for path in tried if path.is_file()), None)


def _located(folder: Path, name: str, file: str) -> Path:
    if path := _locate(folder, name, file):
        return path
    suffix = ".gz" if name in ("fashion_mnist", "mnist") else ""
    raise ValueError(f"data: {file}{suffix} is missing in {str(folder)!r}; {_remedy(name)}")


def _check(folder: Path, name: str, file: str) -> None:
    path = _located(folder, name, file)
    try:
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise ValueError(f"data: {str(path)!r} cannot be read ({error.strerror}); {_remedy(name)}") from error
    if digest != _sums(name)[file]:
        raise ValueError(
            f"data: {str(path)!r} is cut short or damaged (its MD5 is not the published one); {_remedy(name)}"
        )


def _read_checked(folder: Path, name: str, file: str) -> bytes:
    path = _located(folder, name, file)
    try:
        payload = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"data: {str(path)!r} is cut short or damaged ({error}); {_remedy(name)}") from error
    except OSError as error:
        raise ValueError(f"data: {str(path)!r} cannot be read ({error.strerror}); {_remedy(name)}") from error
    algorithm = "sha256" if name == "fashion_mnist" else "md5"
    if hashlib.new(algorithm, payload, usedforsecurity=False).hexdigest() != _sums(name)[file]:
        raise ValueError(
            f"data: {str(path)!r} is cut short or damaged (its {'SHA-256' if algorithm == 'sha256' else 'MD5'} is not "
            f"the published one); {_remedy(name)}"
        )
    return payload


def _download(name: str, folder: Path) -> Path:
    try:
        list(_opened(name, folder, download=True))
    except Exception as error:  # torchvision raises whatever its mirrors and urllib raise
        raise ValueError(
            f"data: {PUBLISHED[name].title} is not on this machine and could not be downloaded ({error}); "
            f"{_remedy(name)}"
        ) from error
    return folder


def _opened(name: str, folder: Path | str, **options: Any) -> Iterator[Any]:
    """Torchvision's training set and test set."""
    reader = _reader(name)
    for train in (True, False):
        which = {"split": "train" if train else "test"} if name == "svhn" else {"train": train}
        yield reader(str(folder), **which, **options)


def _parts_of_idx(name: str, payloads: dict[str, bytes]) -> tuple[Part, Part]:
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / _CLASSES[name] / "raw"
        raw.mkdir(parents=True)
        for file, payload in payloads.items():
            (raw / file).write_bytes(payload)
        return _parts(name, scratch)


def _parts(name: str, folder: Path | str) -> tuple[Part, Part]:
    train, test = (part_of(*_pixels_and_labels(name, opened)) for opened in _opened(name, folder))
    return train, test


def _pixels_and_labels(name: str, opened: Any) -> tuple[np.ndarray, np.ndarray]:
    if name == "svhn":
        return opened.data.transpose(0, 2, 3, 1), np.asarray(opened.labels)
    return np.asarray(opened.data), np.asarray(opened.targets)
