"""The stopping decisions: successive halving in three modes, pure Python, no clock, no Ray, no randomness.

In: arrivals `(cohort, rung, trial, error)` in their order. Out: for each, what the rule says, and for which trials it
decided something by it. The Tune scheduler, the forecast and the recovery all call it; a resumed sweep rebuilds it
from the journal. Rungs are kept per cohort, so that one space never stops another's trials; an error that is NaN or
None ranks as the worst and never goes on; ties go to who arrived first.

Who trains on though the rule did not let it (the lottery exempts some) arrives at further rungs, where it would not be:
it is ranked there with nobody, and the rule wants to end it there, too. So the lottery changes nothing for the others:
they are judged as without it. Were it ranked, a tenth of exempt trials would fill the upper rungs with bad ones, and a
sweep of 200 trials would let twice as many train to the end.

* `Asha`, asynchronous stopping (the form of Ray's `AsyncHyperBandScheduler`): a trial that arrives at a rung stops if
  its error is above the 1/eta quantile (interpolated) of the errors that arrived there before it. The first arrival
  and ties go on.
* `Promotion`, asynchronous promotion (Li et al. 2020, *A System for Massively Parallel Hyperparameter Tuning*,
  algorithm 2): a trial waits at a rung until it is among the best n // eta of the n that have arrived there. An arrival
  can earn one place at most, and frees the worker that trains for it; so promoting at once is what the paper's workers
  do, who ask when they are free.
* `Synchronous` halving (Jamieson and Talwalkar 2016): a rung is decided when all its trials have arrived or left; the
  best n // eta of the n arrived, one at least, go on. What it decides does not depend on the order of arrival.

Deviations from Ray's: Ray lets NaN pass for ever and dies of None; its rungs come from a floating-point logarithm that
can lose one, ours are exact integers (`Stopping.rungs`); there is one bracket.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

CONTINUE, STOP, PAUSE = "continue", "stop", "pause"

WORST = 10
"""The worst of so many are `among_worst`."""

Place = tuple[int, str]
"""A rung in epochs, and a trial's id."""

Arrival = tuple[str, int, str, float | None]
"""Cohort, rung in epochs, trial, error in percent."""


@dataclass(frozen=True)
class Judgement:
    """What an arrival led to.

    `would_stop` of the trial that arrived, None while it waits; `cutoff_pct` is the error above which it stops, where
    the rule has one; `among_worst`: whether it stops as one of the worst tenth that have arrived there so far, itself
    included, ties as the last of them. `earned` and `lost`: places decided by this arrival, its own or others'.
    """

    would_stop: bool | None
    cutoff_pct: float | None = None
    among_worst: bool = False
    earned: tuple[Place, ...] = ()
    lost: tuple[Place, ...] = ()


class Rule(Protocol):
    """`pauses`: a trial whose place is not decided waits for it."""

    pauses: bool

    def arrive(self, cohort: str, rung_epochs: int, trial_id: str, error_pct: float | None) -> Judgement: ...

    def leave(self, cohort: str, trial_id: str) -> Judgement:
        """The trial will not arrive anywhere any more: it failed, diverged or was cancelled."""
        ...

    def close(self) -> tuple[Place, ...]:
        """Nothing more will arrive for now: the places of those that wait, lost by it."""
        ...


def next_rung(rungs: tuple[int, ...], epoch: int) -> int | None:
    """The first rung at or after `epoch`: where a trial that diverged in this epoch would have arrived."""
    return next((rung for rung in rungs if rung >= epoch), None)


def _rank(error_pct: float | None) -> float:
    return math.inf if error_pct is None or math.isnan(error_pct) else error_pct


def lower_quantile(ordered: list[float], reduction_factor: int) -> float:
    """The 1/eta quantile by linear interpolation between order statistics, as numpy.percentile has it.

    The position is exact in integers: a float position just beside an order statistic would stop a trial that ties
    with it. Safe with infinities, of which numpy makes NaN.
    """
    low, remainder = divmod(len(ordered) - 1, reduction_factor)
    if remainder == 0 or ordered[low] == ordered[low + 1]:
        return ordered[low]
    return ordered[low] + (ordered[low + 1] - ordered[low]) * (remainder / reduction_factor)


