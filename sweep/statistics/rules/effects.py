"""What a rule does to a space, beside the mean: to the median, to the best tenth, and how often it wins.

In: two spaces as strata of samples (bootstrap.py). Out: an `Effect` for each measure, with − without, its interval,
its p-value, and the p-value of equivalence within a margin. All from the weighted error distributions, in closed form,
so that they hold for samples of which every error is known and for estimates at the full budget alike.

* Quantiles: the interval of one space holds the errors at which the share of networks is not refuted to be the wanted
  one (Woodruff 1952), with Jeffreys limits of that share (Brown, Cai and DasGupta 2001) at the effective number of
  networks (Korn and Graubard 1998): order statistics, so ties and diverged networks do no harm. Two such intervals
  make one of the difference by the method of variance estimates recovery (Zou and Donner 2008), which keeps their
  skewness.
* Probability of superiority: that a network with the rule has a lower error than one without, ties half (Mann and
  Whitney 1947), with the variance of placements (Brunner and Munzel 2000; DeLong et al. 1988) and an interval on the
  logit scale.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import betainc, betaincinv, expit, logit, stdtr, stdtrit

from sweep.statistics.bootstrap import Stratum
from sweep.statistics.samples import Floats, Sample

Measure = Literal["median", "quantile_10", "superiority"]
LEVELS: dict[Measure, float] = {"median": 0.5, "quantile_10": 0.1}

Weighted = Sequence[tuple[float, Sample]]
"""A space as its strata, each with its weight; they sum to 1."""

_LEAST_P, _BISECTIONS = 1e-6, 40


@dataclass(frozen=True)
class Effect:
    """`effect` is with − without: points of error, or for superiority the probability less one half, from −0.5 to 0.5
    and turned around, so that negative always means that the rule helps. None where the data cannot say."""

    measure: Measure
    without: float | None
    with_: float | None
    effect: float | None
    low: float | None
    high: float | None
    p_value: float | None
    p_equivalence: float | None


def effects(strata: Sequence[Stratum], *, confidence: float, margin_pct: float) -> list[Effect]:
    """Of all measures but the mean, which bootstrap.py compares."""
    if not strata or min(min(len(s.without.values), len(s.with_.values)) for s in strata) < 2:
        return [Effect(measure, *[None] * 7) for measure in (*LEVELS, "superiority")]
    without, with_ = [(s.weight, s.without) for s in strata], [(s.weight, s.with_) for s in strata]
    return [
        *(_quantiles_differ(m, without, with_, confidence, margin_pct) for m in LEVELS),
        _superiority(strata, confidence),
    ]


# -- quantiles -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Quantile:
    """A quantile of a space. `ends` (k + 2,) are the known errors between 0 and 100, `refuted` (k + 1,) falls: how
    likely the share of networks at or below the error at which a step begins is less than the level, as seen."""

    value: float
    ends: Floats
    refuted: Floats

    def limits(self, alpha: float) -> tuple[float, float]:
        """The lowest and the highest error that two tests at `alpha` / 2 each do not refute."""
        first = int(np.searchsorted(-self.refuted, alpha / 2 - 1, side="left"))
        last = int(np.searchsorted(-self.refuted, -alpha / 2, side="right")) - 1
        last = max(last, 0)
        return min(float(self.ends[first]), self.value), max(float(self.ends[last + 1]), self.value)


def quantile(space: Weighted, level: float) -> float:
    """The error that a share `level` of the networks does not exceed, interpolated between order statistics (the
    middle of each step, Hazen 1914)."""
    errors, weights = _ordered(space)
    middles = np.maximum.accumulate(np.cumsum(weights) - weights / 2)
    return float(np.interp(level, middles, errors))


def quantile_interval(space: Weighted, level: float, *, confidence: float) -> tuple[float, float, float]:
    """The quantile in percent and its limits."""
    found = _quantile(space, level)
    return found.value, *found.limits(1 - confidence)


def distribution(space: Weighted) -> tuple[Floats, Floats]:
    """The known errors in rising order, and the estimated share of networks at or below each."""
    errors, weights = _ordered(space)
    return errors, np.clip(np.maximum.accumulate(np.cumsum(weights)), 0.0, 1.0)


def share_below(space: Weighted, grid: Floats, *, confidence: float) -> tuple[Floats, Floats, Floats]:
    """The estimated share of networks at or below each error of `grid` (rising), with pointwise limits (as for the
    quantiles). All three rise, as the share does: limits are widened to, never narrowed."""
    shares, squared_errors = _shares(space, grid)
    shares = np.clip(np.maximum.accumulate(shares), 0.0, 1.0)
    num = _effective(shares, squared_errors, space)
    below, above, alpha = shares * num, (1 - shares) * num, 1 - confidence
    low = np.where(below > 0, betaincinv(below + 0.5, above + 0.5, alpha / 2), 0.0)
    high = np.where(above > 0, betaincinv(below + 0.5, above + 0.5, 1 - alpha / 2), 1.0)
    low, high = np.minimum(low, shares), np.maximum(high, shares)
    return shares, np.minimum.accumulate(low[::-1])[::-1], np.maximum.accumulate(high)


def _quantile(space: Weighted, level: float) -> _Quantile:
    value = quantile(space, level)
    errors, shares = distribution(space)
    _, squared_error = _shares(space, np.array([value]))
    num = float(_effective(np.array([level]), squared_error, space)[0])
    inner = shares[:-1]
    refuted = betainc(inner * num + 0.5, (1 - inner) * num + 0.5, level)
    below_all = betainc(0.5, num + 0.5, level)
    return _Quantile(value, np.concatenate([[0.0], errors, [100.0]]), np.concatenate([[below_all], refuted, [0.0]]))


def _ordered(space: Weighted) -> tuple[Floats, Floats]:
    errors = np.concatenate([sample.values for _, sample in space])
    weights = np.concatenate([weight * sample.weights for weight, sample in space])
    order = np.argsort(errors, kind="stable")
    return errors[order], weights[order] / weights.sum()


def _shares(space: Weighted, grid: Floats) -> tuple[Floats, Floats]:
    """Share of networks at or below each error of `grid`, and its squared standard error."""
    shares, squared_errors = np.zeros(len(grid)), np.zeros(len(grid))
    for weight, sample in space:
        mean, squared_error = sample.shares(grid)
        shares += weight * mean
        squared_errors += weight**2 * squared_error
    return shares, squared_errors


def _effective(shares: Floats, squared_errors: Floats, space: Weighted) -> Floats:
    """So many networks, all known and unweighted, would tell as much of these shares."""
    num = sum(sample.num for _, sample in space)
    spread = shares * (1 - shares)
    found = np.divide(spread, squared_errors, out=np.full(len(shares), float(num)), where=squared_errors > 0)
    return np.clip(np.where(spread > 0, found, _least_effective(space)), 1.0, num)


def _least_effective(space: Weighted) -> float:
    """Of a share that is 0 or 1: by the spread of the weights alone (Kish 1965)."""
    weights = np.concatenate([weight * sample.weights for weight, sample in space])
    return float(weights.sum() ** 2 / (weights**2).sum())


def _quantiles_differ(measure: Measure, without: Weighted, with_: Weighted, confidence: float, margin: float) -> Effect:
    first, second = _quantile(without, LEVELS[measure]), _quantile(with_, LEVELS[measure])
    effect = second.value - first.value

    def limits(alpha: float) -> tuple[float, float]:
        (low_1, high_1), (low_2, high_2) = first.limits(alpha), second.limits(alpha)
        down, up = second.value - low_2, high_2 - second.value
        return (
            effect - math.hypot(down, high_1 - first.value),
            effect + math.hypot(up, first.value - low_1),
        )

    low, high = limits(1 - confidence)
    return Effect(
        measure,
        first.value,
        second.value,
        effect,
        low,
        high,
        p_value=_largest_alpha(lambda alpha: _holds(limits(alpha), 0.0)),
        p_equivalence=_largest_alpha(lambda alpha: not _lies_within(limits(alpha), margin)) if margin > 0 else 1.0,
    )


def _holds(interval: tuple[float, float], value: float) -> bool:
    return interval[0] <= value <= interval[1]


def _lies_within(interval: tuple[float, float], margin: float) -> bool:
    return -margin < interval[0] and interval[1] < margin


def _largest_alpha(is_not_refuted: Callable[[float], bool]) -> float:
    """The level from which on a test refutes: intervals shrink as alpha grows. By bisection on its logarithm."""
    if is_not_refuted(1.0):
        return 1.0
    if not is_not_refuted(_LEAST_P):
        return _LEAST_P
    low, high = math.log(_LEAST_P), 0.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_not_refuted(math.exp(middle)) else (low, middle)
    return math.exp(high)


# -- superiority ---------------------------------------------------------------------------------------------------


def _superiority(strata: Sequence[Stratum], confidence: float) -> Effect:
    """Negative effects help: one half less the probability that a network with the rule is the better one."""
    wins, squared_errors, freedom = 0.0, [], []
    for stratum in strata:
        found, of_without, of_with = _placements(stratum.without, stratum.with_)
        wins += stratum.weight * found
        squared_errors += [stratum.weight**2 * of_without, stratum.weight**2 * of_with]
        freedom += [len(stratum.without.values) - 1, len(stratum.with_.values) - 1]
    squared_error = sum(squared_errors)
    if squared_error == 0:
        return _superiority_apart(wins, strata, confidence)
    degrees = squared_error**2 / sum(s**2 / f for s, f in zip(squared_errors, freedom))
    num_pairs = sum(len(s.without.values) * len(s.with_.values) for s in strata)
    inner = (float(np.clip(wins, 0, 1)) * num_pairs + 0.5) / (num_pairs + 1)
    on_logit = math.sqrt(squared_error) / (inner * (1 - inner))
    reach = float(stdtrit(degrees, 1 - (1 - confidence) / 2)) * on_logit
    centre = float(logit(inner))
    p_value = float(min(1.0, 2 * stdtr(degrees, -abs(centre) / on_logit)))
    low, high = 0.5 - float(expit(centre + reach)), 0.5 - float(expit(centre - reach))
    return Effect("superiority", 0.5, wins, 0.5 - wins, low, high, p_value, None)


def _superiority_apart(wins: float, strata: Sequence[Stratum], confidence: float) -> Effect:
    """Of samples that do not overlap, or that are all one value: their placements show no spread. As many pairs as
    there are networks on the smaller side are independent, and all of them went one way (a sign test)."""
    num = min(sum(len(s.without.values) for s in strata), sum(len(s.with_.values) for s in strata))
    if abs(wins - 0.5) < 0.5 - 1e-9:
        return Effect("superiority", 0.5, wins, 0.5 - wins, None, None, 1.0, None)
    least = ((1 - confidence) / 2) ** (1 / num)
    low, high = (-0.5, 0.5 - least) if wins > 0.5 else (least - 0.5, 0.5)
    return Effect("superiority", 0.5, wins, 0.5 - wins, low, high, min(1.0, 2 * 0.5**num), None)


def _placements(without: Sample, with_: Sample) -> tuple[float, float, float]:
    """The share of pairs in which the network with the rule is the better one, and what either side adds to its squared
    standard error."""
    of_without, of_with = _shares_below(with_, without.values), 1 - _shares_below(without, with_.values)
    wins, error_with = with_.means(of_with[:, None])
    _, error_without = without.means(of_without[:, None])
    return float(wins[0]), float(np.nan_to_num(error_without[0])), float(np.nan_to_num(error_with[0]))


def _shares_below(sample: Sample, at: Floats) -> Floats:
    """Share of a sample's networks below each error, those that tie half."""
    order = np.argsort(sample.values, kind="stable")
    errors, total = sample.values[order], np.concatenate([[0.0], np.cumsum(sample.weights[order])])
    up_to, below = total[np.searchsorted(errors, at, side="right")], total[np.searchsorted(errors, at, side="left")]
    return (up_to + below) / 2 / total[-1]
