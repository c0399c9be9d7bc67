"""Does the effect of a rule keep its sign and its size from small scale to large?

In: the effect of one rule at several scales, small to large, in points of error, with standard errors, from independent
networks; or the effect of each pair of networks at each scale, where the same pairs were scaled. Out: the difference
between the largest scale and the smallest with its interval, a test that all effects are one, and a decision. DDS says
of its rules that they hold at higher flops, by eye; here is what that may mean:

* **same size**: any two scales differ by less than a margin. A difference that is not significant shows nothing; so
  this is equivalence (two one-sided tests, Schuirmann 1987): the interval of each pairwise difference lies within
  ±margin. All must be shown at once, so none needs a correction (intersection-union; Berger and Hsu 1996).
* **same sign**: each effect's interval excludes 0, all on the same side. An intersection-union again.
* **changes sign**: one effect is below 0 and another above it, a qualitative interaction (Gail and Simon 1985), which
  no average over scales could describe. Shown if one interval lies below 0 and another above. There are several that
  could do so by chance, so each is taken at 1 − (1 − confidence) / (scales − 1): with one effect far on one side, that
  many others could be found on the other side wrongly. Two scales need no correction.
* **undecided**: none of these is shown.

The first of them that holds is the decision, the others are kept beside it: effects of the same size, within a margin
that does not matter, need no sign. Each is wrongly claimed in at most 1 − confidence of cases. All are of one rule;
for a family of rules give a corrected confidence.

**One effect for all scales?** Cochran's Q (1954) weighs squared deviations from the common effect by their precision;
I² is the share of Q beyond its expectation (Higgins and Thompson 2002), the part of the variance between scales that
chance does not explain. Its p-value is Welch's (1951), who corrects Q for standard errors that were themselves
estimated; with infinite degrees of freedom it is that of χ². For pairs Q is Hotelling's T² (1931) of the differences
between scales, which knows that the effects are correlated. With few scales it has little power: that it is not
significant decides nothing here.

Intervals are Student's, of differences between independent scales with the degrees of freedom of Welch and
Satterthwaite.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf, isfinite, sqrt
from typing import Literal

import numpy as np
from scipy.special import chdtrc, fdtrc, ndtri, stdtrit

from sweep.statistics.bootstrap import Floats, significance
from sweep.statistics.intervals import UNKNOWN, IntervalEstimate

Constancy = Literal["same size", "changes sign", "same sign", "undecided"]


@dataclass(frozen=True)
class Heterogeneity:
    """One rule's effects at `num_scales` scales, small to large, in points of error; intervals at `confidence`.

    `difference` is the effect at the last scale minus that at the first. `cochran_q` with `p_value` tests that all
    effects are one; `i_squared` is 0 to 1. `num_pairs` networks or pairs have an effect at every scale; None if the
    scales are independent. Below two scales, or where an effect or its error is unknown, all is None and undecided.
    """

    num_scales: int
    num_pairs: int | None
    effects: tuple[IntervalEstimate, ...]
    difference: IntervalEstimate
    cochran_q: float | None
    p_value: float | None
    i_squared: float | None
    same_size: bool
    same_sign: bool
    changes_sign: bool
    decision: Constancy
    margin_pct: float
    confidence: float


def effect_heterogeneity(
    effects: Sequence[float],
    standard_errors: Sequence[float],
    *,
    degrees_of_freedom: Sequence[float] | None = None,
    margin_pct: float,
    confidence: float,
) -> Heterogeneity:
    """From independent scales: one effect, standard error and number of degrees of freedom for each.

    Without degrees of freedom the standard errors count as known. NaN marks an effect that is not known. Raises
    `ValueError` if lengths differ, if the margin is negative, or if `confidence` is not between 0 and 1.
    """
    freedom = [inf] * len(effects) if degrees_of_freedom is None else list(degrees_of_freedom)
    if not len(effects) == len(standard_errors) == len(freedom):
        raise ValueError(
            f"standard_errors: {len(standard_errors)} and {len(freedom)} degrees of freedom beside {len(effects)} "
            "effects; give one of each for every scale"
        )
    _check(margin_pct, confidence)
    means, errors = np.array(effects, dtype=np.float64), np.array(standard_errors, dtype=np.float64)
    scales = _Scales(means, np.diag(errors**2), tuple(freedom), None)
    known = len(means) > 1 and np.isfinite(means).all() and np.isfinite(errors).all() and (errors > 0).all()
    if not known or min(freedom) <= 0:
        return _unknown(scales, margin_pct, confidence)
    return _judge(scales, *_cochran(means, errors, np.array(freedom)), margin_pct, confidence)


def paired_effect_heterogeneity(effects: Floats, *, margin_pct: float, confidence: float) -> Heterogeneity:
    """From the same pairs at all scales: `effects` of shape (pairs, scales), each in points of error.

    Pairs that lack a scale (NaN) are left out. Raises `ValueError` if `effects` has not two dimensions, if the margin
    is negative, or if `confidence` is not between 0 and 1.
    """
    if effects.ndim != 2:
        raise ValueError(f"effects: shape {effects.shape}; give one row for each pair and one column for each scale")
    _check(margin_pct, confidence)
    complete = effects[np.isfinite(effects).all(axis=1)]
    num, num_scales = complete.shape
    means = complete.mean(axis=0) if num else np.full(num_scales, np.nan)
    covariance = np.cov(complete, rowvar=False).reshape(num_scales, num_scales) / num if num > 1 else np.diag(means)
    scales = _Scales(means, covariance, (num - 1.0,) * num_scales, num)
    if num <= num_scales or num_scales < 2 or not np.all(np.diag(covariance) > 0):
        return _unknown(scales, margin_pct, confidence)
    return _judge(scales, *_hotelling(scales), margin_pct, confidence)


@dataclass(frozen=True)
class _Scales:
    """Effects, their covariance and degrees of freedom; `num_pairs` None if the scales are independent."""

    effects: Floats
    covariance: Floats
    degrees_of_freedom: tuple[float, ...]
    num_pairs: int | None

    def effect(self, scale: int, confidence: float) -> IntervalEstimate:
        error = sqrt(self.covariance[scale, scale])
        return _student(float(self.effects[scale]), error, self.degrees_of_freedom[scale], confidence)

    def difference(self, low: int, high: int, confidence: float) -> IntervalEstimate:
        """Effect at `high` minus effect at `low`."""
        parts = [self.covariance[scale, scale] for scale in (low, high)]
        squared_error = max(0.0, sum(parts) - 2 * self.covariance[low, high])
        freedom = self.degrees_of_freedom[low]
        if self.num_pairs is None:
            inverse = sum(part**2 / self.degrees_of_freedom[scale] for part, scale in zip(parts, (low, high)))
            freedom = sum(parts) ** 2 / inverse if inverse else inf
        return _student(float(self.effects[high] - self.effects[low]), sqrt(squared_error), freedom, confidence)


def _check(margin_pct: float, confidence: float) -> None:
    significance(confidence)
    if not margin_pct >= 0:
        raise ValueError(f"margin_pct: {margin_pct} is no margin; give points of error, 0 or more, such as 0.5")


def _student(value: float, error: float, degrees_of_freedom: float, confidence: float) -> IntervalEstimate:
    if not error > 0:
        return IntervalEstimate(value, None, None)
    at = 1 - significance(confidence) / 2
    reach = float(stdtrit(degrees_of_freedom, at) if isfinite(degrees_of_freedom) else ndtri(at)) * error
    return IntervalEstimate(value, value - reach, value + reach)


def _cochran(effects: Floats, errors: Floats, degrees_of_freedom: Floats) -> tuple[float, float]:
    """Q, and its p-value by Welch's correction."""
    weights = 1 / errors**2
    share = weights / weights.sum()
    q = float(weights @ (effects - share @ effects) ** 2)
    num, uncertain = len(effects), float(((1 - share) ** 2 / degrees_of_freedom).sum())
    if not uncertain:
        return q, float(chdtrc(num - 1, q))
    ratio = q / (num - 1) / (1 + 2 * (num - 2) / (num**2 - 1) * uncertain)
    return q, float(fdtrc(num - 1, (num**2 - 1) / (3 * uncertain), ratio))


