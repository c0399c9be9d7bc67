"""Images on a node: found, checked, and mapped once for all trial processes.

In: where Fashion-MNIST may lie (a directory, Debian's package, the cache, torchvision's download). Out: `DataFiles`,
paths of `.npy` arrays that every process on the node maps, and from them a `Split` into training and validation
images. The test arrays are opened by `open_test` alone, which a sweep never calls (DESIGN 4.4).

Each array lies beside its SHA-256. `prepare` compares them at every launch and builds anew what is damaged; a process
that opens one compares them too, once and whenever the file is no longer the one that it looked at.

No DataLoader and no workers: a batch is one indexing of the mapped uint8 array.
"""

import errno
import gzip
import hashlib
import os
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sweep.training.files import written_whole

DEBIAN_DIR = Path("/usr/share/datasets/fashion-mnist")
DIR_VARIABLE = "SWEEP_DATA_DIR"
# SHA-256 of the uncompressed files: the same whoever compressed them.
FASHION_MNIST = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
_REMEDY = (
    "either install Debian's package (apt-get install dataset-fashion-mnist) or let torchvision download the files "
    f"(needs the internet; leave data.path and {DIR_VARIABLE} empty)"
)


class DamagedDataError(RuntimeError):
    """An array is not what it was when it was prepared."""


@dataclass(frozen=True)
class DataFiles:
    """Arrays on this node: images uint8 (N, H, W), labels uint8 (N,). `source` says where they came from."""

    train_images: Path
    train_labels: Path
    test_images: Path
    test_labels: Path
    source: str
    digest: str


@dataclass(frozen=True)
class Split:
    """Mapped images uint8 (N, H, W) and labels uint8 (N,) with the indices that train and those that judge.

    `mean` and `std` are of the training images' pixels, in units of 0 to 1.
    """

    images: np.ndarray
    labels: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    mean: float
    std: float


def cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "designspace-sweep"


def prepare(*, path: str = "", resolution: int = 28, cache: Path | None = None) -> DataFiles:
    """Find and check Fashion-MNIST, and make its arrays at `resolution` pixels if the cache lacks them.

    The source is `path`, else the directory in $SWEEP_DATA_DIR, else Debian's, else what was downloaded before, else
    a download. Each file's checksum is compared every time. Raises `ValueError` naming the file and both remedies.
    """
    cache = cache or cache_dir()
    source = find_source(path, cache) or _download(_download_dir(cache))
    payloads = {name: _read_checked(source, name) for name in FASHION_MNIST}
    digest = hashlib.sha256("".join(FASHION_MNIST.values()).encode()).hexdigest()[:12]
    folder = cache / f"fashion-mnist-{digest}"
    files = DataFiles(
        train_images=folder / f"train-images-{resolution}.npy",
        train_labels=folder / "train-labels.npy",
        test_images=folder / f"test-images-{resolution}.npy",
        test_labels=folder / "test-labels.npy",
        source=str(source),
        digest=digest,
    )
    if not _arrays_intact(files):
        _build_arrays(payloads, files, resolution)
    return files


def find_source(path: str = "", cache: Path | None = None) -> Path | None:
    """The directory that would be read, or None where a download is needed. Raises `ValueError` for a wrong one."""
    for name, value in (("data.path", path), (DIR_VARIABLE, os.environ.get(DIR_VARIABLE, ""))):
        if value:
            if not Path(value).expanduser().is_dir():
                raise ValueError(f"{name} = {value!r} is no directory; {_REMEDY}")
            return Path(value).expanduser()
    for folder in (DEBIAN_DIR, _download_dir(cache or cache_dir())):
        if any(_locate(folder, name) for name in FASHION_MNIST):
            return folder
    return None


def _download_dir(cache: Path) -> Path:
    return cache / "fashion-mnist"


def _locate(folder: Path, name: str) -> Path | None:
    for inside in (folder, folder / "FashionMNIST" / "raw"):
        for file in (inside / f"{name}.gz", inside / name):
            if file.is_file():
                return file
    return None


def _read_checked(folder: Path, name: str) -> bytes:
    file = _locate(folder, name)
    if file is None:
        raise ValueError(f"data: {name}.gz is missing in {str(folder)!r}; {_REMEDY}")
    try:
        payload = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"data: {str(file)!r} is cut short or damaged ({error}); {_REMEDY}") from error
    except OSError as error:
        raise ValueError(f"data: {str(file)!r} cannot be read ({error.strerror}); {_REMEDY}") from error
    if hashlib.sha256(payload).hexdigest() != FASHION_MNIST[name]:
        raise ValueError(
            f"data: {str(file)!r} is cut short or damaged (its SHA-256 is not the published one); {_REMEDY}"
        )
    return payload


