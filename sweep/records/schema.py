"""The tables of the journal and the rows that go into them (DESIGN, section 5).

Reading a journal from outside (any SQLite client):

* `trials`: one row a trial; `outcome` is pending, running, paused (waits at a rung), completed, stopped, diverged,
  failed or cancelled (by `sweep stop --trial`, or because all was decided before it began). `attempts` counts its
  starts, `user_failures` and `machine_failures` the ends that were not its own doing; `batch_size` is set where memory
  forced a smaller one.
* `epochs`: one row a trial and epoch. Losses and errors that were not finite are NULL. `checkpoint` is the digest of
  the state after it.
* `decisions`: one row a trial and rung, `arrival` counts them in order. `error_pct` NULL ranks as the worst.
  `would_stop` is what the rule said (sweep/scheduling/asha.py) given the arrivals of the same cohort and rung; NULL
  while it is not known, for a trial that waits. `decision` is what was done on arrival: continue, stop or pause. A
  trial of the audit lottery continues all the same.
* `promotions`: in the modes that pause, each place at a rung that was earned, and the arrival (of whichever trial)
  that it was earned by. `closings`: the arrivals after which those that still waited were stopped.
* `events`: what happened to the sweep, in order: retries, stalls, waits for disk, refused checkpoints, takeovers.
* `lease`: which process may write; `token` grows with each owner, and an older one's writes are refused.
* Columns named `delivered…` are the outbox: what the tracking server has not been told yet.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

SCHEMA_VERSION = 3

PENDING, RUNNING, PAUSED = "pending", "running", "paused"
COMPLETED, STOPPED, DIVERGED, FAILED, CANCELLED = "completed", "stopped", "diverged", "failed", "cancelled"
UNFINISHED = (PENDING, RUNNING, PAUSED)
ENDED = (COMPLETED, STOPPED, DIVERGED, FAILED, CANCELLED)

# Keys of the meta that say how this run directory stands, not what the sweep is: no reader of its results needs
# them, and a recovered journal makes its own.
ARRIVALS_DELIVERED, CLOSINGS_DELIVERED = "arrivals_delivered", "closings_delivered"
ORIGIN_DELIVERED = "origin_delivered"
DELIVERED = (ARRIVALS_DELIVERED, CLOSINGS_DELIVERED, ORIGIN_DELIVERED)
PRIVATE_META = ("stop_requested", "tracking_close", "tracking_error", *DELIVERED)

# Keys of the meta of a sweep that is judged while it runs: its looks in their order (sweep/statistics/rules/looks.py);
# and which of them left nothing undecided, with the number of trials by then. Of those none begins after it.
LOOKS, DECIDED = "looks", "decided"

Place = tuple[int, str]
"""A rung in epochs, and a trial's id."""

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE trials (
    trial_id TEXT PRIMARY KEY,
    launch_order INTEGER NOT NULL UNIQUE,
    space TEXT NOT NULL, scale TEXT NOT NULL, cohort TEXT NOT NULL, draw INTEGER NOT NULL,
    architecture_id TEXT NOT NULL, architecture TEXT NOT NULL,
    flops INTEGER NOT NULL, params INTEGER NOT NULL, activations INTEGER NOT NULL,
    seed INTEGER NOT NULL, audited INTEGER NOT NULL, audited_if_worst INTEGER NOT NULL,
    outcome TEXT NOT NULL DEFAULT 'pending',
    attempts INTEGER NOT NULL DEFAULT 0,
    user_failures INTEGER NOT NULL DEFAULT 0, machine_failures INTEGER NOT NULL DEFAULT 0,
    batch_size INTEGER, cancel_requested INTEGER NOT NULL DEFAULT 0,
    failure_kind TEXT, failure TEXT, started_at_ms INTEGER, ended_at_ms INTEGER,
    run_id TEXT, delivered_outcome TEXT
);
CREATE INDEX trials_to_cancel ON trials (trial_id) WHERE cancel_requested = 1;
CREATE INDEX trials_by_outcome ON trials (outcome, launch_order);
CREATE TABLE epochs (
    trial_id TEXT NOT NULL REFERENCES trials, epoch INTEGER NOT NULL,
    train_loss REAL, val_loss REAL, val_error_pct REAL, learning_rate REAL NOT NULL,
    train_time_s REAL NOT NULL, eval_time_s REAL NOT NULL,
    host TEXT NOT NULL, attempt INTEGER NOT NULL, checkpoint TEXT, recorded_at_ms INTEGER NOT NULL,
    delivered INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (trial_id, epoch)
) WITHOUT ROWID;
CREATE INDEX undelivered_epochs ON epochs (trial_id) WHERE delivered = 0;
CREATE TABLE decisions (
    arrival INTEGER PRIMARY KEY AUTOINCREMENT,
    trial_id TEXT NOT NULL REFERENCES trials, cohort TEXT NOT NULL, rung_epochs INTEGER NOT NULL,
    error_pct REAL, cutoff_pct REAL, would_stop INTEGER, among_worst INTEGER NOT NULL, audited INTEGER NOT NULL,
    decision TEXT NOT NULL, decided_at_ms INTEGER NOT NULL,
    UNIQUE (trial_id, rung_epochs)
);
CREATE TABLE promotions (
    trial_id TEXT NOT NULL REFERENCES trials, rung_epochs INTEGER NOT NULL,
    after_arrival INTEGER NOT NULL, promoted_at_ms INTEGER NOT NULL,
    PRIMARY KEY (trial_id, rung_epochs)
);
CREATE TABLE closings (after_arrival INTEGER PRIMARY KEY, closed_at_ms INTEGER NOT NULL);
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL, kind TEXT NOT NULL, trial_id TEXT, message TEXT NOT NULL
);
CREATE TABLE lease (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
    token INTEGER NOT NULL, owner TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
    pid_started REAL NOT NULL, heartbeat INTEGER NOT NULL, released INTEGER NOT NULL
);
CREATE TABLE progress (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1), commits INTEGER NOT NULL, latest_ms INTEGER NOT NULL
);
INSERT INTO progress VALUES (1, 0, 0);
"""


@dataclass(frozen=True)
class TrialRow:
    """A trial as it is drawn, before anything starts. `seed` sets its initial weights and its batches; `audited`: the
    lottery exempts it from stopping, `audited_if_worst`: also, or only, where it is among the worst of a rung."""

    trial_id: str
    launch_order: int
    space: str
    scale: str
    cohort: str
    draw: int
    architecture_id: str
    architecture: str
    flops: int
    params: int
    activations: int
    seed: int
    audited: bool
    audited_if_worst: bool


@dataclass(frozen=True)
class EpochRow:
    """One epoch of one trial; losses in nats, the error in percent of the validation images, times in seconds.

    `checkpoint`: digest of the state after it (sweep/training/checkpoint.py), None where none was kept.
    """

    trial_id: str
    epoch: int
    train_loss: float
    val_loss: float
    val_error_pct: float
    learning_rate: float
    train_time_s: float
    eval_time_s: float
    host: str
    attempt: int
    checkpoint: str | None = None


@dataclass(frozen=True)
class DecisionRow:
    """What the rule said of a trial at a rung and what was done; `error_pct` None ranks as the worst.

    `would_stop` None: not known yet, the trial waits for its place. `audited`: the lottery keeps it on, from the start
    or since it was `among_worst` of a rung.
    """

    trial_id: str
    cohort: str
    rung_epochs: int
    error_pct: float | None
    cutoff_pct: float | None
    would_stop: bool | None
    among_worst: bool
    audited: bool
    decision: str


def finite(row: EpochRow | DecisionRow) -> dict[str, Any]:
    """The row as a dict, its NaN and infinities as None: SQLite has no NaN, and JSON and MLflow no infinity."""
    values = asdict(row)
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
