"""Checkpoints of a trial: its state after an epoch together with that epoch's result.

In: a store of the trial's own (sweep/training/store.py). Out: blobs `epoch-0002.<sha256, 16 digits>.pt`; the newest
one whose hash is right is loaded, with `weights_only=True`, so that reading never runs code. The result lies beside
the state because a process can die between the checkpoint and the report of its result: whoever resumes reports it
again.
"""

import hashlib
import io
import re

import torch

from sweep.training.store import Store
from sweep.training.trial import EpochResult, Trial

_NAME = re.compile(r"epoch-(\d+)\.([0-9a-f]{16})\.pt")
_KEPT = 2


def save(store: Store, trial: Trial, result: EpochResult) -> None:
    """Write the state after `result.epoch`; the last two stay, in case the newest turns out to be damaged."""
    buffer = io.BytesIO()
    torch.save({"state": trial.state_dict(), "result": result.to_dict()}, buffer)
    content = buffer.getvalue()
    store.write(f"epoch-{result.epoch:04d}.{_digest(content)}.pt", content)
    for _, stale in _list(store)[_KEPT:]:
        store.remove(stale)


def forget_after(store: Store, epoch: int) -> None:
    """Remove what lies beyond `epoch`: a journal rebuilt from MLflow may know less than the checkpoints."""
    for name in store.names():
        if (match := _NAME.fullmatch(name)) and int(match[1]) > epoch:
            store.remove(name)


def load_newest(store: Store, trial: Trial) -> EpochResult | None:
    """Restore the newest intact checkpoint into `trial`; answers its epoch's result, or None where there is none."""
    for digest, name in _list(store):
        content = store.read(name)
        if _digest(content) != digest:
            continue
        saved = torch.load(io.BytesIO(content), weights_only=True, map_location=trial.device)
        trial.load_state_dict(saved["state"])
        return EpochResult(**saved["result"])
    return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _list(store: Store) -> list[tuple[str, str]]:
    """(digest, name) of the checkpoints, newest epoch first."""
    found = [(match, name) for name in store.names() if (match := _NAME.fullmatch(name))]
    found.sort(key=lambda item: int(item[0][1]), reverse=True)
    return [(match[2], name) for match, name in found]
