"""Where a trial's checkpoints lie: named blobs in a folder, or in a bucket that speaks S3.

In: a place that whoever continues the trial can reach. Out: the same six operations wherever it is. A third kind, for
hosts that share nothing, carries the blobs to the driver through Ray (sweep/scheduling/sharing.py).
"""

import errno
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from sweep.training.files import written_whole

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# torch has no error of its own for it; the last one is what its writer finds when it closes a file on a full disk.
_FULL_IN_TORCH = ("PytorchStreamWriter failed writing file", "No space left", ". unexpected pos ")


class Store(Protocol):
    """Blobs of one trial by name. A name that was written is there whole, or not at all."""

    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, content: bytes) -> None: ...

    def remove(self, name: str) -> None: ...

    def size(self, name: str) -> int:
        """In bytes."""
        ...

    def clear(self) -> None:
        """Remove everything, and the place itself."""
        ...


class FolderStore:
    """Files of a folder, which appears with the first of them."""

    def __init__(self, folder: Path):
        self.folder = folder

    def names(self) -> list[str]:
        try:
            return sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))
        except FileNotFoundError:
            return []

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        with written_whole(self.folder / name) as file:
            file.write(content)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def size(self, name: str) -> int:
        return (self.folder / name).stat().st_size

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class BucketStore:
    """Objects below `s3://bucket/prefix`; `endpoint` (http(s)://host:port) where the server is not Amazon's.

    The keys are those of the environment or of the machine, as AWS's own tools find them.
    """

    def __init__(self, uri: str, endpoint: str = ""):
        from pyarrow import fs

        parts = urlsplit(uri)
        self._prefix = f"{parts.netloc}{parts.path}".rstrip("/")
        where = urlsplit(endpoint)
        options = {"endpoint_override": where.netloc, "scheme": where.scheme} if endpoint else {}
        self._files = fs.S3FileSystem(connect_timeout=10, request_timeout=60, **options)
        self._select = fs.FileSelector(self._prefix, allow_not_found=True)

    def names(self) -> list[str]:
        return sorted(info.base_name for info in self._files.get_file_info(self._select) if info.is_file)

    def folders(self) -> list[str]:
        """What other stores below this one are called."""
        found = self._files.get_file_info(self._select)
        return sorted(info.base_name for info in found if not info.is_file)

    def read(self, name: str) -> bytes:
        with self._files.open_input_stream(f"{self._prefix}/{name}") as stream:
            return stream.readall()

    def write(self, name: str, content: bytes) -> None:
        with self._files.open_output_stream(f"{self._prefix}/{name}") as stream:
            stream.write(content)

    def remove(self, name: str) -> None:
        if name in self.names():
            self._files.delete_file(f"{self._prefix}/{name}")

    def size(self, name: str) -> int:
        info = self._files.get_file_info(f"{self._prefix}/{name}")
        if not info.is_file:
            raise FileNotFoundError(errno.ENOENT, "no such object", info.path)
        return info.size

    def clear(self) -> None:
        with suppress(FileNotFoundError):
            self._files.delete_dir(self._prefix)  # with the empty object that stands for the folder


def open_store(place: str, name: str, endpoint: str = "") -> Store:
    """The store called `name` in `place`: a folder's path, or `s3://bucket/prefix`."""
    if place.startswith("s3://"):
        return BucketStore(f"{place.rstrip('/')}/{name}", endpoint)
    return FolderStore(Path(place) / name)


def store_names(place: str, endpoint: str = "") -> list[str]:
    """The stores in `place` that are there."""
    if place.startswith("s3://"):
        return BucketStore(place, endpoint).folders()
    folder = Path(place)
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def is_full(error: BaseException) -> bool:
    """Whether the error, or what caused it, says that storage is full or cannot be written for now."""
    return any(
        (isinstance(one, OSError) and one.errno in _FULL)
        or (isinstance(one, RuntimeError) and any(words in str(one) for words in _FULL_IN_TORCH))
        for one in _with_causes(error)
    )


def _with_causes(error: BaseException) -> list[BaseException]:
    found = [error]
    for one in found:  # it grows; an error that comes back from a Ray task has its cause in an attribute `cause`
        for cause in (one.__cause__, getattr(one, "cause", None)):
            if isinstance(cause, BaseException) and cause not in found:
                found.append(cause)
    return found
