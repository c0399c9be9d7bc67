"""Schedulers to compare: the sweep's own three modes and others', all as rules that `replay.play` can ask.

In: a `Design` (scheduler and its numbers), whom each trial belongs with. Out: a `Schedule`: the rule,
and for each trial its cohort and that cohort's rungs.

* "asha", "asha_promotion": the rules of asha.py; "successive_halving": its `Synchronous` one.
* "hyperband" (Li et al. 2018, *Hyperband: a novel bandit-based approach to hyperparameter optimization*, algorithm 1):
  brackets of synchronous halving whose grace periods are 1, eta, eta² … times the shortest, the last without any
  stopping. Deviation: the number of trials is given, and shared among the brackets in the paper's proportions.
* "median" (Golovin et al. 2017, *Google Vizier: a service for black-box optimization*, section 3.2.2): after every
  epoch.
* "random": no stopping, but of fewer networks (sweep/scheduling/simulation/simulate.py says of how many); "none": of
  all.
"""

import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from itertools import product
from typing import Any

from sweep.scheduling.asha import Cohort, Judgement, Place, Rule, Synchronous, lower_quantile, rule_of
from sweep.scheduling.simulation.replay import names
from sweep.studies import Stopping

SCHEDULERS = ("asha", "asha_promotion", "successive_halving", "hyperband", "median", "random", "none")
# What a study calls them; the others are no method of a sweep.
METHODS = {"asha": "asha", "asha_promotion": "asha_promotion", "successive_halving": "synchronous", "none": "none"}


# Which numbers some schedulers heed, where they do not heed all: designs that differ by another are the same.
_ALWAYS = ("num_trials", "num_workers")
_HEEDED = {"none": _ALWAYS, "median": (*_ALWAYS, "grace_epochs", "audit_fraction")}


