"""Figures of a sweep: interactive ones for the report (plotly), one picture for MLflow and talks (matplotlib).

In: tables and verdicts. Out: plotly figures that are legible on a light and on a dark page, and `summary.png`.

The figures that DDS draws (error distributions, section 3.1), with bands; and the ones that early stopping asks for.
Rungs are never mixed in one panel; what only survivors of early stopping are in says so. A space has one colour
everywhere.
"""

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from dashboards.look import FAINT, GREY, MARKS, Mark, dress, rgba, small
from dashboards.words import epochs_text, interval_text, pair_label, provenance_text, rule_label, si, sizes_text
from sweep.records import Tables
from sweep.spaces import space_title
from sweep.statistics import (
    Verdict,
    cohort,
    cost,
    edf,
    edf_band,
    errors_at,
    errors_by_trial,
    shared_rung,
    study_of,
)

Floats = NDArray[np.float64]

# Above so many points a figure is drawn by WebGL. Below, SVG: it prints sharply, needs no graphics driver, and a
# browser keeps only about 16 WebGL figures alive at once.
WEBGL_POINTS = 3_000
# More learning curves than this makes of points are thinned, so that a report stays small and quick.
MAX_CURVE_POINTS = 60_000
# In the forest, how far below its rule an estimate at the full budget stands, in rows.
_FULL_BELOW = 0.44
# So many times what the verdicts at the rungs need, estimates may widen its axis.
_MOST_VAGUE = 2.0


# -- what several figures share --------------------------------------------------------------------------------


def errors_by_space(tables: Tables, *, scale: str, epoch: int) -> dict[str, Floats]:
    """Each space's errors in percent after `epoch` epochs, in the order of the study."""
    return {space: errors_at(tables, scale=scale, space=space, epoch=epoch) for space in study_of(tables).spaces}


def error_window(errors: Iterable[Floats]) -> tuple[float, float]:
    """The errors that an axis shows: all, but for outliers on the bad side (beyond 3 interquartile ranges).

    A few networks at chance level would squeeze all others into a corner; an EDF that ends below 1 still shows them.
    """
    pooled = np.concatenate([np.empty(0), *errors])
    if not len(pooled):
        return 0.0, 100.0
    quarter, three_quarters = np.quantile(pooled, [0.25, 0.75])
    fence = three_quarters + 3 * max(three_quarters - quarter, 1.0)
    low, high = float(pooled.min()), float(pooled[pooled <= fence].max())
    padding = 0.04 * max(high - low, 1.0)
    return max(0.0, low - padding), min(100.0, high + padding)


def _band(errors: Floats, window: tuple[float, float], confidence: float) -> tuple[Floats, Floats, Floats]:
    """The EDF's band at 200 errors, between the best and the worst network that the window shows."""
    shown = errors[errors <= window[1]]
    x = np.linspace(shown.min(), shown.max(), 200) if len(shown) else np.empty(0)
    return (x, *edf_band(errors, x, confidence=confidence))


def steps(errors: Floats, window: tuple[float, float]) -> tuple[Floats, Floats]:
    """The EDF as corners of a stair from the left to the right edge of the window."""
    x, share = edf(errors)
    inside = x <= window[1]
    x, share = x[inside], share[inside]
    if not len(errors):
        return x, share
    last = share[-1] if len(share) else 0.0
    return np.concatenate([[window[0]], x, [window[1]]]), np.concatenate([[0.0], share, [last]])


# -- plotly ----------------------------------------------------------------------------------------------------


def edf_figure(tables: Tables, *, scale: str, epoch: int) -> go.Figure:
    """The share of each space's networks at or below an error after `epoch` epochs, with pointwise bands."""
    confidence = study_of(tables).judging.confidence
    errors = errors_by_space(tables, scale=scale, epoch=epoch)
    window = error_window(errors.values())
    figure = go.Figure()
    for space, found in errors.items():
        figure.add_traces(_edf_traces(space, study_of(tables).colour_of(space), found, window, confidence))
    dress(figure, height=420, x_title=f"validation error after {epochs_text(epoch)}, %", y_title="share of networks")
    figure.update_xaxes(range=list(window))
    figure.update_yaxes(range=[-0.02, 1.02], tickformat=".0%")
    return figure