def _download(folder: Path) -> Path:
    import torchvision

    try:
        torchvision.datasets.FashionMNIST(str(folder), download=True)
    except Exception as error:  # torchvision raises whatever its mirrors and urllib raise
        raise ValueError(
            f"data: Fashion-MNIST is not on this machine and could not be downloaded ({error}); {_REMEDY}"
        ) from error
    return folder


def _arrays_intact(files: DataFiles) -> bool:
    return all(
        _sum_file(array).is_file() and is_intact(array, recorded_digest(array))
        for array in (files.train_images, files.train_labels, files.test_images, files.test_labels)
    )


def is_intact(array: Path, digest: str) -> bool:
    try:
        return _sha256(array) == digest
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EIO):  # gone, or the disk cannot read it
            raise
        return False


def recorded_digest(array: Path) -> str:
    """SHA-256 of the file as it was written."""
    return _sum_file(array).read_text(errors="replace")


def _sum_file(array: Path) -> Path:
    return array.with_suffix(".sha256")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _build_arrays(payloads: dict[str, bytes], files: DataFiles, resolution: int) -> None:
    """Read the files with torchvision's own reader and write the arrays, each whole or not at all."""
    import torchvision

    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "FashionMNIST" / "raw"
        raw.mkdir(parents=True)
        for name, payload in payloads.items():
            (raw / name).write_bytes(payload)
        for train, images, labels in (
            (True, files.train_images, files.train_labels),
            (False, files.test_images, files.test_labels),
        ):
            part = torchvision.datasets.FashionMNIST(scratch, train=train)
            save_array(images, _resize(part.data, resolution))
            save_array(labels, part.targets.numpy().astype(np.uint8))


def _resize(images, resolution: int) -> np.ndarray:
    if images.shape[-1] == resolution:
        return images.numpy()
    from torchvision.transforms.v2 import functional

    chunks = [functional.resize(chunk, [resolution, resolution], antialias=True) for chunk in images.split(2000)]
    return np.concatenate([chunk.numpy() for chunk in chunks])


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array of the cache with its sum, whole or not at all; the sum first, so that no array is without."""
    with written_whole(path) as file:
        np.save(file, array)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        with written_whole(_sum_file(path)) as sum_file:
            sum_file.write(digest.encode())


def open_split(files: DataFiles, *, num_train: int, num_validation: int, seed: int) -> Split:
    """Draw the split from `seed`: the validation images first, so that they stay when `num_train` changes.

    `num_validation` 0 and `num_train` of all images is the split of a full-scale rerun. Raises `DamagedDataError`.
    """
    images, labels = _map(files.train_images), _map(files.train_labels)
    order = np.random.default_rng(seed).permutation(len(images))
    validation, train = order[:num_validation], order[num_validation : num_validation + num_train]
    pixels = images[np.sort(train)[:10_000]] / np.float32(255)
    return Split(images, labels, train, validation, float(pixels.mean()), float(pixels.std()))


def open_test(files: DataFiles) -> tuple[np.ndarray, np.ndarray]:
    """The test images and labels, checked alike. Opened once, at the end of a full-scale rerun, and nowhere else."""
    return _map(files.test_images), _map(files.test_labels)


def _map(path: Path) -> np.ndarray:
    _check(path)
    # Copy-on-write: the pages are shared by all processes of the node, and torch accepts the array as writable.
    return np.load(path, mmap_mode="c")


_checked: dict[Path, tuple[int, int, int]] = {}


def _check(path: Path) -> None:
    """Raises `DamagedDataError`. The sum is computed once in a process, for it costs as much as reading the file."""
    try:
        found = path.stat()
        identity = (found.st_ino, found.st_size, found.st_mtime_ns)
        if _checked.get(path) == identity:
            return
        why = "" if is_intact(path, recorded_digest(path)) else "its SHA-256 is not the one recorded beside it"
    except FileNotFoundError as error:
        why = f"{Path(error.filename).name} is gone"
    if why:
        raise DamagedDataError(
            f"data: {str(path)!r} is not what it was when it was prepared ({why}); `sweep launch … --resume` builds it "
            "anew from its source and goes on with the sweep"
        )
    _checked[path] = identity