@dataclass(frozen=True)
class Design:
    """A scheduler and its numbers, as in a study's `[stopping]`; `num_trials` of each space on `num_workers`."""

    scheduler: str
    max_epochs: int
    grace_epochs: int
    reduction_factor: int
    audit_fraction: float
    num_trials: int
    num_workers: int

    @property
    def rungs(self) -> tuple[int, ...]:
        """Of its longest bracket; "median" judges after each of these epochs."""
        if self.scheduler in ("none", "random"):
            return ()
        if self.scheduler == "median":
            return tuple(range(1, self.max_epochs))
        return Stopping(
            max_epochs=self.max_epochs, grace_epochs=self.grace_epochs, reduction_factor=self.reduction_factor
        ).rungs

    def lottery(self, *, among_worst: bool) -> float:
        """The share of the networks that it exempts, of those among the worst of a rung or of others."""
        method: Any = METHODS.get(self.scheduler, "none")
        return Stopping(method=method, audit_fraction=self.audit_fraction).lottery(among_worst=among_worst)

    @property
    def heeded(self) -> dict[str, Any]:
        """The numbers that its scheduler heeds, by name."""
        names = _HEEDED.get(self.scheduler, (*_ALWAYS, "reduction_factor", "grace_epochs", "audit_fraction"))
        return {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def designs_of(
    schedulers: Sequence[str],
    *,
    max_epochs: int,
    grace_epochs: Sequence[int],
    reduction_factors: Sequence[int],
    audit_fractions: Sequence[float],
    num_trials: Sequence[int],
    num_workers: Sequence[int],
) -> list[Design]:
    """Each combination once, in the order given. Raises `ValueError` naming what cannot be, and what can."""
    for name in schedulers:
        if name not in SCHEDULERS:
            near = get_close_matches(name, SCHEDULERS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(SCHEDULERS)}"
            raise ValueError(f"scheduler: {name!r} is none that can be simulated; {hint}")
    for values, name, least, what in (
        (grace_epochs, "grace", 1, "epochs"),
        (reduction_factors, "eta", 2, "as a reduction factor"),
        (num_trials, "trials", 2, "networks of each space"),
        (num_workers, "workers", 1, "workers"),
    ):
        if min(values) < least:
            raise ValueError(f"{name}: {min(values)} is too few; give {least} or more {what}")
    if max(grace_epochs) > max_epochs:
        raise ValueError(
            f"grace: {max(grace_epochs)} epochs are more than the full budget of {max_epochs}; a trial must be able to "
            "outlive its grace period"
        )
    if not all(0 <= share <= 1 for share in audit_fractions):
        raise ValueError(f"audit: {max(audit_fractions, key=abs)} is no share; give 0 to 1, such as 0.1")
    combinations = product(schedulers, num_trials, num_workers, reduction_factors, grace_epochs, audit_fractions)
    designs: dict[tuple[Any, ...], Design] = {}
    for scheduler, trials, workers, eta, grace, audit in combinations:
        design = Design(scheduler, max_epochs, grace, eta, audit, trials, workers)
        designs.setdefault((scheduler, *design.heeded.values()), design)
    return list(designs.values())


@dataclass(frozen=True)
class Schedule:
    """A rule, the cohort of each trial, and the rungs of each cohort."""

    rule: Rule
    cohorts: list[str]
    rungs: dict[str, tuple[int, ...]]


def schedule(design: Design, spaces: Sequence[str]) -> Schedule:
    """`spaces`: whom each trial is ranked with."""
    rungs, eta = design.rungs, design.reduction_factor
    if design.scheduler == "hyperband":
        return _hyperband(rungs, eta, spaces)
    if design.scheduler == "median":
        rule: Rule = Median(design.grace_epochs)
    elif design.scheduler == "successive_halving":
        rule = Synchronous(eta, {name: Cohort(rungs, known) for name, known in _members(spaces).items()})
    else:
        rule = rule_of(METHODS.get(design.scheduler, "none"), eta, {})
    return Schedule(rule, list(spaces), dict.fromkeys(spaces, rungs))


def _members(cohorts: Sequence[str]) -> dict[str, list[str]]:
    members: dict[str, list[str]] = {}
    for name, cohort in zip(names(len(cohorts)), cohorts):
        members.setdefault(cohort, []).append(name)
    return members


# -- Hyperband -----------------------------------------------------------------------------------------------------


def _hyperband(rungs: tuple[int, ...], eta: int, spaces: Sequence[str]) -> Schedule:
    cohorts = [""] * len(spaces)
    for space in dict.fromkeys(spaces):
        own = [trial for trial, of_space in enumerate(spaces) if of_space == space]
        numbers = [number for number, size in enumerate(bracket_sizes(len(own), len(rungs), eta)) for _ in range(size)]
        for trial, number in zip(own, numbers):
            cohorts[trial] = f"{space}/{number}"
    rungs_of = {cohort: rungs[int(cohort.rpartition("/")[2]) :] for cohort in dict.fromkeys(cohorts)}
    members = _members(cohorts)
    rule = Synchronous(eta, {cohort: Cohort(own, members[cohort]) for cohort, own in rungs_of.items()})
    return Schedule(rule, cohorts, rungs_of)


def bracket_sizes(num_trials: int, num_rungs: int, eta: int) -> list[int]:
    """How many trials start in each bracket: the one with all rungs first, the one with none last.

    A bracket with s rungs holds trials in proportion to eta^s / (s + 1) (Li et al. 2018, algorithm 1, line 3), by
    largest remainders.
    """
    weights = [eta**s / (s + 1) for s in range(num_rungs, -1, -1)]
    shares = [num_trials * weight / sum(weights) for weight in weights]
    sizes = [math.floor(share) for share in shares]
    by_remainder = sorted(range(len(sizes)), key=lambda number: sizes[number] - shares[number])
    for number in by_remainder[: num_trials - sum(sizes)]:
        sizes[number] += 1
    return sizes


# -- the median rule -------------------------------------------------------------------------------------------------

_LEAST_OTHERS = 3


@dataclass
class Median:
    """A trial stops after an epoch if its best error so far is above the median of the others' average errors so far.

    The others are those of its cohort that have reported this epoch before it: as in Ray's `MedianStoppingRule`, those
    that still train count too, and fewer than three decide nothing. It wants to hear of every epoch, also of those
    before `grace_epochs`, at which nobody stops.
    """

    grace_epochs: int
    pauses = False
    _averages: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    _so_far: dict[str, tuple[float, float]] = field(default_factory=dict)  # best, sum
    _lost: set[str] = field(default_factory=set)

    def arrive(self, cohort: str, rung_epochs: int, trial_id: str, error_pct: float | None) -> Judgement:
        if error_pct is None or trial_id in self._lost:
            return Judgement(True)
        best, total = self._so_far.get(trial_id, (math.inf, 0.0))
        best, total = min(best, error_pct), total + error_pct
        self._so_far[trial_id] = best, total
        others = self._averages.setdefault((cohort, rung_epochs), [])
        cutoff = (
            lower_quantile(others, 2) if len(others) >= _LEAST_OTHERS and rung_epochs >= self.grace_epochs else None
        )
        insort(others, total / rung_epochs)
        would_stop = cutoff is not None and best > cutoff
        if would_stop:
            self._lost.add(trial_id)
        return Judgement(would_stop, cutoff)

    def leave(self, cohort: str, trial_id: str) -> Judgement:
        return Judgement(None)

    def close(self) -> tuple[Place, ...]:
        return ()
