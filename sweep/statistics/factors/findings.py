"""Which factor of a design matters, and do aspects factor? Wired for the networks of a sweep (seed document,
assumption 4 and exercise 3).

In: the networks of a scale and their errors at the budget that all reached. Out: `FactorFindings` for the first space
of the study, as a rule its widest, and for all spaces of a family together: the share of variance that main effects
explain (additive.py, and fanova.py on a forest), the importance of each factor (importance.py), whether it agrees with
what broken rules cost (factor_agreement.py), and which values the best networks have (trends.py), how well a quantised
line fits them among those (line_fit.py).
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.records import Tables
from sweep.spaces import Architecture, Mlp, Network, network_from_json
from sweep.statistics.factors.additive import MainEffectsShare, main_effects_share
from sweep.statistics.factors.crossfit import cross_fit
from sweep.statistics.factors.factor_agreement import FactorAgreement, factor_agreement, rule_effects
from sweep.statistics.factors.factors import factors_of
from sweep.statistics.factors.fanova import Fanova, fanova
from sweep.statistics.factors.importance import Importances, importances
from sweep.statistics.factors.line_fit import fit_errors
from sweep.statistics.factors.trends import Trend, trends
from sweep.statistics.rules.comparisons import Cohorts
from sweep.statistics.rules.verdicts import Terms, Verdict
from sweep.statistics.samples import Floats
from sweep.statistics.tables import cohort as rows_of
from sweep.statistics.tables import study_of

FEWEST_NETWORKS, MOST_NETWORKS = 24, 1_000
"""Fewer tell nothing of five factors and more; of more, so many are drawn: a forest takes its time."""

_NUM_BOOTSTRAP, _NUM_DRAWS = 2_000, 4_000


@dataclass(frozen=True)
class FactorFindings:
    """Of the networks of `spaces` at a scale, after `epochs` epochs. None where the networks do not tell."""

    scale: str
    spaces: tuple[str, ...]
    epochs: int
    num_networks: int
    main_effects: MainEffectsShare
    variance_shares: Fanova | None
    importances: Importances
    agreement: FactorAgreement | None
    trends: tuple[Trend, ...]


@dataclass(frozen=True)
class _Measured:
    """Networks of one family and their errors, (n,), with flops, (n,)."""

    spaces: tuple[str, ...]
    networks: list[Network]
    errors: Floats
    flops: Floats


def find_factors(
    tables: Tables, cohorts: Cohorts, verdicts: Sequence[Verdict], terms: Terms, seed_sd_pct: dict[str, float]
) -> tuple[FactorFindings, ...]:
    """At each judged scale: the first space by itself, then all together where there are several.

    `seed_sd_pct`: by scale, the standard deviation of an error over seeds, where repeats have told it.
    """
    found = []
    for scale in (one.name for one in study_of(tables).judged_scales):
        at_scale = [cohort for (name, _), cohort in cohorts.items() if name == scale and len(cohort)]
        judged = [verdict for verdict in verdicts if verdict.scale == scale]
        epoch = judged[0].rung_epochs if judged else min((cohort.shared_rung for cohort in at_scale), default=0)
        measured = [
            _measured(tables, cohort.space, scale, cohort.trial_ids, cohort.errors_at(epoch)) for cohort in at_scale
        ]
        for networks in [*measured[:1], *_together(measured)]:
            told = _find(networks, scale, epoch, judged, terms, seed_sd_pct.get(scale))
            found += [told] if told else []
    return tuple(found)


def _measured(tables: Tables, space: str, scale: str, trial_ids: Sequence[str], errors: Floats) -> _Measured:
    rows = rows_of(tables.architectures, scale=scale, space=space)
    known = dict(zip(rows["trial_id"].to_pylist(), zip(rows["architecture"].to_pylist(), rows["flops"].to_pylist())))
    reached = [number for number in np.flatnonzero(~np.isnan(errors)).tolist() if trial_ids[number] in known]
    told = [known[trial_ids[number]] for number in reached]
    return _Measured(
        (space,),
        [network_from_json(text) for text, _ in told],
        errors[reached],
        np.array([f for _, f in told], dtype=float),
    )


def _together(measured: Sequence[_Measured]) -> Iterable[_Measured]:
    """The spaces of the family that most networks are of, if there are several."""
    families = [type(m.networks[0]) for m in measured if m.networks]
    for family in list(dict.fromkeys(families))[:1]:
        alike = [m for m in measured if m.networks and isinstance(m.networks[0], family)]
        if len(alike) > 1:
            yield _Measured(
                tuple(space for m in alike for space in m.spaces),
                [network for m in alike for network in m.networks],
                np.concatenate([m.errors for m in alike]),
                np.concatenate([m.flops for m in alike]),
            )


def _find(
    measured: _Measured, scale: str, epoch: int, verdicts: Sequence[Verdict], terms: Terms, seed_sd_pct: float | None
) -> FactorFindings | None:
    num = len(measured.networks)
    if num < FEWEST_NETWORKS:
        return None
    rng = np.random.default_rng([terms.seed, zlib.crc32("\0".join((scale, *measured.spaces)).encode())])
    chosen = np.sort(rng.permutation(num)[:MOST_NETWORKS])
    networks, errors, flops = [measured.networks[k] for k in chosen], measured.errors[chosen], measured.flops[chosen]
    factors = factors_of(networks)
    fit = cross_fit(factors, errors, rng=rng)
    if fit is None:
        return None
    settings: dict[str, Any] = {"confidence": terms.confidence, "num_bootstrap": _NUM_BOOTSTRAP, "rng": rng}
    ranked = importances(fit, **settings)
    noise = None if seed_sd_pct is None else seed_sd_pct**2
    return FactorFindings(
        scale,
        measured.spaces,
        epoch,
        len(networks),
        main_effects_share(fit, noise_variance_pct2=noise, **settings),
        fanova(factors, errors, rng=rng),
        ranked,
        factor_agreement(ranked, rule_effects(verdicts), num_draws=_NUM_DRAWS, rng=rng),
        tuple(trends(_parameters(networks), errors, confidence=terms.confidence, complexity=flops) or ()),
    )


def _parameters(networks: Sequence[Network]) -> dict[str, Floats]:
    """The numbers whose trends DDS draws, of networks of AnyNet; of perceptrons depth and widths, of others depth."""
    told: dict[str, list[float]] = {}
    for network in networks:
        told.setdefault("depth", []).append(network.depth)
        if isinstance(network, Architecture | Mlp):
            told.setdefault("first_width", []).append(network.widths[0])
            told.setdefault("last_width", []).append(network.widths[-1])
        if isinstance(network, Architecture):
            told.setdefault("bottleneck_ratio", []).append(float(np.mean(network.bottleneck_ratios)))
            told.setdefault("group_width", []).append(float(np.mean(network.group_widths)))
    found = {name: np.array(values, dtype=np.float64) for name, values in told.items()}
    anynets = [network for network in networks if isinstance(network, Architecture)]
    if anynets:
        found["line_fit_error"] = fit_errors(anynets)
    return found