@dataclass
class Asha:
    """Asynchronous stopping. `reduction_factor` eta: about 1/eta of the arrivals at a rung go on."""

    reduction_factor: int
    pauses = False
    _errors: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    _lost: set[str] = field(default_factory=set)

    def arrive(self, cohort: str, rung_epochs: int, trial_id: str, error_pct: float | None) -> Judgement:
        """Judge an arrival against the earlier ones, then add it to them."""
        if trial_id in self._lost:
            return Judgement(True)
        error = _rank(error_pct)
        earlier = self._errors.setdefault((cohort, rung_epochs), [])
        cutoff = lower_quantile(earlier, self.reduction_factor) if earlier else None
        would_stop = math.isinf(error) or (cutoff is not None and error > cutoff)
        if would_stop:
            self._lost.add(trial_id)
        num_no_better = 1 + len(earlier) - bisect_left(earlier, error)
        insort(earlier, error)
        return Judgement(would_stop, cutoff, among_worst=would_stop and WORST * num_no_better <= len(earlier))

    def leave(self, cohort: str, trial_id: str) -> Judgement:
        return Judgement(None)

    def close(self) -> tuple[Place, ...]:
        return ()


@dataclass
class _Rung:
    """Arrivals as (error, number of the arrival, trial), best first; whose place is decided."""

    arrived: list[tuple[float, int, str]] = field(default_factory=list)
    decided: set[str] = field(default_factory=set)


@dataclass
class Promotion:
    """Asynchronous promotion. `reduction_factor` eta: the best 1/eta of those at a rung have earned their place."""

    reduction_factor: int
    pauses = True
    _rungs: dict[tuple[str, int], _Rung] = field(default_factory=dict)
    _num_arrived: int = 0
    # Of each trial whose latest place is not decided: where it has arrived since, by being exempt.
    _ahead: dict[str, list[Arrival]] = field(default_factory=dict)
    _lost: set[str] = field(default_factory=set)

    def arrive(self, cohort: str, rung_epochs: int, trial_id: str, error_pct: float | None) -> Judgement:
        arrival = cohort, rung_epochs, trial_id, error_pct
        if trial_id in self._lost:
            return Judgement(True)
        if trial_id in self._ahead:
            self._ahead[trial_id].append(arrival)
            earned: list[Place] = []
        else:
            earned = self._ranked(arrival)
        is_earned = (rung_epochs, trial_id) in earned
        would_stop = True if math.isinf(_rank(error_pct)) else False if is_earned else None
        return Judgement(would_stop, earned=tuple(earned))

    def leave(self, cohort: str, trial_id: str) -> Judgement:
        return Judgement(None)

    def close(self) -> tuple[Place, ...]:
        lost = [
            (rung_epochs, trial)
            for (_, rung_epochs), rung in self._rungs.items()
            for _, _, trial in rung.arrived
            if trial not in rung.decided
        ]
        for rung in self._rungs.values():
            rung.decided.update(trial for _, _, trial in rung.arrived)
        lost += [(rung_epochs, trial) for ahead in self._ahead.values() for _, rung_epochs, trial, _ in ahead]
        self._lost.update(trial for _, trial in lost)
        self._ahead.clear()
        return tuple(lost)

    def _ranked(self, arrival: Arrival) -> list[Place]:
        """The places that are earned by it, its own or others': who earns one is ranked at the next rung, too, if it is
        there already."""
        cohort, rung_epochs, trial_id, error_pct = arrival
        rung = self._rungs.setdefault((cohort, rung_epochs), _Rung())
        ranked = (_rank(error_pct), self._num_arrived, trial_id)
        self._num_arrived += 1
        places_before = len(rung.arrived) // self.reduction_factor
        insort(rung.arrived, ranked)
        places = len(rung.arrived) // self.reduction_factor
        # Only the newcomer can have moved into the places that there were; one more place goes to the next in rank.
        is_placed = bisect_left(rung.arrived, ranked) < places
        near = [ranked] if is_placed else rung.arrived[places_before:places]
        promoted = [trial for error, _, trial in near if math.isfinite(error) and trial not in rung.decided]
        rung.decided.update(promoted)
        if trial_id not in promoted:
            self._ahead.setdefault(trial_id, [])
        earned = [(rung_epochs, trial) for trial in promoted]
        for trial in promoted:
            ahead = self._ahead.pop(trial, [])
            if ahead:
                self._ahead[trial] = ahead[1:]
                earned += self._ranked(ahead[0])
        return earned


class Cohort(NamedTuple):
    """`rungs` in epochs; `members`: its trials."""

    rungs: tuple[int, ...]
    members: Collection[str]


