"""How good the sweeps of a design are: cost, regret, errors of each estimator, agreement of verdicts.

In: repetitions of a design (repetitions.py) and the pools, whose own mean and quantiles are the truth. Out:
`Simulated`, numbers each with its standard error over the repetitions where it has one.

The interval of the difference between two spaces comes from the two spaces' own (the method of variance estimates
recovery, Zou and Donner 2008, *Construction of confidence limits about effect measures*); a verdict reads it as a
sweep's verdicts do, but without their correction for being several: helps or hurts if it excludes 0, free if it lies
within the margin.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweep.scheduling.simulation.peers import Design
from sweep.scheduling.simulation.pools import Pool
from sweep.scheduling.simulation.repetitions import (
    ESTIMATORS,
    HIGH,
    LOW,
    OF_FULL_BUDGET,
    QUANTITIES,
    VALUE,
    Repetitions,
)
from sweep.statistics.samples import Floats

HELPS, FREE, HURTS, UNDECIDED = range(4)
VERDICTS = ("helps", "free", "hurts", "undecided")


@dataclass(frozen=True)
class Figure:
    """A mean over repetitions, and its standard error."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class Accuracy:
    """An estimator of a quantity of one space, or of all (`space` None), or of the effect between two (`space` a pair).

    In points of error. `coverage`: the share of 95 % intervals that hold the truth; `width_pct` their mean width.
    `num` estimates in all; the numbers are NaN without any.
    """

    space: str | None
    estimator: str
    quantity: str
    num: int
    bias: Figure
    rmse_pct: float
    coverage: Figure
    width_pct: float


