"""The log of each trial: `logs/<trial>.log` in the run directory, capped, for `sweep logs` and for MLflow if it failed.

In: text as workers and the conductor have it. Out: files of at most `_MAX_BYTES`; of a longer log the beginning stays,
which says how it started, and the end.
"""

import os
from contextlib import suppress
from pathlib import Path

FOLDER = "logs"
_MAX_BYTES = 256_000
_HEAD_BYTES = 32_000
_CUT = b"\n[... cut: the log was longer than it is kept ...]\n"


def log_path(run_dir: Path, trial_id: str) -> Path:
    return run_dir / FOLDER / f"{trial_id}.log"


class TrialLogs:
    def __init__(self, run_dir: Path):
        self._run_dir = run_dir

    def append(self, trial_id: str, text: str) -> None:
        """A log is a help, never a reason to fail: one that cannot be written is not."""
        path = log_path(self._run_dir, trial_id)
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with open(path, "ab") as file:
                file.write(text.encode("utf-8", "replace"))
                size = file.tell()
            if size > _MAX_BYTES:
                _shorten(path)


def _shorten(path: Path) -> None:
    content = path.read_bytes()
    tail = content[-(_MAX_BYTES // 2) :]
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(content[:_HEAD_BYTES].partition(_CUT)[0] + _CUT + tail)
    os.replace(draft, path)