def _edf_traces(
    space: str, colour: str, errors: Floats, window: tuple[float, float], confidence: float
) -> list[go.Scatter]:
    title = space_title(space)
    grid, low, high = _band(errors, window, confidence)
    x, share = steps(errors, window)
    line = go.Scatter(
        x=x,
        y=share,
        mode="lines",
        line={"shape": "hv", "color": colour, "width": 2.5},
        name=f"{title} (n = {len(errors)})",
        legendgroup=space,
        hovertemplate=f"%{{y:.0%}} of {title} at or below %{{x:.1f}} %<extra></extra>",
    )
    return [band_trace(grid, low, high, colour=colour, group=space), line]


def band_trace(grid: Floats, low: Floats, high: Floats, *, colour: str, group: str) -> go.Scatter:
    """A band from `low` to `high`, without an entry in the legend; it comes and goes with its group."""
    return go.Scatter(
        x=np.concatenate([grid, grid[::-1]]),
        y=np.concatenate([low, high[::-1]]),
        fill="toself",
        fillcolor=rgba(colour, 0.13),
        line={"width": 0},
        hoverinfo="skip",
        legendgroup=group,
        showlegend=False,
    )


def forest_figure(verdicts: Sequence[Verdict], at_full_budget: Sequence[Verdict] = ()) -> go.Figure:
    """One row a verdict: the effect and its interval, in points of error, over the margin of "free"; below it, smaller,
    what is estimated of that rule `at_full_budget`."""
    rows = _forest_rows(verdicts, at_full_budget)
    figure = go.Figure()
    for decision, mark in MARKS.items():
        for is_small in (False, True):
            drawn = [
                (y, v)
                for y, v in rows
                if v.verdict == decision and v.effect_pct is not None and v.is_estimated == is_small
            ]
            if drawn:
                named = decision not in {trace.name for trace in figure.data}
                figure.add_trace(_forest_trace(decision, mark, drawn, is_small=is_small).update(showlegend=named))
    height = 110 + (88 if at_full_budget else 58) * len(verdicts)
    dress(figure, height=height, x_title="points of validation error (with the rule − without)")
    labels = [_forest_label(verdict, verdicts) for _, verdict in rows]
    lowest = max([y for y, _ in rows], default=-1)
    figure.update_yaxes(tickvals=[y for y, _ in rows], ticktext=labels, range=[lowest + 0.6, -0.6])
    figure.update_xaxes(range=_forest_window(verdicts, at_full_budget))
    if verdicts:
        margin = verdicts[0].margin_pct
        figure.add_vrect(x0=-margin, x1=margin, fillcolor=FAINT, line_width=0, layer="below")
        figure.add_vline(x=0, line={"color": GREY, "width": 1})
    return figure


def _forest_rows(verdicts: Sequence[Verdict], at_full_budget: Sequence[Verdict]) -> list[tuple[float, Verdict]]:
    """Each verdict with its height, that at the full budget just below its own."""
    at_full = {(v.rule, v.space_without, v.space_with, v.scale): v for v in at_full_budget}
    rows: list[tuple[float, Verdict]] = []
    for row, v in enumerate(verdicts):
        rows.append((row, v))
        if (v.rule, v.space_without, v.space_with, v.scale) in at_full:
            rows.append((row + _FULL_BELOW, at_full[v.rule, v.space_without, v.space_with, v.scale]))
    return rows


def _forest_label(verdict: Verdict, verdicts: Sequence[Verdict]) -> str:
    if verdict.is_estimated:
        return small(f"estimated after {epochs_text(verdict.rung_epochs)}")
    several = len({v.scale for v in verdicts}) > 1
    place = f"{verdict.scale}, " if several else ""
    return f"{rule_label(verdict.rule)}<br>{small(place + pair_label(verdict))}"


