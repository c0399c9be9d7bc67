"""Two sweeps of one study beside each other: the one that went through faults, and one that was left alone.

In: two `JournalRows`. Out: what differs, for I5 (trials and configurations; in any mode) and for I6 (in synchronous
mode, where nothing may depend on the timing: decisions, places, outcomes and learning curves).
"""

from collections.abc import Iterator
from typing import Any

from sweep.verify.check import Check, some
from sweep.verify.journal import JournalRows, Row

_CONFIGURATION = (
    "space", "scale", "cohort", "draw", "architecture_id", "architecture", "seed", "audited", "audited_if_worst",
    "flops", "params", "activations",
)  # fmt: skip
_CURVE = ("train_loss", "val_loss", "val_error_pct", "learning_rate")


def compare_populations(journal: JournalRows, other: JournalRows, check: Check) -> None:
    """Each trial of both is counted. Launch orders may differ: an extended sweep has the trials of a larger study."""
    known, wanted = journal.trial_of.keys(), other.trial_of.keys()
    for extra, what in ((known - wanted, "more"), (wanted - known, "fewer")):
        check.require(not extra, f"{len(extra)} trials {what} than the other sweep: {some(extra)}")
    for trial_id in sorted(journal.trial_of.keys() & other.trial_of.keys()):
        mine, theirs = journal.trial_of[trial_id], other.trial_of[trial_id]
        differing = [column for column in _CONFIGURATION if mine[column] != theirs[column]]
        check.ask(not differing, f"{trial_id}: {'; '.join(_differences(mine, theirs, differing))}")


def compare_results(journal: JournalRows, other: JournalRows, check: Check) -> None:
    """Of two synchronous sweeps. Which arrival was the last of its rung depends on the timing, so the order of arrivals
    and what was done at once are not compared."""
    methods = [rows.stopping["method"] for rows in (journal, other)]
    if methods != ["synchronous"] * 2:
        check.require(methods[0] == methods[1], f"the method is {methods[0]}, and the other sweep's {methods[1]}")
        return
    check.require(_looks(journal) == _looks(other), "its looks have shown something else than the other sweep's")
    for place in sorted(journal.decision_at.keys() | other.decision_at.keys()):
        rows = [rows.decision_at.get(place) for rows in (journal, other)]
        _compare(f"{place[0]} at the rung of {place[1]} epochs", rows, ("error_pct", "would_stop"), "decision", check)
        placed = [place in rows.promoted_at for rows in (journal, other)]
        check.require(
            placed[0] == placed[1],
            f"{place[0]} at the rung of {place[1]} epochs: has {'a' if placed[0] else 'no'} place, unlike there",
        )
    for trial_id in sorted(journal.trial_of.keys() & other.trial_of.keys()):
        mine, theirs = journal.trial_of[trial_id], other.trial_of[trial_id]
        _compare(trial_id, [mine, theirs], ("outcome",), "trial", check)
        if mine["batch_size"] == theirs["batch_size"]:
            for row, twin in zip(journal.curves[trial_id], other.curves[trial_id]):
                _compare(f"{trial_id} in epoch {row['epoch']}", [row, twin], _CURVE, "epoch", check)


def _looks(journal: JournalRows) -> list[Row]:
    """Without the moments at which they were taken."""
    return [
        {key: value for key, value in look.items() if key != "taken_at_ms"} for look in journal.meta.get("looks", [])
    ]


def _compare(name: str, rows: list[Row | None], columns: tuple[str, ...], what: str, check: Check) -> None:
    mine, theirs = rows
    if mine is None or theirs is None:
        where = "there" if mine is None else "here"
        check.ask(False, f"{name}: the {what} is only {where}")
        return
    differing = [column for column in columns if mine[column] != theirs[column]]
    check.ask(not differing, f"{name}: {'; '.join(_differences(mine, theirs, differing))}")


def _differences(mine: Row, theirs: Row, columns: list[str]) -> Iterator[str]:
    for column in columns:
        values: list[Any] = [mine[column], theirs[column]]
        yield f"its {column} is {values[0]!r}, and {values[1]!r} in the other sweep"
