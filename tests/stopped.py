"""Populations under early stopping, made up: curves, the very rule of a sweep, the lottery, and what is left to see.

In: learning curves of networks, all of them to the end. Out: the `Cohort` that a sweep would have left of them.
"""

import numpy as np

from sweep.scheduling.asha import Asha
from sweep.statistics.cohorts import Cohort

RUNGS, REDUCTION_FACTOR = (1, 4), 4


def curves(num: int, rng: np.random.Generator, *, num_epochs: int = 9, heavy: bool = False) -> np.ndarray:
    """(num, num_epochs) errors in percent; early ones tell of the last, but not all. `heavy`: a few never learn."""
    quality, speed = rng.normal(size=(2, num, 1))
    final = 10 + 4 * np.exp(0.6 * quality)
    if heavy:
        final = np.where(rng.random((num, 1)) < 0.05, 90.0, final)
    left = 1 - np.log(np.arange(1, num_epochs + 1)) / np.log(num_epochs)
    excess = 45 * left * np.exp(0.35 * (speed + 0.6 * quality)) + rng.normal(size=(num, num_epochs)) * (left > 0)
    return np.clip(final + excess, 0, 90)


def cohort(
    errors: np.ndarray,
    rng: np.random.Generator,
    *,
    audit_fraction: float = 0.25,
    audit_worst: float | None = None,
    space: str = "made",
) -> Cohort:
    """As ASHA leaves it, networks arriving one after another; of the worst the lottery keeps as many as of others, if
    not `audit_worst`."""
    num, worst = len(errors), audit_fraction if audit_worst is None else audit_worst
    tickets, lottery = rng.random(num), np.full(num, audit_fraction)
    rule, seen = Asha(REDUCTION_FACTOR), errors.copy()
    would_stop_at = np.zeros(num, dtype=np.int64)
    for trial in rng.permutation(num):
        for rung in RUNGS:
            judgement = rule.arrive("all", rung, str(trial), float(errors[trial, rung - 1]))
            if judgement.would_stop and not would_stop_at[trial]:
                would_stop_at[trial] = rung
            if judgement.among_worst:
                lottery[trial] = worst
            if would_stop_at[trial] and tickets[trial] >= lottery[trial]:
                seen[trial, rung:] = np.nan
                break
    return bare(seen, would_stop_at, audit_fraction=lottery, space=space)


def bare(
    errors: np.ndarray,
    would_stop_at: np.ndarray,
    *,
    audit_fraction: float | np.ndarray | None = 0.25,
    space: str = "made",
) -> Cohort:
    num, num_epochs = errors.shape
    nobody = np.zeros(num, dtype=bool)
    return Cohort(
        space,
        "small",
        tuple(f"{space}-{number}" for number in range(num)),
        np.arange(1, num_epochs + 1),
        errors,
        np.asarray(would_stop_at, dtype=np.int64),
        np.zeros(num, dtype=np.int64),
        nobody,
        nobody,
        np.broadcast_to(np.nan if audit_fraction is None else audit_fraction, num).astype(float),
        {"flops": np.linspace(1e5, 2e5, num)},
    )
