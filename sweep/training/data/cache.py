"""Arrays on a disk, made and checked chunk by chunk, and mapped by all processes of a node.

In: a path, a shape, and a function that answers any of the rows. Out: an `.npy` file, and beside it `.sha256` with the
sum of each chunk, one a line. A chunk is as many rows as fit into 64 MiB, the first one with the file's header; so for
an array of a single chunk, as Fashion-MNIST is, the line is the SHA-256 of the file.

An array that is being made is `.<name>.part`, with the sums of its whole chunks in `.<name>.sums`: whoever makes it
after a kill goes on from there. One that was damaged becomes such a part, and only its damaged chunks are made again.
Who makes arrays in a folder holds its lock (`locked`); the others wait, and find them made.
"""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from math import ceil, prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sweep.training.files import written_whole

CHUNK_BYTES = 64 * 2**20
_BLOCK_BYTES = 2**20

Rows = Callable[[int, int], np.ndarray]
"""Rows from the first number to before the second."""


def cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "designspace-sweep"


@contextmanager
def locked(folder: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the arrays of a folder for this process; `waiting` is called if another one holds them.

    A lock of the operating system, so it is gone with its owner however that ends. A folder that nobody may write to
    needs none.
    """
    if folder.is_dir() and not os.access(folder, os.W_OK):
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Layout:
    """Where the rows of an array lie in its file."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @classmethod
    def of(cls, path: Path) -> "Layout":
        """Raises `ValueError` for a file that is no such array, and `OSError`."""
        with path.open("rb") as file:
            try:
                if np.lib.format.read_magic(file) != (1, 0):
                    raise ValueError("another version")
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            except OSError:
                raise
            except Exception as error:  # whatever numpy's parsers raise over a header that is none
                raise ValueError(f"{path.name} has another header than those written here ({error})") from error
        return cls(shape, dtype)

    @property
    def header(self) -> bytes:
        file = BytesIO()
        description = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": self.shape,
        }
        np.lib.format.write_array_header_1_0(file, description)
        return file.getvalue()

    @property
    def _row_bytes(self) -> int:
        return prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def _rows_per_chunk(self) -> int:
        return max(1, CHUNK_BYTES // max(1, self._row_bytes))

    @property
    def num_chunks(self) -> int:
        return max(1, ceil(self.shape[0] / self._rows_per_chunk))

    @property
    def num_bytes(self) -> int:
        return len(self.header) + self.shape[0] * self._row_bytes

    def rows(self, chunk: int) -> tuple[int, int]:
        first = chunk * self._rows_per_chunk
        return first, min(first + self._rows_per_chunk, self.shape[0])

    def span(self, chunk: int) -> tuple[int, int]:
        """The bytes of a chunk, from the first to before the second."""
        first, end = self.rows(chunk)
        begin, header = first * self._row_bytes, len(self.header)
        return begin + header if chunk else 0, end * self._row_bytes + header


# -- sums --------------------------------------------------------------------------------------------------------


def recorded_sums(path: Path) -> tuple[str, ...]:
    """SHA-256 of each chunk of an array as it was written."""
    return tuple(_sums_file(path).read_text(errors="replace").split("\n"))


def _sums_file(path: Path) -> Path:
    return path.with_suffix(".sha256")


def is_intact(path: Path, sums: Sequence[str] | None = None) -> bool:
    """Whether the array has these sums, or those recorded beside it; False where it is gone or cannot be read."""
    try:
        sums = recorded_sums(path) if sums is None else sums
        layout = Layout.of(path)
        if path.stat().st_size != layout.num_bytes or len(sums) != layout.num_chunks:
            return False
        with path.open("rb") as file:
            return all(sum_of(file, *layout.span(chunk)) == sums[chunk] for chunk in range(layout.num_chunks))
    except (ValueError, OSError) as error:
        if not _is_damage(error):
            raise
        return False


def _is_damage(error: Exception) -> bool:
    """A file that is gone, that the disk cannot read, or that holds something else."""
    return isinstance(error, ValueError) or (isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.EIO))


