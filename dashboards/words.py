"""A sweep in words: the answer in plain sentences, and numbers, rules and machines as people read them.

In: tables and findings. Out: plain text, not escaped. A number comes with its interval, n and budget.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from sweep.records import Tables
from sweep.spaces import space_title
from sweep.statistics import (
    Estimate,
    Findings,
    MeasureVerdict,
    Verdict,
    cohort,
    ended_early_by,
    ensemble_gain,
    flattery_pct,
    looks_taken,
    num_not_needed,
    study_of,
)
from sweep.studies import Scale, Study

MINUS = "−"


def rule_label(rule: str) -> str:
    """A rule's name for people: `widths_up+depths_up` as "widths up + depths up"."""
    return rule.replace("_", " ").replace("+", " + ")


def pair_label(verdict: Verdict) -> str:
    return f"{space_title(verdict.space_without)} → {space_title(verdict.space_with)}"


def interval_text(verdict: Verdict) -> str:
    """The effect and its interval, as "−2.31 [−3.60, −1.02]"."""
    if verdict.effect_pct is None:
        return "no data"
    if verdict.ci_low_pct is None or verdict.ci_high_pct is None:
        return f"{signed(verdict.effect_pct)} [no interval]"
    return f"{signed(verdict.effect_pct)} [{signed(verdict.ci_low_pct)}, {signed(verdict.ci_high_pct)}]"


def sizes_text(verdict: Verdict) -> str:
    """How many networks are compared: "20 + 20", or "17 + 15 of 20 + 20, matched on flops"."""
    all_of_them = f"{verdict.n_without} + {verdict.n_with}"
    if verdict.matched_on == "none":
        return all_of_them
    compared = f"{verdict.num_matched_without} + {verdict.num_matched_with}"
    return f"{compared} of {all_of_them}, matched on {verdict.matched_on}"


