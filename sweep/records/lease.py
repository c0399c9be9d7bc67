"""The lease of a sweep: one process at a time trains it and tells MLflow of it (DESIGN, section 5).

In: a journal. Out: a token, for as long as a `with` lasts; the journal's writes under an older token are refused, so an
owner that was thought dead and was not cannot do harm. An owner is dead if its process is gone from this host, or if it
beats no more: nobody's clock is compared with anybody else's.
"""

import logging
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from sweep.records.journal import Journal, LeaseLostError

_BEAT_S = 5.0
_DEAD_AFTER_S = 20.0
_LOG = logging.getLogger(__name__)


@contextmanager
def held(journal: Journal, log: Callable[[str], None]) -> Iterator[int]:
    """Own the sweep; answers the token. `journal` writes under it from now on.

    Raises `ValueError` naming the owner if another process is at work on it.
    """
    run_dir = journal.path.parent
    token = _take(journal, log)
    ended = threading.Event()
    thread = threading.Thread(target=_beat, args=(run_dir, token, ended), name="lease", daemon=True)
    thread.start()
    try:
        yield token
    finally:
        ended.set()
        thread.join()
        _release(journal)


def owner_of(journal: Journal) -> str | None:
    """Who is at work on a sweep, as far as this host can tell; None if no one is."""
    row = journal.lease()
    if row is None or row["released"] or (row["host"] == _host() and not _lives(row)):
        return None
    return row["owner"]


def _take(journal: Journal, log: Callable[[str], None]) -> int:
    row = journal.lease()
    if row is not None and not row["released"]:
        if row["host"] == _host():
            alive = _lives(row)
        else:
            log(f"{row['owner']} had this sweep; watching for {_DEAD_AFTER_S:g} s whether it still has")
            alive = _beats(journal, row)
        if alive:
            raise _refusal(journal)
        log(f"taking over from {row['owner']}, which ended without letting go")
    me = psutil.Process()
    owner = f"process {me.pid} on {socket.gethostname()}"
    try:
        return journal.take_lease(
            row["token"] if row else 0, owner=owner, host=_host(), pid=me.pid, pid_started=_started(me.pid)
        )
    except LeaseLostError:
        raise _refusal(journal) from None


def _refusal(journal: Journal) -> ValueError:
    row, run_dir = journal.lease(), str(journal.path.parent)
    owner = row["owner"] if row else "another process"
    return ValueError(
        f"--run-dir: {run_dir!r} is in use by {owner}; wait for it, or end it with `sweep stop {run_dir}`"
    )


def _host() -> str:
    """This machine since it was booted, and which processes it shows: a container may have the name of another."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    parts = [socket.gethostname()]
    parts.append(boot.read_text().strip() if boot.exists() else str(int(psutil.boot_time())))
    parts.append(os.readlink(namespace) if namespace.exists() else "")
    return " ".join(parts)


def _started(pid: int) -> float:
    """When a process began; in clock ticks since the boot where Linux tells them, for the wall clock can be set."""
    try:
        return float(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return psutil.Process(pid).create_time()


def _lives(row: sqlite3.Row) -> bool:
    try:
        process = psutil.Process(row["pid"])
        return process.status() != psutil.STATUS_ZOMBIE and _started(row["pid"]) == row["pid_started"]
    except psutil.NoSuchProcess:
        return False


def _beats(journal: Journal, seen: sqlite3.Row) -> bool:
    """Whether the owner, or one that took over from it meanwhile, gives a sign of life."""
    deadline = time.monotonic() + _DEAD_AFTER_S
    while time.monotonic() < deadline:
        time.sleep(0.5)
        row = journal.lease()
        if row is None or row["released"]:
            return False
        if (row["token"], row["heartbeat"]) != (seen["token"], seen["heartbeat"]):
            return True
    return False


def _beat(run_dir: Path, token: int, ended: threading.Event) -> None:
    while not ended.wait(_BEAT_S):
        try:
            with Journal.open(run_dir, token=token) as journal:
                journal.beat()
        except LeaseLostError:
            return  # every other write of this process says so
        except (sqlite3.Error, OSError, ValueError) as error:  # storage that is full may be freed again
            _LOG.debug("no heartbeat: %s", error)


def _release(journal: Journal) -> None:
    journal.blocked = None  # nobody waits for room only to say that this process ends
    try:
        journal.release_lease()
    except (LeaseLostError, sqlite3.Error) as error:  # it is another's, or it will be seen that this process is gone
        _LOG.debug("lease not released: %s", error)
