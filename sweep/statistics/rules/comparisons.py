"""Two spaces that differ by a rule, compared at one scale and one budget, before any correction for being several.

In: cohorts (cohorts.py). Out: `Comparison`s: at a rung, of all networks that are there; at the full budget, of the
estimates that early stopping leaves (full_budget.py). Either way of the spaces as they are, or of strata of like
complexity.
"""

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from sweep.spaces import RulePair
from sweep.statistics.bootstrap import Stratum, StudentisedDifference, studentised_difference, unmatched
from sweep.statistics.cohorts import Cohort
from sweep.statistics.full_budget import full_budget
from sweep.statistics.rules.effects import Effect, effects
from sweep.statistics.rules.matching import like_complexity, matched
from sweep.statistics.samples import Floats, Sample
from sweep.studies.study import Match

Key = tuple[str, str, str]
"""The space without a rule, the one with it, and the scale."""

Cohorts = Mapping[tuple[str, str], Cohort]
"""(scale, space) -> its networks."""

Budget = Literal["rung", "full"]


@dataclass(frozen=True)
class Contrast:
    """The networks that a rule at a scale is judged by, after `epochs` epochs, and the strata that compare them.

    `n_without`, `n_with` networks count; the error at this budget is known of `num_known_without`, `num_known_with`: of
    all at a rung, of some at a full budget that early stopping kept networks from.
    """

    pair: RulePair
    scale: str
    budget: Budget
    epochs: int
    n_without: int
    n_with: int
    num_known_without: int
    num_known_with: int
    matched_on: Match
    strata: Sequence[Stratum]

    @property
    def is_estimated(self) -> bool:
        return (self.num_known_without, self.num_known_with) != (self.n_without, self.n_with)


@dataclass(frozen=True)
class Comparison:
    """What was compared, and how it differs; `difference` of means is None where the data cannot say."""

    contrast: Contrast
    difference: StudentisedDifference | None

    @property
    def key(self) -> Key:
        return self.contrast.pair.space_without, self.contrast.pair.space_with, self.contrast.scale

    @property
    def effect_pct(self) -> float | None:
        without, with_ = self.means_pct
        return None if without is None or with_ is None else with_ - without

    @cached_property
    def means_pct(self) -> tuple[float | None, float | None]:
        """Without the rule and with it, weighted as the strata are; None if there is nothing in them."""
        strata = self.contrast.strata
        sides = [[(s.weight, s.without) for s in strata], [(s.weight, s.with_) for s in strata]]
        without, with_ = (
            float(sum(weight * sample.mean for weight, sample in side))
            if side and all(len(sample.values) for _, sample in side)
            else None
            for side in sides
        )
        return without, with_

    def p_values(self, margin_pct: float) -> tuple[float, float]:
        """Of no difference of means, and of one beyond the margin; both 1 where the data cannot say."""
        if self.difference is None:
            return 1.0, 1.0
        return self.difference.p_value(), self.difference.p_equivalence(margin_pct)

    def other_effects(self, *, confidence: float, margin_pct: float) -> list[Effect]:
        """On the median, the best tenth, and how often the rule wins."""
        return effects(self.contrast.strata, confidence=confidence, margin_pct=margin_pct)


def compare(contrast: Contrast, *, confidence: float, num_bootstrap: int, seed: int) -> Comparison:
    """By `num_bootstrap` resamples; too few networks for an interval at `confidence` show nothing."""
    # Seeded by what is compared, not by its place in the list: another space in the study leaves it as it is.
    named = (contrast.pair.space_without, contrast.pair.space_with, contrast.scale)
    key = zlib.crc32("\0".join(named).encode())
    rng = np.random.default_rng([seed, key])
    difference = studentised_difference(contrast.strata, num_bootstrap=num_bootstrap, rng=rng)
    if difference is not None and not all(map(math.isfinite, difference.interval(confidence))):
        difference = None
    return Comparison(contrast, difference)


def at_rung(cohorts: Cohorts, pair: RulePair, scale: str, epochs: int, *, match: Match, match_strata: int) -> Contrast:
    """Of all networks that were trained for `epochs` epochs."""
    sides = [cohorts[scale, space] for space in (pair.space_without, pair.space_with)]
    sides = [side.take(~np.isnan(side.errors_at(epochs))) for side in sides]
    without, with_ = (side.errors_at(epochs) for side in sides)
    if match == "none":
        strata = unmatched(without, with_)
    else:
        strata = matched(without, with_, *_complexities(sides, match), num_strata=match_strata)
    num_without, num_with = map(len, sides)
    budget: Budget = "full" if all(side.full_budget == epochs for side in sides) else "rung"
    return Contrast(pair, scale, budget, epochs, num_without, num_with, num_without, num_with, match, strata)


def at_full_budget(cohorts: Cohorts, pair: RulePair, scale: str, *, match: Match, match_strata: int) -> Contrast:
    """Of the estimates at the full budget; no strata where one side has none."""
    sides = [cohorts[scale, space] for space in (pair.space_without, pair.space_with)]
    epochs = sides[0].full_budget
    if any(side.is_open.any() for side in sides):
        return Contrast(pair, scale, "full", epochs, len(sides[0]), len(sides[1]), 0, 0, match, [])
    sides = [side.take(~side.is_cancelled) for side in sides]
    known = [int(np.count_nonzero(side.is_finished)) for side in sides]
    if match == "none":
        strata = _strata([(full_budget(sides[0]), full_budget(sides[1]), 1.0)])
    else:
        strata = _strata(
            (full_budget(sides[0].take(a)), full_budget(sides[1].take(b)), weight)
            for a, b, weight in like_complexity(*_complexities(sides, match), num_strata=match_strata)
        )
    return Contrast(pair, scale, "full", epochs, len(sides[0]), len(sides[1]), known[0], known[1], match, strata)


def _complexities(sides: Sequence[Cohort], match: Match) -> list[Floats]:
    for side in sides:
        if match not in side.complexity:
            raise ValueError(
                f"match: {match!r} of {side.space!r} is not known; give the curves a column {match}, "
                "or compare unmatched"
            )
    return [side.complexity[match] for side in sides]


def _strata(estimated: Iterable[tuple[Sample | None, Sample | None, float]]) -> list[Stratum]:
    """All of them or none: leaving out those with too few audited networks would choose by luck."""
    found = [Stratum(a, b, weight) for a, b, weight in estimated if a is not None and b is not None]
    total = sum(stratum.weight for stratum in found)
    return found if math.isclose(total, 1.0) else []
