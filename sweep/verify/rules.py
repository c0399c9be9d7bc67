"""The three rules of successive halving once more, the slow and plain way, over the arrivals of a whole journal.

In: a `JournalRows`. Out: an `Expected`: what the rule says of each arrival, and who earned a place when. Written from
what sweep/scheduling/asha.py says it does, not from how it does it; agreement of the two is what I6 asks for.
Everything is counted anew at each arrival, with sorted lists and `numpy.percentile`.

* Asynchronous stopping: an arrival stops if its error is above the 1/eta quantile of the errors that came to its rung
  before it; the first one goes on. It is among the worst if it stops, and no more than a tenth of those that have
  come, itself included, are as bad as it is.
* Asynchronous promotion: of the n that have arrived at a rung, the best n // eta have earned their place, and keep it;
  ties go to who counted there first. A closing takes the chance from all that have not.
* Synchronous: when all that can come to a rung have come or are gone, its best n // eta go on, one at least; ties go to
  the lower trial id. To the first rung can come all of the cohort, to a later one those that earned their place at the
  one before. Gone are trials that failed, diverged or were cancelled.

Everywhere: an error that is missing ranks last and never goes on; cohorts and rungs are apart. Who comes to a rung by
being exempt counts there once it has earned its place at the rungs before; if it has lost one, it loses all further
ones.
"""

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from sweep.verify.journal import JournalRows, Row

Place = tuple[str, int]
"""A trial's id, and a rung in epochs."""

CONTINUE, STOP, PAUSE = "continue", "stop", "pause"
_GONE = ("failed", "diverged", "cancelled")


@dataclass(frozen=True)
class Verdict:
    """What an arrival led to. `decisions`: what may have been done at once (one, except where the journal's clock
    cannot tell what came first); `would_stop`: as it stands now; `among_worst` of its rung."""

    would_stop: bool | None
    decisions: frozenset[str]
    cutoff_pct: float | None = None
    among_worst: bool = False


@dataclass
class Expected:
    """`earned`: place -> the first and the last arrival after which it can have been earned."""

    verdicts: dict[Place, Verdict] = field(default_factory=dict)
    earned: dict[Place, tuple[int, int]] = field(default_factory=dict)


def expect(journal: JournalRows) -> Expected:
    """Of the study's `stopping.method`."""
    return RULES[journal.stopping["method"]](journal)


def _rank(row: Row) -> float:
    return math.inf if row["error_pct"] is None else row["error_pct"]


def _place(row: Row) -> Place:
    return row["trial_id"], row["rung_epochs"]


def _done(row: Row, would_stop: bool | None) -> frozenset[str]:
    """What is done with a trial of which this is known: the lottery's train on whatever it is."""
    if row["audited"]:
        return frozenset({CONTINUE})
    return frozenset({PAUSE if would_stop is None else STOP if would_stop else CONTINUE})


# -- asynchronous stopping ---------------------------------------------------------------------------------------------


def _stopping(journal: JournalRows) -> Expected:
    eta, expected = journal.stopping["reduction_factor"], Expected()
    errors: dict[tuple[str, int], list[float]] = defaultdict(list)
    lost: set[str] = set()
    for row in journal.decisions:
        if row["trial_id"] in lost:
            expected.verdicts[_place(row)] = Verdict(True, _done(row, True))
            continue
        earlier = errors[row["cohort"], row["rung_epochs"]]
        cutoff = quantile(earlier, eta)
        # Who is beside the cutoff by less than the rounding of its interpolation is judged by the recorded one.
        recorded = row["cutoff_pct"]
        bar = recorded if recorded is not None and cutoff is not None and near(recorded, cutoff) else cutoff
        would_stop = row["error_pct"] is None or (bar is not None and row["error_pct"] > bar)
        if would_stop:
            lost.add(row["trial_id"])
        shown = None if cutoff is None or math.isinf(cutoff) else cutoff
        earlier.append(_rank(row))
        num_as_bad = sum(error >= _rank(row) for error in earlier)
        among_worst = would_stop and 10 * num_as_bad <= len(earlier)
        expected.verdicts[_place(row)] = Verdict(would_stop, _done(row, would_stop), shown, among_worst)
    return expected


def quantile(errors: list[float], eta: int) -> float | None:
    """The 1/eta quantile, interpolated linearly; infinite where it touches an error that is. None of no errors."""
    if not errors:
        return None
    low, remainder = divmod(len(errors) - 1, eta)
    needed = sorted(errors)[low + (remainder > 0)]
    if math.isinf(needed):
        return needed
    return float(np.percentile(np.minimum(errors, needed), 100 / eta))


def near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)


# -- asynchronous promotion --------------------------------------------------------------------------------------------


