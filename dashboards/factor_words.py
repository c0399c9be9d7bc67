"""Which parts of a network matter, in words: do aspects factor, which factor comes first, what the best are like.

In: the factor findings of a sweep. Out: plain text, not escaped, with n, interval and budget; the report, the terminal
and MLflow's note say the same.
"""

from collections.abc import Sequence

from dashboards.assumption_words import Told, ends_text
from dashboards.words import epochs_text, joined, share_text
from sweep.spaces import space_title
from sweep.statistics import IntervalEstimate, Trend
from sweep.statistics.factors.findings import FactorFindings

_NAMES = {"d": "depth", "w": "widths", "b": "bottleneck ratio", "g": "group width"}
_MOST_TRENDS = 2  # that a sentence tells


def factors_told(found: Sequence[FactorFindings]) -> list[Told]:
    """Those of which there is something to say, in their order."""
    told = (
        Told("main_effects", "Do aspects factor?", " ".join(map(_main_effects, found))),
        Told("importances", "Which factor matters most?", " ".join(map(_importances, found))),
        Told("trends", "What are the best networks like?", " ".join(map(_trends, found))),
    )
    return [one for one in told if one.text.strip()]


def factor_name(name: str) -> str:
    """`d` as "depth"; parts and parameters as people write them."""
    return _NAMES.get(name, name.replace("_", " "))


def spaces_text(found: FactorFindings) -> str:
    """Of whose networks it speaks: one space by name, several together."""
    if len(found.spaces) == 1:
        return space_title(found.spaces[0])
    return f"{len(found.spaces)} spaces together"


def _place(found: FactorFindings) -> str:
    return f"{spaces_text(found)}, {found.scale} (n = {found.num_networks:,}, after {epochs_text(found.epochs)})"


def _main_effects(found: FactorFindings) -> str:
    effects = found.main_effects
    if effects.r2_all.value is None or effects.r2_all.low is None or effects.r2_all.low <= 0:
        return f"In {_place(found)} nothing has been shown to explain errors, so there is nothing to factor."
    share = effects.share
    if share.value is None or share.low is None or share.high is None:
        return ""
    if effects.noise_variance_pct2 is None:  # then the share is only bounded
        told = f"{100 * share.low:.0f} to {100 * share.high:.0f} % (what one seed does is not known)"
    else:
        told = _share(share)
    return (
        f"In {_place(found)} each factor by itself, added up, explains {told} of what all of them explain together, "
        f"which is {_share(effects.r2_all)} of the variance of error, cross-validated."
    )


def _importances(found: FactorFindings) -> str:
    explained, ranked = found.importances.explained, found.importances.factors
    if not ranked or explained.low is None or explained.low <= 0:
        return ""
    first = ranked[0]
    certain = "for certain" if first.rank_high == 1 else f"in {share_text(first.chance_first)} of resamples"
    others = joined([f"{factor_name(row.factor)} {share_text(row.total.value)}" for row in ranked[1:4]])
    text = (
        f"In {_place(found)} {factor_name(first.factor)} come first, {certain}: {_share(first.total)} of the variance, "
        f"with interactions" + (f"; then {others}." if others else ".")
    )
    if found.agreement is None:
        return text
    agreed = found.agreement
    if agreed.same_first:
        return f"{text} Broken rules say so as well."
    return f"{text} Broken rules put {factor_name(agreed.first_by_rules)} first."


def _trends(found: FactorFindings) -> str:
    """Those that go with error for certain, the strongest."""
    certain = [trend for trend in found.trends if _is_sided(trend.with_error)]
    strongest = sorted(certain, key=lambda trend: -abs(trend.with_error.value or 0))[:_MOST_TRENDS]
    if not strongest:
        return ""
    return f"In {_place(found)} the best of each quarter, at like flops, have {joined(list(map(_trend, strongest)))}."


def _trend(found: Trend) -> str:
    seen = f"{found.lowest:.3g} to {found.highest:.3g}"
    return f"{factor_name(found.parameter)} {found.best.value:.3g} ({ends_text(found.best, '{:.3g}')}, of {seen})"


def _is_sided(found: IntervalEstimate) -> bool:
    return found.low is not None and found.high is not None and not found.low <= 0 <= found.high


def _share(found: IntervalEstimate) -> str:
    if found.low is None or found.high is None:
        return f"{share_text(found.value)} (no interval)"
    return f"{share_text(found.value)} ({100 * found.low:.0f} to {100 * found.high:.0f} %)"
