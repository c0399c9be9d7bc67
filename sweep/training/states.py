"""The states of a trial by their names, without a look into them: no torch here, for whoever only keeps house.

In: a store of the trial's own. Out: which blobs it holds (sweep/training/checkpoint.py says what their names mean),
and what is to stay of a trial that has ended.
"""

import re
from dataclasses import dataclass

from sweep.training.store import Store

_NAME = re.compile(r"epoch-(\d+)(?:\.step-(\d+))?\.attempt-(\d+)\.([0-9a-f]{16})\.pt")


@dataclass(frozen=True)
class Blob:
    """What a name says. `step` 0: the state after `epoch`; else so many steps into it."""

    name: str
    epoch: int
    step: int
    attempt: int
    digest: str

    @property
    def last_epoch(self) -> int:
        return self.epoch - 1 if self.step else self.epoch


def parsed(names: list[str]) -> list[Blob]:
    """Those of the names that are a state's."""
    matches = [match for name in names if (match := _NAME.fullmatch(name))]
    return [Blob(match[0], int(match[1]), int(match[2] or 0), int(match[3]), match[4]) for match in matches]


def keep_last(store: Store) -> int | None:
    """Of a trial that has ended, keep the state after its last epoch alone; answers its size in bytes."""
    blobs = parsed(store.names())
    last = max((b for b in blobs if not b.step), key=lambda blob: (blob.epoch, blob.attempt), default=None)
    for blob in blobs:
        if blob != last:
            store.remove(blob.name)
    return store.size(last.name) if last else None