def _promotion(journal: JournalRows) -> Expected:
    eta, expected = journal.stopping["reduction_factor"], Expected()
    closed_after = {row["after_arrival"] for row in journal.closings}
    places: dict[str, set[Place]] = defaultdict(set)  # of each trial, where it has arrived
    counted: dict[tuple[str, int], list[Row]] = defaultdict(list)
    waiting: list[Row] = []  # to count
    earned: dict[Place, int] = {}
    lost: set[Place] = set()
    too_late: set[Place] = set()
    for row in journal.decisions:
        if places[row["trial_id"]] & lost:
            too_late.add(_place(row))
        else:
            waiting.append(row)
        places[row["trial_id"]].add(_place(row))
        while able := [each for each in waiting if _below(each, places) <= earned.keys()]:
            waiting.remove(able[0])
            here = counted[able[0]["cohort"], able[0]["rung_epochs"]]
            here.append(able[0])
            best = sorted(here, key=_rank)[: len(here) // eta]  # stable: ties in the order in which they counted
            for place in (_place(each) for each in best if each["error_pct"] is not None):
                if place not in lost:
                    earned.setdefault(place, row["arrival"])
        if row["arrival"] in closed_after:
            lost |= {_place(each) for each in (*chain(*counted.values()), *waiting)} - earned.keys()
            waiting = []
    for row in journal.decisions:
        place, is_over = _place(row), row["error_pct"] is None or _place(row) in too_late
        at_once = True if is_over else False if earned.get(place) == row["arrival"] else None
        would_stop = False if place in earned else True if place in lost or is_over else None
        expected.verdicts[place] = Verdict(would_stop, _done(row, at_once))
    expected.earned = {place: (arrival, arrival) for place, arrival in earned.items()}
    return expected


def _below(row: Row, places: dict[str, set[Place]]) -> set[Place]:
    """The places at lower rungs, which a trial must have earned to count at this one."""
    return {place for place in places[row["trial_id"]] if place[1] < row["rung_epochs"]}


# -- synchronous -------------------------------------------------------------------------------------------------------

Span = tuple[float, float]
"""The earliest and the latest that something can have happened, counted in arrivals: 3 with the third one, 3.5 between
it and the fourth."""


def _synchronous(journal: JournalRows) -> Expected:
    expected = Expected()
    cohorts: dict[str, list[Row]] = defaultdict(list)
    for trial in journal.trials:
        cohorts[trial["cohort"]].append(trial)
    arrived: dict[tuple[str, int], dict[str, Row]] = defaultdict(dict)
    for row in journal.decisions:
        arrived[row["cohort"], row["rung_epochs"]][row["trial_id"]] = row
    departures = _departures(journal)
    for cohort, trials in cohorts.items():
        able: set[str] | None = {trial["trial_id"] for trial in trials}
        since: Span = (0, 0)
        for rung in journal.rungs_of(trials[0]):  # a cohort is of one scale
            here = arrived[cohort, rung]
            if able is not None and able <= here.keys() | departures.keys():
                counted = {trial_id: row for trial_id, row in here.items() if trial_id in able}
                since = _decided(counted, able, departures, since)
                able = _best(counted, journal.stopping["reduction_factor"])
                expected.earned |= {(trial_id, rung): (int(since[0]), int(since[1])) for trial_id in able}
                expected.verdicts |= {_place(row): _judged(row, able, since) for row in here.values()}
            else:  # nor is any later rung decided
                able = None
                expected.verdicts |= {_place(row): _waiting(row) for row in here.values()}
    return expected


def _departures(journal: JournalRows) -> dict[str, Span]:
    """When each trial that is gone left: with its last arrival if it diverged there, else by the journal's clock."""
    moments = [row["decided_at_ms"] for row in journal.decisions]
    without_error = {row["trial_id"]: row["arrival"] for row in journal.decisions if row["error_pct"] is None}
    found: dict[str, Span] = {}
    for trial in journal.trials:
        if trial["outcome"] not in _GONE:
            continue
        arrival, ended_at_ms = without_error.get(trial["trial_id"]), trial["ended_at_ms"]
        if journal.is_recovered or ended_at_ms is None:
            found[trial["trial_id"]] = (0, len(moments) + 0.5)
        elif arrival is not None:
            found[trial["trial_id"]] = (arrival, arrival)
        else:
            earliest, latest = bisect_left(moments, ended_at_ms), bisect_right(moments, ended_at_ms)
            found[trial["trial_id"]] = (earliest + 0.5, latest + 0.5)
    return found


def _decided(counted: dict[str, Row], able: set[str], departures: dict[str, Span], since: Span) -> Span:
    """When the last of those that can come to a rung had come or gone, and the rung before it was decided."""
    spans = [since, *((row["arrival"], row["arrival"]) for row in counted.values())]
    spans += [departures[trial_id] for trial_id in able - counted.keys()]
    return max(span[0] for span in spans), max(span[1] for span in spans)


def _best(here: dict[str, Row], eta: int) -> set[str]:
    ranked = sorted((row["error_pct"], trial_id) for trial_id, row in here.items() if row["error_pct"] is not None)
    return {trial_id for _, trial_id in ranked[: max(1, len(here) // eta)]}


def _judged(row: Row, best: set[str], since: Span) -> Verdict:
    would_stop = row["trial_id"] not in best
    decisions = _waiting(row).decisions if since[1] > row["arrival"] else frozenset()
    if since[0] <= row["arrival"]:
        decisions |= _done(row, would_stop)
    return Verdict(would_stop, decisions)


def _waiting(row: Row) -> Verdict:
    """Its rung is not decided; only who has no error is known to have lost."""
    would_stop = True if row["error_pct"] is None else None
    return Verdict(would_stop, _done(row, would_stop))


def _none(journal: JournalRows) -> Expected:
    return Expected()


RULES: dict[str, Callable[[JournalRows], Expected]] = {
    "asha": _stopping,
    "asha_promotion": _promotion,
    "synchronous": _synchronous,
    "none": _none,
}
