"""`running(processes)`: those that still run; a zombie that its parent has not reaped yet does not."""

import time
from collections.abc import Iterable

import psutil


def running(processes: Iterable[psutil.Process], grace_s: float = 0) -> list[psutil.Process]:
    """Gives them `grace_s` seconds to end."""
    deadline = time.monotonic() + grace_s
    while (left := [process for process in processes if _runs(process)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
