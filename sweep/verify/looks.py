"""I6, of a sweep that is judged while it runs: each look is of the trials that it says, and of what they show.

In: a `JournalRows`. Out: a `Check` over the looks. The plan is counted anew from the study: the m-th of n looks comes
after m/n of its trials in launch order, the last at the end. Who was at the rung, how many of each space, and how far
apart their means are is asked of the epochs. The p-values come from seeded resamples, which are not drawn again here;
but that a rule can be decided at all by those recorded is asked by what may have been spent until then: with the
spending of the O'Brien-Fleming type, 4 - 4 Phi(z / sqrt(share of the trials)), z the quantile of 1 - alpha / 4.
"""

import math
from collections.abc import Iterator
from statistics import NormalDist, fmean

from sweep.verify.check import Check, some
from sweep.verify.journal import JournalRows, Row

_NOT_NEEDED = "cancelled"


def check_looks(journal: JournalRows, check: Check) -> None:
    looks, decided = journal.meta.get("looks", []), journal.meta.get("decided")
    judging = journal.study.get("judging", {})
    if judging.get("stop_when", "end") != "decided":
        check.require(not looks and decided is None, "it was looked at while it ran, and its study does not want that")
        return
    for place, look in enumerate(looks):
        complaints = list(_complaints(journal, looks[: place + 1]))
        check.ask(not complaints, f"look {look['number']}: {'; '.join(complaints)}")
    _check_decision(looks, decided, check)


def _complaints(journal: JournalRows, looks: list[Row]) -> Iterator[str]:
    """Of the last of these looks."""
    look, number, before = looks[-1], len(looks), looks[:-1]
    if look["number"] != number:
        yield f"it is the {number}th that was recorded"
    wanted = _num_trials(journal, look, before)
    if look["num_trials"] != wanted:
        yield f"it is of {look['num_trials']} trials, and the study wants it after {wanted}"
    first = [trial for trial in journal.trials if trial["launch_order"] < look["num_trials"]]
    yield from _absent(journal, look, first)
    begun = sum(not _never_began(trial, look) for trial in first)
    if look["num_begun"] != begun and not journal.is_recovered:
        yield f"{look['num_begun']} of its trials had begun, and by the journal {begun}"
    for compared in look["compared"]:
        yield from _wrongly_compared(journal, look, compared, first)
    most = sum(_can_be_decided(journal, looks, place) for place in range(len(look["compared"])))
    if look["num_decided"] > most:
        yield f"{look['num_decided']} rules are said to be decided, and the p-values can have decided {most} at most"


def _num_planned(journal: JournalRows) -> int:
    """Without extensions; a scale whose networks are those of another one may have but a part of them."""
    study = journal.study
    per_space: dict[str, int] = {}
    for scale in study["scale"]:
        originals = per_space[scale["of"]] if scale.get("of") else study["trials_per_space"]
        per_space[scale["name"]] = min(originals, scale.get("trials_per_space") or originals)
    return sum(per_space.values()) * len(study["spaces"])


def _num_trials(journal: JournalRows, look: Row, before: list[Row]) -> int:
    num_looks = journal.study["judging"]["looks"]
    is_over = len(before) + 1 >= num_looks or any(map(_decides_all, before))
    return look["num_known"] if is_over else math.ceil(_num_planned(journal) * (len(before) + 1) / num_looks)


def _rung(journal: JournalRows, trial: Row) -> int:
    rungs = journal.rungs_of(trial)
    return rungs[0] if rungs else journal.budget_of(trial)


def _decides_all(look: Row) -> bool:
    return look["num_decided"] == len(look["compared"])


def _at_rung(journal: JournalRows, trial: Row) -> Row | None:
    """Its epoch there, if it came so far."""
    curve = journal.curves[trial["trial_id"]]
    rung = _rung(journal, trial)
    return curve[rung - 1] if len(curve) >= rung else None


