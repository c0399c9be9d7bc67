"""I6 and asha.py, written apart, agree on every sequence; and I6 sees a decision that is not the rule's.

A journal is made by asha.py's rules in each mode, with ties, divergences, failures, cancellations, audits, retries,
interruptions and extensions; the checker's own account of the rules finds nothing wrong with it. Then one decision is
changed, and it does.
"""

import math
import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verify.sweep_maker import IN_MEMORY, Events, MadeUpSweep, extend, made_up_clock, make_journal, study

from sweep.scheduling.asha import Asha, lower_quantile
from sweep.verify.check import Check
from sweep.verify.decisions import check_decisions
from sweep.verify.journal import JournalRows, read_journal
from sweep.verify.outcomes import check_outcomes
from sweep.verify.population import check_population
from sweep.verify.rules import expect, quantile

METHODS = ("asha", "asha_promotion", "synchronous", "none")
CHANCES = st.sampled_from((0.0, 0.0, 0.05, 0.3))
EVENTS = st.builds(
    Events, diverges=CHANCES, fails=CHANCES, retries=CHANCES, cancels=CHANCES, levels=st.sampled_from((1, 3, 10, 5000))
)
STOPPING = st.fixed_dictionaries(
    {
        "reduction_factor": st.integers(2, 4),
        "grace_epochs": st.sampled_from((1, 1, 2)),
        "max_epochs": st.integers(1, 9),
        "trials_per_space": st.sampled_from((1, 2, 4, 9, 25)),
    }
)
SESSIONS = st.lists(st.integers(1, 40), max_size=3)
EXTENSIONS = st.lists(st.integers(1, 4), max_size=2)


