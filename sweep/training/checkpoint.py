"""Checkpoints of a trial: which of its states are kept, and which one whoever goes on may trust.

In: a store of the trial's own (sweep/training/store.py), the number of the attempt that writes, and what the journal
knows. Out: blobs with a name that says what they hold,

    epoch-0002.attempt-003.<sha256, 16 digits>.pt               after epoch 2
    epoch-0003.step-000120.attempt-003.<sha256, 16 digits>.pt   after 120 steps of epoch 3

The second kind names the state that its epoch began from: its `parent`. A state counts if the journal holds its digest,
or that of its parent, so what a worker wrote that was thought dead, or whose result was lost, is passed over. The hash
is compared before anything is read, and then with `weights_only=True`, so that reading never runs code.
"""

import errno
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from sweep.training.states import Blob, parsed
from sweep.training.store import Store
from sweep.training.trial import EpochResult, ForeignStateError

_KEPT_EPOCHS = 2


class Resumable(Protocol):
    """What has a state to keep: a `Trial`, or whatever stands in for one."""

    @property
    def epoch(self) -> int: ...

    @property
    def step(self) -> int: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Resumed:
    """Where a trial goes on: `step` steps into the epoch after `epoch`; epoch 0, step 0 is its beginning.

    `digest`: of the state after `epoch`, the `parent` of what is saved in the middle of the next one. `refused`: a
    sentence for each state that was damaged.
    """

    epoch: int
    step: int
    digest: str | None
    refused: tuple[str, ...]


def save(store: Store, trial: Resumable, result: EpochResult, attempt: int) -> str:
    """Write the state after `result.epoch`; answers its digest, for the journal."""
    assert trial.step == 0
    return _save(store, trial, f"epoch-{result.epoch:04d}", attempt, {"result": result.to_dict()})


def save_partial(store: Store, trial: Resumable, attempt: int, parent: str | None) -> str:
    """Write the state at a `Tick`. `parent`: the digest of the state after the epoch before, None in the first."""
    assert trial.step > 0
    return _save(store, trial, f"epoch-{trial.epoch + 1:04d}.step-{trial.step:06d}", attempt, {"parent": parent})


def _save(store: Store, trial: Resumable, what: str, attempt: int, beside: dict[str, Any]) -> str:
    buffer = io.BytesIO()
    torch.save({"state": trial.state_dict(), **beside}, buffer)
    content = buffer.getvalue()
    name = f"{what}.attempt-{attempt:03d}.{_digest(content)}.pt"
    store.write(name, content)
    (written,) = parsed([name])
    for stale in _stale(parsed(store.names()), written):
        store.remove(stale.name)
    return written.digest


def _stale(blobs: list[Blob], written: Blob) -> list[Blob]:
    """What `written` makes superfluous: all but the last two complete epochs, each by the newest attempt that has it.

    Two, because the result of the newest may get lost, and the state before it is then the one that counts. Newer
    attempts are not its business: then it is itself the one that was thought dead.
    """
    blobs = [blob for blob in blobs if blob.attempt <= written.attempt]
    whole = [blob for blob in blobs if not blob.step and blob.epoch <= written.last_epoch]
    kept = {written}
    num_others = _KEPT_EPOCHS if written.step else _KEPT_EPOCHS - 1
    for epoch in sorted({blob.epoch for blob in whole} - {written.epoch})[-num_others:]:
        newest = max(blob.attempt for blob in whole if blob.epoch == epoch)
        kept |= {blob for blob in whole if (blob.epoch, blob.attempt) == (epoch, newest)}
    return [blob for blob in blobs if blob not in kept]


def load(store: Store, trial: Resumable, *, last_epoch: int, known: Mapping[int, str]) -> Resumed:
    """Restore the best state that can be trusted: the furthest up to and in the epoch after `last_epoch`.

    `last_epoch` and the digests of states by epoch, `known`, are the journal's. Where it knows no digest of an epoch,
    any intact state of that epoch counts. Nothing is changed where nothing fits: the trial starts anew.
    """
    look = _Look(store)
    for epoch in range(last_epoch, -1, -1):
        for blob in look.candidates(epoch, known.get(epoch)):
            saved = look.opened(blob)
            if saved is None or not look.is_trusted(blob, saved, known.get(epoch)):
                continue
            try:
                trial.load_state_dict(saved["state"])
            except ForeignStateError as error:
                look.refused[blob.name] = str(error)
                continue
            digest = saved["parent"] if blob.step else blob.digest
            return Resumed(trial.epoch, trial.step, digest, look.sentences(f"{blob.name} is used instead"))
    return Resumed(0, 0, None, look.sentences("the trial starts anew"))


class _Look:
    """One look at a store; `refused` holds why a state was not used, by name."""

    def __init__(self, store: Store):
        self._store, self._blobs = store, parsed(store.names())
        self.refused: dict[str, str] = {}

    def candidates(self, epoch: int, known: str | None) -> list[Blob]:
        """What goes on after `epoch`, the best first: begun epochs, then the state itself."""
        begun = [blob for blob in self._blobs if blob.step and blob.last_epoch == epoch]
        begun.sort(key=lambda blob: (blob.attempt, blob.step), reverse=True)
        return begun + (self._whole(epoch, known) if epoch else [])

    def _whole(self, epoch: int, digest: str | None) -> list[Blob]:
        """The states after `epoch` with that digest, or all where it is None; the newest attempt first."""
        found = [b for b in self._blobs if not b.step and b.epoch == epoch and digest in (None, b.digest)]
        return sorted(found, key=lambda blob: blob.attempt, reverse=True)

    def is_trusted(self, blob: Blob, saved: dict[str, Any], known: str | None) -> bool:
        """Whether an epoch begun began from the state after the epoch before, as far as that can be told."""
        if not blob.step:
            return True
        parent = saved["parent"]
        if blob.last_epoch == 0 or known is not None:
            return parent == known
        return parent is not None and any(self.opened(one) for one in self._whole(blob.last_epoch, parent))

    def opened(self, blob: Blob) -> dict[str, Any] | None:
        """The content of a blob; None where it is damaged, or gone because another host has cleaned up."""
        try:
            return _checked(blob, self._store.read(blob.name))
        except FileNotFoundError:
            return None
        except _DamagedError as error:
            self.refused[blob.name] = str(error)
        except OSError as error:
            if error.errno != errno.EIO:  # a place that is out of reach is no reason to take something older
                raise
            self.refused[blob.name] = "the disk cannot read it"
        return None

    def sentences(self, instead: str) -> tuple[str, ...]:
        return tuple(f"{name} is refused: {why}; {instead}" for name, why in self.refused.items())


class _DamagedError(Exception):
    pass


def _checked(blob: Blob, content: bytes) -> dict[str, Any]:
    if _digest(content) != blob.digest:
        raise _DamagedError(f"its {len(content)} bytes do not have the SHA-256 of its name")
    try:
        saved: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        holds = saved["state"]["epoch"], saved["state"].get("so_far", {}).get("step", 0)
    except Exception as error:  # whatever torch and pickle raise for a file that is none of ours
        raise _DamagedError("it is no state, or none that can be read without running code") from error
    if holds != (blob.last_epoch, blob.step):
        raise _DamagedError("it holds another state than its name says")
    return saved


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
