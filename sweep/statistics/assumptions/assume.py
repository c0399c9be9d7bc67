"""The assumptions that cheap searches rest on, each as a measured answer (seed document, after NDS).

In: cohorts, and how their networks go together across scales. Out:

1. good networks are many: the share of each space near its best (near_best.py); 2. intermediate results guide: how the
errors at each rung rank the networks against those at the full budget, free of survivor bias (ranks.py); 3. small
stands for large: ranks across scales, freed of the noise of a seed (seed_noise.py), what choosing at small scale gives
at large scale (choosing.py), and whether each rule keeps its sign and its size (heterogeneity.py).

The fourth, that aspects of a design factor, is in factor_findings.py.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from sweep.records import Tables
from sweep.statistics.assumptions.choosing import Choice, choices
from sweep.statistics.assumptions.heterogeneity import Heterogeneity, effect_heterogeneity
from sweep.statistics.assumptions.near_best import NearBest, share_near_best
from sweep.statistics.assumptions.pairs import repeats_of, scale_pairs
from sweep.statistics.assumptions.ranks import RankAgreement, rank_agreement
from sweep.statistics.assumptions.seed_noise import CorrectedAgreement, Reliability, corrected_agreement, reliability
from sweep.statistics.cohorts import Cohort, Ints
from sweep.statistics.full_budget import inverse_inclusion
from sweep.statistics.rules.comparisons import Cohorts
from sweep.statistics.rules.verdicts import Terms, Verdict
from sweep.statistics.samples import Floats
from sweep.statistics.tables import study_of

NEAR_PCT = (1.0, 3.0)
_NUM_BOOTSTRAP = 2_000  # of the shares near the best


@dataclass(frozen=True)
class NearBestOfSpace:
    """Assumption 1 in one space, at the full budget."""

    scale: str
    space: str
    epochs: int
    near: NearBest


@dataclass(frozen=True)
class BudgetAgreement:
    """Assumption 2 in one space: the ranks after `epochs` epochs against those after `full_epochs`."""

    scale: str
    space: str
    epochs: int
    full_epochs: int
    ranks: RankAgreement


@dataclass(frozen=True)
class SeedNoise:
    """What another seed does to the networks of a space at a scale, after `epochs` epochs."""

    scale: str
    space: str
    epochs: int
    reliability: Reliability


@dataclass(frozen=True)
class ScaleAgreement:
    """Assumption 3 in one space: the same networks at two scales, each after as many epochs as all of them reached."""

    space: str
    small: str
    large: str
    small_epochs: int
    large_epochs: int
    ranks: CorrectedAgreement
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class RuleAcrossScales:
    """Assumption 3 for one rule: its effects at the scales in their order. Scales count as independent: where networks
    are scaled ones of each other, that makes the intervals too wide."""

    rule: str
    space_without: str
    space_with: str
    scales: tuple[str, ...]
    effect: Heterogeneity


@dataclass(frozen=True)
class Assumptions:
    near_best: tuple[NearBestOfSpace, ...]
    budgets: tuple[BudgetAgreement, ...]
    seeds: tuple[SeedNoise, ...]
    scales: tuple[ScaleAgreement, ...]
    rules: tuple[RuleAcrossScales, ...]


@dataclass(frozen=True)
class Pairing:
    """The networks of a space at two scales: row i of `small_rows` and of `large_rows` is one network. `small_seeds`
    and `large_seeds` (pairs, repeats): its errors under further seeds, NaN where there are none."""

    space: str
    small: str
    large: str
    small_rows: Ints
    large_rows: Ints
    small_seeds: Floats
    large_seeds: Floats


def assume(cohorts: Cohorts, verdicts: Sequence[Verdict], terms: Terms, pairings: Iterable[Pairing] = (),
           seeds: Mapping[tuple[str, str], Floats] | None = None) -> Assumptions:  # fmt: skip
    """`verdicts` at the shared rungs, of all scales. `seeds`: by scale and space, (networks, seeds) errors at the
    shared rung of the networks that were repeated."""
    told = [cohort for cohort in cohorts.values() if len(cohort)]
    return Assumptions(
        near_best=tuple(near for cohort in told for near in _near_best(cohort, terms)),
        budgets=tuple(budget for cohort in told for budget in _budgets(cohort, terms)),
        seeds=tuple(
            SeedNoise(*place, cohorts[place].shared_rung, reliability(errors, confidence=terms.confidence))
            for place, errors in (seeds or {}).items()
        ),
        scales=tuple(_scales(pairing, cohorts, terms) for pairing in pairings),
        rules=tuple(_rules(verdicts, terms)),
    )


def _near_best(cohort: Cohort, terms: Terms) -> list[NearBestOfSpace]:
    ended = _ended(cohort)
    if ended is None:
        return []
    return [
        NearBestOfSpace(
            cohort.scale,
            cohort.space,
            cohort.full_budget,
            share_near_best(
                ended.final_errors,
                within_pct=within,
                weights=inverse_inclusion(ended),
                confidence=terms.confidence,
                num_bootstrap=_NUM_BOOTSTRAP,
                rng=_rng(terms, cohort.space, cohort.scale),
            ),
        )
        for within in NEAR_PCT
    ]


def _budgets(cohort: Cohort, terms: Terms) -> list[BudgetAgreement]:
    ended = _ended(cohort)
    if ended is None:
        return []
    weights = inverse_inclusion(ended)
    return [
        BudgetAgreement(
            cohort.scale,
            cohort.space,
            epoch,
            cohort.full_budget,
            rank_agreement(ended.errors_at(epoch), ended.final_errors, weights=weights, confidence=terms.confidence),
        )
        for epoch in _earlier_budgets(ended)
    ]


def _ended(cohort: Cohort) -> Cohort | None:
    """None while trials are still to train, and where nobody can tell the stopped: survivors alone say nothing here."""
    if cohort.is_open.any():
        return None
    ended = cohort.take(~cohort.is_cancelled)
    is_told = ended.is_certain.all() or bool(
        (ended.audit_fraction[~ended.is_certain] != 0).all() and (ended.is_finished & ~ended.is_certain).any()
    )
    return ended if len(ended) and is_told else None


def _earlier_budgets(cohort: Cohort) -> list[int]:
    """The rungs; of curves that none was stopped in, every doubling of the first epoch. Only where all finished
    networks have an error."""
    rungs = sorted(set(cohort.would_stop_at.tolist()) - {0})
    if not rungs:
        first, last = int(cohort.epochs[0]), cohort.full_budget
        rungs = [first * 2**k for k in range(30) if first * 2**k < last]
    finished = cohort.take(cohort.is_finished)
    return [rung for rung in rungs if rung < cohort.full_budget and not np.isnan(finished.errors_at(rung)).any()]


def _scales(pairing: Pairing, cohorts: Cohorts, terms: Terms) -> ScaleAgreement:
    small, large = cohorts[pairing.small, pairing.space], cohorts[pairing.large, pairing.space]
    small_errors = small.errors_at(small.shared_rung)[pairing.small_rows]
    large_errors = large.errors_at(large.shared_rung)[pairing.large_rows]
    return ScaleAgreement(
        pairing.space,
        pairing.small,
        pairing.large,
        small.shared_rung,
        large.shared_rung,
        corrected_agreement(
            np.column_stack([small_errors, pairing.small_seeds]),
            np.column_stack([large_errors, pairing.large_seeds]),
            confidence=terms.confidence,
        ),
        tuple(
            choices(
                small_errors,
                large_errors,
                confidence=terms.confidence,
                rng=_rng(terms, pairing.space, pairing.small, pairing.large),
            )
        ),
    )


def _rules(verdicts: Sequence[Verdict], terms: Terms) -> Iterable[RuleAcrossScales]:
    """Of each rule that was judged at two scales or more."""
    by_rule: dict[tuple[str, str, str], list[Verdict]] = {}
    for verdict in verdicts:
        by_rule.setdefault((verdict.rule, verdict.space_without, verdict.space_with), []).append(verdict)
    for key, found in by_rule.items():
        if len(found) > 1:
            yield RuleAcrossScales(
                *key,
                tuple(verdict.scale for verdict in found),
                effect_heterogeneity(
                    [_or_nan(verdict.effect_pct) for verdict in found],
                    [_or_nan(verdict.standard_error_pct) for verdict in found],
                    degrees_of_freedom=[max(verdict.n_without + verdict.n_with - 2, 1) for verdict in found],
                    margin_pct=terms.margin_pct,
                    confidence=terms.confidence,
                ),
            )


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def _rng(terms: Terms, *names: str) -> np.random.Generator:
    return np.random.default_rng([terms.seed, zlib.crc32("\0".join(names).encode())])


# -- which networks go together ------------------------------------------------------------------------------------


def pairings_of_curves(cohorts: Cohorts) -> list[Pairing]:
    """Of curves from anywhere: the same trial id at two scales, in one space, is one network."""
    spaces = dict.fromkeys(space for _, space in cohorts)
    found = []
    for space in spaces:
        at = {scale: cohort for (scale, name), cohort in cohorts.items() if name == space}
        for small, large in combinations(at, 2):
            _, small_rows, large_rows = np.intersect1d(
                np.array(at[small].trial_ids), np.array(at[large].trial_ids), return_indices=True
            )
            if len(small_rows):
                none = np.empty((len(small_rows), 0))
                found.append(Pairing(space, small, large, small_rows, large_rows, none, none))
    return found


def pairings_of_tables(tables: Tables, cohorts: Cohorts) -> list[Pairing]:
    """Of a sweep whose scales have the same networks; `cohorts` of all its scales, repeats included."""
    study = study_of(tables)
    found = []
    for small, large in combinations([scale.name for scale in study.judged_scales], 2):
        if study.lineage(small)[0] != study.lineage(large)[0]:
            continue
        for space in study.spaces:
            rows = _rows_of_pairs(
                scale_pairs(tables, small, large, space=space), cohorts[small, space], cohorts[large, space]
            )
            if len(rows):
                seeds = [
                    repeated_errors(tables, cohorts, scale, space)[rows[:, side]]
                    for side, scale in enumerate((small, large))
                ]
                found.append(Pairing(space, small, large, rows[:, 0], rows[:, 1], *seeds))
    return found


def seeds_of_tables(tables: Tables, cohorts: Cohorts) -> dict[tuple[str, str], Floats]:
    """By scale and space, the errors of all its networks under all seeds, where some were repeated."""
    found = {}
    for scale in study_of(tables).judged_scales:
        for space in study_of(tables).spaces:
            again = repeated_errors(tables, cohorts, scale.name, space)
            if again.shape[1]:
                cohort = cohorts[scale.name, space]
                found[scale.name, space] = np.column_stack([cohort.errors_at(cohort.shared_rung), again])
    return found


def repeated_errors(tables: Tables, cohorts: Cohorts, scale: str, space: str) -> Floats:
    """(networks of the cohort, repeats): errors under further seeds at the cohort's shared rung, NaN where not
    repeated."""
    cohort = cohorts[scale, space]
    repeats = repeats_of(tables, scale, space=space)
    known = {
        trial_id: error
        for (_, name), other in cohorts.items()
        if name == space
        for trial_id, error in zip(other.trial_ids, other.errors_at(cohort.shared_rung).tolist())
    }
    errors = np.full((len(cohort), max(map(len, repeats.values()), default=0)), np.nan)
    for row, trial_id in enumerate(cohort.trial_ids):
        for number, again in enumerate(repeats.get(trial_id, [])):
            errors[row, number] = known.get(again, np.nan)
    return errors


def _rows_of_pairs(pairs: Sequence[tuple[str, str]], small: Cohort, large: Cohort) -> Ints:
    at_small, at_large = ({t: row for row, t in enumerate(cohort.trial_ids)} for cohort in (small, large))
    rows = [(at_small[a], at_large[b]) for a, b in pairs if a in at_small and b in at_large]
    return np.array(rows, dtype=np.int64).reshape(-1, 2)