@dataclass
class Synchronous:
    """Synchronous halving of cohorts that are known whole.

    Ties go by name: the order of arrival must not count.
    """

    reduction_factor: int
    cohorts: Mapping[str, Cohort]
    pauses = True
    _errors: dict[tuple[str, int], dict[str, float]] = field(default_factory=dict)
    _gone: dict[str, set[str]] = field(default_factory=dict)
    # Of each cohort, the number of its first rung that is not decided, who may come there, and who of them has yet to.
    _undecided: dict[str, tuple[int, set[str], set[str]]] = field(default_factory=dict)

    def arrive(self, cohort: str, rung_epochs: int, trial_id: str, error_pct: float | None) -> Judgement:
        error = _rank(error_pct)
        number, _, _ = self._state(cohort)
        if rung_epochs in self.cohorts[cohort].rungs[:number]:  # it comes late, for it need not have come
            return Judgement(True, lost=((rung_epochs, trial_id),))
        self._errors.setdefault((cohort, rung_epochs), {})[trial_id] = error
        earned, lost = self._decide(cohort, trial_id, rung_epochs)
        would_stop = True if math.isinf(error) else None
        if (rung_epochs, trial_id) in (*earned, *lost):
            would_stop = (rung_epochs, trial_id) in lost
        return Judgement(would_stop, earned=earned, lost=lost)

    def leave(self, cohort: str, trial_id: str) -> Judgement:
        self._gone.setdefault(cohort, set()).add(trial_id)
        earned, lost = self._decide(cohort, trial_id, None)
        return Judgement(None, earned=earned, lost=lost)

    def close(self) -> tuple[Place, ...]:
        return ()

    def _state(self, cohort: str) -> tuple[int, set[str], set[str]]:
        if cohort not in self._undecided:
            members = self.cohorts[cohort].members
            self._undecided[cohort] = 0, set(members), set(members)
        return self._undecided[cohort]

    def _decide(
        self, cohort: str, trial_id: str, rung_epochs: int | None
    ) -> tuple[tuple[Place, ...], tuple[Place, ...]]:
        """Wait no longer for the trial, which has arrived at this rung or is gone, and decide each rung of which all
        have arrived that can: one may complete the next. Who is missing is remembered, so that an arrival costs little
        in a large cohort."""
        earned: list[Place] = []
        lost: list[Place] = []
        rungs = self.cohorts[cohort].rungs
        number, ranked, missing = self._state(cohort)
        if number < len(rungs) and rung_epochs in (None, rungs[number]):
            missing.discard(trial_id)
        while not missing and number < len(rungs):
            arrived = self._errors.get((cohort, rungs[number]), {})
            best = self._best({trial: error for trial, error in arrived.items() if trial in ranked})
            earned += [(rungs[number], trial) for trial in sorted(best)]
            lost += [(rungs[number], trial) for trial in sorted(arrived.keys() - best)]
            number, ranked = number + 1, best
            ahead = self._errors.get((cohort, rungs[number]), {}) if number < len(rungs) else {}
            missing = ranked - self._gone.get(cohort, set()) - ahead.keys()
        self._undecided[cohort] = number, ranked, missing
        return tuple(earned), tuple(lost)

    def _best(self, errors: Mapping[str, float]) -> set[str]:
        ranked = sorted((error, trial) for trial, error in errors.items() if math.isfinite(error))
        return {trial for _, trial in ranked[: max(1, len(errors) // self.reduction_factor)]}


def rule_of(method: str, reduction_factor: int, cohorts: Mapping[str, Cohort]) -> Rule:
    """The rule of a study's `stopping.method`; only the synchronous one asks who is in a cohort."""
    if method == "synchronous":
        return Synchronous(reduction_factor, cohorts)
    return Promotion(reduction_factor) if method == "asha_promotion" else Asha(reduction_factor)


def replay(
    rule: Rule, arrivals: Iterable[Arrival], closed_after: Iterable[int], gone: Iterable[tuple[str, str]]
) -> None:
    """Bring a fresh rule to where a sweep stood: its arrivals in order, the numbers of those (from 1) after which it
    was closed, and (cohort, trial) of those that left."""
    closings = set(closed_after)
    for number, arrival in enumerate(arrivals, start=1):
        rule.arrive(*arrival)
        if arrival[3] is None:  # it has diverged, and arrives nowhere any more
            rule.leave(arrival[0], arrival[2])
        if number in closings:
            rule.close()
    for cohort, trial_id in gone:
        rule.leave(cohort, trial_id)