def _hotelling(scales: _Scales) -> tuple[float | None, float | None]:
    """T² of the differences between neighbouring scales, and its p-value; None if some combination never varies."""
    num, num_scales = scales.num_pairs or 0, len(scales.effects)
    steps = np.diff(np.eye(num_scales), axis=0)
    spread = steps @ scales.covariance @ steps.T
    if np.linalg.matrix_rank(spread, hermitian=True) < num_scales - 1:
        return None, None
    moved = steps @ scales.effects
    squared = float(moved @ np.linalg.solve(spread, moved))
    freedom = num - num_scales + 1
    return squared, float(fdtrc(num_scales - 1, freedom, squared * freedom / ((num - 1) * (num_scales - 1))))


def _judge(
    scales: _Scales, q: float | None, p_value: float | None, margin_pct: float, confidence: float
) -> Heterogeneity:
    every = range(len(scales.effects))
    effects = tuple(scales.effect(scale, confidence) for scale in every)
    differences = [scales.difference(low, high, confidence) for low, high in combinations(every, 2)]
    stricter = 1 - significance(confidence) / (len(every) - 1)
    same_size = all(_within(difference, margin_pct) for difference in differences)
    same_sign = abs(sum(_side(effect) for effect in effects)) == len(effects)
    changes_sign = {-1, 1} <= {_side(scales.effect(scale, stricter)) for scale in every}
    return Heterogeneity(
        num_scales=len(every),
        num_pairs=scales.num_pairs,
        effects=effects,
        difference=scales.difference(0, len(every) - 1, confidence),
        cochran_q=q,
        p_value=p_value,
        i_squared=None if q is None else max(0.0, 1 - (len(every) - 1) / q) if q else 0.0,
        same_size=same_size,
        same_sign=same_sign,
        changes_sign=changes_sign,
        decision=_decide(same_size, changes_sign, same_sign),
        margin_pct=margin_pct,
        confidence=confidence,
    )


def _unknown(scales: _Scales, margin_pct: float, confidence: float) -> Heterogeneity:
    effects = tuple(
        IntervalEstimate(float(effect) if isfinite(effect) else None, None, None) for effect in scales.effects
    )
    return Heterogeneity(
        num_scales=len(effects),
        num_pairs=scales.num_pairs,
        effects=effects,
        difference=UNKNOWN,
        cochran_q=None,
        p_value=None,
        i_squared=None,
        same_size=False,
        same_sign=False,
        changes_sign=False,
        decision="undecided",
        margin_pct=margin_pct,
        confidence=confidence,
    )


def _within(difference: IntervalEstimate, margin_pct: float) -> bool:
    if difference.low is None or difference.high is None:
        return False
    return -margin_pct < difference.low and difference.high < margin_pct


def _side(effect: IntervalEstimate) -> int:
    """Which side of 0 the whole interval lies on, or 0."""
    return int(effect.low is not None and effect.low > 0) - int(effect.high is not None and effect.high < 0)


def _decide(same_size: bool, changes_sign: bool, same_sign: bool) -> Constancy:
    if same_size:
        return "same size"
    if changes_sign:
        return "changes sign"
    return "same sign" if same_sign else "undecided"
