"""I1, as far as the journal goes: what it says became of each trial is what its epochs and decisions show.

In: a `JournalRows`. Out: a `Check` over its trials. The other half, that MLflow says the same, is in invariants.py.
"""

from collections.abc import Callable, Iterator

from sweep.verify.check import Check
from sweep.verify.journal import JournalRows, Row

ENDED = ("completed", "stopped", "diverged", "failed", "cancelled")
UNFINISHED = ("pending", "running", "paused")

Complaints = Iterator[str]


def check_outcomes(journal: JournalRows, check: Check) -> None:
    for trial in journal.trials:
        complaints = list(_complaints(journal, trial))
        check.ask(not complaints, f"{trial['trial_id']}: {'; '.join(complaints)}")


def _complaints(journal: JournalRows, trial: Row) -> Complaints:
    outcome, curve = trial["outcome"], journal.curves[trial["trial_id"]]
    if outcome not in TRUTHS:
        yield f"its outcome is {outcome!r}, which there is not"
        return
    numbers = [row["epoch"] for row in curve]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"its epochs are {_ranges(numbers)}, not 1 to {len(numbers)}"
    if curve and (trial["attempts"] < 1 or trial["started_at_ms"] is None):
        yield f"it has {len(curve)} epochs, but {trial['attempts']} attempts and a start at {trial['started_at_ms']}"
    if wrong := [row for row in curve if not 1 <= row["attempt"] <= trial["attempts"]]:
        yield f"its epoch {wrong[0]['epoch']} is of attempt {wrong[0]['attempt']} of {trial['attempts']}"
    if (trial["ended_at_ms"] is not None) != (outcome in ENDED):
        yield f"it is {outcome}, with {trial['ended_at_ms']} as the moment of its end"
    yield from _last_words(journal, trial, curve)
    yield from TRUTHS[outcome](journal, trial, curve)


def _last_words(journal: JournalRows, trial: Row, curve: list[Row]) -> Complaints:
    """What no outcome allows: training on without an error, or without a place."""
    without_error = [row["epoch"] for row in curve if row["val_error_pct"] is None]
    if without_error and (trial["outcome"] != "diverged" or without_error != [curve[-1]["epoch"]]):
        yield f"it is {trial['outcome']} after {len(curve)} epochs, and has no error in epoch {without_error[0]}"
    budget = journal.budget_of(trial)
    if len(curve) > budget:
        yield f"it has {len(curve)} epochs of {budget}"
    elif len(curve) == budget and trial["outcome"] not in ("completed", "diverged"):
        yield f"it is {trial['outcome']}, but has all of its {len(curve)} epochs"
    decision = journal.decision_at.get((trial["trial_id"], len(curve)))
    if decision and decision["decision"] == "stop" and trial["outcome"] not in ("stopped", "diverged"):
        yield f"it is {trial['outcome']}, but was stopped at the rung of {len(curve)} epochs"


def _pending(journal: JournalRows, trial: Row, curve: list[Row]) -> Complaints:
    if curve or trial["attempts"] or trial["started_at_ms"] is not None:
        yield f"it is pending after {trial['attempts']} attempts and {len(curve)} epochs"


def _running(journal: JournalRows, trial: Row, curve: list[Row]) -> Complaints:
    decision = journal.decision_at.get((trial["trial_id"], len(curve)))
    if decision and decision["decision"] == "pause" and decision["would_stop"] != 0:
        yield f"it is running, but has not earned its place at the rung of {len(curve)} epochs"


def _paused(journal: JournalRows, trial: Row, curve: list[Row]) -> Complaints:
    decision = journal.decision_at.get((trial["trial_id"], len(curve)))
    if decision is None or decision["decision"] != "pause":
        yield f"it waits after {len(curve)} epochs, where no decision lets it wait"
    elif decision["would_stop"] is not None:
        what = "lost" if decision["would_stop"] else "earned"
        yield f"it waits at the rung of {len(curve)} epochs, where its place is {what} already"


def _completed(journal: JournalRows, trial: Row, curve: list[Row]) -> Complaints:
    if len(curve) < journal.budget_of(trial):
        yield f"it is completed after {len(curve)} of {journal.budget_of(trial)} epochs"


def _stopped(journal: JournalRows, trial: Row, curve: list[Row]) -> Complaints:
    decision = journal.decision_at.get((trial["trial_id"], len(curve)))
    if decision is None:
        yield f"it was stopped after {len(curve)} epochs, where there is no decision"
    elif decision["decision"] == "continue" or not decision["would_stop"]:
        known = {None: "is not known", 0: "does not hold"}.get(decision["would_stop"], "holds")
        yield (
            f"it was stopped after {len(curve)} epochs, where the decision is {decision['decision']!r} and would_stop "
            f"{known}"
        )
    if trial["audited"] or (decision is not None and decision["audited"]):
        yield "it was stopped, though the lottery exempts it"


def _diverged(journal: JournalRows, trial: Row, curve: list[Row]) -> Complaints:
    if not curve or curve[-1]["val_error_pct"] is not None:
        error = f"has the error {curve[-1]['val_error_pct']} %" if curve else "is not there"
        yield f"it diverged, but its last epoch {error}"


def _failed(journal: JournalRows, trial: Row, curve: list[Row]) -> Complaints:
    if not (trial["failure"] or "").strip():
        yield "it failed, and nothing says of what"


def _cancelled(journal: JournalRows, trial: Row, curve: list[Row]) -> Complaints:
    yield from ()


TRUTHS: dict[str, Callable[[JournalRows, Row, list[Row]], Complaints]] = {
    "pending": _pending,
    "running": _running,
    "paused": _paused,
    "completed": _completed,
    "stopped": _stopped,
    "diverged": _diverged,
    "failed": _failed,
    "cancelled": _cancelled,
}


def _ranges(numbers: list[int]) -> str:
    """`1 to 3, 5`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(str(low) if low == high else f"{low} to {high}" for low, high in parts)
