"""Complete learning curves to draw from: what a replay takes for the whole population of each space.

In: cohorts (sweep/statistics/cohorts.py). Out: a `Pool` for each. Where a sweep was stopped early, its complete curves
are no sample of the space; the lottery's weights make them one: a network that the rule would have stopped stands for
1 / audit_fraction of its kind, and is drawn so much the more often.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweep.statistics.cohorts import Cohort

Floats = NDArray[np.float64]

LEAST_CURVES = 20  # fewer are no population: a draw would be the same few networks again and again


@dataclass(frozen=True)
class Pool:
    """N networks of one space at one scale, each trained to the full budget of T epochs.

    `errors_pct` (N × T) and `complexities` (each N, or None where unknown). `chances` (N) sum to 1: how often each is
    drawn. `epoch_s` (N): what an epoch takes, in seconds, or in units of an average network's where none were recorded.
    """

    space: str
    errors_pct: Floats
    chances: Floats
    epoch_s: Floats
    flops: Floats | None
    params: Floats | None
    activations: Floats | None

    def drawn(self, chance: Floats) -> NDArray[np.int64]:
        """Places of networks, drawn with replacement by numbers that are uniform in [0, 1)."""
        ends = np.cumsum(self.chances)
        return np.searchsorted(ends / ends[-1], chance, side="right")

    @property
    def best_pct(self) -> float:
        return float(self.errors_pct[:, -1].min())

    def mean_pct(self) -> float:
        return float(self.chances @ self.errors_pct[:, -1])

    def quantile_pct(self, tau: float) -> float:
        """The least error that a share of at least `tau` of the networks does not exceed."""
        order = np.argsort(self.errors_pct[:, -1], kind="stable")
        shares = np.cumsum(self.chances[order])
        # A share that is `tau` but for rounding counts as `tau`.
        return float(self.errors_pct[order[np.searchsorted(shares, tau - 1e-9)], -1])


def pool_of(cohort: Cohort, *, max_epochs: int | None = None, epoch_s: Floats | None = None) -> Pool:
    """The complete curves of a cohort, up to `max_epochs` of their epochs.

    `epoch_s` for all its trials; None takes flops for it, and where they are unknown, all networks alike. Raises
    `ValueError` if too few curves are complete, or none can stand for the networks that were stopped.
    """
    full = cohort.errors.shape[1]
    if max_epochs is not None and not 1 <= max_epochs <= full:
        raise ValueError(f"max_epochs: {max_epochs} epochs of curves of {full}; give 1 to {full}")
    complete = cohort.finished & ~np.isnan(cohort.errors).any(axis=1)
    stopped = complete & (cohort.would_stop_at > 0)
    if not cohort.finished.all() and not stopped.any():
        raise ValueError(
            f"curves: of {cohort.space}, only survivors of early stopping are complete; a population to replay needs "
            'a sweep with stopping.audit_fraction above 0, or with method = "none"'
        )
    if complete.sum() < LEAST_CURVES:
        raise ValueError(
            f"curves: {int(complete.sum())} of {len(complete)} of {cohort.space} are complete, and a replay needs "
            f'{LEAST_CURVES}; train more networks to the end (method = "none", or a higher audit_fraction)'
        )
    weights = np.where(stopped & ~cohort.finished.all(), 1 / max(cohort.audit_fraction, 1e-12), 1.0)[complete]
    if epoch_s is None:
        epoch_s = np.ones(len(complete)) if cohort.flops is None else cohort.flops / cohort.flops[complete].mean()
    return Pool(
        space=cohort.space,
        errors_pct=np.ascontiguousarray(cohort.errors[complete, :max_epochs]),
        chances=weights / weights.sum(),
        epoch_s=epoch_s[complete],
        flops=_some(cohort.flops, complete),
        params=_some(cohort.params, complete),
        activations=_some(cohort.activations, complete),
    )


def _some(values: Floats | None, chosen: NDArray[np.bool_]) -> Floats | None:
    return None if values is None else values[chosen]
