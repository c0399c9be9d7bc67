"""What machine this is: its name, its processor, the cores that this process may use."""

import os
import platform
import resource
import socket
import tempfile
from pathlib import Path
from typing import Any

OPEN_FILES_NEEDED = 1024
_LONGEST_RAY_FOLDER = 35


def num_cores() -> int:
    """Cores that this process may run on; all of them where the system does not say (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def max_open_files() -> int:
    """How many files this process may have open, once it has taken what the system lets it take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES_NEEDED and soft != hard:
        wanted = OPEN_FILES_NEEDED if hard == resource.RLIM_INFINITY else min(OPEN_FILES_NEEDED, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


def check_open_files() -> None:
    """Raises `ValueError` where Ray's processes, which take the limit over, could not open what they need."""
    if (found := max_open_files()) < OPEN_FILES_NEEDED:
        raise ValueError(
            f"open files: this process may open {found}, and Ray needs {OPEN_FILES_NEEDED}; raise the limit "
            f"(`ulimit -n {OPEN_FILES_NEEDED}` before the command, or LimitNOFILE of the service)"
        )


def check_ray_folder() -> None:
    """Raises `ValueError` where the folder that Ray takes for its sockets has too long a path for them."""
    variable = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(os.fsencode(folder)) > _LONGEST_RAY_FOLDER:
        raise ValueError(
            f"{variable} = {folder!r}: is too long, for a socket's path ends at 107 bytes and Ray adds some 70; set "
            f"RAY_TMPDIR to a folder of at most {_LONGEST_RAY_FOLDER} bytes"
        )


def describe() -> dict[str, Any]:
    """Host name, processor and cores, as they stand beside every number of a sweep."""
    return {"host": socket.gethostname(), "cpu": _cpu_name(), "num_cpus": num_cores()}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
