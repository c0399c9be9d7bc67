"""The accounts of a sweep: what became of its trials, which did best, what it cost and what stopping saved.

In: the tables of a sweep. Out: counts, times in seconds, trials. No inference here: those are facts of this sweep.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from sweep.records import Tables
from sweep.statistics.cohorts import errors_at
from sweep.statistics.tables import cohort, shared_rung, study_of


@dataclass(frozen=True)
class Cost:
    """Epochs and seconds of training, and those that early stopping saved.

    `epochs_if_all_completed` counts a stopped trial at the full budget and any other at what it trained: a diverged
    network, a failed trial and one still running cost the same with or without stopping. `train_time_saved_s`
    takes each stopped trial's seconds an epoch to stay as they were. Seconds are summed over trials, not wall time.
    """

    num_trials: int
    epochs_trained: int
    epochs_if_all_completed: int
    train_time_s: float
    eval_time_s: float
    train_time_saved_s: float

    @property
    def epochs_saved(self) -> int:
        return self.epochs_if_all_completed - self.epochs_trained

    @property
    def share_saved(self) -> float:
        """Of the epochs if all had completed, from 0 to 1."""
        return self.epochs_saved / self.epochs_if_all_completed if self.epochs_if_all_completed else 0.0


@dataclass(frozen=True)
class CohortSummary:
    """One space at one scale: its trials by outcome, `num_at_rung` of them compared at `rung_epochs`.

    Mean, median and best of the compared errors, in percent; None if there are none. Diverged networks are in them,
    at chance level; failed trials are not.
    """

    space: str
    scale: str
    num_trials: int
    num_audited: int
    outcomes: dict[str, int]
    rung_epochs: int
    num_at_rung: int
    mean_error_pct: float | None
    median_error_pct: float | None
    best_error_pct: float | None


def cost(tables: Tables, *, scale: str | None = None, space: str | None = None) -> Cost:
    """The cost of the whole sweep, or of one scale of it, or of one space at that scale."""
    trials = tables.trials if scale is None else cohort(tables.trials, scale=scale, space=space)
    rows = trials.select(["scale", "outcome", "epochs_trained", "train_time_s", "eval_time_s"]).to_pylist()
    trained = sum(row["epochs_trained"] for row in rows)
    stopped = [row for row in rows if row["outcome"] == "stopped"]
    study = study_of(tables)
    max_epochs = {one.name: study.stopping_at(one.name).max_epochs for one in study.scale}
    spared = [max_epochs[row["scale"]] - row["epochs_trained"] for row in stopped]
    return Cost(
        num_trials=len(rows),
        epochs_trained=trained,
        epochs_if_all_completed=trained + sum(spared),
        train_time_s=sum(row["train_time_s"] for row in rows),
        eval_time_s=sum(row["eval_time_s"] for row in rows),
        train_time_saved_s=sum(
            row["train_time_s"] / row["epochs_trained"] * epochs for row, epochs in zip(stopped, spared)
        ),
    )


def summarise(tables: Tables) -> list[CohortSummary]:
    """One summary for each scale and space of the study, in its order; errors at the scale's shared rung."""
    study = study_of(tables)
    rungs = {scale.name: shared_rung(tables, scale.name) for scale in study.scale}
    return [_summarise(tables, scale, space, rung) for scale, rung in rungs.items() for space in study.spaces]


def _summarise(tables: Tables, scale: str, space: str, rung: int) -> CohortSummary:
    trials = cohort(tables.trials, scale=scale, space=space)
    errors = errors_at(tables, scale=scale, space=space, epoch=rung)
    return CohortSummary(
        space=space,
        scale=scale,
        num_trials=trials.num_rows,
        num_audited=sum(trials["audited"].to_pylist()),
        outcomes=dict(Counter(trials["outcome"].to_pylist())),
        rung_epochs=rung,
        num_at_rung=len(errors),
        mean_error_pct=float(errors.mean()) if len(errors) else None,
        median_error_pct=float(np.median(errors)) if len(errors) else None,
        best_error_pct=float(errors.min()) if len(errors) else None,
    )


def best_trials(tables: Tables, *, scale: str, limit: int) -> list[dict[str, Any]]:
    """The completed trials of a scale with the lowest validation error, best first, at most `limit`.

    Each is its row of the trials table with that of the architectures table. Ties go to the fewer flops.
    """
    field = pc.field
    completed = cohort(tables.trials, scale=scale).filter(
        (field("outcome") == "completed") & field("last_val_error_pct").is_valid()
    )
    rows = completed.sort_by(
        [("last_val_error_pct", "ascending"), ("flops", "ascending"), ("trial_id", "ascending")]
    ).slice(0, limit)
    drawn = {row["trial_id"]: row for row in cohort(tables.architectures, scale=scale).to_pylist()}
    return [drawn[row["trial_id"]] | row for row in rows.to_pylist()]
