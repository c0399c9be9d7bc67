"""The learning curves of one space at one scale, from a sweep or from anywhere: what every estimate starts from.

In: the tables of a sweep, or a Parquet file of curves (reading.py). Out: `Cohort`s.

A network's error at its full budget is known *for certain* if the rule of early stopping never wanted to end it, or if
it diverged before that: then it counts at chance level (DESIGN, section 4.2). Of the others only those are known that
the audit lottery kept, each with the lottery's probability. An error that is not finite counts at chance level, even
if the trial went on. A trial that failed for a reason of its machine says
nothing of its network and is in no cohort.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sweep.records import Tables
from sweep.statistics.bootstrap import Floats
from sweep.statistics.tables import chance_error_pct, cohort, study_of

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_OPEN = ("pending", "running", "paused")


@dataclass(frozen=True)
class Cohort:
    """n networks of a space and their curves at T budgets.

    `epochs` (T,), rising; `errors` (n, T) in percent, NaN where a network was not trained so far, chance level from
    the epoch of its divergence on. `would_stop_at` (n,): the epochs of the first rung at which the rule wanted to end
    it, 0 for none. `diverged_at` (n,): in which epoch, 0 for never. `is_open` (n,): still to train; `is_cancelled`
    (n,): ended by its user, or not begun because the sweep was decided. `audit_fraction` (n,): with which probability
    the lottery keeps it where the rule wants to end it, NaN where that is not known. `complexity`: flops, params,
    activations, each (n,), where known.
    """

    space: str
    scale: str
    trial_ids: tuple[str, ...]
    epochs: Ints
    errors: Floats
    would_stop_at: Ints
    diverged_at: Ints
    is_open: Bools
    is_cancelled: Bools
    audit_fraction: Floats
    complexity: Mapping[str, Floats]

    def __len__(self) -> int:
        return len(self.trial_ids)

    @cached_property
    def final_errors(self) -> Floats:
        """(n,) in percent at the full budget, NaN of those that were not trained so far."""
        return self.errors[:, -1]

    @cached_property
    def is_finished(self) -> Bools:
        """(n,): whether its error at the full budget is known."""
        return ~np.isnan(self.final_errors)

    @cached_property
    def is_certain(self) -> Bools:
        """(n,): whether that did not hang on the lottery."""
        has_failed_first = (self.would_stop_at > 0) & (
            (self.diverged_at == 0) | (self.diverged_at > self.would_stop_at)
        )
        return ~has_failed_first

    @property
    def full_budget(self) -> int:
        """In epochs."""
        return int(self.epochs[-1])

    def errors_at(self, epoch: int) -> Floats:
        """(n,) in percent after so many epochs, NaN of networks that were not trained so far."""
        column = int(np.searchsorted(self.epochs, epoch))
        if column == len(self.epochs) or self.epochs[column] != epoch:
            return np.full(len(self), np.nan)
        return self.errors[:, column]

    def last_errors(self, until: Ints | int) -> Floats:
        """(n,) in percent: the last known of each curve at no more than `until` epochs, NaN where there is none."""
        is_known = ~np.isnan(self.errors) & (self.epochs <= np.reshape(until, (-1, 1)))
        last = len(self.epochs) - 1 - np.argmax(is_known[:, ::-1], axis=1)
        return np.where(is_known.any(axis=1), self.errors[np.arange(len(self)), last], np.nan)

    @cached_property
    def shared_rung(self) -> int:
        """The highest number of epochs that early stopping kept no network from; 0 if there is none."""
        reached = ~np.isnan(self.errors).any(axis=0)
        return int(self.epochs[reached][-1]) if reached.any() else 0

    def take(self, chosen: Bools | Ints) -> "Cohort":
        """Some of its networks, by mask or index."""
        index = np.arange(len(self))[chosen]
        return replace(
            self,
            trial_ids=tuple(self.trial_ids[i] for i in index),
            errors=self.errors[index],
            would_stop_at=self.would_stop_at[index],
            diverged_at=self.diverged_at[index],
            is_open=self.is_open[index],
            is_cancelled=self.is_cancelled[index],
            audit_fraction=self.audit_fraction[index],
            complexity={name: values[index] for name, values in self.complexity.items()},
        )


def cohorts_of(tables: Tables) -> dict[tuple[str, str], Cohort]:
    """(scale, space) -> its cohort, for each of the study, in its order; failed trials are left out."""
    study = study_of(tables)
    return {
        (scale.name, space): cohort_of(tables, scale=scale.name, space=space)
        for scale in study.scale
        for space in study.spaces
    }


def cohort_of(tables: Tables, *, scale: str, space: str) -> Cohort:
    """One of them."""
    study = study_of(tables)
    chance = chance_error_pct(study)
    stopping = study.stopping_at(scale)
    trials = [row for row in cohort(tables.trials, scale=scale, space=space).to_pylist() if row["outcome"] != "failed"]
    rows = {row["trial_id"]: number for number, row in enumerate(trials)}
    curves = cohort(tables.epochs, scale=scale, space=space)
    diverged = np.array([row["outcome"] == "diverged" for row in trials], dtype=bool)
    epochs_trained = np.array([row["epochs_trained"] for row in trials], dtype=np.int64)
    return Cohort(
        space,
        scale,
        tuple(rows),
        epochs := np.arange(1, stopping.max_epochs + 1),
        error_matrix(
            np.array([rows.get(trial_id, -1) for trial_id in curves["trial_id"].to_pylist()], dtype=np.int64),
            curves["epoch"].to_numpy(),
            np.where(np.isnan(errors := curves["val_error_pct"].to_numpy().astype(np.float64)), chance, errors),
            epochs=epochs,
            diverged_at=(diverged_at := np.where(diverged, np.maximum(epochs_trained, 1), 0)),
            chance_error_pct=chance,
        ),
        would_stop_at=np.array(
            [row["would_stop_at_epoch"] or row["stopped_at_epoch"] or 0 for row in trials], dtype=np.int64
        ),
        diverged_at=diverged_at,
        is_open=np.array([row["outcome"] in _OPEN for row in trials], dtype=bool),
        is_cancelled=np.array([row["outcome"] == "cancelled" for row in trials], dtype=bool),
        audit_fraction=np.array(
            [
                1.0 if study.is_repeat(scale) else stopping.lottery(among_worst=bool(row["among_worst"]))
                for row in trials
            ]
        ),
        complexity={
            name: np.array([row[name] for row in trials], dtype=np.float64)
            for name in ("flops", "params", "activations")
        },
    )


def errors_by_trial(tables: Tables, *, scale: str, space: str, epoch: int) -> dict[str, float]:
    """Trial id -> error in percent, of the networks whose error after `epoch` epochs is known.

    Above the shared rung these are survivors: see `shared_rung`.
    """
    found = cohort_of(tables, scale=scale, space=space)
    errors = found.errors_at(epoch)
    return {trial_id: error for trial_id, error in zip(found.trial_ids, errors.tolist()) if not np.isnan(error)}


def errors_at(tables: Tables, *, scale: str, space: str, epoch: int) -> Floats:
    """The errors of `errors_by_trial`, in the order of the trials table."""
    return np.array(list(errors_by_trial(tables, scale=scale, space=space, epoch=epoch).values()), dtype=np.float64)


def error_matrix(
    row: Ints, epoch: Ints, error: Floats, *, epochs: Ints, diverged_at: Ints, chance_error_pct: float
) -> Floats:
    """Points of curves, each with the number of its network (−1 is passed over), as a matrix (n, T).

    What is missing or NaN in the curve of a network that diverged counts with chance level.
    """
    column = np.minimum(np.searchsorted(epochs, epoch), len(epochs) - 1)
    known = (row >= 0) & (epochs[column] == epoch)
    errors = np.full((len(diverged_at), len(epochs)), np.nan)
    errors[row[known], column[known]] = error[known]
    errors[(diverged_at > 0)[:, None] & np.isnan(errors)] = chance_error_pct
    return errors
