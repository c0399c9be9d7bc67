"""The errors of a space at its full budget, though early stopping ended most of its networks before.

In: a `Cohort`. Out: estimates of the mean, the EDF and its quantiles over *all* networks of the cohort. Facts:
survivors of ASHA are not a sample of the space (DESIGN, section 4.1). But the audit lottery kept each network that the
rule wanted to end with a known probability p, drawn before it started, so the networks whose error is known are a
probability sample: with inclusion probability π = 1 where the rule never wanted to end it, π = p where it did.

* `horvitz_thompson`: each known error counts 1/π (Horvitz and Thompson 1952). Unbiased, whatever the curves.
* `hajek`: the same weights, made to sum to the number of networks (Hájek 1971). Where p is not known it is the share
  that was kept, and the two are one.
* `model_assisted`: a regression predicts the full-budget error of each network that the rule wanted to end, from its
  error at that rung and the rung; the mean prediction is then corrected by the weighted residuals of those that were
  audited (the difference estimator, Särndal, Swensson and Wretman 1992, chapter 6; as augmented inverse probability
  weighting, Robins, Rotnitzky and Zhao 1994). The prediction of an audited network is that of a regression without it
  (leave one out), which keeps the estimate unbiased in samples of any size, right model or wrong (Wu and
  Gagnon-Bartsch 2018). The regression is linear in the errors of the audited, so it amounts to one set of weights for
  all questions: mean, EDF, quantiles.

The regression is a ridge on the error at the rung, hinges at its quartiles and its 90 % quantile (networks that have
learnt nothing are apart from the rest), and the logarithm of the rung's epochs; its penalty leaves little of it where
few were audited. Intervals of the mean: studentised bootstrap of both phases, the regression made anew in each
resample; with fewer than six audited networks, of normal residuals. A closed form stands beside it (`means`): the
spread of the n pseudo-errors. Quantiles: effects.py.

`bounds` tells what can be said with no lottery at all (Manski 1989): the unknown errors lie between 0 and 100 %, or,
if no network ends worse than it was when it was stopped, between 0 and that.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from sweep.statistics.bootstrap import Floats
from sweep.statistics.cohorts import Bools, Cohort
from sweep.statistics.samples import Complete, Sample, at_or_below

Method = Literal["model_assisted", "hajek", "horvitz_thompson"]

FEWEST_AUDITED = 2  # one has no variance
_FEWEST_TO_RESAMPLE = 6
_RIDGE = 10.0  # in networks: against a dozen audited the prediction is half the mean, against a hundred it is its own
_HINGES = (0.25, 0.5, 0.75, 0.9)
_TINY = 1e-9
_FEW = 5
# Resampled values held at once.
_BLOCK_VALUES = 4_000_000


def full_budget(cohort: Cohort, method: Method = "model_assisted") -> Sample | None:
    """The cohort at its full budget. None while trials are still to train, and where fewer than two networks were
    audited among those that the rule wanted to end: then there are only `bounds`.

    Cancelled trials are left out: who was cancelled did not hang on its error.
    """
    if method not in get_args(Method):
        raise ValueError(f"method: {method!r} is no estimator; choose one of {', '.join(get_args(Method))}")
    if cohort.is_open.any():
        return None
    ended = cohort.take(~cohort.is_cancelled) if cohort.is_cancelled.any() else cohort
    if not len(ended):
        return None
    if ended.is_certain.all():
        return Complete(ended.final_errors)
    num_audited = int(np.count_nonzero(ended.is_finished & ~ended.is_certain))
    lottery = ended.audit_fraction[~ended.is_certain]
    if (lottery == 0).any() or num_audited < _fewest_audited(method, is_stated=not np.isnan(lottery).any()):
        return None
    return FullBudget(ended, method)


def _fewest_audited(method: Method, *, is_stated: bool) -> int:
    """With a stated lottery Horvitz and Thompson's estimate is without bias only if it is told whatever was drawn."""
    return 0 if method == "horvitz_thompson" and is_stated else FEWEST_AUDITED


