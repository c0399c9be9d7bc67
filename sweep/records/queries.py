"""What is read from a journal; its tables and columns are explained in schema.py.

In: an open journal. Out: rows, by the names of their columns, and counts.
"""

import sqlite3
from collections.abc import Mapping

from sweep.records.schema import ENDED, UNFINISHED


class Queries:
    """The part of a `Journal` (journal.py) that asks and changes nothing."""

    _db: sqlite3.Connection

    def trials(self, where: str = "1") -> list[sqlite3.Row]:
        return self._db.execute(f"SELECT * FROM trials WHERE {where} ORDER BY launch_order").fetchall()

    def trial(self, trial_id: str) -> sqlite3.Row | None:
        return self._db.execute("SELECT * FROM trials WHERE trial_id = ?", (trial_id,)).fetchone()

    def next_pending(self, after: int) -> sqlite3.Row | None:
        """The first trial that has not begun, in launch order, beyond `after`."""
        return self._db.execute(
            "SELECT trial_id, launch_order FROM trials WHERE outcome = 'pending' AND launch_order > ?"
            " ORDER BY launch_order LIMIT 1",
            (after,),
        ).fetchone()

    def to_cancel(self) -> list[sqlite3.Row]:
        return self._db.execute(
            "SELECT trial_id, cohort FROM trials WHERE cancel_requested = 1"
            " AND outcome IN ('pending', 'running', 'paused')"
        ).fetchall()

    def num_never_begun(self, outcome: str) -> int:
        """How many trials have this outcome, and were never started."""
        return self._db.execute(
            "SELECT count(*) FROM trials WHERE outcome = ? AND attempts = 0", (outcome,)
        ).fetchone()[0]

    def num_on_their_way(self, num_trials: int, epochs: Mapping[str, int]) -> int:
        """How many of the first `num_trials` in launch order have neither ended nor trained for the `epochs` of their
        scale."""
        counts = [
            self._db.execute(
                "SELECT count(*) FROM trials WHERE outcome IN ('pending', 'running', 'paused') AND launch_order < ?"
                " AND scale = ?"
                " AND NOT EXISTS (SELECT 1 FROM epochs WHERE epochs.trial_id = trials.trial_id AND epoch = ?)",
                (num_trials, scale, epoch),
            ).fetchone()[0]
            for scale, epoch in epochs.items()
        ]
        return sum(counts)

    def has_open_places(self) -> bool:
        """Whether some decision on an arrival is still to come."""
        return self._db.execute("SELECT 1 FROM decisions WHERE would_stop IS NULL LIMIT 1").fetchone() is not None

    def is_finished(self) -> bool:
        """Whether every trial has ended."""
        sought = "SELECT 1 FROM trials WHERE outcome IN ('pending', 'running', 'paused') LIMIT 1"
        return self._db.execute(sought).fetchone() is None

    def last_epochs(self) -> dict[str, int]:
        """The last committed epoch of each trial that has any."""
        return dict(self._db.execute("SELECT trial_id, max(epoch) FROM epochs GROUP BY trial_id").fetchall())

    def is_audited(self, trial_id: str) -> bool:
        """Whether the lottery keeps the trial on: from the start, or since it was among the worst of a rung."""
        return bool(
            self._db.execute(
                "SELECT 1 FROM trials WHERE trial_id = :trial AND audited UNION ALL "
                "SELECT 1 FROM decisions WHERE trial_id = :trial AND audited",
                {"trial": trial_id},
            ).fetchone()
        )

    def last_epoch(self, trial_id: str) -> int:
        """The last epoch that is committed, 0 for none."""
        return self._db.execute(
            "SELECT coalesce(max(epoch), 0) FROM epochs WHERE trial_id = ?", (trial_id,)
        ).fetchone()[0]

    def checkpoints(self, trial_id: str) -> dict[int, str]:
        """The digest of the state after each epoch, where one was kept."""
        rows = self._db.execute(
            "SELECT epoch, checkpoint FROM epochs WHERE trial_id = ? AND checkpoint IS NOT NULL", (trial_id,)
        )
        return dict(rows.fetchall())

    def epochs(self) -> list[sqlite3.Row]:
        return self._db.execute(
            "SELECT * FROM epochs JOIN trials USING (trial_id) ORDER BY launch_order, epoch"
        ).fetchall()

    def decisions(self) -> list[sqlite3.Row]:
        """All rung decisions in the order of their arrival."""
        return self.decisions_after(0)

    def decisions_after(self, arrival: int) -> list[sqlite3.Row]:
        return self._db.execute("SELECT * FROM decisions WHERE arrival > ? ORDER BY arrival", (arrival,)).fetchall()

    def promotions(self) -> list[sqlite3.Row]:
        return self._db.execute("SELECT * FROM promotions ORDER BY after_arrival, trial_id, rung_epochs").fetchall()

    def closings(self) -> list[int]:
        """The arrivals after which those that waited were stopped."""
        return [row[0] for row in self._db.execute("SELECT after_arrival FROM closings ORDER BY 1")]

    def events(self, after: int = 0) -> list[sqlite3.Row]:
        return self._db.execute("SELECT * FROM events WHERE number > ? ORDER BY number", (after,)).fetchall()

    def last_event(self) -> sqlite3.Row | None:
        return self._db.execute("SELECT * FROM events ORDER BY number DESC LIMIT 1").fetchone()

    def num_events(self) -> dict[str, int]:
        """How many there were of each kind."""
        return dict(self._db.execute("SELECT kind, count(*) FROM events GROUP BY kind ORDER BY kind").fetchall())

    def counts(self) -> dict[str, int]:
        """Number of trials by outcome; every outcome is a key."""
        counts = dict.fromkeys((*UNFINISHED, *ENDED), 0)
        counts.update(self._db.execute("SELECT outcome, count(*) FROM trials GROUP BY outcome").fetchall())
        return counts

    def counts_by_scale(self) -> dict[str, int]:
        """Number of trials at each scale."""
        return dict(self._db.execute("SELECT scale, count(*) FROM trials GROUP BY scale").fetchall())

    def num_epochs(self) -> int:
        return self._db.execute("SELECT count(*) FROM epochs").fetchone()[0]

    def best_completed(self) -> sqlite3.Row | None:
        """The last epoch of the trial with the lowest error among those that trained to the end."""
        return self._db.execute(
            "SELECT trials.*, epochs.epoch, epochs.val_error_pct FROM trials JOIN epochs USING (trial_id)"
            " WHERE outcome = 'completed'"
            " AND epoch = (SELECT max(epoch) FROM epochs AS other WHERE other.trial_id = trials.trial_id)"
            " ORDER BY val_error_pct, trial_id LIMIT 1"
        ).fetchone()

    def best_trials(self, limit: int) -> list[tuple[float, str]]:
        """Error in percent and id of the best that trained to the end, best first."""
        rows = self._db.execute(
            "SELECT val_error_pct, trial_id FROM trials JOIN epochs USING (trial_id) WHERE outcome = 'completed'"
            " AND val_error_pct IS NOT NULL"
            " AND epoch = (SELECT max(epoch) FROM epochs AS other WHERE other.trial_id = trials.trial_id)"
            " ORDER BY 1, 2 LIMIT ?",
            (limit,),
        )
        return [tuple(row) for row in rows]

    def arrivals_by_rung(self) -> dict[int, int]:
        """Number of trials that a decision was taken on, by the epochs of the rung."""
        return dict(
            self._db.execute("SELECT rung_epochs, count(*) FROM decisions GROUP BY rung_epochs ORDER BY 1").fetchall()
        )

    def time_span_ms(self) -> tuple[int | None, int | None]:
        """When the first trial started and the last epoch came in."""
        return self._db.execute(
            "SELECT (SELECT min(started_at_ms) FROM trials), (SELECT max(recorded_at_ms) FROM epochs)"
        ).fetchone()
