"""Do two ways to ask which factor matters most agree: the variance of error, and what breaking its rule costs?

In: the importances of factors (importance.py), and the verdicts on spaces that break one rule each against the spaces
that keep it (VioNet, exercise 3 of d2l.ai 8.8). Out: how each ranks the factors, and whether they rank alike.

The two need not agree: a factor may explain much variance in a space whose ranges are wide, and its rule still be
free if what it forbids is hardly ever drawn. What breaking costs is in points of error; a factor with several rules
counts by the one that changes most, in either direction.

**Interval.** Both sides are redrawn from normal distributions as wide as their intervals, each number independent of
the others, and the factors are ranked anew each time. That speaks of these factors and of what the choice of networks
does to their ranks. It leaves out that importances of one sample move together, and so do effects against one and the
same space.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri

from sweep.spaces import SPACES
from sweep.statistics.bootstrap import Floats, significance
from sweep.statistics.factors.importance import Importances
from sweep.statistics.intervals import UNKNOWN, IntervalEstimate
from sweep.statistics.rules.verdicts import Verdict

FEWEST_FACTORS = 3
"""Two factors rank alike or in reverse: no correlation says more."""

FACTOR_OF_RULE = {
    "depths_up": "d",
    "widths_up": "w",
    "quantised_widths": "w",
    "shared_bottleneck_ratio": "b",
    "no_inverted_bottleneck": "b",
    "shared_group_width": "g",
    "no_depthwise_groups": "g",
}


@dataclass(frozen=True)
class RuleEffect:
    """What breaking one rule of a factor costs, in points of error, with its interval; negative if it pays."""

    factor: str
    space: str
    cost_pct: float
    low_pct: float
    high_pct: float


@dataclass(frozen=True)
class FactorAgreement:
    """Whether importances and broken rules agree on `factors`, those that both know, the most important first.

    `costs_pct` are what breaking costs, in the order of `factors`, of each the rule that changes most.
    `chance_same_first` is how often both put one and the same factor first when redrawn, 0 to 1. Rank correlations
    from −1 to 1 with intervals at `confidence`; None below three factors.
    """

    factors: tuple[str, ...]
    costs_pct: tuple[float, ...]
    first_by_importance: str
    first_by_rules: str
    same_first: bool
    chance_same_first: float
    spearman: IntervalEstimate
    kendall: IntervalEstimate
    num_draws: int
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, in the order of the fields."""
        return asdict(self)


def rule_effects(verdicts: Iterable[Verdict], factor_of_rule: Mapping[str, str] = FACTOR_OF_RULE) -> list[RuleEffect]:
    """What it costs to break a rule that belongs to a factor, by the spaces that break it; those with intervals.

    Give verdicts of one scale and one budget.
    """
    effects = []
    for verdict in verdicts:
        space = SPACES.get(verdict.space_without)
        if space is None or space.breaks is None or verdict.rule not in factor_of_rule:
            continue
        effect, low, high = verdict.effect_pct, verdict.ci_low_pct, verdict.ci_high_pct
        if effect is not None and low is not None and high is not None:
            effects.append(RuleEffect(factor_of_rule[verdict.rule], space.name, -effect, -high, -low))
    return effects


def factor_agreement(
    importances: Importances, effects: Sequence[RuleEffect], *, num_draws: int, rng: np.random.Generator
) -> FactorAgreement | None:
    """Whether both rank factors alike, at the confidence of `importances`, which that of `effects` must be as well.

    None unless both know two factors.
    """
    known = {effect.factor for effect in effects}
    rows = [row for row in importances.factors if row.factor in known and None not in (row.total.low, row.total.high)]
    if len(rows) < 2:
        return None
    names = [row.factor for row in rows]
    quantile = float(ndtri(1 - significance(importances.confidence) / 2))
    totals = _drawn([(row.total.value, row.total.low, row.total.high) for row in rows], quantile, num_draws, rng)
    costs = _drawn([(e.cost_pct, e.low_pct, e.high_pct) for e in effects], quantile, num_draws, rng)
    places = [[k for k, effect in enumerate(effects) if effect.factor == name] for name in names]
    largest = np.stack([np.abs(costs[:, at]).max(axis=1) for at in places], axis=1)
    strongest = [max((effects[k].cost_pct for k in at), key=abs) for at in places]
    first = int(np.argmax(totals[0])), int(np.argmax(largest[0]))
    same = np.argmax(totals[1:], axis=1) == np.argmax(largest[1:], axis=1)
    return FactorAgreement(
        factors=tuple(names),
        costs_pct=tuple(strongest),
        first_by_importance=names[first[0]],
        first_by_rules=names[first[1]],
        same_first=first[0] == first[1],
        chance_same_first=float(np.mean(same)),
        spearman=_estimate(_spearman(totals, largest), importances.confidence)
        if len(rows) >= FEWEST_FACTORS
        else UNKNOWN,
        kendall=_estimate(_kendall(totals, largest), importances.confidence)
        if len(rows) >= FEWEST_FACTORS
        else UNKNOWN,
        num_draws=num_draws,
        confidence=importances.confidence,
    )


def _drawn(
    measured: Sequence[tuple[Any, Any, Any]], quantile: float, num_draws: int, rng: np.random.Generator
) -> Floats:
    """The estimates, then `num_draws` redrawn from their intervals, (1 + draws, len)."""
    value, low, high = np.array(measured, dtype=np.float64).T
    spread = (high - low) / (2 * quantile)
    return np.vstack([value, value + spread * rng.standard_normal((num_draws, len(value)))])


def _estimate(correlations: Floats, confidence: float) -> IntervalEstimate:
    """The first as the estimate, the middle of the others as its interval."""
    tail = significance(confidence) / 2
    low, high = np.quantile(correlations[1:], [tail, 1 - tail])
    return IntervalEstimate(float(correlations[0]), float(low), float(high))


def _spearman(x: Floats, y: Floats) -> Floats:
    """Of each row."""
    # The sum of signs against all others is twice the rank less its mean.
    ranks = [np.sign(values[:, :, None] - values[:, None, :]).sum(axis=2) for values in (x, y)]
    scale = np.sqrt(np.sum(ranks[0] ** 2, axis=1) * np.sum(ranks[1] ** 2, axis=1))
    return np.sum(ranks[0] * ranks[1], axis=1) / np.where(scale > 0, scale, 1.0)


def _kendall(x: Floats, y: Floats) -> Floats:
    """τ_b of each row."""
    first, second = np.triu_indices(x.shape[1], 1)
    signs = [np.sign(values[:, first] - values[:, second]) for values in (x, y)]
    scale = np.sqrt(np.sum(signs[0] ** 2, axis=1) * np.sum(signs[1] ** 2, axis=1))
    return np.sum(signs[0] * signs[1], axis=1) / np.where(scale > 0, scale, 1.0)
