"""The outbox in the journal: what the tracking server has not been told, and the marks of what it has.

In: an open journal. Out: trials and epochs to deliver; sweep/tracking delivers them and sets the marks.
"""

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

from sweep.records.schema import DELIVERED


class Undelivered:
    """The part of a `Journal` (journal.py) that the outbox works with."""

    _db: sqlite3.Connection
    _write: Callable[[Callable[[int], Any]], Any]

    def mark_delivered(self, trial_id: str, epochs: Iterable[int], outcome: str | None = None) -> None:
        """The tracking server knows these epochs of a trial, and what became of it unless that is None."""
        known = [(trial_id, epoch) for epoch in epochs]

        def body(moment: int) -> None:
            self._db.executemany("UPDATE epochs SET delivered = 1 WHERE trial_id = ? AND epoch = ?", known)
            if outcome is not None:
                self._db.execute("UPDATE trials SET delivered_outcome = ? WHERE trial_id = ?", (outcome, trial_id))

        self._write(body)

    def set_run_id(self, trial_id: str, run_id: str) -> None:
        self._write(
            lambda moment: self._db.execute("UPDATE trials SET run_id = ? WHERE trial_id = ?", (run_id, trial_id))
        )

    def undelivered_trials(self, *, live: bool) -> list[sqlite3.Row]:
        """Trials that the tracking server has not been told of in full. Unless `live`, those that have not ended are
        to be told as interrupted."""
        return self._db.execute(
            "SELECT * FROM trials WHERE outcome != 'pending' AND ("
            " (CASE WHEN ? AND outcome IN ('running', 'paused') THEN 'interrupted' ELSE outcome END)"
            " IS NOT delivered_outcome"
            " OR trial_id IN (SELECT trial_id FROM epochs WHERE delivered = 0)) ORDER BY launch_order",
            (not live,),
        ).fetchall()

    def last_host_of(self, trial_id: str) -> str | None:
        """The host that trained the trial's last epoch."""
        row = self._db.execute(
            "SELECT host FROM epochs WHERE trial_id = ? ORDER BY epoch DESC LIMIT 1", (trial_id,)
        ).fetchone()
        return row and row[0]

    def undelivered_epochs_of(self, trial_id: str) -> list[sqlite3.Row]:
        return self._db.execute(
            "SELECT * FROM epochs WHERE delivered = 0 AND trial_id = ? ORDER BY epoch", (trial_id,)
        ).fetchall()

    def undelivered_leaves(self) -> list[sqlite3.Row]:
        """Trials that left before their time, until the tracking server knows their outcome; `after_arrival` counts the
        arrivals before, by their moments, so that it stays what it is; once for all that left at the same one."""
        left = "outcome IN ('failed', 'cancelled') AND outcome IS NOT delivered_outcome"
        return self._db.execute(
            "WITH moments AS MATERIALIZED (SELECT ended_at_ms,"
            " (SELECT count(*) FROM decisions WHERE decided_at_ms < ended_at_ms) AS before"
            f" FROM (SELECT DISTINCT ended_at_ms FROM trials WHERE {left}))"
            " SELECT launch_order, outcome, ended_at_ms, max(before, coalesce("
            "(SELECT max(arrival) FROM decisions WHERE trial_id = trials.trial_id), 0)) AS after_arrival FROM trials"
            f" JOIN moments USING (ended_at_ms) WHERE {left} ORDER BY ended_at_ms"
        ).fetchall()

    def closings_after(self, num: int) -> list[sqlite3.Row]:
        """All but the first `num` closings, with their moments."""
        return self._db.execute("SELECT * FROM closings ORDER BY after_arrival LIMIT -1 OFFSET ?", (num,)).fetchall()

    def latest_ms(self) -> int:
        """The moment of the last commit: none that was recorded is later."""
        return self._db.execute("SELECT latest_ms FROM progress").fetchone()[0]

    def num_undelivered(self) -> int:
        """Epochs and outcomes that the tracking server has not been told; one told as interrupted counts as told."""
        return self._db.execute(
            "SELECT (SELECT count(*) FROM epochs WHERE delivered = 0) + (SELECT count(*) FROM trials"
            " WHERE outcome != 'pending' AND outcome IS NOT delivered_outcome"
            " AND NOT (outcome IN ('running', 'paused') AND delivered_outcome IS 'interrupted'))"
        ).fetchone()[0]

    def forget_trial_delivery(self, trial_id: str, *, run_is_gone: bool) -> None:
        """Take back the marks of one trial: its run is not there any more, or does not hold what it was told."""

        def body(moment: int) -> None:
            self._db.execute(
                "UPDATE trials SET delivered_outcome = NULL, run_id = CASE WHEN ? THEN NULL ELSE run_id END"
                " WHERE trial_id = ?",
                (run_is_gone, trial_id),
            )
            self._db.execute("UPDATE epochs SET delivered = 0 WHERE trial_id = ?", (trial_id,))

        self._write(body)

    def forget_delivery(self) -> None:
        """Take back every mark: the tracking server is another one, or lost what it knew."""

        def body(moment: int) -> None:
            self._db.execute("UPDATE trials SET run_id = NULL, delivered_outcome = NULL")
            self._db.execute("UPDATE epochs SET delivered = 0 WHERE delivered = 1")
            self._db.executemany("DELETE FROM meta WHERE key = ?", [(key,) for key in DELIVERED])

        self._write(body)
