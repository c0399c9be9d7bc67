"""How much of the variance of error main effects explain, against all orders: do aspects of design factor?

In: what fits say of networks held out (crossfit.py), and the variance that the seed of training makes, where repeats
tell it. Out: what an additive fit and a fit of all orders explain, and the share that is additive. Stands for the
seed's assumption 4, that aspects of a network factor approximately.

**The share** is of the variance that can be explained at all. Where the noise is known, that is the variance of errors
less the noise, and main effects make of it what an additive fit to all networks does, each variance divided by its
degrees of freedom (the adjusted R² of Ezekiel 1930), so that few networks do not bend it. Where the noise is not
known, the share is known between bounds only: it is at least what main effects explain of the whole variance, and at
most what they explain of what a fit of all orders does, for effects of high order need many networks to be seen. The
interval then reaches from the lower limit of the one to the upper limit of the other (as Horowitz and Manski 2000 bound
what data do not identify), and the value is the upper bound.

**Intervals** are those of ratios.py. With known noise they are wider by n over the degrees of freedom that the fit
leaves, and covered the share of 8 numeric factors in 84 and 90 % of 200 samples of 80 networks, in 95 % of 500 (normal
noise, 28 % of what can be explained is an interaction). Of the 6,561 networks of NAS-Bench-Macro, which give 0.695,
samples of 500 gave 0.71 ± 0.07 and covered in 86 %, samples of 80 in 57 %: one network in a hundred is a disaster there
that carries much of the variance, and no interval knows of what its sample has not seen.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sweep.statistics.factors.crossfit import CrossFit
from sweep.statistics.factors.ratios import Ratios, ratios
from sweep.statistics.intervals import UNKNOWN, IntervalEstimate


@dataclass(frozen=True)
class MainEffectsShare:
    """What main effects explain of the errors of networks held out, and what all orders do.

    `r2_main` and `r2_all` are shares of the variance of errors, `variance_pct2` in points², noise included; negative
    if the mean predicts better. `share` is additive of what can be explained, 0 to 1: where the noise is not known, at
    most that, and its interval holds all that it may be. `num_coefficients` are those that the additive fit spends,
    shrunk ones counted in part. Intervals at `confidence`; None where nothing can be explained.
    """

    num_networks: int
    num_columns: int
    num_coefficients: float
    variance_pct2: float
    noise_variance_pct2: float | None
    r2_main: IntervalEstimate
    r2_all: IntervalEstimate
    share: IntervalEstimate
    num_bootstrap: int
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, in the order of the fields."""
        return asdict(self)


def main_effects_share(
    fit: CrossFit,
    *,
    confidence: float,
    num_bootstrap: int,
    rng: np.random.Generator,
    noise_variance_pct2: float | None = None,
) -> MainEffectsShare:
    """The share of main effects.

    `noise_variance_pct2` is that of an error given the network: of one seed, or of the mean of several. Raises
    `ValueError` for a negative one, or if `confidence` asks for more resamples than `num_bootstrap`.
    """
    if noise_variance_pct2 is not None and not noise_variance_pct2 >= 0:
        raise ValueError(f"noise_variance_pct2: {noise_variance_pct2} is no variance; give points², 0 or more, or None")
    left_by_main = fit.by_network((fit.held_out_errors - fit.best_additive) ** 2)
    left_by_all = fit.by_network((fit.held_out_errors - fit.best) ** 2)
    variance, num = fit.squared_deviations, len(fit.errors)
    settings: dict[str, Any] = {"confidence": confidence, "num_bootstrap": num_bootstrap, "rng": rng}
    by_fits = np.stack([variance - left_by_main, variance - left_by_all], axis=1)
    explained = ratios(by_fits, variance[:, None], **settings)
    assert explained is not None, "errors differ, so their variance is above 0"
    if noise_variance_pct2 is None:
        share = _bounded(explained.explained(0), ratios(by_fits[:, :1], by_fits[:, 1:], **settings))
    else:
        # Each variance is divided by its degrees of freedom.
        unbiased = variance * num / (num - 1)
        additive = unbiased - fit.residuals**2 * num / fit.spare_networks
        explainable = unbiased - noise_variance_pct2
        known = ratios(additive[:, None], explainable[:, None], widen=num / fit.spare_networks, **settings)
        share = known.share(0) if known else UNKNOWN
    return MainEffectsShare(
        num_networks=num,
        num_columns=len(fit.factors.columns),
        num_coefficients=fit.num_coefficients,
        variance_pct2=float(variance.mean()),
        noise_variance_pct2=noise_variance_pct2,
        r2_main=explained.explained(0),
        r2_all=explained.explained(1),
        share=share,
        num_bootstrap=num_bootstrap,
        confidence=confidence,
    )


def _bounded(r2_main: IntervalEstimate, of_explained: Ratios | None) -> IntervalEstimate:
    """Between what main effects explain of all variance, and what they explain of the variance explained."""
    if of_explained is None:
        return UNKNOWN
    at_most = of_explained.share(0)
    if at_most.high is None or r2_main.low is None:
        return IntervalEstimate(at_most.value, None, None)
    return IntervalEstimate(at_most.value, max(0.0, r2_main.low), at_most.high)