def _absent(journal: JournalRows, look: Row, first: list[Row]) -> Iterator[str]:
    """Those that had neither come to the rung by then nor ended."""
    rungs = {name: _rung(journal, {"scale": name}) for name in journal.scales}
    if look["rung_epochs"] != rungs:
        yield f"it is after {_by_scale(look['rung_epochs'])} epochs, and the first rung is after {_by_scale(rungs)}"
    absent = []
    for trial in first:
        arrived, ended_at_ms = _at_rung(journal, trial), trial["ended_at_ms"]
        moments = [arrived["recorded_at_ms"]] if arrived else [] if ended_at_ms is None else [ended_at_ms]
        if not journal.is_recovered and (not moments or moments[0] > look["taken_at_ms"]):
            absent.append(trial["trial_id"])
    if absent:
        yield f"it was taken before {some(absent)} had come to the first rung or ended"


def _by_scale(epochs: dict[str, int]) -> str:
    return ", ".join(f"{number} ({name})" for name, number in epochs.items()) or "no"


def _never_began(trial: Row, look: Row) -> bool:
    was_cancelled = trial["outcome"] == _NOT_NEEDED and trial["attempts"] == 0
    return was_cancelled and trial["ended_at_ms"] is not None and trial["ended_at_ms"] <= look["taken_at_ms"]


def _wrongly_compared(journal: JournalRows, look: Row, compared: Row, first: list[Row]) -> Iterator[str]:
    name = f"{compared['space_without']} and {compared['space_with']} at scale {compared['scale']}"
    sides = [_errors(journal, first, compared[side], compared["scale"]) for side in ("space_without", "space_with")]
    told, found = [compared["n_without"], compared["n_with"]], [len(side) for side in sides]
    if told != found and not journal.is_recovered:
        yield f"{name}: {told} networks were compared, and at the rung there are {found}"
    for kind in ("p_different", "p_equivalent"):
        if not 0 < compared[kind] <= 1:
            yield f"{name}: {kind} is {compared[kind]}"
    if journal.study["judging"].get("match", "none") != "none" or journal.is_recovered:
        return  # weighted, or of epochs that were lost since and are trained again
    effect = fmean(sides[1]) - fmean(sides[0]) if all(sides) else None
    told_effect = compared["effect_pct"]
    if (effect is None) != (told_effect is None):
        yield f"{name}: the effect is {told_effect}, and by the epochs {effect}"
    elif effect is not None and not math.isclose(effect, told_effect, rel_tol=1e-9, abs_tol=1e-9):
        yield f"{name}: the effect is {told_effect} points, and by the epochs {effect}"


def _errors(journal: JournalRows, first: list[Row], space: str, scale: str) -> list[float]:
    """In percent at the first rung; a network that diverged there or before it has the error of a guess."""
    guess = 100 * (1 - 1 / journal.study["data"]["num_classes"])
    found = []
    for trial in first:
        if (trial["space"], trial["scale"]) != (space, scale):
            continue
        arrived = _at_rung(journal, trial)
        if arrived is not None:
            found.append(guess if arrived["val_error_pct"] is None else arrived["val_error_pct"])
        elif trial["outcome"] == "diverged":
            found.append(guess)
    return found


def _can_be_decided(journal: JournalRows, looks: list[Row], place: int) -> bool:
    """Whether one of its p-values is no larger than all that may have been spent by its look."""
    alpha, normal = 1 - journal.study["judging"]["confidence"], NormalDist()
    key = _key(looks[-1]["compared"][place])
    for look in looks:
        share = min(1.0, look["num_begun"] / _num_planned(journal))
        spent = 4 * normal.cdf(normal.inv_cdf(alpha / 4) / math.sqrt(share)) if share > 0 else 0.0
        for compared in look["compared"]:
            if _key(compared) == key and min(compared["p_different"], compared["p_equivalent"]) <= spent * (1 + 1e-9):
                return True
    return False


def _key(compared: Row) -> tuple[str, str, str]:
    return compared["space_without"], compared["space_with"], compared["scale"]


def _check_decision(looks: list[Row], decided: Row | None, check: Check) -> None:
    """What ended the sweep is a look that left nothing undecided."""
    decisive = [look for look in looks if _decides_all(look)]
    if decided is None:
        check.require(
            not decisive, f"look {some(look['number'] for look in decisive)} has decided all, and nothing followed"
        )
        return
    named = [look for look in decisive if look["number"] == decided["look"]]
    if check.require(bool(named), f"look {decided['look']} is said to have decided all, and has not"):
        known = named[0]["num_known"]
        check.require(
            decided["num_trials"] == known,
            f"the decision is of {decided['num_trials']} trials, and its look knew of {known}",
        )
