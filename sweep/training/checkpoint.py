"""Checkpoints of a trial: its state after an epoch together with that epoch's result.

In: a folder of the trial's own, in storage that whoever continues the trial can read. Out: files
`epoch-0002.<sha256, 16 digits>.pt`, written whole or not at all; the newest one whose hash is right is loaded, with
`weights_only=True`, so that reading never runs code. The result lies in the file because a process can die between
the checkpoint and the report of its result: whoever resumes reports it again.
"""

import hashlib
import io
import os
import re
import shutil
from pathlib import Path

import torch

from sweep.training.trial import EpochResult, Trial

_NAME = re.compile(r"epoch-(\d+)\.([0-9a-f]{16})\.pt")
_KEPT = 2


def save(folder: Path, trial: Trial, result: EpochResult) -> None:
    """Write the state after `result.epoch`; the last two stay, in case the newest turns out to be damaged."""
    buffer = io.BytesIO()
    torch.save({"state": trial.state_dict(), "result": result.to_dict()}, buffer)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".draft.{os.getpid()}"
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, folder / f"epoch-{result.epoch:04d}.{digest}.pt")
    for _, stale in _list(folder)[_KEPT:]:
        stale.unlink(missing_ok=True)


def load_newest(folder: Path, trial: Trial) -> EpochResult | None:
    """Restore the newest intact checkpoint into `trial`; answers its epoch's result, or None where there is none."""
    for digest, path in _list(folder):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest()[:16] != digest:
            continue
        saved = torch.load(io.BytesIO(content), weights_only=True, map_location=trial.device)
        trial.load_state_dict(saved["state"])
        return EpochResult(**saved["result"])
    return None


def remove(folder: Path) -> None:
    """The trial has ended: its checkpoints go."""
    shutil.rmtree(folder, ignore_errors=True)


def _list(folder: Path) -> list[tuple[str, Path]]:
    """(digest, path) of the checkpoints, newest epoch first."""
    found = [(match, path) for path in folder.glob("epoch-*.pt") if (match := _NAME.fullmatch(path.name))]
    found.sort(key=lambda item: int(item[0][1]), reverse=True)
    return [(match[2], path) for match, path in found]