def _forest_window(verdicts: Sequence[Verdict], at_full_budget: Sequence[Verdict] = ()) -> tuple[float, float]:
    """Symmetric about 0, so that the sides of "helps" and "hurts" weigh the same. All is in it but the ends of
    estimates that few audited networks leave so vague that the rest would not be seen."""
    reach = max([abs(end) for v in verdicts for end in _forest_ends(v)], default=1.0) or 1.0
    estimated = max([abs(end) for v in at_full_budget for end in _forest_ends(v)], default=0.0)
    reach = 1.08 * max(reach, min(estimated, _MOST_VAGUE * reach))
    return -reach, reach


def _forest_ends(verdict: Verdict) -> list[float]:
    ends = (verdict.effect_pct, verdict.ci_low_pct, verdict.ci_high_pct, verdict.margin_pct)
    return [end for end in ends if end is not None]


def _forest_trace(decision: str, mark: Mark, drawn: list[tuple[float, Verdict]], *, is_small: bool) -> go.Scatter:
    verdicts = [verdict for _, verdict in drawn]
    reach = [
        0.0 if v.ci_low_pct is None or v.ci_high_pct is None else (v.ci_high_pct - v.ci_low_pct) / 2 for v in verdicts
    ]
    marker = {"symbol": mark.plotly_symbol, "size": 13, "color": mark.colour}
    line = {"width": 2, "color": mark.colour}
    error = {"type": "data", "array": reach, "color": mark.colour, "thickness": 2.5, "width": 6}
    if is_small:
        marker, line, error = marker | {"size": 8}, line | {"width": 1.5}, error | {"thickness": 1.2, "width": 4}
    return go.Scatter(
        x=[v.effect_pct for v in verdicts],
        y=[row for row, _ in drawn],
        mode="markers",
        name=decision,
        legendgroup=decision,
        marker=marker | {"line": line},
        error_x=error,
        customdata=[[sizes_text(v), epochs_text(v.rung_epochs)] for v in verdicts],
        hovertemplate=f"{decision}: %{{x:+.2f}} points, n = %{{customdata[0]}}, "
        "after %{customdata[1]}<extra></extra>",
    )


