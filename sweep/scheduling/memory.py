"""How often the kernel has ended a process of this host for want of memory: Linux counts it, others answer 0."""

from pathlib import Path


def num_oom_kills() -> int:
    try:
        text = Path("/proc/vmstat").read_text()
    except OSError:
        return 0
    counts = dict(line.split() for line in text.splitlines())
    return int(counts.get("oom_kill", 0))
