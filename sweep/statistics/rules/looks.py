"""Looks: a sweep judged while it runs, so that it may end early, with the error rates of one judgement at its end.

In: the tables of a sweep that is not over yet, and the looks taken so far. Out: the look that is due; verdicts from all
looks together. Stands for the sequential side of DDS's comparisons, which the paper makes once, at the end.

*What is looked at.* After m of N planned trials: the first m in launch order, once each has reached the first rung or
ended before it, with their errors there. Whoever has arrived by some moment is no sample of the space, for trials
that are on their way then are the slow ones; the first m of a shuffled order are one. What they show at the first rung
does not change any more, and resamples are seeded, so a look that is taken again gives the same p-values.

*How it is judged.* Each look gives each comparison two p-values (sweep/statistics/rules/verdicts.py), of no difference
and of one beyond the margin. What a comparison has shown in all its looks together are two sequential p-values
(sweep/statistics/rules/sequential.py), and Holm's correction of those for all rules and scales decides. The sweep may
end when no comparison is undecided. Its trials in flight still count for means, effects and intervals, but decide
nothing.

*What is left open.* After the last look, at the end of all trials, nothing is left to spend: `sweep extend` then makes
intervals narrower and decides only what had not been compared before. An interval holds for all looks together (the
repeated intervals of Jennison and Turnbull, JRSS B 51, 1989); an effect that ended a sweep early is flattered by it all
the same, as any that was found because it was large. A difference whose sign has turned since its look counts for
nothing.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sweep.records import Tables
from sweep.records.journal import CANCELLED, PAUSED, PENDING, RUNNING, UNFINISHED
from sweep.spaces import rule_pairs
from sweep.statistics.bootstrap import significance
from sweep.statistics.rules.comparisons import Comparison, Key, compare
from sweep.statistics.rules.sequential import nominal_p, sequential_p
from sweep.statistics.rules.verdicts import Evidence, Terms, Verdict, compare_all, contrasts_at, holm, judge
from sweep.statistics.tables import cohort, first_rungs, study_of
from sweep.studies import Study

# A boundary far out asks for many resamples; beyond so many, a look that they do not reach decides nothing.
_MOST_RESAMPLES = 200_000
_BEYOND = 10  # resamples that a boundary should have beyond it


@dataclass(frozen=True)
class Compared:
    """What a look has shown of one comparison; `effect_pct` None if one side has no network at the rung."""

    space_without: str
    space_with: str
    scale: str
    n_without: int
    n_with: int
    effect_pct: float | None
    p_different: float
    p_equivalent: float

    @property
    def key(self) -> Key:
        return self.space_without, self.space_with, self.scale

    @property
    def is_told(self) -> bool:
        """Whether there was anything to compare."""
        return self.n_without > 0 and self.n_with > 0


@dataclass(frozen=True)
class Look:
    """One look: the `number`th, from 1, of `num_looks` planned.

    It was taken of the first `num_trials` in launch order, of which `num_begun` were not cancelled before they began;
    the sweep was planned for `num_planned` trials and had `num_known`. `rung_epochs`: the first rung of each scale. Of
    the comparisons, `num_decided` were by then. `taken_at_ms`: when it was recorded.
    """

    number: int
    num_looks: int
    num_trials: int
    num_begun: int
    num_planned: int
    num_known: int
    rung_epochs: dict[str, int]
    num_decided: int
    compared: tuple[Compared, ...]
    taken_at_ms: int | None = None

    @property
    def fraction(self) -> float:
        return self.num_begun / self.num_planned

    @property
    def decides_all(self) -> bool:
        return self.num_decided == len(self.compared)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Look":
        return cls(**{**values, "compared": tuple(Compared(**one) for one in values["compared"])})


@dataclass(frozen=True)
class _Shown:
    """What all looks together have shown of one comparison; the looks are those that decided, None where none has."""

    p_different: float = 1.0
    p_equivalent: float = 1.0
    look_different: int | None = None
    look_equivalent: int | None = None

    @property
    def is_decided(self) -> bool:
        return self.look_different is not None or self.look_equivalent is not None


# -- when ----------------------------------------------------------------------------------------------------------


def looks_taken(tables: Tables) -> list[Look]:
    """The recorded looks of a sweep, and those that are due by now; none of a study that is judged at its end.

    A journal that was rebuilt from MLflow has lost its record, and takes the same looks again.
    """
    looks = [Look.from_dict(look) for look in tables.metadata.get("looks", [])]
    while (look := due_look(tables, looks)) is not None:
        looks.append(look)
    return looks


def due_look(tables: Tables, taken: Sequence[Look]) -> Look | None:
    """The next look after those `taken`, if its trials are complete."""
    judging = study_of(tables).judging
    num_planned, num_known = _num_planned(tables), tables.trials.num_rows
    sizes = judging.look_sizes(num_planned)
    if not sizes:
        return None
    ended_by = next((look for look in taken if look.decides_all), None)
    if ended_by is None and len(taken) < len(sizes):
        return _look(tables, taken, sizes[len(taken)]) if _is_complete(tables, sizes[len(taken)]) else None
    is_over = not any(outcome in UNFINISHED for outcome in tables.trials["outcome"].to_pylist())
    if is_over and (ended_by is None or num_known > ended_by.num_known) and _has_more(tables, taken):
        return _look(tables, taken, num_known)
    return None


def ended_early_by(tables: Tables) -> Look | None:
    """The look that left nothing undecided, where trials were cancelled for it before they began."""
    decisive = next((look for look in looks_taken(tables) if look.decides_all), None)
    return decisive if decisive and num_not_needed(tables) else None


def num_not_needed(tables: Tables) -> int:
    """How many trials were cancelled before they began."""
    return tables.trials.num_rows - _num_begun(tables.trials)


def _num_planned(tables: Tables) -> int:
    """Those of the study itself, without what `sweep extend` added: of scales with `of` that can be none."""
    study = study_of(tables)
    added: Counter[str] = Counter()
    for part in tables.metadata.get("extensions", []):
        added.update(dict.fromkeys(part["spaces"], part["trials"]))
    drawn = Counter(cohort(tables.trials, scale=study.scale[0].name)["space"].to_pylist())
    own = [space for space in study.spaces if drawn[space] > added[space]]  # the others came by an extension
    return len(own) * study.num_trials // len(study.spaces)


def _has_more(tables: Tables, taken: Sequence[Look]) -> bool:
    return not taken or _num_begun(tables.trials) > taken[-1].num_begun


def _num_begun(trials: pa.Table) -> int:
    return trials.num_rows - trials.filter((pc.field("outcome") == CANCELLED) & (pc.field("attempts") == 0)).num_rows


# -- what ----------------------------------------------------------------------------------------------------------


def first_trials(tables: Tables, num_trials: int) -> Tables:
    """The first `num_trials` in launch order as they stood at their first rung, whatever became of them later."""
    rungs = first_rungs(study_of(tables))
    first = tables.architectures.sort_by("launch_order").slice(0, num_trials)["trial_id"].combine_chunks()
    is_first = pc.field("trial_id").isin(first)
    trials, epochs = tables.trials.filter(is_first), tables.epochs.filter(is_first)
    rung = pa.array([rungs[scale] for scale in epochs["scale"].to_pylist()], pa.int32())
    # Who diverged there has arrived without an error, and is told by its outcome alone.
    arrived = epochs.filter(pc.equal(epochs["epoch"], rung)).filter(pc.field("val_error_pct").is_valid())
    arrived = arrived["trial_id"].combine_chunks()
    epochs = epochs.filter(pc.less_equal(epochs["epoch"], rung))
    outcome = pc.if_else(pc.is_in(trials["trial_id"], value_set=arrived), PAUSED, trials["outcome"])
    at_outcome = trials.schema.get_field_index("outcome")
    return replace(tables, trials=trials.set_column(at_outcome, "outcome", outcome), epochs=epochs)


def _is_complete(tables: Tables, num_trials: int) -> bool:
    """Whether each of the first has reached the first rung, or ended."""
    on_their_way = pc.field("outcome").isin([PENDING, RUNNING])
    return first_trials(tables, num_trials).trials.filter(on_their_way).num_rows == 0


def _look(tables: Tables, taken: Sequence[Look], num_trials: int) -> Look:
    study, first = study_of(tables), first_trials(tables, num_trials)
    look = Look(
        number=len(taken) + 1,
        num_looks=study.judging.looks,
        num_trials=num_trials,
        num_begun=_num_begun(first.trials),
        num_planned=_num_planned(tables),
        num_known=tables.trials.num_rows,
        rung_epochs=first_rungs(study),
        num_decided=0,
        compared=(),
    )
    alpha = significance(study.judging.confidence)
    demanded = _demanded([*taken, look], alpha / len(_keys(study)))
    look = replace(look, compared=tuple(_compared(one, study) for one in _comparisons(first, study, demanded)))
    shown = _shown([*taken, look], _keys(study), alpha)
    return replace(look, num_decided=sum(one.is_decided for one in shown.values()))


def _keys(study: Study) -> list[Key]:
    pairs = rule_pairs(study.design_spaces)
    return [(pair.space_without, pair.space_with, scale.name) for scale in study.judged_scales for pair in pairs]


def _demanded(looks: Sequence[Look], level: float) -> float:
    """The p-value that decides at the last of these looks, at the strictest step of Holm's; 0 if none does."""
    telling = _telling(looks)
    return float(nominal_p(level, [look.fraction for look in telling])[-1]) if looks[-1] in telling else 0.0