def curves_figure(tables: Tables, *, scale: str) -> go.Figure:
    """All learning curves of a scale, a panel a space, the rungs marked; a cross where a trial was stopped.

    One trace a space: curves are held apart by gaps. Beyond the first rung only survivors and audited trials go on.
    """
    study = study_of(tables)
    num_columns = min(4, len(study.spaces))
    num_rows = -(-len(study.spaces) // num_columns)
    titles = [space_title(space) for space in study.spaces]
    figure = make_subplots(
        num_rows, num_columns, shared_yaxes="all", subplot_titles=titles, horizontal_spacing=0.02, vertical_spacing=0.16
    )
    stride = curve_stride(tables, scale=scale)
    webgl = cohort(tables.epochs, scale=scale).num_rows / stride > WEBGL_POINTS
    for index, space in enumerate(study.spaces):
        place = {"row": index // num_columns + 1, "col": index % num_columns + 1}
        for trace in _curve_traces(tables, scale, space, stride, webgl):
            figure.add_trace(trace, **place)
    dress(figure, height=70 + 290 * num_rows, x_title="epoch")
    figure.update_layout(showlegend=False)
    stopping = study.stopping_at(scale)
    figure.update_xaxes(range=[0.7, stopping.max_epochs + 0.3], **_epoch_ticks(stopping.max_epochs))
    figure.update_yaxes(title_text="validation error, %", col=1)
    for rung in stopping.rungs:
        figure.add_vline(x=rung, line={"color": GREY, "width": 1, "dash": "dash"})
    return figure


def curve_stride(tables: Tables, *, scale: str) -> int:
    """Every how many-th learning curve is drawn: 1, all of them, unless there are too many points."""
    return -(-cohort(tables.epochs, scale=scale).num_rows // MAX_CURVE_POINTS) or 1


def _epoch_ticks(max_epochs: int) -> dict[str, int]:
    return {"tick0": 1, "dtick": 1} if max_epochs <= 10 else {"nticks": 8}


def _curve_traces(tables: Tables, scale: str, space: str, stride: int, webgl: bool) -> list[Any]:
    drawn = cohort(tables.trials, scale=scale, space=space)["trial_id"].to_pylist()[::stride]
    rows = cohort(tables.epochs, scale=scale, space=space).select(["trial_id", "epoch", "val_error_pct"]).to_pylist()
    curves: dict[str, list[tuple[float, float]]] = {trial_id: [] for trial_id in drawn}
    for row in rows:
        if row["trial_id"] in curves and row["val_error_pct"] is not None:
            curves[row["trial_id"]].append((row["epoch"], row["val_error_pct"]))
    gap = (np.nan, np.nan)
    points = np.array([point for curve in curves.values() for point in (*curve, gap)], dtype=np.float32).reshape(-1, 2)
    ends = np.array([curves[t][-1] for t in _stopped(tables, scale, space) if curves.get(t)], dtype=np.float32)
    scatter = go.Scattergl if webgl else go.Scatter
    shared = {"hovertemplate": "epoch %{x}: %{y:.1f} %<extra></extra>", "name": space_title(space)}
    width = 1.3 if len(curves) <= 60 else 0.5
    colour = study_of(tables).colour_of(space)
    line = {"color": colour, "width": width}
    dot = {"color": colour, "size": 2 * width}
    cross = {"symbol": "x-thin", "size": 6, "line": {"color": colour, "width": 1.5}}
    ends = ends.reshape(-1, 2)
    return [
        scatter(x=points[:, 0], y=points[:, 1], mode="lines+markers", line=line, marker=dot, opacity=0.8, **shared),
        scatter(x=ends[:, 0], y=ends[:, 1], mode="markers", marker=cross, **shared),
    ]


def _stopped(tables: Tables, scale: str, space: str) -> list[str]:
    trials = cohort(tables.trials, scale=scale, space=space).select(["trial_id", "outcome"]).to_pylist()
    return [row["trial_id"] for row in trials if row["outcome"] == "stopped"]


def flops_figure(tables: Tables, *, scale: str, epoch: int) -> go.Figure:
    """Error against flops: all networks after `epoch` epochs and, in a panel of their own, the completed ones.

    Hollow in the second panel: those that only the audit lottery kept from being stopped.
    """
    study = study_of(tables)
    full = study.stopping_at(scale).max_epochs
    titles = [f"after {epochs_text(epoch)}: all networks", f"after {epochs_text(full)}: survivors and audited"]
    num_panels = 2 if epoch < full else 1
    figure = make_subplots(
        1, num_panels, shared_yaxes=True, subplot_titles=titles[:num_panels], horizontal_spacing=0.03
    )
    for space in study.spaces:
        figure.add_trace(_flops_trace(tables, scale, space, epoch), row=1, col=1)
        if num_panels == 2:
            completed = _flops_trace(tables, scale, space, full, completed_only=True)
            figure.add_trace(completed.update(showlegend=False), row=1, col=2)
    dress(figure, height=430, x_title="flops (multiply-adds, logarithmic)", y_title="validation error, %")
    figure.update_xaxes(type="log", **_flops_ticks(cohort(tables.trials, scale=scale)["flops"].to_pylist()))
    shown = [errors_by_space(tables, scale=scale, epoch=e).values() for e in (epoch, full)[:num_panels]]
    low = min(error_window(errors)[0] for errors in shown)
    figure.update_yaxes(range=[low, error_window(shown[0])[1]])
    figure.update_yaxes(title=None, col=2)
    figure.update_layout(legend={"y": 1.12}, margin={"t": 76})
    return figure


def _flops_trace(tables: Tables, scale: str, space: str, epoch: int, *, completed_only: bool = False) -> Any:
    errors = errors_by_trial(tables, scale=scale, space=space, epoch=epoch)
    rows = [
        row
        for row in cohort(tables.trials, scale=scale, space=space).to_pylist()
        if row["trial_id"] in errors and (row["outcome"] == "completed" or not completed_only)
    ]
    by_lottery = [completed_only and row["audited"] and row["would_stop_at_epoch"] is not None for row in rows]
    colour = study_of(tables).colour_of(space)
    scatter = go.Scattergl if tables.trials.num_rows > WEBGL_POINTS else go.Scatter
    return scatter(
        x=[row["flops"] for row in rows],
        y=[errors[row["trial_id"]] for row in rows],
        mode="markers",
        marker={
            "color": colour,
            "size": 8,
            "opacity": 0.85,
            "symbol": ["circle-open" if lottery else "circle" for lottery in by_lottery],
            "line": {"width": 2, "color": colour} if completed_only else {"width": 0},
        },
        customdata=[html.escape(row["trial_id"]) for row in rows],
        name=space_title(space),
        legendgroup=space,
        hovertemplate="%{customdata}: %{x:.3s}flops, %{y:.1f} %<extra></extra>",
    )


def _flops_ticks(flops: Sequence[int]) -> dict[str, Any]:
    """Ticks at round numbers, labelled with SI prefixes: plotly labels a narrow logarithmic axis by bare digits."""
    if not flops:
        return {}
    low, high = min(flops) * 0.9, max(flops) * 1.1
    exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    digits = (1, 2, 3, 4, 5, 6, 8) if high / low < 20 else (1, 3) if high / low < 1e4 else (1,)
    ticks = [tick for e in exponents for digit in digits if low <= (tick := digit * 10.0**e) <= high]
    return {
        "range": [float(np.log10(low)), float(np.log10(high))],
        "tickvals": ticks,
        "ticktext": [si(tick) for tick in ticks],
    }


def cost_figure(tables: Tables) -> go.Figure:
    """Epochs trained in each space and scale, and those that stopping saved."""
    study = study_of(tables)
    places = [(scale.name, space) for scale in study.scale for space in study.spaces]
    costs = [cost(tables, scale=scale, space=space) for scale, space in places]
    several = len(study.scale) > 1
    labels = [f"{space_title(p)}<br>{small(s)}" if several else space_title(p) for s, p in places]
    colours = [study.colour_of(space) for _, space in places]
    trained = go.Bar(
        y=labels,
        x=[c.epochs_trained for c in costs],
        orientation="h",
        name="trained",
        marker={"color": colours},
        hovertemplate="%{x} epochs trained<extra></extra>",
    )
    saved = go.Bar(
        y=labels,
        x=[c.epochs_saved for c in costs],
        orientation="h",
        name="saved by stopping",
        marker={"color": [rgba(colour, 0.18) for colour in colours], "line": {"color": colours, "width": 1}},
        hovertemplate="%{x} epochs saved<extra></extra>",
    )
    figure = go.Figure([trained, saved])
    dress(figure, height=100 + 44 * len(places), x_title="epochs: solid trained, pale saved by stopping")
    figure.update_layout(barmode="stack", bargap=0.35, showlegend=False)
    figure.update_yaxes(categoryorder="array", categoryarray=labels[::-1])
    return figure


# -- matplotlib ------------------------------------------------------------------------------------------------


def summary_png(tables: Tables, verdicts: Sequence[Verdict], path: Path) -> None:
    """Error distributions on the left, one panel a scale, and the verdicts on the right. Same input, same bytes."""
    study = study_of(tables)
    num_scales = len(study.judged_scales)
    height = max(4.2, 1.0 + 3.2 * num_scales, 1.6 + 0.62 * len(verdicts))
    figure = Figure(figsize=(12.5, height), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(num_scales, 2, width_ratios=(1, 1.05), wspace=0.06)
    epochs = rungs_shown(tables, verdicts)
    for row, scale in enumerate(study.judged_scales):
        _draw_edfs(figure.add_subplot(grid[row, 0]), tables, scale.name, epochs[scale.name], num_scales > 1)
    _draw_forest(figure.add_subplot(grid[:, 1]), verdicts, several_scales=num_scales > 1)
    figure.supxlabel(provenance_text(tables), x=0.012, ha="left", fontsize=8, color="#555555", parse_math=False)
    figure.suptitle(study.name, x=0.012, ha="left", fontsize=15, fontweight="bold", parse_math=False)
    # No software version and no date in the file: pictures of the same sweep are the same bytes.
    figure.savefig(path, format="png", metadata={"Software": None})


def rungs_shown(tables: Tables, verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Of each scale that is judged, the number of epochs that its verdicts speak of; the shared rung where there are
    none."""
    judged = {verdict.scale: verdict.rung_epochs for verdict in verdicts}
    names = [scale.name for scale in study_of(tables).judged_scales]
    return {name: judged[name] if name in judged else shared_rung(tables, name) for name in names}


def _draw_edfs(axes: Axes, tables: Tables, scale: str, epoch: int, several_scales: bool) -> None:
    confidence = study_of(tables).judging.confidence
    errors = errors_by_space(tables, scale=scale, epoch=epoch)
    window = error_window(errors.values())
    for space, found in errors.items():
        colour = study_of(tables).colour_of(space)
        axes.fill_between(*_band(found, window, confidence), color=colour, alpha=0.11, lw=0)
        axes.step(
            *steps(found, window), where="post", color=colour, lw=2, label=f"{space_title(space)} (n = {len(found)})"
        )
    axes.set(xlim=window, ylim=(-0.02, 1.02), ylabel="share of networks")
    axes.set_xlabel(f"validation error after {epochs_text(epoch)}, %")
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    many = len(errors) > 6  # their legend reaches into the curves
    axes.legend(loc="lower right", frameon=many, framealpha=0.85, edgecolor="none", fontsize=7.5 if many else 9)
    place = f"Scale {scale}: error" if several_scales else "Error"
    axes.set_title(
        f"{place} distributions, {confidence:.0%} pointwise bands", loc="left", fontsize=10, parse_math=False
    )
    _strip(axes)


def _draw_forest(axes: Axes, verdicts: Sequence[Verdict], *, several_scales: bool) -> None:
    across = axes.get_yaxis_transform()
    ground = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1}
    for row, verdict in enumerate(verdicts):
        _draw_forest_row(axes, row, verdict)
    if verdicts:
        margin = verdicts[0].margin_pct
        axes.axvspan(-margin, margin, color="#808080", alpha=0.13, lw=0)
        for x, side, text in (
            (0.02, "left", "← helps"),
            (0.5, "center", f"free: ±{margin:g}"),
            (0.98, "right", "hurts →"),
        ):
            axes.text(x, -0.62, text, transform=across, ha=side, va="center", fontsize=9, color="#555555", bbox=ground)
    axes.axvline(0, color="#808080", lw=1)
    axes.set(xlim=_forest_window(verdicts), ylim=(max(len(verdicts), 1) - 0.45, -0.8))
    labels = [f"{rule_label(v.rule)}\n{pair_label(v)}" + (f", {v.scale}" if several_scales else "") for v in verdicts]
    axes.set_yticks(range(len(verdicts)), labels, fontsize=9, parse_math=False)
    axes.set_xlabel("points of validation error (with the rule − without)")
    title = f"Rules, {verdicts[0].confidence:.0%} intervals" if verdicts else "No two spaces differ by a rule"
    if verdicts and verdicts[0].matched_on != "none":
        title += f", matched on {verdicts[0].matched_on}"
    axes.set_title(title, loc="left", fontsize=10)
    _strip(axes)


def _draw_forest_row(axes: Axes, row: int, verdict: Verdict) -> None:
    mark = MARKS[verdict.verdict]
    if verdict.ci_low_pct is not None and verdict.ci_high_pct is not None:
        axes.plot(
            [verdict.ci_low_pct, verdict.ci_high_pct], [row, row], color=mark.colour, lw=2.2, solid_capstyle="butt"
        )
    if verdict.effect_pct is not None:
        face = mark.colour if mark.filled else "white"
        axes.plot(verdict.effect_pct, row, mark.matplotlib_marker, ms=9, mfc=face, mec=mark.colour, mew=1.8)
    beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "fontsize": 9, "color": "#222222"}
    axes.text(1.015, row, verdict.verdict, va="bottom", fontweight="bold", **beside)
    axes.text(1.015, row, interval_text(verdict), va="top", **beside)


def _strip(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#808080", alpha=0.18, lw=0.8)
    axes.set_axisbelow(True)