def made_up(
    method: str, stopping: dict[str, Any], events: Events, sessions: list[int], extensions: list[int], *, seed: int,
    audit: int, slots: int,
) -> JournalRows:  # fmt: skip
    """A sweep that was interrupted after so many steps, once for each session, came to its end, and was extended."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder, made_up_clock(seed):
        with make_journal(Path(folder), study(method=method, **stopping), audit=audit) as journal:
            for number, steps in enumerate([*sessions, *([10_000] * bool(extensions or seed % 4))]):
                MadeUpSweep(journal, random.Random(seed + number), events, slots).run(steps)
            for num in extensions:
                extend(journal, num)
                MadeUpSweep(journal, random.Random(seed), events, slots).run(seed % 3000)
        return read_journal(Path(folder))


SWEEPS = {
    "stopping": STOPPING, "events": EVENTS, "sessions": SESSIONS, "extensions": EXTENSIONS,
    "seed": st.integers(0, 2**32), "audit": st.sampled_from((0, 1, 2, 5)), "slots": st.integers(1, 5),
}  # fmt: skip


def violations(journal: JournalRows) -> list[str]:
    check = Check()
    check_decisions(journal, check)
    return check.violations


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=60, deadline=None)
@given(sweep=st.fixed_dictionaries(SWEEPS))
def test_what_asha_decides_is_what_the_checker_expects(method, sweep):
    journal = made_up(method, **sweep)
    assert violations(journal) == []
    check = Check()
    check_outcomes(journal, check)
    check_population(journal, check)
    assert check.violations == []
    assert check.num_checked == 2 * len(journal.trials)


@pytest.mark.parametrize("method", METHODS[:3])
@settings(max_examples=60, deadline=None)
@given(
    sweep=st.fixed_dictionaries(SWEEPS), pick=st.integers(0, 10**6), flip=st.sampled_from(("would_stop", "decision"))
)
def test_any_decision_that_is_changed_is_found(method, sweep, pick, flip):
    journal = made_up(method, **sweep)
    if not journal.decisions:
        return
    row = dict(journal.decisions[pick % len(journal.decisions)])
    if flip == "would_stop":
        row[flip] = {None: pick % 2, 0: (1, None)[pick % 2], 1: (0, None)[pick % 2]}[row[flip]]
    else:
        row[flip] = sorted({"continue", "stop", "pause"} - {row[flip]})[pick % 2]
        if len(expect(journal).verdicts[row["trial_id"], row["rung_epochs"]].decisions) > 1:
            return  # a cancellation at the same moment: either may have come first
    decisions = [row if old["arrival"] == row["arrival"] else old for old in journal.decisions]
    assert violations(replace(journal, decisions=decisions))


@pytest.mark.parametrize("method", METHODS[1:3])
@settings(max_examples=40, deadline=None)
@given(sweep=st.fixed_dictionaries(SWEEPS), pick=st.integers(0, 10**6), shift=st.sampled_from((None, -1, 1, 3)))
def test_any_place_that_is_taken_away_or_moved_is_found(method, sweep, pick, shift):
    journal = made_up(method, **sweep)
    if not journal.promotions:
        return
    number = pick % len(journal.promotions)
    row = dict(journal.promotions[number])
    first, last = expect(journal).earned[row["trial_id"], row["rung_epochs"]]
    promotions = [old for index, old in enumerate(journal.promotions) if index != number]
    if shift is not None:
        if first <= row["after_arrival"] + shift <= last:
            return
        promotions.append(row | {"after_arrival": row["after_arrival"] + shift})
    assert violations(replace(journal, promotions=promotions))


def decide(method: str, arrivals: list[tuple[str, int, float | None]], audited: set[str] = frozenset(), **more: Any):
    """What the checker expects of arrivals (trial, rung, error) of one cohort: would_stop of each, and the places."""
    trials = sorted({trial for trial, _, _ in arrivals} | set(more.pop("also", ())))
    gone = more.pop("gone", {})
    stopping = {"method": method, "max_epochs": 9, "grace_epochs": 1, "reduction_factor": more.pop("eta", 2)}
    journal = JournalRows(
        run_dir=Path(),
        meta={"study": {"stopping": stopping, "scale": [{"name": "small"}]}},
        trials=[
            {
                "trial_id": trial, "scale": "small", "cohort": "c", "audited": trial in audited,
                "ended_at_ms": gone.get(trial), "outcome": "failed" if trial in gone else "running",
            }
            for trial in trials
        ],
        epochs=[],
        decisions=[
            {
                "arrival": number, "trial_id": trial, "cohort": "c", "rung_epochs": rung, "error_pct": error,
                "audited": trial in audited, "cutoff_pct": None, "among_worst": 0, "decided_at_ms": 10 * number,
            }
            for number, (trial, rung, error) in enumerate(arrivals, start=1)
        ],
        **more,
    )  # fmt: skip
    expected = expect(journal)
    return [expected.verdicts[t, rung].would_stop for t, rung, _ in arrivals], expected.earned


def test_asynchronous_stopping_by_hand():
    # the medians before each: none, 20, 15, 20, 18.75
    arrivals = [("a", 1, 20.0), ("b", 1, 10.0), ("c", 1, 20.0), ("d", 1, 17.5), ("e", 1, 19.0), ("f", 1, None)]
    assert decide("asha", arrivals) == ([False, False, True, False, True, True], {})


def test_asynchronous_promotion_by_hand():
    """Algorithm 2 of the paper, eta 2: of two the better, of four the two best; None never; a closing ends it."""
    arrivals = [("a", 1, 30.0), ("b", 1, 20.0), ("c", 1, None), ("d", 1, 30.0), ("e", 1, 10.0), ("f", 1, 40.0)]
    would_stop, earned = decide("asha_promotion", arrivals)
    assert would_stop == [False, False, True, None, False, None]
    assert earned == {("b", 1): (2, 2), ("a", 1): (4, 4), ("e", 1): (5, 5)}
    would_stop, earned = decide("asha_promotion", arrivals, closings=[{"after_arrival": 3}])
    assert would_stop == [True, False, True, None, False, None]
    assert earned == {("b", 1): (2, 2), ("e", 1): (5, 5)}


def test_synchronous_by_hand():
    """Five in the cohort, one of them exempt; one fails between the third and the fourth arrival."""
    arrivals = [("a", 1, 30.0), ("b", 1, 20.0), ("x", 1, 90.0), ("x", 3, 80.0), ("d", 1, 20.0)]
    would_stop, earned = decide("synchronous", arrivals[:4], {"x"}, also="e", gone={"e": 35}, eta=3)
    assert (would_stop, earned) == ([True, False, True, None], {("b", 1): (3, 3)})
    would_stop, earned = decide("synchronous", arrivals, {"x"}, also="e", gone={"e": 35}, eta=3)
    assert (would_stop, earned) == ([True, False, True, None, True], {("b", 1): (5, 5)})
    would_stop, earned = decide("synchronous", [*arrivals, ("b", 3, 70.0)], {"x"}, also="e", gone={"e": 65}, eta=3)
    assert would_stop == [True, False, True, True, True, False]
    assert earned == {("b", 1): (6, 6), ("b", 3): (6, 6)}
    would_stop, earned = decide("synchronous", arrivals, {"x"}, also="e", eta=3)
    assert (would_stop, earned) == ([None] * 5, {})


ERRORS = st.lists(st.sampled_from((1.0, 2.5, 10 / 3, 7.1, 90.0, math.inf)) | st.floats(0, 100), min_size=1, max_size=40)


@given(errors=ERRORS, eta=st.integers(2, 7))
def test_the_quantile_is_that_of_asha(errors, eta):
    assert quantile(errors, eta) == pytest.approx(lower_quantile(sorted(errors), eta), rel=1e-12)


def test_no_errors_have_no_quantile():
    assert quantile([], 2) is None
    assert Asha(2).arrive("c", 1, "t", 50.0).cutoff_pct is None