def _telling(looks: Iterable[Look]) -> list[Look]:
    """Without those that had no trials beyond the look before: they were cancelled by hand."""
    found: list[Look] = []
    for look in looks:
        if look.num_begun > (found[-1].num_begun if found else 0):
            found.append(look)
    return found


def _comparisons(first: Tables, study: Study, demanded: float) -> list[Comparison]:
    """With more resamples where the usual number has none beyond, and could have none beyond the boundary either."""
    judging = study.judging
    terms = Terms.of(study)
    rungs = first_rungs(study)
    judged = {scale.name: rungs[scale.name] for scale in study.judged_scales}
    found = compare_all(contrasts_at(first, judged, terms), terms)
    num = _resamples_for(demanded)
    return [
        compare(one.contrast, confidence=judging.confidence, num_bootstrap=num, seed=study.seed)
        if _lacks_resamples(one, num, judging.margin_pct)
        else one
        for one in found
    ]


def _resamples_for(p_value: float) -> int:
    return min(_MOST_RESAMPLES, math.ceil(_BEYOND / p_value)) if p_value > 0 else 0


def _lacks_resamples(comparison: Comparison, num: int, margin_pct: float) -> bool:
    if comparison.difference is None or len(comparison.difference.distances) >= num:
        return False
    return min(comparison.p_values(margin_pct)) * len(comparison.difference.distances) < 1


