"""The report of a sweep: one HTML file that opens anywhere, also offline and from an e-mail.

In: tables, findings, and the reruns at full scale as plain dicts, if any. Out: `report.html`, self-contained:
plotly.js, data and style are in it once, and a content security policy forbids the browser to fetch anything else. Its
order is that of a reader's questions: what was asked, what is the answer, on what grounds, does it hold at the full
budget, what did cheap search take for granted, what did it cost, which networks were best, what did the best reach at
full scale, how to do it again. Sections that have nothing to say are left out.

All text of a user (names, questions, failures) is escaped: by jinja in the page, by hand in plotly's labels.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import jinja2
import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from dashboards import figures, words
from dashboards.assumption_words import (
    assumptions_told,
    border_text,
    error_ends,
    full_budget_texts,
    is_told,
    points_text,
)
from dashboards.factor_words import factor_name, factors_told, spaces_text
from dashboards.findings_figures import full_budget_figure, ranks_figure
from sweep.records import Tables
from sweep.records.journal import ENDED, UNFINISHED
from sweep.spaces import space_title
from sweep.statistics import (
    Assumptions,
    Choice,
    Cohort,
    CohortSummary,
    Findings,
    SpaceEstimate,
    Verdict,
    best_trials,
    chance_error_pct,
    cohorts_of,
    cost,
    ended_early_by,
    estimates,
    num_not_needed,
    over_seeds,
    share_interval,
    study_of,
    summarise,
)
from sweep.statistics.assumptions.assume import BudgetAgreement, NearBestOfSpace, ScaleAgreement
from sweep.studies import TRAIN, Scale, Stopping, Study

NUM_BEST = 5
_DRAWING_WIDTH, _DRAWING_HEIGHT = 132, 34

_FIGURE_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    # Plotly's own choice has a button that sends a figure and its data to a server of theirs.
    "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    "showSendToCloud": False,
    "toImageButtonOptions": {"format": "svg"},
}


@dataclass(frozen=True)
class InFull:
    """What the page shows of one scale at its full budget. `is_estimated`: early stopping kept networks from it;
    `num_beyond` known errors lie beyond the axis."""

    edf: Markup | None
    has_dotted: bool
    num_beyond: int
    estimates: list[SpaceEstimate]
    is_estimated: bool
    has_survivors: bool
    has_bounds: bool


@dataclass(frozen=True)
class Panel:
    """What the page shows of one scale at `epoch` epochs. `num_beyond` networks have errors beyond the axes."""

    name: str
    conditions: str
    stopping: Stopping
    epoch: int
    edf: Markup
    curves: Markup
    flops: Markup
    num_beyond: int
    curve_stride: int
    summaries: list[CohortSummary]
    best: list[dict[str, Any]]
    in_full: InFull


Reruns = Sequence[Mapping[str, Any]]
Placed = TypeVar("Placed", NearBestOfSpace, BudgetAgreement)


def write_report(tables: Tables, findings: Findings, path: Path, *, reruns: Reruns = ()) -> None:
    """Write the report to `path`, whole or not at all. `reruns`: what the `result.json` of each holds."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(render_report(tables, findings, reruns=reruns), encoding="utf-8")
    os.replace(draft, path)


