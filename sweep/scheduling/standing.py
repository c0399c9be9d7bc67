"""How the looks of a sweep stand (looks.py takes them), for the status, the live view and the summary.

In: a journal, of which little is read: this is asked once a second. Out: plain values, and a line for people.
"""

from collections.abc import Mapping
from typing import Any

from sweep.records import Journal
from sweep.records.journal import CANCELLED, DECIDED, LOOKS
from sweep.studies import study_from_dict


def standing(journal: Journal) -> dict[str, Any] | None:
    """None of a sweep that is judged at its end.

    Keys: `taken` looks of `planned`; `next_at_trial` of `num_trials` planned ones, None where the next look is at the
    end or none is to come; `num_decided` of `num_comparisons` after the last look, None before the first;
    `decided_at_look` and `decided_at_trial`, None while any comparison is undecided; `ended_early`, if trials were
    cancelled for it.
    """
    known = journal.get("study")
    if known.get("judging", {}).get("stop_when") != "decided":  # told apart without validating the study each second
        return None
    study = study_from_dict(known)
    sizes = study.judging.look_sizes(study.num_trials)
    taken = journal.get(LOOKS, [])
    decided = (journal.get(DECIDED) or {}).get("look")
    return {
        "taken": len(taken),
        "planned": study.judging.looks,
        "next_at_trial": sizes[len(taken)] if len(taken) < len(sizes) and decided is None else None,
        "num_trials": study.num_trials,
        "num_decided": taken[-1]["num_decided"] if taken else None,
        "num_comparisons": len(taken[-1]["compared"]) if taken else None,
        "decided_at_look": decided,
        "decided_at_trial": None if decided is None else taken[decided - 1]["num_trials"],
        "ended_early": decided is not None and journal.num_never_begun(CANCELLED) > 0,
    }


def told(looks: Mapping[str, Any]) -> str:
    """`standing` as a line."""
    decided = "" if looks["num_decided"] is None else decided_text(looks["num_decided"], looks["num_comparisons"])
    if looks["decided_at_look"] is not None:
        at = f"look {looks['decided_at_look']} of {max(looks['decided_at_look'], looks['planned'])}"
        at += f" ({looks['decided_at_trial']} of {looks['num_trials']} trials)"
        return (
            f"ended early after {at}, as the study wanted: {decided}" if looks["ended_early"] else f"{decided} at {at}"
        )
    if looks["next_at_trial"] is not None:
        what = f"next look after {looks['next_at_trial']} of {looks['num_trials']} trials"
    else:
        what = "next look at the end" if looks["taken"] < looks["planned"] else f"all {looks['taken']} looks taken"
    return f"{what}; {decided}" if decided else what


def decided_text(num: int, num_comparisons: int) -> str:
    if num < num_comparisons:
        return f"{num} of {num_comparisons} rules decided"
    return "its one rule is decided" if num == 1 else f"all {num} rules decided"
