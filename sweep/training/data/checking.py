"""Arrays of the cache, checked by whoever prepares and by whoever opens them.

In: the path of an array that cache.py made. Out: whether it is intact, or the array, mapped.

Checking costs as much as reading the file. `verify`, which a preparation calls, reads all of it and notes for this host
(`.<name>.seen.<host>`) which file it has seen. A process that opens an array reads all of one that has a single chunk;
of a larger one that is still the file that was seen on this host it reads a single chunk, each process another. Damage
in a chunk that no process looks at, while size and times stay, is found by the next preparation.
"""

import json
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

from sweep.training.data import cache as arrays
from sweep.training.files import written_whole


class DamagedDataError(RuntimeError):
    """An array is not what it was when it was prepared."""


def verify(path: Path) -> bool:
    """Whether the whole array is intact; if so, other processes of this host need not read all of it."""
    before = _identity(path)
    if not arrays.is_intact(path):
        return False
    if len(arrays.recorded_sums(path)) > 1 and os.access(path.parent, os.W_OK):
        with written_whole(_seen_file(path)) as file:
            file.write(json.dumps([before, arrays.recorded_sums(path)]).encode())
    return True


def _seen_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.seen.{socket.gethostname()}")


def was_seen(path: Path, sums: Sequence[str]) -> bool:
    """Whether this very file was read as a whole on this host, and had these sums."""
    try:
        return json.loads(_seen_file(path).read_bytes()) == [_identity(path), list(sums)]
    except (OSError, ValueError):
        return False


def is_kept(path: Path, sums: Sequence[str]) -> bool:
    """Whether this host has the array with these sums; reads all of it, unless a process of this host did."""
    try:
        return was_seen(path, sums) or (arrays.recorded_sums(path) == tuple(sums) and verify(path))
    except FileNotFoundError:
        return False


def _identity(path: Path) -> list[int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return [found.st_ino, found.st_size, found.st_mtime_ns]


def mapped(path: Path) -> np.ndarray:
    """The array, checked. Raises `DamagedDataError`."""
    _check(path)
    # Copy-on-write: the pages are shared by all processes of the node, and torch accepts the array as writable. Linux
    # grants no process a private mapping of more than its memory.
    is_small = path.stat().st_size < psutil.virtual_memory().total / 2
    return np.load(path, mmap_mode="c" if is_small else "r")


_checked: dict[Path, list[int] | None] = {}


def _check(path: Path) -> None:
    """Raises `DamagedDataError`. Looks once in a process, and again whenever it is no longer the same file."""
    identity = _identity(path)
    if identity and _checked.get(path) == identity:
        return
    if why := _damage(path):
        with suppress(OSError):
            _seen_file(path).unlink()  # whoever mends it must look at all of it
        raise DamagedDataError(
            f"data: {str(path)!r} is not what it was when it was prepared ({why}); `sweep launch … --resume` builds it "
            "anew from its source and goes on with the sweep"
        )
    _checked[path] = identity


def _damage(path: Path) -> str:
    try:
        sums = arrays.recorded_sums(path)
        if len(sums) > 1 and was_seen(path, sums):
            chunk = os.getpid() % len(sums)
            with path.open("rb") as file:
                is_whole = arrays.sum_of(file, *arrays.Layout.of(path).span(chunk)) == sums[chunk]
        else:
            is_whole = arrays.is_intact(path)
        path.stat()
    except (FileNotFoundError, ValueError) as error:
        return f"{Path(error.filename).name} is gone" if isinstance(error, FileNotFoundError) else str(error)
    return "" if is_whole else "its SHA-256 is not the one recorded beside it"