def render_report(tables: Tables, findings: Findings, *, reruns: Reruns = ()) -> str:
    """The report as HTML. The same tables, findings and reruns give the same text."""
    study, verdicts, at_full = study_of(tables), findings.at_rungs, findings.at_full_budget
    summaries = summarise(tables)
    return _template().render(
        study=study,
        images=words.numbers_text(study.data_at(scale.name).num_train for scale in study.scale),
        budgets=words.budgets_text(study),
        repeats=words.repeats_text(study),
        num_trials=tables.trials.num_rows,
        is_trained=study.objective == TRAIN,
        outcomes=(outcomes := _outcomes(summaries)),
        columns=[outcome for outcome, num in outcomes.items() if num or outcome in ("completed", "stopped")],
        chance_error_pct=chance_error_pct(study),
        answers=words.answers(tables, findings),
        looks=words.looks_text(tables),
        num_not_needed=num_not_needed(tables) if ended_early_by(tables) else 0,
        verdicts=[(verdict, _note(verdict, len(verdicts))) for verdict in verdicts],
        at_full=at_full,
        measured=words.measures_text(verdicts),
        decides=any(other.verdict for verdict in verdicts for other in verdict.others),
        matched_on=next((v.matched_on for v in verdicts if v.matched_on != "none"), None),
        marks=figures.MARKS,
        colours={space: study.colour_of(space) for space in study.spaces},
        forest=_embed(figures.forest_figure(verdicts, at_full), "forest"),
        panels=_panels(tables, findings, summaries),
        told_in_full=full_budget_texts(findings.estimates),
        **_assumptions(study, findings.assumptions),
        factors=factors_told(findings.factors),
        factor_findings=findings.factors,
        cost=cost(tables),
        costs=[(s, cost(tables, scale=s.scale, space=s.space)) for s in summaries],
        cost_figure=_embed(figures.cost_figure(tables), "cost"),
        reruns=[_rerun(rerun) for rerun in reruns],
        machine=words.machine_text(tables),
        provenance=_provenance(tables),
        study_toml=to_toml(study.to_dict()),
        plotly_js=Markup(get_plotlyjs()),
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: files("dashboards").joinpath("templates", name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "factor_name": factor_name,
        "factor_spaces": spaces_text,
        "percent": words.percent,
        "signed": words.signed,
        "rule": words.rule_label,
        "epochs": words.epochs_text,
        "duration": words.duration,
        "si": words.si,
        "measure_value": words.measure_value,
        "measure_ends": words.measure_ends,
        "points": points_text,
        "error_ends": error_ends,
        "typographic": lambda text: text.replace("-", words.MINUS),
        "title": space_title,
    }
    return environment.get_template("report.html.j2")


def _embed(figure: go.Figure, div_id: str) -> Markup:
    """The figure as HTML that relies on the page's one copy of plotly.js. Plotly escapes what could end the script."""
    return Markup(
        figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"figure-{div_id}", config=_FIGURE_CONFIG)
    )


def _outcomes(summaries: Sequence[CohortSummary]) -> dict[str, int]:
    """All trials by outcome; every outcome is a key."""
    outcomes = dict.fromkeys((*ENDED, *reversed(UNFINISHED)), 0)
    for summary in summaries:
        for outcome, num in summary.outcomes.items():
            outcomes[outcome] += num
    return outcomes


def _note(verdict: Verdict, num_comparisons: int) -> str:
    """Why a verdict is undecided, and what would help; of a sweep that was looked at, when it was decided."""
    if verdict.verdict != "undecided":
        return "" if verdict.decided_at_look is None else f"decided at look {verdict.decided_at_look}"
    if verdict.looks_taken == 0:
        return "no look has been taken yet"
    if verdict.ci_low_pct is None or verdict.ci_high_pct is None:
        matching = "" if verdict.matched_on == "none" else f" of like {verdict.matched_on}"
        return f"too few networks{matching}, or no spread among them, to say anything"
    notes = []
    if not verdict.ci_low_pct <= 0 <= verdict.ci_high_pct:
        notes.append(f"alone it would be a difference; among {num_comparisons} comparisons it may be chance")
    elif -verdict.margin_pct < verdict.ci_low_pct and verdict.ci_high_pct < verdict.margin_pct:
        notes.append(f"alone it would be free; among {num_comparisons} comparisons it may be chance")
    if verdict.trials_to_decide is not None:
        notes.append(f"about {verdict.trials_to_decide:,} more networks in each space would decide")
    return "; ".join(notes)


def _panels(tables: Tables, findings: Findings, summaries: Sequence[CohortSummary]) -> list[Panel]:
    epochs, cohorts = figures.rungs_shown(tables, findings.at_rungs), cohorts_of(tables)
    return [
        _panel(
            tables,
            index,
            scale,
            epochs[scale.name],
            [s for s in summaries if s.scale == scale.name],
            _in_full(tables, index, [e for e in findings.estimates if e.scale == scale.name and is_told(e)], cohorts),
        )
        for index, scale in enumerate(study_of(tables).judged_scales)
    ]


def _panel(
    tables: Tables, index: int, scale: Scale, epoch: int, summaries: list[CohortSummary], in_full: InFull
) -> Panel:
    name = scale.name
    errors = figures.errors_by_space(tables, scale=name, epoch=epoch)
    highest = figures.error_window(errors.values())[1]
    return Panel(
        name=name,
        conditions=words.conditions_text(tables, scale),
        stopping=study_of(tables).stopping_at(name),
        epoch=epoch,
        edf=_embed(figures.edf_figure(tables, scale=name, epoch=epoch), f"edf-{index}"),
        curves=_embed(figures.curves_figure(tables, scale=name), f"curves-{index}"),
        flops=_embed(figures.flops_figure(tables, scale=name, epoch=epoch), f"flops-{index}"),
        num_beyond=sum(int(np.count_nonzero(found > highest)) for found in errors.values()),
        curve_stride=figures.curve_stride(tables, scale=name),
        summaries=summaries,
        best=_best(tables, name),
        in_full=in_full,
    )


