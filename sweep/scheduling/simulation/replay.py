"""A sweep replayed under a virtual clock: recorded curves, W workers, and the very rule that schedules real sweeps.

In: the curves of n trials, who is exempt from stopping, in which order trials start, how long each takes for an epoch,
a rule. Out: how far each trial trained, where the rule would have stopped it, and when the last worker was done.

It does what the conductor does, without journal, faults and waiting for a poll. A worker that is free takes the trial
that has earned its place at the highest rung (ties: the earliest in the order), else the next new one, else it waits
for a place to be earned. A trial whose place is earned as it arrives stays with its worker. What is exempt never stops
or waits, but arrives at each rung. When nothing is left to train, the places of those that wait
are lost. A trial that diverges arrives at the next rung as the worst, and leaves.

Nothing happens between two rungs, so a trial jumps from one to the next: the work is that of the arrivals alone. Of
two that arrive at the same time, the one whose stretch to this rung began first arrives first; of those that began
together, the one that was handed out first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from sweep.scheduling.asha import Judgement, Rule, next_rung
from sweep.statistics.samples import Floats


@dataclass(frozen=True)
class Trials:
    """What is replayed; all in the order of the trials, n of them.

    `cohorts`: whom each is ranked with; `rungs` of each cohort, in epochs, rising and below `max_epochs`. `errors_pct`
    (n) after so many epochs, for each rung; `diverged_at` (n): in which epoch, 0 for never; `epoch_s` (n): seconds of
    an epoch. `audited_if_worst`: whether it is exempt where it is among the worst of a rung.
    """

    max_epochs: int
    cohorts: Sequence[str]
    rungs: Mapping[str, tuple[int, ...]]
    errors_pct: Mapping[int, Floats]
    diverged_at: NDArray[np.int64]
    audited: Sequence[bool]
    audited_if_worst: Sequence[bool]
    epoch_s: Floats


@dataclass(frozen=True)
class Course:
    """How it went; arrays of n, in the order of the trials.

    `would_stop_at`: the first rung at which the rule said stop, 0 for none; known of exempt trials too; `among_worst`:
    whether it was among the worst there. `finished`: what the trial reaches at the full budget is known, because it
    trained so long or diverged. `busy_s`: seconds of training of all workers together, of `wall_s` for each.
    """

    epochs: NDArray[np.int64]
    would_stop_at: NDArray[np.int64]
    among_worst: NDArray[np.bool_]
    finished: NDArray[np.bool_]
    wall_s: float
    busy_s: float


def names(num: int) -> list[str]:
    """What a rule knows the trials by: their numbers, as texts in the order of the numbers."""
    return [f"{trial:0{len(str(num))}}" for trial in range(num)]


def play(rule: Rule, trials: Trials, order: Sequence[int], *, num_workers: int = 1) -> Course:
    """Train the trials of `order` (indices), in it. Those that it lacks train no epoch."""
    replay = _Replay(rule, trials, order)
    replay.run(num_workers)
    return replay.course()


class _Replay:
    """One replay, as it goes. Trials are numbers."""

    def __init__(self, rule: Rule, trials: Trials, order: Sequence[int]):
        num = len(trials.cohorts)
        self._rule, self._trials, self._order = rule, trials, order
        self._names = names(num)
        self._place = {trial: place for place, trial in enumerate(order)}
        self._epoch_s = trials.epoch_s.tolist()
        self._errors_pct = {rung: errors.tolist() for rung, errors in trials.errors_pct.items()}
        # Where each ends if no rung ends it.
        self._diverged_at = trials.diverged_at.tolist()
        self._ends = [epoch or trials.max_epochs for epoch in self._diverged_at]
        self._epochs = [0] * num
        self._would_stop_at = [0] * num
        self._among_worst = [False] * num
        self._audited = list(trials.audited)
        self._next = 0  # the place in the order of the next new trial
        self._events: list[tuple[float, int, int]] = []  # (when, number of the stretch, trial), of those that train
        self._num_stretches = 0
        self._ready: list[tuple[int, int, int]] = []  # (-rung that was earned, place in the order, trial)
        self._free = 0
        self._now_s = 0.0

    def run(self, num_workers: int) -> None:
        self._free = num_workers
        self._employ()
        while self._events:
            self._now_s, _, trial = heappop(self._events)
            self._arrive(trial)
            if self._free:
                self._employ()
        for rung, name in self._rule.close():
            self._lose(int(name), rung)

    def course(self) -> Course:
        epochs = np.array(self._epochs, dtype=np.int64)
        return Course(
            epochs=epochs,
            would_stop_at=np.array(self._would_stop_at, dtype=np.int64),
            among_worst=np.array(self._among_worst, dtype=bool),
            finished=epochs == np.array(self._ends, dtype=np.int64),
            wall_s=self._now_s,
            busy_s=float(epochs @ self._trials.epoch_s),
        )

    def _employ(self) -> None:
        """Give each free worker a trial, while there are any."""
        while self._free:
            if self._ready:
                trial = heappop(self._ready)[-1]
            elif self._next < len(self._order):
                trial = self._order[self._next]
                self._next += 1
            else:
                return
            self._free -= 1
            self._train(trial)

    def _train(self, trial: int) -> None:
        """On to its next rung, to the end, or to where it diverges."""
        known, until = self._epochs[trial], self._ends[trial]
        for rung in self._trials.rungs[self._trials.cohorts[trial]]:
            if rung > known:
                until = min(until, rung)
                break
        self._epochs[trial] = until
        self._num_stretches += 1
        when_s = self._now_s + (until - known) * self._epoch_s[trial]
        heappush(self._events, (when_s, self._num_stretches, trial))

    def _arrive(self, trial: int) -> None:
        epoch, cohort, name = self._epochs[trial], self._trials.cohorts[trial], self._names[trial]
        if epoch == self._diverged_at[trial]:
            rung = next_rung(self._trials.rungs[cohort], epoch)
            if rung is not None:
                self._judge(trial, rung, None)
            self._settle(self._rule.leave(cohort, name))
            self._free += 1
        elif epoch == self._ends[trial] or not self._judge(trial, epoch, self._errors_pct[epoch][trial]):
            self._free += 1
        else:
            self._train(trial)

    def _judge(self, trial: int, rung: int, error_pct: float | None) -> bool:
        """Whether it goes on at once."""
        judgement = self._rule.arrive(self._trials.cohorts[trial], rung, self._names[trial], error_pct)
        if judgement.would_stop:
            self._lose(trial, rung)
        if judgement.among_worst:
            self._among_worst[trial] = True
            self._audited[trial] = self._audited[trial] or self._trials.audited_if_worst[trial]
        if judgement.earned or judgement.lost:
            self._settle(judgement, arriving=trial)
        return self._audited[trial] or judgement.would_stop is False

    def _settle(self, judgement: Judgement, arriving: int = -1) -> None:
        """Those whose place was decided by the arrival or end of another."""
        for rung, name in judgement.earned:
            trial = int(name)
            if trial != arriving and not self._audited[trial]:
                heappush(self._ready, (-rung, self._place[trial], trial))
        for rung, name in judgement.lost:
            self._lose(int(name), rung)

    def _lose(self, trial: int, rung: int) -> None:
        known = self._would_stop_at[trial]
        if not known or rung < known:
            self._would_stop_at[trial] = rung
