"""What machine this is: its name, its processor, the cores that this process may use."""

import os
import platform
import socket
from pathlib import Path
from typing import Any


def num_cores() -> int:
    """Cores that this process may run on; all of them where the system does not say (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe() -> dict[str, Any]:
    """Host name, processor and cores, as they stand beside every number of a sweep."""
    return {"host": socket.gethostname(), "cpu": _cpu_name(), "num_cpus": num_cores()}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
