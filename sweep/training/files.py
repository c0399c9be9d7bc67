"""Files that are there whole or not at all, whatever ends the process or the power while they are written.

In: a path, and a block that writes. Out: the file under its name once all of it is on the disk, and its name too. What
a killed process left half written has a name of its own (`.draft.<host>.<pid>.<number>`) and goes when the next file
is written beside it; a draft of another host stays, for its process cannot be seen from here.
"""

import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom
from itertools import count
from pathlib import Path

import psutil

_DRAFT = re.compile(r"\.draft\.(.+)\.(\d+)\.\d+")
_numbers = count()  # the threads of one process write beside each other


@contextmanager
def written_whole(path: Path) -> Iterator[BufferedRandom]:
    """An open file that becomes `path` when the block ends well; else whatever was at `path` stays, and no draft."""
    _make(path.parent)
    _remove_drafts_of_the_dead(path.parent)
    draft = path.with_name(f".draft.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}")
    try:
        with draft.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    _flush(path.parent)


def _make(folder: Path) -> None:
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        _flush(folder.parent)


def _flush(folder: Path) -> None:
    """The names in a folder to the disk; some file systems know no such thing, and some folders may not be opened."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):
            raise


def _remove_drafts_of_the_dead(folder: Path) -> None:
    for draft in folder.glob(".draft.*"):
        match = _DRAFT.fullmatch(draft.name)
        if match and match[1] == socket.gethostname() and not psutil.pid_exists(int(match[2])):
            with suppress(OSError):  # whoever writes beside us may be faster; a disk that refuses says so below
                draft.unlink()