def _in_full(
    tables: Tables, index: int, estimates: list[SpaceEstimate], cohorts: Mapping[tuple[str, str], Cohort]
) -> InFull:
    """No figure where all networks were trained to the end: the distributions at the rung are those."""
    study = study_of(tables)
    is_estimated = any(estimate.num_known < estimate.num_networks for estimate in estimates)
    drawn = [cohorts[e.scale, e.space] for e in estimates if e.mean is not None] if is_estimated else []
    colours = {space: study.colour_of(space) for space in study.spaces}
    figure, num_beyond = full_budget_figure(drawn, colours, confidence=study.judging.confidence)
    return InFull(
        edf=_embed(figure, f"full-edf-{index}") if drawn else None,
        has_dotted=any(trace.line.dash == "dot" for trace in figure.data),
        num_beyond=num_beyond,
        estimates=estimates,
        is_estimated=is_estimated,
        has_survivors=any(estimate.survivors_mean_pct is not None for estimate in estimates),
        has_bounds=any(estimate.mean is None for estimate in estimates),
    )


def _assumptions(study: Study, found: Assumptions) -> dict[str, Any]:
    """What the section on assumptions shows: sentences, and the rows of each table."""
    colours = {space: study.colour_of(space) for space in study.spaces}
    known = [one for one in found.budgets if one.ranks.spearman.value is not None]
    is_drawn = len({(one.scale, one.epochs) for one in known}) > 1
    return {
        "assumptions": assumptions_told(found),
        "near_best": [_near_best(rows) for rows in _by_place(found.near_best)],
        "border": border_text(found.near_best[0].near.reference_share) if found.near_best else "",
        "probability": f"{100 * found.near_best[0].near.probability:g} %" if found.near_best else "",
        "ranks": [_ranks(rows, known) for rows in _by_place(known)],
        "ranks_epochs": sorted({one.epochs for one in known}),
        "ranks_figure": _embed(ranks_figure(known, colours), "ranks") if is_drawn else "",
        "seeds": [one for one in found.seeds if one.reliability.seed_sd_pct is not None],
        "scale_rows": [(one, choices) for one in found.scales if (choices := _choices(one))],
        "rule_rows": found.rules,
    }


def _by_place(found: Iterable[Placed]) -> list[list[Placed]]:
    """What belongs to one space at one scale, in the order of the first."""
    by_place: dict[tuple[str, str], list[Placed]] = {}
    for one in found:
        by_place.setdefault((one.scale, one.space), []).append(one)
    return list(by_place.values())


def _near_best(rows: Sequence[NearBestOfSpace]) -> dict[str, Any]:
    first = rows[0]
    return {"scale": first.scale, "space": first.space, "epochs": first.epochs, "near": [row.near for row in rows]}


def _ranks(rows: Sequence[BudgetAgreement], every: Sequence[BudgetAgreement]) -> dict[str, Any]:
    """A row of the table: under each number of epochs that any has, its correlation or None."""
    first, found = rows[0], {row.epochs: row.ranks.spearman for row in rows}
    return {
        "scale": first.scale,
        "space": first.space,
        "full_epochs": first.full_epochs,
        "num_pairs": first.ranks.num_pairs,
        "num_networks": first.ranks.num_networks,
        "by_epoch": [found.get(epoch) for epoch in sorted({one.epochs for one in every})],
    }


def _choices(found: ScaleAgreement) -> list[Choice]:
    """Of choices of as many networks the most lenient; few networks have no best 1 %."""
    by_number = {choice.num_chosen: choice for choice in found.choices if choice.num_pairs}
    return list(by_number.values())


def _best(tables: Tables, scale: str) -> list[dict[str, Any]]:
    """The rows of the table of best networks: each with the interval of its error and a drawing of its stages."""
    study = study_of(tables)
    rows = best_trials(tables, scale=scale, limit=NUM_BEST)
    widest = max((max(row["widths"]) for row in rows), default=1)
    deepest = max((row["depth"] for row in rows), default=1)
    num = study.data.num_validation
    wrong = np.array([round(row["last_val_error_pct"] / 100 * num) for row in rows], dtype=int)
    lows, highs = share_interval(wrong, num, confidence=study.judging.confidence)
    return [
        row
        | {
            "low_pct": 100 * low,
            "high_pct": 100 * high,
            "drawing": _drawing(row["depths"], row["widths"], deepest=deepest, widest=widest),
            "kept_by_lottery": row["audited"] and row["would_stop_at_epoch"] is not None,
            "depths": _listed(row["depths"]),
            "widths": _listed(row["widths"]),
            "group_widths": _listed(row["group_widths"]),
            "bottleneck_ratios": _listed(row["bottleneck_ratios"]),
        }
        for row, low, high in zip(rows, lows, highs)
    ]


