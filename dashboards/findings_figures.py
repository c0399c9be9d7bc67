"""Figures of what a sweep finds beyond its shared rungs: spaces at their full budget, and how early results guide.

In: cohorts and findings. Out: plotly figures. What only survivors of early stopping are in is dotted, and called so.
"""

import html
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboards.figures import band_trace, error_window, steps
from dashboards.look import dress
from dashboards.words import epochs_text
from sweep.spaces import space_title
from sweep.statistics import Cohort, full_budget, share_below
from sweep.statistics.assumptions.assume import BudgetAgreement
from sweep.statistics.samples import Floats, Sample

_NUM_POINTS = 200  # of a curve
_MOST_SURVIVORS = 5  # spaces; the dotted curves of more would hide what counts
_DODGE = 0.5  # of the distance between two rungs, over all spaces


def full_budget_figure(
    cohorts: Sequence[Cohort], colours: Mapping[str, str], *, confidence: float
) -> tuple[go.Figure, int]:
    """The share of each space's networks, whether trained so far or not, at or below an error at the full budget, with
    pointwise bands, of `cohorts` of one scale; and how many of the known errors lie beyond the axis.

    A space of which nothing can be estimated has no curve.
    """
    told = [(cohort, sample) for cohort in cohorts if (sample := full_budget(cohort)) is not None]
    window = error_window([sample.values for _, sample in told])
    figure = go.Figure()
    for cohort, sample in told:
        figure.add_traces(_estimated_traces(cohort.space, colours[cohort.space], sample, window, confidence))
    if len(told) <= _MOST_SURVIVORS:
        survivors = [(cohort, errors) for cohort, _ in told if len(errors := _survivors(cohort))]
        for number, (cohort, errors) in enumerate(survivors):
            trace = _survivors_trace(cohort.space, colours[cohort.space], errors, window)
            figure.add_trace(trace.update(showlegend=not number))
    epochs = max([cohort.full_budget for cohort in cohorts], default=0)
    legend_px = 26 * -(-(len(told) + 1) // 4)  # about four entries a line, below the buttons
    x_title = f"validation error after {epochs_text(epochs)}, %"
    dress(figure, height=390 + legend_px, x_title=x_title, y_title="share of networks")
    figure.update_xaxes(range=list(window))
    figure.update_yaxes(range=[-0.02, 1.02], tickformat=".0%")
    figure.update_layout(margin={"t": 34 + legend_px})
    return figure, sum(int(np.count_nonzero(sample.values > window[1])) for _, sample in told)


def _estimated_traces(
    space: str, colour: str, sample: Sample, window: tuple[float, float], confidence: float
) -> list[go.Scatter]:
    title = html.escape(space_title(space))
    shown = sample.values[sample.values <= window[1]]
    grid = np.linspace(shown.min(), window[1], _NUM_POINTS) if len(shown) else np.empty(0)
    share, low, high = share_below([(1.0, sample)], grid, confidence=confidence)
    line = go.Scatter(
        x=np.concatenate([[window[0]], grid]),
        y=np.concatenate([[0.0], share]),
        mode="lines",
        line={"shape": "hv", "color": colour, "width": 2.5},
        name=f"{title} ({len(sample.values)} of {sample.num} known)",
        legendgroup=space,
        hovertemplate=f"%{{y:.0%}} of {title} at or below %{{x:.1f}} %<extra></extra>",
    )
    return [band_trace(grid, low, high, colour=colour, group=space), line]


def _survivors(cohort: Cohort) -> Floats:
    """Errors of those that early stopping let live, where it ended others; else none."""
    ended = cohort.take(~cohort.is_cancelled)
    return ended.final_errors[ended.is_certain & ended.is_finished] if not ended.is_certain.all() else np.empty(0)


def _survivors_trace(space: str, colour: str, errors: Floats, window: tuple[float, float]) -> go.Scatter:
    x, share = steps(errors, window)
    return go.Scatter(
        x=x,
        y=share,
        mode="lines",
        line={"shape": "hv", "color": colour, "width": 1.3, "dash": "dot"},
        name="survivors alone, no sample of their space",
        legendgroup="survivors",
        hovertemplate=f"%{{y:.0%}} of the survivors of {html.escape(space_title(space))} at or below %{{x:.1f}} %"
        "<extra></extra>",
    )


def ranks_figure(budgets: Sequence[BudgetAgreement], colours: Mapping[str, str]) -> go.Figure:
    """How the ranks of each space's networks at each earlier budget agree with those at the full budget: Spearman's
    correlation with its interval, a panel a scale."""
    scales = list(dict.fromkeys(budget.scale for budget in budgets))
    spaces = list(dict.fromkeys(budget.space for budget in budgets))
    titles = [f"scale {html.escape(scale)}" for scale in scales] if len(scales) > 1 else None
    figure = make_subplots(1, max(len(scales), 1), shared_yaxes="all", subplot_titles=titles, horizontal_spacing=0.04)
    for column, scale in enumerate(scales, start=1):
        here = [budget for budget in budgets if budget.scale == scale]
        epochs = sorted({budget.epochs for budget in here})
        for place, space in enumerate(spaces):
            own = [budget for budget in here if budget.space == space and budget.ranks.spearman.value is not None]
            shift = _DODGE * ((place + 0.5) / len(spaces) - 0.5)
            trace = _ranks_trace(space, colours[space], own, [epochs.index(b.epochs) + shift for b in own])
            figure.add_trace(trace.update(showlegend=column == 1), row=1, col=column)
        figure.update_xaxes(
            tickvals=list(range(len(epochs))), ticktext=[epochs_text(epoch) for epoch in epochs],
            range=[-0.5, len(epochs) - 0.5], col=column,
        )  # fmt: skip
    dress(figure, height=330, x_title="trained for")
    figure.update_yaxes(range=[_lowest(budgets), 1.04])
    figure.update_yaxes(title_text="rank correlation", col=1)
    if titles:
        figure.update_layout(legend={"y": 1.14}, margin={"t": 78})
    return figure


def _ranks_trace(space: str, colour: str, budgets: Sequence[BudgetAgreement], places: Sequence[float]) -> go.Scatter:
    found = [budget.ranks.spearman for budget in budgets]
    reach = [
        (0.0, 0.0) if s.value is None or s.low is None or s.high is None else (s.value - s.low, s.high - s.value)
        for s in found
    ]
    return go.Scatter(
        x=places,
        y=[spearman.value for spearman in found],
        mode="lines+markers",
        line={"color": colour, "width": 1},
        marker={"color": colour, "size": 9},
        error_y={
            "type": "data", "arrayminus": [down for down, _ in reach], "array": [up for _, up in reach],
            "color": colour, "thickness": 1.6, "width": 4,
        },
        name=html.escape(space_title(space)),
        legendgroup=space,
        customdata=[[b.epochs, b.full_epochs, b.ranks.num_pairs, b.ranks.num_networks] for b in budgets],
        hovertemplate="%{y:.2f} between epoch %{customdata[0]} and %{customdata[1]}, "
        "from %{customdata[2]} of %{customdata[3]} networks<extra></extra>",
    )  # fmt: skip


def _lowest(budgets: Sequence[BudgetAgreement]) -> float:
    """Where the axis begins: at 0, unless an interval reaches below."""
    lows = [end for b in budgets for end in (b.ranks.spearman.low, b.ranks.spearman.value) if end is not None]
    return min([-0.04, *(low - 0.04 for low in lows)])