def _compared(comparison: Comparison, study: Study) -> Compared:
    contrast = comparison.contrast
    return Compared(
        *comparison.key,
        contrast.n_without,
        contrast.n_with,
        comparison.effect_pct,
        *comparison.p_values(study.judging.margin_pct),
    )


# -- what follows --------------------------------------------------------------------------------------------------


def judge_study(tables: Tables) -> list[Verdict]:
    """Judge as the study of the tables wants it judged: once, or by all looks so far."""
    study = study_of(tables)
    judging = study.judging
    settings: dict[str, Any] = {
        "margin_pct": judging.margin_pct,
        "confidence": judging.confidence,
        "num_bootstrap": judging.num_bootstrap,
        "seed": study.seed,
        "match": judging.match,
        "match_strata": judging.match_strata,
    }
    if judging.stop_when == "end":
        return judge(tables, **settings)
    looks = looks_taken(tables)
    alpha = significance(judging.confidence)
    if looks:
        settings["num_bootstrap"] = max(judging.num_bootstrap, _resamples_for(_demanded(looks, alpha)))
    shown = _shown(looks, _keys(study), alpha)
    return judge(
        tables,
        rung_epochs=first_rungs(study),
        evidence_of=lambda comparison: _evidence(comparison, looks, shown[comparison.key], judging.margin_pct, alpha),
        **settings,
    )


def _shown(looks: Sequence[Look], keys: Sequence[Key], alpha: float) -> dict[Key, _Shown]:
    """Of each comparison: its sequential p-values, and the first looks after which Holm's correction rejects."""
    shown = dict.fromkeys(keys, _Shown())
    for num in range(1, len(looks) + 1):
        p_values = [_p_values(looks[:num], key) for key in keys]
        corrected = zip(*(holm(kind) for kind in zip(*p_values)))
        for key, (p_different, p_equivalent), (holm_different, holm_equivalent) in zip(keys, p_values, corrected):
            before = shown[key]
            shown[key] = _Shown(
                p_different,
                p_equivalent,
                before.look_different or (num if holm_different < alpha else None),
                before.look_equivalent or (num if holm_equivalent < alpha else None),
            )
    return shown


def _p_values(looks: Sequence[Look], key: Key) -> tuple[float, float]:
    """The sequential ones, of no difference and of one beyond the margin."""
    told = _looks_at(looks, key)
    if not told:
        return 1.0, 1.0
    found = [(one.p_different, one.p_equivalent) for _, one in told]
    p_different, p_equivalent = sequential_p(found, [look.fraction for look, _ in told])[0].tolist()
    return p_different, p_equivalent


def _looks_at(looks: Sequence[Look], key: Key) -> list[tuple[Look, Compared]]:
    """The looks in which a comparison had anything to show; a space that joined later was not there before."""
    there = {look.number: one for look in looks for one in look.compared if one.key == key and one.is_told}
    return [(look, there[look.number]) for look in _telling(look for look in looks if look.number in there)]


def _evidence(
    comparison: Comparison, looks: Sequence[Look], shown: _Shown, margin_pct: float, alpha: float
) -> Evidence:
    effect, told = comparison.effect_pct, _looks_at(looks, comparison.key)
    then = next((one.effect_pct for look, one in told if look.number == shown.look_different), None)
    has_turned = effect is not None and then is not None and effect * then <= 0
    return Evidence(
        p_different=1.0 if has_turned else shown.p_different,
        p_equivalent=1.0 if effect is None or abs(effect) >= margin_pct else shown.p_equivalent,
        confidence=_confidence(comparison, [look.fraction for look, _ in told], alpha),
        looks_taken=len(looks),
        look_different=shown.look_different,
        look_equivalent=shown.look_equivalent,
        is_spent=bool(told) and told[-1][0].fraction >= 1,
    )


def _confidence(comparison: Comparison, fractions: list[float], alpha: float) -> float | None:
    """Of the interval that holds just what the last look did not reject; None where resamples do not reach so far."""
    if not fractions or comparison.difference is None:
        return None
    known = nominal_p(alpha, fractions)
    confidence = 1 - float(known[known > 0][-1])
    try:
        is_finite = math.isfinite(comparison.difference.reach(confidence))
    except ValueError:  # too few resamples
        return None
    return confidence if is_finite else None
