"""I6: each decision, promotion and closing is what the rule gives on the journal's own sequence of arrivals.

In: a `JournalRows`. Out: a `Check` over the decisions. Asked of the sequence itself first (each trial arrives once at
each rung that its curve has passed, with the error that it had there), then of what was decided (rules.py).
"""

from sweep.verify.check import Check, some
from sweep.verify.journal import JournalRows, Row
from sweep.verify.outcomes import UNFINISHED
from sweep.verify.rules import Expected, Verdict, expect, near

_SAID = {True: "stop it", False: "let it go on", None: "not be known yet"}


def check_decisions(journal: JournalRows, check: Check) -> None:
    _check_sequence(journal, check)
    for trial in journal.trials:
        _check_curve(journal, trial, check)
    strangers = [
        row
        for row in journal.decisions
        if (its := journal.trial_of.get(row["trial_id"])) and row["rung_epochs"] not in journal.rungs_of(its)
    ]
    check.require(not strangers, f"arrivals at rungs that the study has not: {some(map(_named, strangers))}")
    expected = expect(journal)
    for row in journal.decisions:
        complaints = _complaints(journal, row, expected)
        check.ask(not complaints, f"{_named(row)}: {'; '.join(complaints)}")
    _check_promotions(journal, expected, check)
    _check_closings(journal, check)


def _named(row: Row) -> str:
    arrival = f" (arrival {row['arrival']})" if "arrival" in row else ""
    return f"{row['trial_id']} at the rung of {row['rung_epochs']} epochs{arrival}"


# -- the sequence ------------------------------------------------------------------------------------------------------


def _check_sequence(journal: JournalRows, check: Check) -> None:
    """Numbered without a gap, in the order of their moments, each with what its trial is."""
    numbers = [row["arrival"] for row in journal.decisions]
    missing = set(range(1, max(numbers, default=0) + 1)) - set(numbers)
    check.require(not missing, f"arrivals {some(missing)} of {max(numbers, default=0)} are missing")
    latest: dict[str, Row] = {}
    previous_ms = 0
    for row in journal.decisions:
        trial = journal.trial_of.get(row["trial_id"], row)
        check.require(
            row["cohort"] == trial["cohort"],
            f"{_named(row)}: its cohort is {row['cohort']}, the trial's {trial['cohort']}",
        )
        before = latest.get(row["trial_id"])
        was_audited = before["audited"] if before else trial["audited"]
        is_audited = int(was_audited or (row["among_worst"] and trial.get("audited_if_worst", 0)))
        check.require(
            row["audited"] == is_audited,
            f"{_named(row)}: its audited is {row['audited']}, and the lottery's {is_audited}",
        )
        check.require(
            before is None or before["rung_epochs"] < row["rung_epochs"], f"{_named(row)}: came after a higher rung"
        )
        if not journal.is_recovered:
            check.require(
                row["decided_at_ms"] >= previous_ms, f"{_named(row)}: was decided before the arrival before it"
            )
        latest[row["trial_id"]], previous_ms = row, row["decided_at_ms"]


def _check_curve(journal: JournalRows, trial: Row, check: Check) -> None:
    """The trial's arrivals are those of its curve."""
    trial_id, curve, rungs = trial["trial_id"], journal.curves[trial["trial_id"]], journal.rungs_of(trial)
    arrived_in: dict[int, Row] = {}
    for row in curve:
        if row["val_error_pct"] is None:  # it diverged, and is held against those of the next rung
            rung = next((rung for rung in rungs if rung >= row["epoch"]), None)
        else:
            rung = row["epoch"] if row["epoch"] in rungs else None
        if rung is not None:
            arrived_in[rung] = row
    for rung, row in arrived_in.items():
        decision = journal.decision_at.get((trial_id, rung))
        if check.require(
            decision is not None, f"{trial_id}: was at the rung of {rung} epochs, and nothing was decided"
        ):
            assert decision is not None
            _check_arrival(journal, trial, row, decision, check)
    for rung in rungs:
        lost_epoch = journal.is_recovered and trial["outcome"] not in ("completed", "stopped", "diverged")
        decision = journal.decision_at.get((trial_id, rung))
        if decision is not None and rung not in arrived_in and not lost_epoch:
            check.require(False, f"{_named(decision)}: it was never there; it has {len(curve)} epochs")


def _check_arrival(journal: JournalRows, trial: Row, epoch: Row, decision: Row, check: Check) -> None:
    """What was decided on is what the epoch was; trained on has who was let."""
    together = epoch["recorded_at_ms"] == decision["decided_at_ms"]
    if together or not journal.is_recovered:
        check.require(
            decision["error_pct"] == epoch["val_error_pct"],
            f"{_named(decision)}: was held to have the error {decision['error_pct']}, and its epoch {epoch['epoch']} "
            f"has {epoch['val_error_pct']}",
        )
        check.require(
            together,
            f"{_named(decision)}: was decided at {decision['decided_at_ms']} ms, and its epoch recorded at "
            f"{epoch['recorded_at_ms']} ms: they were not one commit",
        )
    place = (trial["trial_id"], decision["rung_epochs"])
    after = next((row for row in journal.curves[trial["trial_id"]] if row["epoch"] > decision["rung_epochs"]), None)
    if after is None or decision["decision"] == "continue":
        return
    promotion = journal.promoted_at.get(place)
    check.require(promotion is not None, f"{_named(decision)}: was to {decision['decision']}, and trained on")
    if promotion is not None and not journal.is_recovered:
        check.require(
            after["recorded_at_ms"] >= promotion["promoted_at_ms"],
            f"{_named(decision)}: trained on before it had earned its place",
        )


