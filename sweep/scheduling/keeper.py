"""Which states stay on disk: the last ones of trials in training or waiting, and those of the sweep's best.

In: trials as they end or begin to wait. Out: stores that are cleared, in the background. So a sweep holds two states
for each trial that is in training or waits at a rung, with one of an epoch's middle, and `keep_best` for good.
"""

import heapq
from collections.abc import Callable
from typing import Any

from sweep.records import Journal
from sweep.records.journal import COMPLETED, ENDED, PAUSED
from sweep.training.states import keep_last


class Keeper:
    """`stores(trial_id)` opens a trial's; `later(function, *arguments)` does something off the critical path."""

    def __init__(self, journal: Journal, stores: Any, keep_best: int, later: Callable[..., Any]):
        self._stores, self._keep_best, self._later = stores, keep_best, later
        self._best = journal.best_trials(keep_best)
        # What a session that was killed did not come to.
        kept = {trial_id for _, trial_id in self._best}
        for trial_id in stores.names():
            row = journal.trial(trial_id)
            if row is not None and row["outcome"] in ENDED and trial_id not in kept:
                self._clear(trial_id)

    def ended(self, trial_id: str, outcome: str, error_pct: float | None) -> None:
        if outcome == PAUSED:
            return
        if outcome == COMPLETED and error_pct is not None:
            self._best.append((error_pct, trial_id))
            self._later(keep_last, self._stores(trial_id))
            worst = sorted(self._best)[self._keep_best :]
            self._best = heapq.nsmallest(self._keep_best, self._best)
            for _, beaten in worst:
                self._clear(beaten)
            return
        self._clear(trial_id)

    def _clear(self, trial_id: str) -> None:
        self._later(self._stores(trial_id).clear)
