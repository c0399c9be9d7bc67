"""The stopping decisions: asynchronous successive halving, pure Python, no clock, no Ray, no randomness.

In: arrivals `(cohort, rung, error)` in their order. Out: for each, whether the rule would stop the trial, and the
cutoff that it was held against. The Tune scheduler and the replay both call it, a resumed sweep rebuilds it from
the journal.

The rule (Li et al. 2020, *A System for Massively Parallel Hyperparameter Tuning*, in the stopping form of Ray's
`AsyncHyperBandScheduler`): a trial that arrives at a rung stops if its error is above the 1/eta quantile
(interpolated) of the errors that arrived at this rung of its cohort before it. The first arrival and ties go on.

Deviations from Ray's: rungs are kept per cohort, so that one space never stops another's trials; an error that is
NaN or None ranks as the worst and never goes on (Ray lets NaN pass for ever and dies of None); there is one bracket,
and its rungs are exact integers (`Stopping.rungs`; Ray's come from a floating-point logarithm that can lose one).
"""

import math
from bisect import insort
from dataclasses import dataclass, field

CONTINUE, STOP = "continue", "stop"


@dataclass(frozen=True)
class Judgement:
    """`cutoff_pct` is the error above which the trial stops; None where nothing had arrived before it."""

    would_stop: bool
    cutoff_pct: float | None


def next_rung(rungs: tuple[int, ...], epoch: int) -> int | None:
    """The first rung at or after `epoch`: where a trial that diverged in this epoch would have arrived."""
    return next((rung for rung in rungs if rung >= epoch), None)


def lower_quantile(ordered: list[float], reduction_factor: int) -> float:
    """The 1/eta quantile by linear interpolation between order statistics, as numpy.percentile has it.

    The position is exact in integers: a float position just beside an order statistic would stop a trial that ties
    with it. Safe with infinities, of which numpy makes NaN.
    """
    low, remainder = divmod(len(ordered) - 1, reduction_factor)
    if remainder == 0 or ordered[low] == ordered[low + 1]:
        return ordered[low]
    return ordered[low] + (ordered[low + 1] - ordered[low]) * (remainder / reduction_factor)


@dataclass
class Asha:
    """The rungs of all cohorts. `reduction_factor` eta: about 1/eta of the arrivals at a rung go on."""

    reduction_factor: int
    _errors: dict[tuple[str, int], list[float]] = field(default_factory=dict)

    def arrive(self, cohort: str, rung_epochs: int, error_pct: float | None) -> Judgement:
        """Judge an arrival against the earlier ones, then add it to them."""
        error = math.inf if error_pct is None or math.isnan(error_pct) else error_pct
        earlier = self._errors.setdefault((cohort, rung_epochs), [])
        cutoff = lower_quantile(earlier, self.reduction_factor) if earlier else None
        would_stop = math.isinf(error) or (cutoff is not None and error > cutoff)
        insort(earlier, error)
        return Judgement(would_stop, cutoff)