def _rerun(rerun: Mapping[str, Any]) -> dict[str, Any]:
    """A network trained at full scale: its three estimates, and those of the networks that it was chosen from."""
    in_sweep, confirmed, full_scale = estimates(rerun)
    machine = rerun["provenance"].get("machine") or {}
    return {
        "result": rerun,
        "in_sweep": in_sweep,
        "confirmed": confirmed,
        "full_scale": full_scale,
        "sentence": words.rerun_text(rerun, confirmed),
        "ensemble_sentence": words.ensemble_text(rerun) if rerun["ensemble"] else "",
        "candidates": [
            (candidate, over_seeds(candidate["confirmed_error_pct"], confidence=rerun["confidence"]))
            for candidate in rerun["candidates"]
            if candidate["confirmed_error_pct"]
        ],
        "machine": f"{machine['cpu']}, {machine['num_cpus']} CPUs" if machine else "not recorded",
    }


def _listed(values: Sequence[float] | None) -> str:
    """One value if all stages share it, else all of them; a dash where the network has no such thing."""
    if values is None:
        return "–"
    return f"{values[0]:g}" if len(set(values)) == 1 else ", ".join(f"{value:g}" for value in values)


def _drawing(
    depths: Sequence[int], widths: Sequence[int], *, deepest: int, widest: int
) -> list[tuple[float, float, float, float]]:
    """Each stage as a rectangle (x, y, width, height) in pixels: as long as it is deep, as high as it is wide."""
    starts = accumulate(depths, initial=0)
    unit_x, unit_y = _DRAWING_WIDTH / deepest, _DRAWING_HEIGHT / widest
    return [
        (
            round(start * unit_x, 1),
            round((_DRAWING_HEIGHT - width * unit_y) / 2, 1),
            round(depth * unit_x - 1, 1),
            round(width * unit_y, 1),
        )
        for start, depth, width in zip(starts, depths, widths)
    ]


def _provenance(tables: Tables) -> list[tuple[str, str]]:
    """By what the numbers can be traced (DESIGN, section 4.5): label and value, what was not recorded said so."""
    metadata = tables.metadata
    created = metadata.get("created_at_ms")
    data, machine = metadata.get("data") or {}, metadata.get("machine") or {}
    hosts = sorted(set(tables.epochs["host"].drop_null().to_pylist()))
    return [
        (label, text or "not recorded")
        for label, text in (
            ("Study hash", metadata.get("study_hash")),
            ("Git commit", metadata.get("git_commit")),
            ("Seed", str(study_of(tables).seed)),
            ("Begun", f"{datetime.fromtimestamp(created / 1000, UTC):%Y-%m-%d %H:%M} UTC" if created else None),
            ("Data", ", ".join(f"{key} {value}" for key, value in data.items())),
            ("Machine", ", ".join(f"{_spaced(key)} {value}" for key, value in machine.items())),
            ("Trained on", ", ".join(hosts)),
            ("Versions", ", ".join(f"{name} {number}" for name, number in (metadata.get("versions") or {}).items())),
            ("Networks drawn", "; ".join(map(_draws_text, metadata.get("draws") or []))),
        )
    ]


def _spaced(key: str) -> str:
    return key.replace("_", " ")


def _draws_text(draws: Mapping[str, Any]) -> str:
    rejected = ", ".join(f"{num:,} {_spaced(reason)}" for reason, num in draws["rejected"].items() if num)
    if origin := draws.get("scaled_from"):
        return f"{space_title(draws['space'])} at {draws['scale']} scaled from {origin}"
    found = f"{space_title(draws['space'])} at {draws['scale']} from {draws['num_draws']:,} draws"
    return f"{found} (rejected: {rejected})" if rejected else found


def to_toml(table: Mapping[str, Any], path: str = "") -> str:
    """The table as TOML that `sweep launch` reads: plain values first, then tables, then lists of tables."""
    lines, below = [], []
    for key, value in table.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, Mapping):
            if value:
                below.append(f"\n[{name}]\n{to_toml(value, name)}")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            below += [f"\n[[{name}]]\n{to_toml(entry, name)}" for entry in value]
        elif value is not None:  # which TOML has no word for
            # JSON's strings, numbers, truth values and lists of them are TOML's, but for DEL, which TOML wants escaped.
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}\n".replace("\x7f", "\\u007f"))
    return "".join(lines + below)
