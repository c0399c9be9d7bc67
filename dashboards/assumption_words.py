"""What a sweep finds beyond its verdicts, in words: spaces at their full budget, and what cheap search rests on.

In: estimates and assumptions. Out: plain text, not escaped; the report, the terminal and the note in MLflow say the
same. Of several spaces a sentence tells the one where an assumption holds least, because that is the one to plan by;
tables tell the others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dashboards.words import MINUS, epochs_text, joined, rule_names, share_text, signed
from sweep.spaces import space_title
from sweep.statistics import Assumptions, Choice, IntervalEstimate, SpaceEstimate
from sweep.statistics.assumptions.assume import (
    BudgetAgreement,
    NearBestOfSpace,
    RuleAcrossScales,
    ScaleAgreement,
    SeedNoise,
)
from sweep.statistics.assumptions.heterogeneity import Constancy

_MOST_NUMBERS = 4  # rules that a sentence tells with their numbers


# -- the full budget -----------------------------------------------------------------------------------------------


def lottery_text(estimates: Sequence[SpaceEstimate]) -> str:
    """What is known of the full budget, and by which right: a sentence, none where no network was kept from it."""
    ended = sum(estimate.num_networks - estimate.num_known for estimate in estimates)
    if not ended:
        return ""
    networks, wanted, kept = (
        sum(getattr(estimate, name) for estimate in estimates)
        for name in ("num_networks", "num_wanted_to_end", "num_audited")
    )
    return (
        f"Early stopping ended {ended:,} of {networks:,} networks before their full budget. Of the {wanted:,} that it "
        f"wanted to end, a lottery kept {kept:,}, drawn before they began; these stand for the others, so that what is "
        "told here is of all networks."
    )


def full_budget_texts(estimates: Sequence[SpaceEstimate]) -> list[str]:
    """What the full budget of spaces rests on: sentences, none where nothing can be said of it."""
    known = [estimate for estimate in estimates if is_told(estimate)]
    if not known:
        return []
    return [lottery_text(known) or "Every network was trained to its full budget.", *bounds_texts(known)]


def is_told(estimate: SpaceEstimate) -> bool:
    """Whether there is an estimate, or at least bounds."""
    return estimate.mean is not None or estimate.bounds is not None


def bounds_texts(estimates: Sequence[SpaceEstimate]) -> list[str]:
    """Of spaces that the lottery leaves nothing to estimate from: what holds all the same, a sentence each."""
    name_scale = len({estimate.scale for estimate in estimates}) > 1
    return [
        f"{space_title(e.space)}{f' at {e.scale}' if name_scale else ''} has no estimate: the lottery kept "
        f"{e.num_audited or 'none'} of the {e.num_wanted_to_end:,} networks that early stopping wanted to end, and two "
        f"are the fewest. Whatever the others would have reached, the mean error of its {e.num_networks:,} networks "
        f"after {epochs_text(e.epochs)} lies between {e.bounds.low_pct:.1f} and {e.bounds.high_pct:.1f} % (at most "
        f"{e.bounds.high_if_no_worse_pct:.1f} % if none ends worse than it was when it was stopped)."
        for e in estimates
        if e.mean is None and e.bounds is not None
    ]


# -- what cheap search rests on ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """An assumption that was measured, as a question, and what was found. `kind`: its field of `Assumptions`."""

    kind: str
    question: str
    text: str


def assumptions_told(assumptions: Assumptions) -> list[Told]:
    """Those of which there is something to say, in their order."""
    told = (
        Told("near_best", "Are good networks many?", near_best_text(assumptions.near_best)),
        Told("budgets", "Do early results guide?", budgets_text(assumptions.budgets)),
        Told("seeds", "What does one seed do?", seeds_text(assumptions.seeds)),
        Told("scales", "Does small stand for large?", scales_text(assumptions.scales)),
        Told("rules", "Do rules hold at every scale?", rules_text(assumptions.rules)),
    )
    return [one for one in told if one.text]


def near_best_text(found: Sequence[NearBestOfSpace]) -> str:
    """The share near the best, and the draws that find such a network, in the space where they are rarest."""
    nearest = min([one.near.within_pct for one in found], default=0.0)
    known = [one for one in found if one.near.within_pct == nearest and one.near.share.value is not None]
    if not known:
        return ""
    bounded = [one for one in known if one.near.share.low is not None] or known
    rarest = min(bounded, key=lambda one: one.near.share.value or 0.0)
    near, only = rarest.near, len(known) == 1
    many = "" if near.draws.low is None else f" ({ends_text(near.draws, '{:,.0f}')})"
    return (
        f"{'In' if only else 'Where they are rarest, in'} {_place(rarest, known)}, "
        f"{_share(near.share, near.confidence)} of the networks come within {points_text(near.within_pct)} of "
        f"{border_text(near.reference_share)}, {near.reference_pct:.1f} % error after {epochs_text(rarest.epochs)} "
        f"({_counted(near.num_networks, near.num_finished)}): {near.draws.value:,.0f} random draws{many} hold one of "
        f"them with {100 * near.probability:g} % probability."
    )


def border_text(reference_share: float | None) -> str:
    return "the best seen" if reference_share is None else f"the border of the best {100 * reference_share:g} %"


def budgets_text(found: Sequence[BudgetAgreement]) -> str:
    """How the ranks at the first rung of each scale, and at its last, agree with those at the full budget."""
    known = [one for one in found if one.ranks.spearman.value is not None]
    scales = list(dict.fromkeys(one.scale for one in known))
    told = [
        _ranks_text(own, f"{epoch} of {epochs_text(own[0].full_epochs)}{f' at {scale}' if len(scales) > 1 else ''}")
        for scale in scales
        for epoch in _first_and_last({one.epochs for one in known if one.scale == scale})
        if (own := [one for one in known if (one.scale, one.epochs) == (scale, epoch)])
    ]
    return f"The rank correlation with the order at the end is {'; '.join(told)}." if told else ""


def _first_and_last(epochs: Iterable[int]) -> list[int]:
    rising = sorted(epochs)
    return list(dict.fromkeys((rising[0], rising[-1])))


def _ranks_text(found: Sequence[BudgetAgreement], when: str) -> str:
    least = min(found, key=lambda one: one.ranks.spearman.value or 0.0)
    ranks, at_least = least.ranks, "at least " if len(found) > 1 else ""
    return (
        f"{at_least}{decimal(ranks.spearman.value)} after {when} ({space_title(least.space)}, "
        f"{_interval(ranks.spearman, ranks.confidence)}, {_counted(ranks.num_networks, ranks.num_pairs)})"
    )


def seeds_text(found: Sequence[SeedNoise]) -> str:
    """What another seed does to an error, and to ranks, where it does most."""
    known = [one for one in found if one.reliability.seed_sd_pct is not None]
    if not known:
        return "Too few networks were trained with several seeds to tell." if found else ""
    most = max(known, key=lambda one: one.reliability.seed_sd_pct or 0.0)
    noise, only = most.reliability, len(known) == 1
    ranks = noise.of_ranks
    ranked = (
        "."
        if ranks.value is None
        else f", and two seeds rank its networks with a correlation of {decimal(ranks.value)} "
        f"({_interval(ranks, noise.confidence)})."
    )
    return (
        f"{'In' if only else 'Where it does most, in'} {_place(most, known)}, another seed moves a network’s error "
        f"after {epochs_text(most.epochs)} by a standard deviation of {noise.seed_sd_pct:.2f} points "
        f"({noise.num_repeated} networks repeated){ranked}"
    )


def scales_text(found: Sequence[ScaleAgreement]) -> str:
    """How the order of networks, and a choice among them, carries over from one scale to another, where it does least:
    sentences for each two scales."""
    known = [one for one in found if one.ranks.observed.value is not None]
    both = list(dict.fromkeys((one.small, one.large) for one in known))
    return " ".join(_scales_text([one for one in known if (one.small, one.large) == two]) for two in both)


def _scales_text(found: Sequence[ScaleAgreement]) -> str:
    least = min(found, key=lambda one: one.ranks.observed.value or 0.0)
    ranks, freed = least.ranks, least.ranks.corrected
    corrected = (
        ""
        if freed.value is None
        else f", {decimal(freed.value)} freed of the noise of single seeds ({_interval(freed, ranks.confidence)})"
    )
    num_others = len(found) - 1
    others = f"; the other {f'{num_others} spaces' if num_others > 1 else 'space'} more so" if num_others else ""
    return (
        f"From {least.small} ({epochs_text(least.small_epochs)}) to {least.large} ({epochs_text(least.large_epochs)}) "
        f"the {ranks.num_networks} networks of {space_title(least.space)} keep their order with a rank correlation of "
        f"{decimal(ranks.observed.value)} ({_interval(ranks.observed, ranks.confidence)}){corrected}"
        f"{others}."
        f"{_choice_text(least.choices[-1], least) if least.choices else ''}"
    )


def _choice_text(choice: Choice, scales: ScaleAgreement) -> str:
    recall, regret = choice.recall, choice.typical_regret_pct
    if recall.value is None or regret.value is None or choice.random_recall is None:
        return ""
    return (
        f" Its best {100 * choice.share:g} % at {scales.small} ({choice.num_chosen} of {choice.num_pairs}) hold "
        f"{_share(recall, choice.confidence)} of as many best at {scales.large}, by chance "
        f"{share_text(choice.random_recall)}; their median is {regret.value:.1f} points worse than that of the best, "
        f"by chance {choice.random_typical_regret_pct:.1f}."
    )


def rules_text(found: Sequence[RuleAcrossScales]) -> str:
    """Which rules keep their size or their sign over the scales."""
    names, parts = rule_names(found), []
    for decision in ("same size", "same sign", "changes sign", "undecided"):
        own = [one for one in found if one.effect.decision == decision]
        if own:
            told = [names[one] + (_change_text(one) if len(found) <= _MOST_NUMBERS else "") for one in own]
            parts.append(f"{constancy_text(own[0].effect.decision, own[0].effect.margin_pct)}: {joined(told)}")
    return f"{parts[0][0].upper()}{'; '.join(parts)[1:]}." if parts else ""


def constancy_text(decision: Constancy, margin_pct: float) -> str:
    return f"same size within ±{points_text(margin_pct)}" if decision == "same size" else decision


def _change_text(found: RuleAcrossScales) -> str:
    change = found.effect.difference
    if change.value is None or change.low is None or change.high is None:
        return ""
    return (
        f" (the effect changes by {signed(change.value)} points from {found.scales[0]} to {found.scales[-1]}, "
        f"{100 * found.effect.confidence:.4g} % interval {signed(change.low)} to {signed(change.high)})"
    )


# -- numbers -------------------------------------------------------------------------------------------------------


def points_text(points: float) -> str:
    return f"{points:g} point" + ("" if points == 1 else "s")


def decimal(value: float | None) -> str:
    """A correlation: two decimals, with a typographic minus."""
    return "–" if value is None else f"{round(value, 2) + 0.0:.2f}".replace("-", MINUS)


def ends_text(found: IntervalEstimate, form: str = "{:.2f}") -> str:
    """The interval, each end in `form`: "0.20 to 0.95"."""
    if found.low is None or found.high is None:
        return "no interval"
    return f"{form.format(found.low)} to {form.format(found.high)}".replace("-", MINUS)


def error_ends(found: IntervalEstimate) -> str:
    """The interval of an error in percent; 0 and 100, where it cannot but lie, are no ends that were found."""
    if found.low is not None and found.high is not None and found.low <= 0:
        return f"up to {found.high:.1f}"
    if found.low is not None and found.high is not None and found.high >= 100:
        return f"from {found.low:.1f}"
    return ends_text(found, "{:.1f}")


def share_ends(found: IntervalEstimate) -> str:
    """ "9 to 45 %"."""
    if found.low is None or found.high is None:
        return "no interval"
    return f"{100 * found.low:.0f} to {100 * found.high:.0f} %"


def _interval(found: IntervalEstimate, confidence: float) -> str:
    return _at(confidence, ends_text(found))


def _share(found: IntervalEstimate, confidence: float) -> str:
    return f"{share_text(found.value)} ({_at(confidence, share_ends(found))})"


def _at(confidence: float, ends: str) -> str:
    return ends if ends == "no interval" else f"{100 * confidence:.4g} % interval {ends}"


def _counted(num: int, num_known: int) -> str:
    return f"n = {num}" if num == num_known else f"n = {num}, {num_known} of them known"


def _place(one: NearBestOfSpace | SeedNoise, among: Sequence[NearBestOfSpace | SeedNoise]) -> str:
    several = len({other.scale for other in among}) > 1
    return f"{space_title(one.space)} at {one.scale}" if several else space_title(one.space)