def sum_of(file: BinaryIO, begin: int, end: int) -> str:
    """SHA-256 of these bytes, or of those of them that are there."""
    digest = hashlib.sha256()
    file.seek(begin)
    while begin < end and (block := file.read(min(_BLOCK_BYTES, end - begin))):
        digest.update(block)
        begin += len(block)
    return digest.hexdigest()


# -- making ------------------------------------------------------------------------------------------------------


def remove(path: Path) -> None:
    """An array, its sums, and what was begun of it."""
    for file in (path, _sums_file(path), _part(path), _part_sums(path)):
        file.unlink(missing_ok=True)


def build(path: Path, shape: Sequence[int], dtype: np.dtype, rows: Rows, *, sums: Sequence[str] | None = None) -> None:
    """Make what an array lacks, a chunk at a time, and what of it is damaged; the caller holds the folder's lock.

    `sums` are those that it must have, where the caller knows them.
    """
    layout = Layout(tuple(shape), np.dtype(dtype))
    have = _begin(path, layout, sums)
    try:
        with _part(path).open("r+b") as file:
            file.truncate(layout.num_bytes)
            for chunk in range(layout.num_chunks):
                if chunk not in have:
                    have[chunk] = _write(file, layout, chunk, rows(*layout.rows(chunk)))
                    _record(path, layout, have)
    except BaseException:
        if not have:  # nothing to go on from
            remove(path)
        raise
    # The sums first, so that no array is without.
    with written_whole(_sums_file(path)) as sums_file:
        sums_file.write("\n".join(have[chunk] for chunk in range(layout.num_chunks)).encode())
    os.replace(_part(path), path)
    _part_sums(path).unlink()


def _begin(path: Path, layout: Layout, sums: Sequence[str] | None) -> dict[int, str]:
    """Open a part, with all that is whole of an array that was begun or damaged; the sums of its whole chunks."""
    known: Mapping[int, str] = {}
    if path.exists():
        with suppress(FileNotFoundError):
            known = dict(enumerate(recorded_sums(path) if sums is None else sums))
        _record(path, layout, known)
        os.replace(path, _part(path))
    elif _part(path).exists():
        known = _recorded(path, layout)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        _part(path).touch()
    with _part(path).open("rb") as file:
        return {
            chunk: known[chunk]
            for chunk in range(layout.num_chunks)
            if chunk in known and _sum_or_nothing(file, *layout.span(chunk)) == known[chunk]
        }


def _sum_or_nothing(file: BinaryIO, begin: int, end: int) -> str:
    try:
        return sum_of(file, begin, end)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return ""


def _write(file: BinaryIO, layout: Layout, chunk: int, rows: np.ndarray) -> str:
    first, end = layout.rows(chunk)
    assert (rows.shape, rows.dtype) == ((end - first, *layout.shape[1:]), layout.dtype)
    content = np.ascontiguousarray(rows).data.cast("B") if rows.size else b""
    header = b"" if chunk else layout.header
    file.seek(layout.span(chunk)[0])
    file.write(header)
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
    digest = hashlib.sha256(header)
    digest.update(content)
    return digest.hexdigest()


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _part_sums(path: Path) -> Path:
    return path.with_name(f".{path.name}.sums")


def _key(layout: Layout) -> list:
    return [list(layout.shape), layout.dtype.str, CHUNK_BYTES]


def _record(path: Path, layout: Layout, sums: Mapping[int, str]) -> None:
    with written_whole(_part_sums(path)) as file:
        file.write(json.dumps({"of": _key(layout), "sums": {str(k): v for k, v in sums.items()}}).encode())


def _recorded(path: Path, layout: Layout) -> dict[int, str]:
    try:
        known = json.loads(_part_sums(path).read_bytes())
        return {int(chunk): digest for chunk, digest in known["sums"].items()} if known["of"] == _key(layout) else {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # cut short or gone: made anew
        return {}
