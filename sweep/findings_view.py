"""What a sweep found, in a terminal: tables of verdicts and of spaces, sentences on what cheap search rests on.

In: findings (sweep/statistics/findings.py). Out: renderables of rich that fit 80 columns. Names fold where there is no
room; an interval is never cut.
"""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dashboards.assumption_words import Told, assumptions_told, error_ends, full_budget_texts
from dashboards.factor_words import factors_told
from dashboards.words import epochs_text
from sweep.statistics import Findings, IntervalEstimate, MeasureVerdict, SpaceEstimate, Verdict

VERDICT_STYLES = {"helps": "bold green", "free": "bold blue", "hurts": "bold red", "undecided": "yellow"}


def findings_tables(findings: Findings) -> list[RenderableType]:
    """All that a sweep says: verdicts at the shared rung, at the full budget, other measures, the spaces themselves,
    what cheap search rests on, and what matters in a network."""
    parts = [verdict_table(findings.at_rungs)]
    if findings.at_full_budget:
        parts += [_heading("Estimated at the full budget"), verdict_table(findings.at_full_budget)]
    if findings.verdicts:
        parts += [_heading("Not only on average"), measures_table(findings.verdicts)]
    if findings.estimates:
        parts += [_heading("Spaces at their full budget"), estimates_table(findings.estimates)]
    if assumptions_told(findings.assumptions):
        parts += [_heading("What cheap search rests on"), told_text(assumptions_told(findings.assumptions))]
    if factors := factors_told(findings.factors):
        parts += [_heading("What matters in a network"), told_text(factors)]
    return parts


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _table() -> Table:
    return Table(box=None, padding=(0, 1, 0, 0), header_style="dim")


def _add(table: Table, *cells: str | Text) -> None:
    """A row as it is: rich takes what stands in brackets for mark-up, in an interval or in a name."""
    table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))


# -- verdicts ------------------------------------------------------------------------------------------------------

_ESTIMATED = "All trials: those that early stopping ended count by those that the lottery kept"


def verdict_table(verdicts: Sequence[Verdict]) -> RenderableType:
    """The verdicts of a sweep: effect in points of error, its interval, n and the budget that they speak of.

    What is the same in every row stands below the table instead.
    """
    if not verdicts:
        return Text("no two of the spaces differ by a rule", style="dim")
    scales, budgets = ({getattr(v, field) for v in verdicts} for field in ("scale", "rung_epochs"))
    table = _table()
    for heading in (
        "rule",
        "compared",
        *(["scale"] if len(scales) > 1 else ()),
        *(["epochs"] if len(budgets) > 1 else ()),
    ):
        table.add_column(heading, overflow="fold")
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("effect, points", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for verdict in verdicts:
        _add(
            table,
            verdict.rule,
            f"{verdict.space_without} → {verdict.space_with}",
            *([verdict.scale] if len(scales) > 1 else ()),
            *([str(verdict.rung_epochs)] if len(budgets) > 1 else ()),
            f"{verdict.num_matched_without}+{verdict.num_matched_with}",
            _effect(verdict),
            Text(verdict.verdict, style=VERDICT_STYLES[verdict.verdict]),
        )
    budget = f"after {epochs_text(budgets.pop())}" if len(budgets) == 1 else "after the epochs given"
    whose = _ESTIMATED if any(verdict.is_estimated for verdict in verdicts) else "All trials, survivors or not"
    explained = (
        f"effect: mean validation error {budget} with the rule minus without; below 0 it helps. {whose}"
        f"{_matching(verdicts)}; verdicts are corrected for their number{_looks(verdicts)}."
    )
    return Group(table, Text(explained, style="dim"))


def _looks(verdicts: Sequence[Verdict]) -> str:
    num = verdicts[0].looks_taken
    if num is None:
        return ""
    return f", and for {num} look{'' if num == 1 else 's'} so far" if num else ", and say nothing before the first look"


def _matching(verdicts: Sequence[Verdict]) -> str:
    if verdicts[0].matched_on == "none":
        return ""
    most = max(verdict.share_outside or 0.0 for verdict in verdicts)
    return f", matched on {verdicts[0].matched_on} (up to {most:.0%} of a pair have no counterpart and are left out)"


def _effect(verdict: Verdict) -> str:
    if verdict.effect_pct is None or verdict.ci_low_pct is None:
        return "–"
    return f"{verdict.effect_pct:+.2f} [{verdict.ci_low_pct:+.2f}, {verdict.ci_high_pct:+.2f}]"


def measures_table(verdicts: Sequence[Verdict]) -> RenderableType:
    """Effects on the median, on the best tenth, and how often a network with the rule beats one without."""
    scales, budgets = ({getattr(v, field) for v in verdicts} for field in ("scale", "rung_epochs"))
    table = _table()
    table.add_column("compared", overflow="fold")
    for heading in (*(["epochs"] if len(budgets) > 1 else ()), "median", "best tenth", "wins"):
        table.add_column(heading, no_wrap=True)
    for verdict in verdicts:
        place = f", {verdict.scale}" if len(scales) > 1 else ""
        _add(
            table,
            f"{verdict.space_without} → {verdict.space_with}{place}",
            *([str(verdict.rung_epochs)] if len(budgets) > 1 else ()),
            *map(_measured, verdict.others),
        )
    explained = (
        "points of error, with the rule minus without; wins: how often a network with the rule is the better one"
    )
    return Group(table, Text(explained, style="dim"))


def _measured(other: MeasureVerdict) -> str:
    if other.effect is None or other.low is None or other.high is None:
        return "–"
    if other.measure == "superiority":
        return f"{0.5 - other.effect:.0%} [{0.5 - other.high:.0%}, {0.5 - other.low:.0%}]"
    return f"{other.effect:+.2f} [{other.low:+.2f}, {other.high:+.2f}]"


# -- spaces, and what cheap search rests on ------------------------------------------------------------------------


def estimates_table(estimates: Sequence[SpaceEstimate]) -> RenderableType:
    """Mean and quantiles of the error of each space at its full budget, whether its networks were trained so far or
    not."""
    table = _table()
    table.add_column("space", overflow="fold")
    table.add_column("known", justify="right", no_wrap=True)
    for heading in ("mean, %", "median, %", "best tenth, %"):
        table.add_column(heading, no_wrap=True)
    scales = {estimate.scale for estimate in estimates}
    for estimate in estimates:
        place = f", {estimate.scale}" if len(scales) > 1 else ""
        row = [f"{estimate.space}{place}", f"{estimate.num_known} of {estimate.num_networks}"]
        if estimate.mean is None:
            limits = estimate.bounds
            told = f"{limits.low_pct:.1f} to {limits.high_pct:.1f}" if limits else "–"
            _add(table, *row, told, "–", "–")
        else:
            shown = (estimate.mean, estimate.quantiles["median"], estimate.quantiles["q10"])
            _add(table, *row, *map(_ranged, shown))
    epochs = ", ".join(sorted({f"{estimate.epochs}" for estimate in estimates}))
    explained = f"validation error after {epochs} epochs, {100 * estimates[0].confidence:g} % intervals."
    return Group(table, Text(" ".join([explained, *full_budget_texts(estimates)]), style="dim"))


def _ranged(found: IntervalEstimate) -> str:
    return f"{found.value:.1f} [{error_ends(found)}]"


def told_text(told: Sequence[Told]) -> RenderableType:
    """A paragraph for each question that was asked."""
    return Group(*(Text.assemble((one.question, "bold"), " ", one.text) for one in told))
