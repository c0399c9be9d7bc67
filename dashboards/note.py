"""What a sweep found, as the Markdown note of its run in MLflow: short, because the report says it at length.

In: findings. Out: a table of verdicts at the shared rungs and what is otherwise at the full budget, one of the spaces
there, and a line for each assumption.
"""

from collections.abc import Iterable, Sequence

from dashboards.assumption_words import assumptions_told, error_ends, is_told
from dashboards.factor_words import factors_told
from dashboards.words import at_scale, epochs_text, full_budget_answer
from sweep.statistics import Findings, IntervalEstimate, SpaceEstimate, Verdict


def findings_note(findings: Findings, looks: str = "") -> str:
    """`looks`: how they stand, of a sweep that may end early."""
    estimates = [estimate for estimate in findings.estimates if is_told(estimate)]
    at_rungs, at_full = findings.at_rungs, findings.at_full_budget
    scales = dict.fromkeys(verdict.scale for verdict in at_rungs)
    parts = (
        _verdicts(at_rungs) if at_rungs else "",
        "\n".join(
            f"- {f'{scale}: ' if len(scales) > 1 else ''}{text}"
            for scale in scales
            if (text := full_budget_answer(at_scale(at_rungs, scale), at_scale(at_full, scale)))
        ),
        f"Looks: {looks}." if looks else "",
        _estimates(estimates) if estimates else "",
        "\n".join(
            f"- *{told.question}* {told.text}"
            for told in (*assumptions_told(findings.assumptions), *factors_told(findings.factors))
        ),
    )
    return "\n\n".join(filter(None, parts))


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    return _table(
        ("rule", "from → to", "scale", "epochs", "effect, points of error", "n", "verdict"),
        (
            (
                verdict.rule,
                f"{verdict.space_without} → {verdict.space_with}",
                verdict.scale,
                f"{verdict.rung_epochs}",
                f"{_points(verdict.effect_pct)} [{_points(verdict.ci_low_pct)}, {_points(verdict.ci_high_pct)}]",
                _sizes(verdict),
                f"**{verdict.verdict}**",
            )
            for verdict in verdicts
        ),
    )


def _estimates(estimates: Sequence[SpaceEstimate]) -> str:
    return _table(
        ("space", "scale", "at the full budget", "known", "mean error, %", "median error, %"),
        (
            (
                estimate.space,
                estimate.scale,
                epochs_text(estimate.epochs),
                f"{estimate.num_known} of {estimate.num_networks}",
                _mean(estimate),
                _error(estimate.quantiles["median"]) if estimate.quantiles else "–",
            )
            for estimate in estimates
        ),
    )


def _mean(estimate: SpaceEstimate) -> str:
    if estimate.mean is not None:
        return _error(estimate.mean)
    bounds = estimate.bounds
    return f"between {bounds.low_pct:.1f} and {bounds.high_pct:.1f}" if bounds else "–"


def _error(found: IntervalEstimate) -> str:
    return f"{found.value:.1f} [{error_ends(found)}]"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join([_row(head), "|---" * len(head) + "|", *map(_row, rows)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _sizes(verdict: Verdict) -> str:
    compared = f"{verdict.num_matched_without} + {verdict.num_matched_with}"
    return compared if verdict.matched_on == "none" else f"{compared}, matched on {verdict.matched_on}"


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"