def signed(value: float) -> str:
    """With two decimals and a typographic minus; never "−0.00"."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", MINUS)


def si(value: float) -> str:
    """With three digits at most and an SI prefix: 412345 as "412 k", 4e9 as "4 G"."""
    for factor, prefix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= 0.9995 * factor:
            return f"{value / factor:.3g}{prefix}"
    return f"{value:.3g}"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} %"


def epochs_text(num: int) -> str:
    return f"{num} epoch" if num == 1 else f"{num} epochs"


def numbers_text(numbers: Iterable[int]) -> str:
    """Each number once: "6,000", or "6,000 or 12,000"."""
    return " or ".join(f"{number:,}" for number in dict.fromkeys(numbers))


def duration(time_s: float) -> str:
    """In the two largest fitting units: "3 h 12 min", "41 s"."""
    seconds = round(time_s)
    for unit_s, unit, part_s, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= unit_s:
            rest = seconds % unit_s // part_s
            return f"{seconds // unit_s} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{seconds} s"


def machine_text(tables: Tables) -> str:
    """The processor of the machine that launched the sweep, and the hosts that trained where there were others."""
    machine = tables.metadata.get("machine")
    cpu = f"{machine['cpu']}, {machine['num_cpus']} CPUs" if machine else "machine not recorded"
    hosts = sorted(set(tables.epochs["host"].drop_null().to_pylist()))
    return f"{cpu}; trained on {len(hosts)} hosts" if len(hosts) > 1 else cpu


def provenance_text(tables: Tables) -> str:
    """One line by which a picture can be traced."""
    study = study_of(tables)
    data, num_train = study.data, numbers_text(study.data_at(scale.name).num_train for scale in study.scale)
    commit = tables.metadata.get("git_commit")
    return ", ".join(
        [
            f"{data.name}, {num_train} images to train and {data.num_validation:,} to validate",
            f"study {tables.metadata.get('study_hash', '?')}",
            f"commit {commit[:10]}" if commit else "no commit recorded",
            machine_text(tables),
        ]
    )


def budgets_text(study: Study) -> str:
    """How long networks train at most, over the scales: "6 epochs", or "6 or 12 epochs"."""
    numbers = [study.stopping_at(scale.name).max_epochs for scale in study.scale]
    return epochs_text(numbers[0]) if len(set(numbers)) == 1 else f"{numbers_text(numbers)} epochs"


def conditions_text(tables: Tables, scale: Scale) -> str:
    """What a scale is: pixels, flops, and what it has of its own."""
    study = study_of(tables)
    flops = cohort(tables.trials, scale=scale.name)["flops"].to_pylist()
    low, high = scale.band or (min(flops, default=0), max(flops, default=0))
    parts = [f"{scale.resolution} px, {si(low)} to {si(high)} flops"]
    if scale.max_epochs:
        parts.append(f"up to {epochs_text(scale.max_epochs)}")
    if scale.num_train:
        parts.append(f"{study.data_at(scale.name).num_train:,} images")
    if scale.of:
        factors = f"widths × {scale.width_factor:g}, depths × {scale.depth_factor:g}"
        parts.append(f"the networks of {scale.of}, {factors}")
    return ", ".join(parts)


def repeats_text(study: Study) -> str:
    """Which scales train the networks of another one once more: sentences, none where there are none."""
    told = [
        f"{study.trials_at(scale.name)} of scale {scale.of} ({scale.name})"
        for scale in study.scale
        if study.is_repeat(scale.name)
    ]
    if not told:
        return ""
    return (
        "Of each space, networks were trained once more with other seeds, to measure what one seed does: "
        f"{joined(told)}; no rule is judged by them, and only the costs below count them."
    )


def rerun_text(rerun: Mapping[str, Any], confirmed: Estimate | None) -> str:
    """What a full-scale rerun adds to the sweep, and by how much the sweep flattered its best: sentences."""
    trained = (
        f"Trained for {epochs_text(rerun['epochs'])} on {rerun['num_train']:,} images, "
        f"{rerun['candidate']['trial_id']} has {rerun['test_error_pct']:.2f} % error on the "
        f"{rerun['num_test']:,} test images."
    )
    if rerun["named"]:
        return f"{trained} A user named it in place of the sweep's choice{_began_from(rerun)}."
    points = flattery_pct(rerun)
    best_of = f"the best of {rerun['num_networks']}"
    if points is None or confirmed is None:
        return f"{trained} It was not confirmed with fresh seeds, so how much luck made it {best_of} is not known."
    seeds = f"{confirmed.num} fresh seed" + ("s" if confirmed.num > 1 else "")
    if points <= 0:
        return (
            f"{trained} {best_of.capitalize()} was no worse with {seeds} than it had looked ({signed(points)} points)."
        )
    return f"{trained} {best_of.capitalize()} had looked {points:.2f} points better than it was, {seeds} say."


def _began_from(rerun: Mapping[str, Any]) -> str:
    start = rerun["warm_start"]
    if not start:
        return ""
    counts = f"{start['num_whole']} tensors whole, {start['num_part']} in part, {start['num_fresh']} fresh"
    return f"; it began from the weights of {start['source']} ({counts})"


def ensemble_text(rerun: Mapping[str, Any]) -> str:
    """What the best networks together cost and gain against the chosen one alone: sentences."""
    ensemble, gain = rerun["ensemble"], ensemble_gain(rerun)
    own, members = ensemble["members"][0], ensemble["members"]
    flops, params = (sum(member[key] for member in members) / own[key] for key in ("flops", "params"))
    known = " Its error was known when the ensemble was asked for." if ensemble["single_was_known"] else ""
    return (
        f"The best {len(members)} by validation error, each trained like it, answer by the mean of their softmax "
        f"probabilities: {ensemble['test_error_pct']:.2f} % error on the same test images, {signed(gain.points)} "
        f"points against it alone ({100 * rerun['confidence']:g} % interval {signed(gain.low)} to {signed(gain.high)}, "
        f"paired, over the choice of images), for {flops:.1f} times its multiply-adds and {params:.1f} times its "
        f"parameters.{known}"
    )


def answers(tables: Tables, findings: Findings) -> list[str]:
    """What the sweep says of the rules: one or two sentences a scale, the undecided ones last and as such, and below
    them what is otherwise at the full budget."""
    verdicts, at_full = findings.at_rungs, findings.at_full_budget
    if not verdicts:
        return ["No two spaces of this study differ by a rule, so there is nothing to judge."]
    several = len({verdict.scale for verdict in verdicts}) > 1
    scales = [scale.name for scale in study_of(tables).judged_scales]
    told = [
        [_answer(here, name_scale=several), full_budget_answer(here, at_scale(at_full, scale))]
        for scale in scales
        if (here := at_scale(verdicts, scale))
    ]
    return [sentence for of_scale in told for sentence in of_scale if sentence]


def at_scale(verdicts: Sequence[Verdict], scale: str) -> list[Verdict]:
    return [verdict for verdict in verdicts if verdict.scale == scale]


def full_budget_answer(verdicts: Sequence[Verdict], at_full_budget: Sequence[Verdict]) -> str:
    """Whether what is estimated at the full budget agrees with the verdicts at a rung of one scale: a sentence, none
    where nothing is estimated."""
    earlier = {_key(v): v for v in verdicts}
    compared = [(earlier[_key(v)], v) for v in at_full_budget if _key(v) in earlier]
    if not compared:
        return ""
    where = f"Estimated at the full budget, {epochs_text(compared[0][1].rung_epochs)},"
    names = rule_names(verdicts)
    other = [_told_at_full(full, names[first]) for first, full in compared if first.verdict != full.verdict]
    if other:
        return f"{where} {joined(other)}{'' if len(other) == len(compared) else '; the others stay'}."
    return f"{where} {'the verdict' if len(compared) == 1 else f'each of the {len(compared)} verdicts'} is the same."


def _key(verdict: Verdict) -> tuple[str, str, str]:
    return verdict.rule, verdict.space_without, verdict.space_with


def _told_at_full(verdict: Verdict, name: str) -> str:
    if verdict.verdict == "undecided":
        return f"the rule {name} is undecided ({_numbers(verdict)})"
    return _claim(verdict, name)


_SAYS = {"helps": "helps", "hurts": "hurts", "free": "costs and gains nothing"}
MEASURES = {"median": "the median", "quantile_10": "the best tenth", "superiority": "how often it wins"}


def measures_text(verdicts: Sequence[Verdict]) -> str:
    """Which rules other measures than the mean decide otherwise: a sentence, none where nothing was measured."""
    measured = [(v, other) for v in verdicts for other in v.others if other.effect is not None]
    if not measured:
        return ""
    if all(other.verdict is None for _, other in measured):
        return "Looks decide on the mean alone; what else is told here comes with its interval, and decides nothing."
    names = rule_names(verdicts)
    other = [
        f"the rule {names[v]} {_SAYS[o.verdict]} by {MEASURES[o.measure]} ({measure_value(o)}, "
        f"{100 * v.confidence:.4g} % interval {measure_ends(o)})"
        for v, o in measured
        if o.verdict not in (None, "undecided", v.verdict)
    ]
    if not other:
        return "No rule is decided otherwise by the median, the best tenth or how often it wins than by the mean."
    return f"Decided otherwise than by the mean: {joined(other)}."


def measure_value(found: MeasureVerdict) -> str:
    """What a rule does to a measure: points of error, or the share of pairs that it wins."""
    if found.effect is None:
        return "–"
    return share_text(found.with_) if found.measure == "superiority" else signed(found.effect)


def measure_ends(found: MeasureVerdict) -> str:
    if found.low is None or found.high is None:
        return "no interval"
    if found.measure == "superiority":
        return f"{100 * (0.5 - found.high):.0f} to {share_text(0.5 - found.low)}"
    return f"{signed(found.low)} to {signed(found.high)}"


def share_text(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def looks_text(tables: Tables) -> str:
    """How a sweep was judged that was looked at while it ran: sentences; nothing of one that was judged at its end."""
    if study_of(tables).judging.stop_when == "end":
        return ""
    looks, decisive = looks_taken(tables), ended_early_by(tables)
    if decisive is not None:
        trained = tables.trials.num_rows - num_not_needed(tables)
        return (
            f"Ended early after look {decisive.number} of {decisive.num_looks} ({decisive.num_trials:,} of "
            f"{decisive.num_known:,} trials), as the study wanted: no rule was undecided. {trained:,} trials had begun "
            "by then and were trained. An effect that ends a sweep early tends to look larger than it is."
        )
    if not looks:
        return "This sweep is judged while it runs, and its first look is to come: until then nothing is decided."
    last = looks[-1]
    return (
        f"Judged while it ran: look {last.number} of {max(last.number, last.num_looks)}, at {last.num_trials:,} "
        f"trials, is the last so far, and {last.num_decided} of {len(last.compared)} rules are decided. What is "
        "claimed holds for all looks together."
    )


def _answer(verdicts: Sequence[Verdict], *, name_scale: bool) -> str:
    first = verdicts[0]
    where = f"After {epochs_text(first.rung_epochs)}" + (f" at scale {first.scale}" if name_scale else "")
    names = rule_names(verdicts)
    decided = [_claim(v, names[v]) for v in verdicts if v.verdict != "undecided"]
    undecided = [_doubt(v, names[v]) for v in verdicts if v.verdict == "undecided"]
    if not decided:
        num = "its one rule" if len(verdicts) == 1 else f"any of its {len(verdicts)} rules"
        return f"{where}, this sweep cannot decide {num}: {joined(undecided)}."
    sentence = f"{where}, {joined(decided)}."
    return f"{sentence} Undecided: {joined(undecided)}." if undecided else sentence


class OfRule(Protocol):
    """What a rule was found to do: a verdict, or a comparison of scales."""

    @property
    def rule(self) -> str: ...
    @property
    def space_without(self) -> str: ...


Found = TypeVar("Found", bound=OfRule)


def rule_names(found: Sequence[Found]) -> dict[Found, str]:
    """What to call each rule: where several spaces test it, with the one that does not obey."""
    counts = Counter(one.rule for one in found)
    against = {one: f" against {space_title(one.space_without)}" if counts[one.rule] > 1 else "" for one in found}
    return {one: f"“{rule_label(one.rule)}”{against[one]}" for one in found}


def _claim(verdict: Verdict, name: str) -> str:
    within = f" within ±{verdict.margin_pct:g} points" if verdict.verdict == "free" else ""
    return f"the rule {name} {_SAYS[verdict.verdict]}{within} ({_numbers(verdict)})"


def _doubt(verdict: Verdict, name: str) -> str:
    more = verdict.trials_to_decide
    needs = "" if more is None else f"; needs about {more:,} more networks in each space"
    return f"{name} ({_numbers(verdict)}{needs})"


def _numbers(verdict: Verdict) -> str:
    size = f"n = {sizes_text(verdict)}"
    if verdict.is_estimated:
        size += f", {verdict.num_known_without} + {verdict.num_known_with} of them known"
    if verdict.effect_pct is None:
        return f"no networks to compare, {size}"
    points = f"{signed(verdict.effect_pct)} points of error"
    if verdict.looks_taken == 0:
        return f"{points}, no interval before the first look, {size}"
    if verdict.ci_low_pct is None or verdict.ci_high_pct is None:
        return f"{points}, too little data for an interval, {size}"
    ends = f"{signed(verdict.ci_low_pct)} to {signed(verdict.ci_high_pct)}"
    return f"{points}, {100 * verdict.confidence:.4g} % interval {ends}, {size}"


def joined(parts: Sequence[str]) -> str:
    """By "and", and from three parts on by semicolons, because the parts hold commas."""
    return " and ".join(parts) if len(parts) < 3 else f"{'; '.join(parts[:-1])}; and {parts[-1]}"
