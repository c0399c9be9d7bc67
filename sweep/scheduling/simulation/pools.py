"""Complete learning curves to draw from: what a replay takes for the whole population of each space.

In: cohorts (sweep/statistics/cohorts.py), from a run directory, a Parquet of curves, or the reference curves that
ship. Out: a `Pool` for each. Where a sweep was stopped early, its complete curves are no sample of the space; the
lottery's weights make them one: a network that the rule would have stopped stands for 1 / audit_fraction of its kind,
and is drawn so much the more often.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from sweep.records import Journal, find_run, from_journal
from sweep.records.journal import UNFINISHED
from sweep.statistics.cohorts import Cohort, Ints, cohorts_of
from sweep.statistics.full_budget import inverse_inclusion
from sweep.statistics.reading import read_curves
from sweep.statistics.rules.effects import quantile
from sweep.statistics.samples import Complete, Floats

REFERENCE, REFERENCE_FILE = "reference", "reference_curves.parquet"

LEAST_CURVES = 20  # fewer are no population: a draw would be the same few networks again and again


@dataclass(frozen=True)
class Pool:
    """N networks of one space at one scale, each with its whole curve.

    `chances` (N) sum to 1: how often each is drawn. `epoch_s` (N): what an epoch takes, in seconds, or in units of an
    average network's where none were recorded.
    """

    cohort: Cohort
    chances: Floats
    epoch_s: Floats

    @property
    def space(self) -> str:
        return self.cohort.space

    @cached_property
    def best_pct(self) -> float:
        return float(self.cohort.final_errors.min())

    @cached_property
    def mean_pct(self) -> float:
        return float(self.chances @ self.cohort.final_errors)

    def quantile_pct(self, tau: float) -> float:
        """The error that a share `tau` of the networks does not exceed."""
        alike = [self.chances == chance for chance in np.unique(self.chances)]
        errors = self.cohort.final_errors
        return quantile([(float(self.chances[one].sum()), Complete(errors[one])) for one in alike], tau)

    def drawn(self, chance: Floats) -> Ints:
        """Places of networks, drawn with replacement by numbers that are uniform in [0, 1)."""
        return np.searchsorted(self._ends, chance, side="right")

    @cached_property
    def _ends(self) -> Floats:
        ends = np.cumsum(self.chances)
        return ends / ends[-1]


def pools_of(
    source: str, *, spaces: Sequence[str] = (), scale: str | None = None, max_epochs: int | None = None
) -> list[Pool]:
    """A pool for each space of `source`: a run directory, a Parquet file of curves, or "reference", the one that ships.

    `spaces` and `scale` leave others out; `max_epochs` cuts the curves there. Raises `ValueError` naming what `source`
    lacks.
    """
    cohorts, seconds = _read(source)
    scales = list(dict.fromkeys(scale for scale, _ in cohorts))
    if scale is None and len(scales) > 1:
        raise ValueError(f"scale: {source!r} holds {', '.join(scales)}; name one, for a replay is of one scale")
    if scale is not None and scale not in scales:
        raise ValueError(f"scale: {source!r} has none named {scale!r}; it holds {', '.join(scales)}")
    found = {cohort.space: cohort for (of_scale, _), cohort in cohorts.items() if of_scale == (scale or scales[0])}
    for space in spaces:
        if space not in found:
            raise ValueError(f"space: {source!r} holds no curves of {space!r}; it holds those of {', '.join(found)}")
    pools = []
    for space in spaces or found:
        cohort = found[space] if max_epochs is None else shortened(found[space], max_epochs)
        cohort = cohort.take(~cohort.is_cancelled)
        known = None if seconds is None else np.array([seconds[trial_id] for trial_id in cohort.trial_ids])
        pools.append(pool_of(cohort, known))
    return pools


def _read(source: str) -> tuple[dict[tuple[str, str], Cohort], dict[str, float] | None]:
    """Cohorts by scale and space, and the seconds of an epoch by trial, where they were recorded."""
    if Path(source).is_file() or source.endswith(".parquet"):
        return read_curves(source), _seconds_of(Path(source))
    if source == REFERENCE and not Path(source).exists():
        with as_file(files("sweep.studies") / REFERENCE_FILE) as path:
            return read_curves(path), _seconds_of(path)
    folder = find_run(source)
    with Journal.open(folder, read_only=True) as journal:
        unfinished = sum(count for outcome, count in journal.counts().items() if outcome in UNFINISHED)
        if unfinished:
            raise ValueError(
                f"run: {unfinished} trials of the sweep in {str(folder)!r} are still to end; replay it when they have"
            )
        tables = from_journal(journal)
    rows = tables.trials.select(["trial_id", "epochs_trained", "train_time_s", "eval_time_s"]).to_pylist()
    seconds = {
        row["trial_id"]: (row["train_time_s"] + row["eval_time_s"]) / max(row["epochs_trained"], 1) for row in rows
    }
    return cohorts_of(tables), seconds


def _seconds_of(path: Path) -> dict[str, float] | None:
    """By trial, from a column `train_time_s` of each epoch's seconds, which a file of curves may have."""
    if "train_time_s" not in pq.read_schema(path).names:
        return None
    means = (
        pq.read_table(path, columns=["trial_id", "train_time_s"])
        .group_by("trial_id")
        .aggregate([("train_time_s", "mean")])
    )
    return dict(zip(map(str, means["trial_id"].to_pylist()), means["train_time_s_mean"].to_pylist()))