# -- what was decided --------------------------------------------------------------------------------------------------


def _complaints(journal: JournalRows, row: Row, expected: Expected) -> list[str]:
    verdict = expected.verdicts.get((row["trial_id"], row["rung_epochs"]))
    if verdict is None:
        return [f"{journal.stopping['method']} decides nothing there"]
    found = []
    would_stop = None if row["would_stop"] is None else bool(row["would_stop"])
    if row["would_stop"] not in (None, 0, 1) or would_stop != verdict.would_stop:
        found.append(
            f"would_stop is {row['would_stop']}, and the rule would {_SAID[verdict.would_stop]} (error "
            f"{row['error_pct']}, cutoff {verdict.cutoff_pct})"
        )
    if row["among_worst"] != int(verdict.among_worst):
        found.append(f"among_worst is {row['among_worst']}, and the rule's is {int(verdict.among_worst)}")
    if row["decision"] not in verdict.decisions:
        found.append(
            f"the decision was {row['decision']!r}, and the rule's is {' or '.join(sorted(verdict.decisions))}"
        )
    if not _same_cutoff(row["cutoff_pct"], verdict):
        found.append(f"the cutoff was {row['cutoff_pct']}, and the rule's is {verdict.cutoff_pct}")
    was_gone = journal.trial_of.get(row["trial_id"], row).get("outcome") in ("cancelled", "failed")
    if verdict.would_stop is None and _is_over(journal) and not was_gone:
        found.append("all trials have ended, and whether the rule would have stopped it was left open")
    return found


def _same_cutoff(recorded: float | None, verdict: Verdict) -> bool:
    if recorded is None or verdict.cutoff_pct is None:
        return recorded is None and verdict.cutoff_pct is None
    return near(recorded, verdict.cutoff_pct)


def _is_over(journal: JournalRows) -> bool:
    return all(trial["outcome"] not in UNFINISHED for trial in journal.trials)


def _check_promotions(journal: JournalRows, expected: Expected, check: Check) -> None:
    for place in sorted(expected.earned.keys() | journal.promoted_at.keys()):
        row, span = journal.promoted_at.get(place), expected.earned.get(place)
        name = _named({"trial_id": place[0], "rung_epochs": place[1]})
        if row is None or span is None:
            what = "has earned its place, and was not given it" if span else "was given a place, and has not earned it"
            check.ask(False, f"{name}: {what}{f' after arrival {span[0]}' if span else ''}")
            continue
        first, last = span
        arrivals = f"{first}" if first == last else f"{first} to {last}"
        after, promoted_at_ms = row["after_arrival"], row["promoted_at_ms"]
        check.ask(
            first <= after <= last, f"{name}: was promoted after arrival {after}, and has earned it by {arrivals}"
        )
        if not _is_between(journal, after, promoted_at_ms, at_once=journal.stopping["method"] == "asha_promotion"):
            check.require(
                False, f"{name}: was promoted at {promoted_at_ms} ms, which is not the moment of arrival {after}"
            )


def _is_between(journal: JournalRows, arrival: int, moment_ms: int, *, at_once: bool = False) -> bool:
    """Whether a moment is not before an arrival, nor after the next; `at_once`: it is the arrival's own."""
    if journal.is_recovered:
        return True
    low = journal.decisions[arrival - 1]["decided_at_ms"] if 0 < arrival <= len(journal.decisions) else 0
    high = journal.decisions[arrival]["decided_at_ms"] if 0 <= arrival < len(journal.decisions) else moment_ms
    return low <= moment_ms <= (low if at_once else high)


def _check_closings(journal: JournalRows, check: Check) -> None:
    """Those that wait are stopped only when nothing is left to train: who trained before a closing has ended by it, and
    who waited ends with it."""
    for row in journal.closings:
        after, closed_at_ms = row["after_arrival"], row["closed_at_ms"]
        check.ask(
            0 <= after <= len(journal.decisions),
            f"the rungs were closed after arrival {after}, of {len(journal.decisions)}",
        )
        check.require(
            _is_between(journal, after, closed_at_ms),
            f"the rungs were closed at {closed_at_ms} ms, which is not between arrival {after} and the next",
        )
        early = [
            trial["trial_id"]
            for trial in journal.trials
            if (trial["started_at_ms"] or closed_at_ms) < closed_at_ms
            and (curve := journal.curves[trial["trial_id"]])
            and curve[-1]["recorded_at_ms"] > closed_at_ms
        ]
        check.require(
            journal.is_recovered or not early,
            f"the rungs were closed after arrival {after}, while {some(early)} trained",
        )
    moments = {row["closed_at_ms"] for row in journal.closings}
    if journal.stopping["method"] == "asha_promotion" and not journal.is_recovered:
        for trial in (trial for trial in journal.trials if trial["outcome"] == "stopped"):
            check.require(
                trial["ended_at_ms"] in moments,
                f"{trial['trial_id']}: was stopped at {trial['ended_at_ms']} ms, when no rungs were closed",
            )