@dataclass(frozen=True)
class Agreement:
    """Verdicts of a sweep against those on the same networks, all trained to the end.

    `agree`: the share of repetitions with the same verdict; `opposed`: of those in which one says *helps* and the other
    *hurts*. `counts[ours][full]` by name.
    """

    without: str
    with_: str
    estimator: str
    agree: Figure
    opposed: Figure
    counts: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Simulated:
    """A design, replayed `num_repetitions` times.

    `cost`: epochs, as a share of training all networks fully. `wall_s`: of the virtual clock, `idle` the share of the
    workers' time in which they had nothing to train. `regret`: the full-budget error of the best network that finished,
    minus that of the best drawn; `regret_of_pool` minus that of the best of its space's pool; mean over spaces. Those
    of `fewer`: of as many networks trained fully, at random, as cost the same.
    """

    design: Design
    num_repetitions: int
    epochs: Figure
    cost: Figure
    wall_s: Figure
    idle: float
    regret: Figure
    regret_of_pool: Figure
    regret_of_fewer: Figure
    regret_of_pool_of_fewer: Figure
    accuracies: list[Accuracy]
    agreements: list[Agreement]

    def accuracy(self, estimator: str, quantity: str, space: str | None = None) -> Accuracy:
        return next(
            found
            for found in self.accuracies
            if (found.space, found.estimator, found.quantity) == (space, estimator, quantity)
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN as None."""
        return _plain(asdict(self))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key.rstrip("_"): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def simulated(
    design: Design,
    repetitions: Repetitions,
    pools: Sequence[Pool],
    *,
    pairs: Sequence[tuple[str, str]] = (),
    margin_pct: float,
) -> Simulated:
    """`pairs`: names of spaces without and with a rule."""
    best_of_pool = np.array([pool.best_pct for pool in pools])
    epochs = repetitions.epochs.sum(axis=1)

    def regret(found: Floats, best: Floats) -> Figure:
        return figure((found - best).mean(axis=1))

    return Simulated(
        design=design,
        num_repetitions=len(epochs),
        epochs=figure(epochs),
        cost=figure(epochs / repetitions.full_epochs.sum(axis=1)),
        wall_s=figure(repetitions.wall_s),
        idle=float(1 - repetitions.busy_s.sum() / (design.num_workers * repetitions.wall_s.sum())),
        regret=regret(repetitions.found_pct, repetitions.best_drawn_pct),
        regret_of_pool=regret(repetitions.found_pct, best_of_pool),
        regret_of_fewer=regret(repetitions.found_by_fewer_pct, repetitions.best_drawn_pct),
        regret_of_pool_of_fewer=regret(repetitions.found_by_fewer_pct, best_of_pool),
        accuracies=_accuracies(repetitions, pools, pairs),
        agreements=_agreements(repetitions, pools, pairs, margin_pct),
    )


def figure(values: Floats) -> Figure:
    """Of one value a repetition; NaN are left out."""
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return Figure(math.nan, math.nan)
    return Figure(float(known.mean()), float(known.std(ddof=1) / math.sqrt(len(known))) if len(known) > 1 else math.nan)


# -- estimators ------------------------------------------------------------------------------------------------------


def _accuracies(repetitions: Repetitions, pools: Sequence[Pool], pairs: Sequence[tuple[str, str]]) -> list[Accuracy]:
    found = []
    truths = np.array([_truths(pool) for pool in pools])
    for number, estimator in enumerate(ESTIMATORS):
        for quantity_number, quantity in enumerate(QUANTITIES if estimator in OF_FULL_BUDGET else ()):
            estimates, truth = repetitions.estimates[:, :, number, quantity_number], truths[:, quantity_number]
            for space, pool in enumerate(pools):
                one = slice(space, space + 1)
                found.append(_accuracy(pool.space, estimator, quantity, estimates[:, one], truth[one]))
            found.append(_accuracy(None, estimator, quantity, estimates, truth))
        for without, with_ in pairs:
            a, b = places(pools, without, with_)
            effect = difference(repetitions.estimates[:, a, number, 0], repetitions.estimates[:, b, number, 0])
            truth = truths[b, :1] - truths[a, :1]
            found.append(_accuracy(f"{without}:{with_}", estimator, "effect", effect[:, np.newaxis], truth))
    return found


def _truths(pool: Pool) -> list[float]:
    return [pool.mean_pct if tau is None else pool.quantile_pct(tau) for tau in QUANTITIES.values()]


def places(pools: Sequence[Pool], without: str, with_: str) -> tuple[int, int]:
    """Of two spaces among the pools."""
    places = {pool.space: number for number, pool in enumerate(pools)}
    return places[without], places[with_]


def _accuracy(space: str | None, estimator: str, quantity: str, estimates: Floats, truth: Floats) -> Accuracy:
    """`estimates` (R × spaces × 4), `truth` (spaces)."""
    errors = estimates[..., VALUE] - truth
    known, low, high = ~np.isnan(errors), estimates[..., LOW], estimates[..., HIGH]
    covered = np.where(np.isnan(low), np.nan, (low <= truth) & (truth <= high))
    if not known.any():
        return Accuracy(space, estimator, quantity, 0, *_NOTHING)
    return Accuracy(
        space=space,
        estimator=estimator,
        quantity=quantity,
        num=int(known.sum()),
        bias=figure(_over_spaces(errors)),
        rmse_pct=float(np.sqrt(np.nanmean(errors**2))),
        coverage=figure(_over_spaces(covered)),
        width_pct=figure(_over_spaces(high - low)).value,
    )


_NOTHING = (Figure(math.nan, math.nan), math.nan, Figure(math.nan, math.nan), math.nan)


def _over_spaces(values: Floats) -> Floats:
    """The mean of each repetition, NaN where it has none."""
    known = ~np.isnan(values)
    count = known.sum(axis=1)
    return np.where(count > 0, np.where(known, values, 0).sum(axis=1) / np.maximum(count, 1), np.nan)


# -- verdicts --------------------------------------------------------------------------------------------------------


def difference(without: Floats, with_: Floats) -> Floats:
    """with − without, of independent estimates (R × value, standard error, low, high)."""
    value = with_[:, VALUE] - without[:, VALUE]
    below = np.hypot(with_[:, VALUE] - with_[:, LOW], without[:, HIGH] - without[:, VALUE])
    above = np.hypot(with_[:, HIGH] - with_[:, VALUE], without[:, VALUE] - without[:, LOW])
    return np.stack([value, np.hypot(without[:, 1], with_[:, 1]), value - below, value + above], axis=1)


def verdicts(effects: Floats, margin_pct: float) -> NDArray[np.int64]:
    """HELPS, FREE, HURTS or UNDECIDED of each effect (R × 4); UNDECIDED where it is NaN."""
    low, high = effects[:, LOW], effects[:, HIGH]
    conditions = [high < 0, low > 0, (low > -margin_pct) & (high < margin_pct)]
    return np.select(conditions, [HELPS, HURTS, FREE], UNDECIDED)


def _agreements(
    repetitions: Repetitions, pools: Sequence[Pool], pairs: Sequence[tuple[str, str]], margin_pct: float
) -> list[Agreement]:
    found = []
    for without, with_ in pairs:
        a, b = places(pools, without, with_)
        said = [
            verdicts(difference(repetitions.estimates[:, a, e, 0], repetitions.estimates[:, b, e, 0]), margin_pct)
            for e in range(len(ESTIMATORS))
        ]
        full = said[ESTIMATORS.index("all")]
        for estimator, ours in zip(ESTIMATORS, said):
            if estimator == "all" or np.isnan(repetitions.estimates[:, a, ESTIMATORS.index(estimator), 0]).all():
                continue
            counts = {
                name: {other: int(((ours == i) & (full == j)).sum()) for j, other in enumerate(VERDICTS)}
                for i, name in enumerate(VERDICTS)
            }
            opposed = ((ours == HELPS) & (full == HURTS)) | ((ours == HURTS) & (full == HELPS))
            found.append(
                Agreement(
                    without,
                    with_,
                    estimator,
                    figure((ours == full).astype(float)),
                    figure(opposed.astype(float)),
                    counts,
                )
            )
    return found