def pool_of(cohort: Cohort, epoch_s: Floats | None = None) -> Pool:
    """The complete curves of a cohort.

    `epoch_s` (n) of all its networks; None takes flops for it, and where they are unknown, all networks alike. Raises
    `ValueError` if too few curves are complete, or none can stand for the networks that were stopped.
    """
    complete = cohort.is_finished
    by_lottery = complete & ~cohort.is_certain
    stopped_early = bool((~complete).any())
    if stopped_early and not (by_lottery.any() and (cohort.audit_fraction[~cohort.is_certain] > 0).all()):
        raise ValueError(
            f"curves: of {cohort.space}, only survivors of early stopping are complete; a population to replay needs a "
            'sweep with stopping.audit_fraction above 0, or with method = "none"'
        )
    if complete.sum() < LEAST_CURVES:
        raise ValueError(
            f"curves: {int(complete.sum())} of {len(cohort)} of {cohort.space} are complete, and a replay needs "
            f'{LEAST_CURVES}; train more networks to the end (method = "none", or a higher audit_fraction)'
        )
    weights = inverse_inclusion(cohort) if stopped_early else np.ones(len(cohort))
    if epoch_s is None:
        flops = cohort.complexity.get("flops")
        epoch_s = np.ones(len(cohort)) if flops is None else flops / flops[complete].mean()
    weights = weights[complete]
    return Pool(
        cohort=_as_trained_fully(cohort.take(complete)), chances=weights / weights.sum(), epoch_s=epoch_s[complete]
    )


def _as_trained_fully(cohort: Cohort) -> Cohort:
    """Without what a rule said of it."""
    return replace(
        cohort, would_stop_at=np.zeros(len(cohort), dtype=np.int64), audit_fraction=np.full(len(cohort), np.nan)
    )


def shortened(cohort: Cohort, max_epochs: int) -> Cohort:
    """Its curves up to `max_epochs`. Raises `ValueError` if they hold no such budget."""
    if max_epochs not in cohort.epochs:
        raise ValueError(
            f"max_epochs: the curves of {cohort.space} hold no error after {max_epochs} epochs; they were recorded "
            f"{_epochs_text(cohort.epochs)}"
        )
    kept = cohort.epochs <= max_epochs
    return replace(
        cohort,
        epochs=cohort.epochs[kept],
        errors=cohort.errors[:, kept],
        diverged_at=np.where(cohort.diverged_at > max_epochs, 0, cohort.diverged_at),
        would_stop_at=np.where(cohort.would_stop_at >= max_epochs, 0, cohort.would_stop_at),
    )


def _epochs_text(epochs: Ints) -> str:
    known = epochs.tolist()
    if known == list(range(1, len(known) + 1)):
        return f"after 1 to {known[-1]} epochs"
    return f"after {', '.join(map(str, known))} epochs"