@dataclass(frozen=True)
class FullBudget:
    """A cohort some of whose networks were stopped, at its full budget; made by `full_budget`."""

    cohort: Cohort
    method: Method

    @property
    def num(self) -> int:
        return len(self.cohort)

    @cached_property
    def num_uncertain(self) -> int:
        """Networks that the rule wanted to end."""
        return int(np.count_nonzero(~self.cohort.is_certain))

    @cached_property
    def num_audited(self) -> int:
        """Those of them that the lottery kept."""
        return len(self.values) - self._num_certain

    @cached_property
    def probabilities(self) -> Floats:
        """(a,): of the lottery to keep each that it kept; as stated, else the share that it kept of all."""
        return lottery_of(self.cohort)[~self.cohort.is_certain][self._is_audited]

    @cached_property
    def values(self) -> Floats:
        """The known errors: those that are certain, then those that were audited."""
        certain = self.cohort.final_errors[self.cohort.is_certain]
        return np.concatenate([certain, self._audited_errors])

    @cached_property
    def weights(self) -> Floats:
        """Of the known errors; they sum to 1. Those of the model can be negative."""
        if self.method != "model_assisted":
            inverse = np.concatenate([np.ones(self._num_certain), 1 / self.probabilities])
            return inverse / (inverse.sum() if self.method == "hajek" else self.num)
        of_audited = np.zeros(self.num_audited)
        left = self._rows[~self._is_audited].sum(axis=0)
        of_audited += left @ self._fit  # predictions of those that were stopped
        scale = (1 / self.probabilities - 1) / (1 - self._leverage)
        of_audited += 1 + scale - (scale @ self._rows[self._is_audited]) @ self._fit
        return np.concatenate([np.ones(self._num_certain), of_audited]) / self.num

    @property
    def has_spread(self) -> bool:
        return self.num_audited >= FEWEST_AUDITED and float(np.ptp(self._audited_errors)) > 0

    @cached_property
    def mean(self) -> float:
        return float(self.weights @ self.values)

    @cached_property
    def squared_error(self) -> float:
        """That of the resamples for the model-assisted mean; the closed form for the other methods."""
        if self.method != "model_assisted":
            return float(self._weighted_means(self.values[:, None])[1][0])
        coefficients, residuals = self._refit(np.ones((1, self.num_audited)))
        certain = self.values[: self._num_certain]
        first = self._first_phase_variance(coefficients, np.array([certain.mean() if len(certain) else 0.0]))[0]
        share = self.num_uncertain / self.num
        return float(first / self.num + share**2 * self._residual_mean(np.ones((1, self.num_audited)), residuals)[1][0])

    def means(self, of: Floats) -> tuple[Floats, Floats]:
        """See `Sample`; the squared errors are those of the closed form."""
        if self.method != "model_assisted":
            return self._weighted_means(of)
        pseudo = self.pseudo_values(of)
        return pseudo.mean(axis=0), pseudo.var(axis=0, ddof=1) / self.num

    def pseudo_values(self, of: Floats) -> Floats:
        """(n, q): what each network adds to the mean of `of` (k, q); the certain first, then the others in their
        order."""
        certain, audited = of[: self._num_certain], of[self._num_certain :]
        predicted = self._rows @ (self._fit @ audited)
        residual = (audited - predicted[self._is_audited]) / (1 - self._leverage)[:, None]
        predicted[self._is_audited] = audited - residual + residual / self.probabilities[:, None]
        return np.concatenate([certain, predicted])

    def shares(self, grid: Floats) -> tuple[Floats, Floats]:
        """See `Sample`. Where fewer than five of the audited lie on one side, their own spread says too little of it:
        then that of a share with half a network more on either side counts (Agresti and Coull 1998), if it is
        larger."""
        below = at_or_below(self.values, grid)
        shares, squared_errors = self.means(below)
        num, num_below = self.num_audited, below[self._num_certain :].sum(axis=0)
        spread = (num_below + 0.5) * (num - num_below + 0.5) / (num + 1) ** 2
        first_phase = np.clip(shares * (1 - shares), 0, None) / self.num
        second_phase = (self.num_uncertain / self.num) ** 2 * (1 - num / self.num_uncertain) * spread / num
        is_thin = np.minimum(num_below, num - num_below) < _FEW
        return shares, np.where(is_thin, np.maximum(squared_errors, first_phase + second_phase), squared_errors)

    def _weighted_means(self, of: Floats) -> tuple[Floats, Floats]:
        mean = self.weights @ of
        centred = of - mean if self.method == "hajek" else of
        contributions = self.num * self.weights[:, None] * centred  # nothing from those that were stopped
        total, squares = contributions.sum(axis=0), (contributions**2).sum(axis=0)
        variance = (squares - total**2 / self.num) / (self.num - 1)
        return mean, variance / self.num

    # -- the regression ------------------------------------------------------------------------------------------

    @cached_property
    def _num_certain(self) -> int:
        return int(np.count_nonzero(self.cohort.is_certain))

    @cached_property
    def _is_audited(self) -> Bools:
        """Of the networks that the rule wanted to end, in their order."""
        return self.cohort.is_finished[~self.cohort.is_certain]

    @cached_property
    def _audited_errors(self) -> Floats:
        return self.cohort.final_errors[~self.cohort.is_certain][self._is_audited]

    @cached_property
    def _rows(self) -> Floats:
        """(u, f): the regression's columns for the u networks that the rule wanted to end, the constant first."""
        uncertain = self.cohort.take(~self.cohort.is_certain)
        constant = np.ones((len(uncertain), 1))
        if self.method != "model_assisted":
            return constant
        error = uncertain.last_errors(until=uncertain.would_stop_at)
        error = np.where(np.isnan(error), np.nanmedian(error), error)
        hinges = [np.maximum(error - quantile, 0) for quantile in np.quantile(error, _HINGES)]
        columns = np.stack([error, *hinges, np.log(uncertain.would_stop_at)], axis=1)
        spread = columns.std(axis=0)
        return np.concatenate([constant, (columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1)], axis=1)

    @cached_property
    def _fit(self) -> Floats:
        """(f, a): from the a audited errors to the coefficients."""
        audited = self._rows[self._is_audited]
        moments = audited.T @ audited + _penalty(audited.shape[1])
        return np.asarray(np.linalg.solve(moments, audited.T), dtype=np.float64)

    @cached_property
    def _leverage(self) -> Floats:
        """(a,): how much an audited network weighs in its own prediction."""
        return np.einsum("af,fa->a", self._rows[self._is_audited], self._fit)

    # -- the bootstrap -------------------------------------------------------------------------------------------

    def resample(self, size: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Both phases anew: which networks were drawn and what the rule made of them (normal, for these are all n
        networks), and which of those that it wanted to end were audited (with replacement). Fewer than six are taken
        for normal, too: resamples of so few repeat themselves, and would make intervals three times as wide, to hold
        the mean of the reference curves in 98 % of sweeps of 4 x 20 networks, where these do in 94 %. The
        model-assisted estimate whatever the method: its weights are what the resamples are for."""
        block = max(1, _BLOCK_VALUES // (self.num_audited * self._rows.shape[1]))
        parts = [self._resample(min(block, size - start), rng) for start in range(0, size, block)]
        means, squared_errors = zip(*parts)
        return np.concatenate(means), np.concatenate(squared_errors)

    def _resample(self, size: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        num, num_audited, share = self.num, self.num_audited, self.num_uncertain / self.num
        rows, certain = self._drawn(size, rng)
        if num_audited < _FEWEST_TO_RESAMPLE:
            once = np.ones((1, num_audited))
            coefficients, residuals = self._refit(once)
            centre, squared_error = self._residual_mean(once, residuals)
            residual_mean = centre + np.sqrt(squared_error) * rng.standard_normal(size)
            residual_error = squared_error * rng.chisquare(num_audited - 1, size) / (num_audited - 1)
        else:
            counts = rng.multinomial(num_audited, np.full(num_audited, 1 / num_audited), size=size).astype(np.float64)
            coefficients, residuals = self._refit(counts)
            residual_mean, residual_error = self._residual_mean(counts, residuals)
        mean = share * ((rows * coefficients).sum(axis=1) + residual_mean) + (1 - share) * certain
        return mean, self._first_phase_variance(coefficients, certain) / num + share**2 * residual_error

    def _residual_mean(self, counts: Floats, residuals: Floats) -> tuple[Floats, Floats]:
        """(size,): mean of the residuals (size, a), each as often as it was drawn and by its inverse probability; and
        its squared error."""
        weights = counts / self.probabilities
        weights /= weights.sum(axis=1, keepdims=True)
        mean = (weights * residuals).sum(axis=1)
        squares = np.divide(weights**2, counts, out=np.zeros_like(weights), where=counts > 0)
        num = self.num_audited
        return mean, num / (num - 1) * (squares * (residuals - mean[:, None]) ** 2).sum(axis=1)

    def _refit(self, counts: Floats) -> tuple[Floats, Floats]:
        """Coefficients (size, f), and residuals (size, a) of each audited network from a fit without its copies."""
        audited = self._rows[self._is_audited]
        num_columns = audited.shape[1]
        squares = (audited[:, :, None] * audited[:, None, :]).reshape(len(audited), -1)
        moments = (counts @ squares).reshape(-1, num_columns, num_columns) + _penalty(num_columns)
        inverse = np.linalg.inv(moments)
        right = (counts * self._audited_errors) @ audited
        coefficients = np.einsum("bij,bj->bi", inverse, right)
        leverage = inverse.reshape(len(counts), -1) @ squares.T
        left_out = np.maximum(1 - counts * leverage, _TINY)
        return coefficients, (self._audited_errors - coefficients @ audited.T) / left_out

    def _drawn(self, size: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Means of the rows (size, f) of those that the rule wanted to end, and of the errors (size,) of the others."""
        moved = rng.standard_normal((size, self._rows.shape[1])) @ self._row_root.T
        rows = self._rows.mean(axis=0) + moved / np.sqrt(self.num_uncertain)
        certain = self.values[: self._num_certain]
        if not len(certain):
            return rows, np.zeros(size)
        return rows, certain.mean() + certain.std() / np.sqrt(len(certain)) * rng.standard_normal(size)

    @cached_property
    def _row_covariance(self) -> Floats:
        return np.atleast_2d(np.cov(self._rows, rowvar=False, bias=True))

    @cached_property
    def _row_root(self) -> Floats:
        values, vectors = np.linalg.eigh(self._row_covariance)
        return vectors * np.sqrt(np.maximum(values, 0))

    def _first_phase_variance(self, coefficients: Floats, certain: Floats) -> Floats:
        """(size,): of what is known of each network before the lottery: its error or its prediction."""
        share = self.num_uncertain / self.num
        predicted = coefficients @ self._rows.mean(axis=0)
        within = share * np.einsum("bi,ij,bj->b", coefficients, self._row_covariance, coefficients)
        if self._num_certain:
            within = within + (1 - share) * float(np.var(self.values[: self._num_certain]))
        return within + share * (1 - share) * (predicted - certain) ** 2


def _penalty(num_columns: int) -> Floats:
    """None on the constant, so that all predictions of one value are that value."""
    return np.diag([_TINY] + [_RIDGE] * (num_columns - 1))


def lottery_of(cohort: Cohort) -> Floats:
    """(n,): with which probability it keeps each network; where that is not stated for all, the share that it kept."""
    uncertain = ~cohort.is_certain
    stated = cohort.audit_fraction
    if not np.isnan(stated[uncertain]).any():
        return stated
    num_audited, num_uncertain = np.count_nonzero(uncertain & cohort.is_finished), np.count_nonzero(uncertain)
    return np.full(len(cohort), num_audited / num_uncertain if num_uncertain else 1.0)


def inverse_inclusion(cohort: Cohort) -> Floats:
    """(n,): for how many networks each finished one stands; 1 where the lottery did not decide."""
    decided = ~cohort.is_certain & cohort.is_finished
    return 1 / np.where(decided, lottery_of(cohort), 1.0)


@dataclass(frozen=True)
class Bounds:
    """Lowest and highest mean error in percent; `high_if_no_worse` if no network ends worse than when it was
    stopped."""

    low_pct: float
    high_pct: float
    high_if_no_worse_pct: float


def bounds(cohort: Cohort) -> Bounds | None:
    """Of the mean error at the full budget, whatever the lottery; None while trials are still to train."""
    if cohort.is_open.any():
        return None
    ended = cohort.take(~cohort.is_cancelled)
    if not len(ended):
        return None
    known, errors = ended.is_finished, ended.final_errors
    last = ended.last_errors(until=ended.full_budget)
    return Bounds(
        low_pct=float(np.where(known, errors, 0.0).mean()),
        high_pct=float(np.where(known, errors, 100.0).mean()),
        high_if_no_worse_pct=float(np.where(known, errors, np.where(np.isnan(last), 100.0, last)).mean()),
    )


def edf_bounds(cohort: Cohort, grid: Floats) -> tuple[Floats, Floats]:
    """Lowest and highest share of the cohort's networks at or below each error of `grid`, with nothing assumed."""
    known = np.sort(cohort.final_errors[cohort.is_finished])
    num_below = np.searchsorted(known, grid, side="right")
    return num_below / len(cohort), (num_below + len(cohort) - len(known)) / len(cohort)
