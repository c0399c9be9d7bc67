"""The journal: the memory of one sweep, a SQLite file in WAL mode (DESIGN, sections 3 and 5; tables in schema.py).

In: the drawn population, then each epoch's result and each rung decision in the order of their arrival.
Out: what is unfinished, the rungs as they stood, and the rows that the tables are written from.

One transaction holds an epoch's result, the decision that it led to and what becomes of the trials; it is committed
before anything acts on it. So a driver killed at any moment leaves a journal from which the sweep goes on with
each trial once. Three guards keep it so:

* Whoever trains or delivers writes under a lease (sweep/records/lease.py): each of its transactions makes sure that no
  other process has taken it over since.
* Times never go back, also where the clock does: a moment is at least the last one that was recorded.
* A mark beside the file counts the commits. A journal that knows fewer has lost some (its log was cut, or it is an
  older copy) and is refused: MLflow was told of them, and would be told again under other times.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sweep.records.journal_file import FILE_NAME, JournalFile, LeaseLostError, find_run, now_ms
from sweep.records.queries import Queries
from sweep.records.schema import (
    ARRIVALS_DELIVERED,
    CANCELLED,
    CLOSINGS_DELIVERED,
    COMPLETED,
    DECIDED,
    DELIVERED,
    DIVERGED,
    ENDED,
    FAILED,
    LOOKS,
    ORIGIN_DELIVERED,
    PAUSED,
    PENDING,
    PRIVATE_META,
    RUNNING,
    SCHEMA_VERSION,
    STOPPED,
    UNFINISHED,
    DecisionRow,
    EpochRow,
    Place,
    TrialRow,
    finite,
)  # fmt: skip
from sweep.records.undelivered import Undelivered

__all__ = [
    "ARRIVALS_DELIVERED", "CANCELLED", "CLOSINGS_DELIVERED", "COMPLETED", "DECIDED", "DELIVERED", "DIVERGED", "ENDED",
    "FAILED", "FILE_NAME", "LOOKS", "ORIGIN_DELIVERED", "PAUSED", "PENDING", "PRIVATE_META", "RUNNING",
    "SCHEMA_VERSION", "STOPPED", "UNFINISHED", "DecisionRow", "EpochRow", "Journal", "LeaseLostError", "TrialRow",
    "find_run", "now_ms",
]  # fmt: skip


class Journal(JournalFile, Queries, Undelivered):
    """What happens to a sweep, one transaction each. See `JournalFile` for how it is opened."""

    def start_attempt(self, trial_id: str, attempt: int) -> None:
        """The trial is about to train for the `attempt`th time, counted from 1."""
        self._write(
            lambda moment: self._db.execute(
                "UPDATE trials SET outcome = 'running', attempts = ?, started_at_ms = coalesce(started_at_ms, ?)"
                " WHERE trial_id = ?",
                (attempt, moment, trial_id),
            )
        )

    def record(
        self,
        epoch: EpochRow,
        decision: DecisionRow | None,
        outcome: str,
        *,
        earned: Collection[Place] = (),
        lost: Collection[Place] = (),
    ) -> None:
        """Commit an epoch, the decision taken on it, the trial's outcome and whose places it decided, all or none."""

        def body(moment: int) -> None:
            self._insert("epochs", [finite(epoch) | {"recorded_at_ms": moment}])
            if decision is not None:
                self._insert("decisions", [finite(decision) | {"decided_at_ms": moment}])
            self._end(epoch.trial_id, outcome, moment)
            self._place(earned, lost, moment)

        self._write(body)

    def leave(
        self, trial_id: str, outcome: str, *, earned: Collection[Place] = (), lost: Collection[Place] = ()
    ) -> None:
        """The trial ends from outside: it was cancelled."""

        def body(moment: int) -> None:
            self._leave(trial_id, outcome, moment)
            self._place(earned, lost, moment)

        self._write(body)

    def record_look(self, look: Mapping[str, Any], message: str, *, decides_all: bool) -> None:
        """A look was taken (sweep/statistics/rules/looks.py). `decides_all`: of the trials that it knew of, none that
        has not begun shall begin; all or none is recorded."""

        def body(moment: int) -> None:
            self._set_meta({LOOKS: [*self.get(LOOKS, []), {**look, "taken_at_ms": moment}]})
            if decides_all:
                self._set_meta({DECIDED: {"look": look["number"], "num_trials": look["num_known"]}})
            self._happened(moment, "decided" if decides_all else "looked", message)

        self._write(body)

    def cancel_pending(
        self, trial_ids: Iterable[str], message: str, *, earned: Collection[Place] = (), lost: Collection[Place] = ()
    ) -> None:
        """Trials that have not begun end together: they are not needed."""
        gone = list(trial_ids)

        def body(moment: int) -> None:
            for trial_id in gone:
                self._leave(trial_id, CANCELLED, moment)
            self._place(earned, lost, moment)
            self._happened(moment, CANCELLED, message)

        self._write(body)

    def _leave(
        self, trial_id: str, outcome: str, moment: int, kind: str | None = None, failure: str | None = None
    ) -> None:
        self._end(trial_id, outcome, moment)
        self._db.execute(
            "UPDATE trials SET failure_kind = ?, failure = ?, cancel_requested = 0 WHERE trial_id = ?",
            (kind, failure, trial_id),
        )

    def fail(
        self,
        trial_id: str,
        kind: str,
        failure: str,
        *,
        by_user: bool,
        again: bool,
        batch_size: int | None = None,
        earned: Collection[Place] = (),
        lost: Collection[Place] = (),
    ) -> None:
        """An attempt failed; `again`: another one follows, with `batch_size` where memory forces a smaller one."""
        column = "user_failures" if by_user else "machine_failures"
        failure = failure.encode("utf-8", "backslashreplace").decode()  # a file name in it may be no UTF-8

        def body(moment: int) -> None:
            self._db.execute(
                f"UPDATE trials SET {column} = {column} + 1, batch_size = coalesce(?, batch_size) WHERE trial_id = ?",
                (batch_size, trial_id),
            )
            if not again:
                self._leave(trial_id, FAILED, moment, kind, failure)
                self._place(earned, lost, moment)

        self._write(body)

    def close_waiting(self, lost: Collection[Place]) -> None:
        """Nothing is left to train: the trials that still wait have not earned their places."""

        def body(moment: int) -> None:
            self._db.execute(
                "INSERT OR IGNORE INTO closings SELECT coalesce(max(arrival), 0), ? FROM decisions", (moment,)
            )
            self._place((), lost, moment)

        self._write(body)

    def _place(self, earned: Collection[Place], lost: Collection[Place], moment: int) -> None:
        for rung_epochs, trial_id in earned:
            self._db.execute(
                "INSERT INTO promotions SELECT ?, ?, coalesce(max(arrival), 0), ? FROM decisions",
                (trial_id, rung_epochs, moment),
            )
            self._judge(trial_id, rung_epochs, False)
            self._db.execute(
                "UPDATE trials SET outcome = 'running' WHERE trial_id = ? AND outcome = 'paused'", (trial_id,)
            )
        for rung_epochs, trial_id in lost:
            self._judge(trial_id, rung_epochs, True)
            self._db.execute(
                "UPDATE trials SET outcome = 'stopped', ended_at_ms = ? WHERE trial_id = ? AND outcome = 'paused'",
                (moment, trial_id),
            )

    def _judge(self, trial_id: str, rung_epochs: int, would_stop: bool) -> None:
        self._db.execute(
            "UPDATE decisions SET would_stop = ? WHERE trial_id = ? AND rung_epochs = ?",
            (would_stop, trial_id, rung_epochs),
        )

    def _end(self, trial_id: str, outcome: str, moment: int) -> None:
        self._db.execute(
            "UPDATE trials SET outcome = ?, ended_at_ms = ? WHERE trial_id = ?",
            (outcome, moment if outcome in ENDED else None, trial_id),
        )

    def set_checkpoint(self, trial_id: str, epoch: int, digest: str | None) -> None:
        """An epoch that is known was trained again: this is the state after it now."""
        self._write(
            lambda moment: self._db.execute(
                "UPDATE epochs SET checkpoint = ? WHERE trial_id = ? AND epoch = ?", (digest, trial_id, epoch)
            )
        )

    def note(self, kind: str, message: str, trial_id: str | None = None) -> None:
        """Something happened that is no result."""
        self._write(lambda moment: self._happened(moment, kind, message, trial_id))

    def _happened(self, moment: int, kind: str, message: str, trial_id: str | None = None) -> None:
        self._insert("events", [{"at_ms": moment, "kind": kind, "trial_id": trial_id, "message": message}])

    # -- asked for from outside: needs no lease -------------------------------------------------------------------

    def ask_to_cancel(self, trial_id: str) -> None:
        self._write(
            lambda moment: self._db.execute("UPDATE trials SET cancel_requested = 1 WHERE trial_id = ?", (trial_id,))
        )

    def add_trials(self, trials: Iterable[TrialRow], **meta: Any) -> None:
        """Trials that were drawn later, with what is to be known of them; all or none."""
        rows = list(map(vars, trials))  # they are written twice where the first try finds no room
        counts = sorted(Counter(row["space"] for row in rows).items())
        message = "added " + ", ".join(f"{num} of {space}" for space, num in counts)

        def body(moment: int) -> None:
            self._insert("trials", rows)
            self._set_meta(meta)
            self._happened(moment, "extended", message)

        self._write(body)
