"""The report of a sweep: one HTML file that opens anywhere, also offline and from an e-mail.

In: tables and verdicts. Out: `report.html`, self-contained: plotly.js, data and style are in it once, and a content
security policy forbids the browser to fetch anything else. The order is that of a reader's questions: what was
asked, what is the answer, on what grounds, what it cost, which networks were best, how to do it again.

All text of a user (names, questions, failures) is escaped: by jinja in the page, by hand in plotly's labels.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

from dashboards import figures, words
from sweep.records import Tables
from sweep.spaces import SPACES
from sweep.spaces.colours import SPACE_COLOURS
from sweep.statistics import Verdict, best_trials, cohort, cost, share_interval, study_of, summarise

NUM_BEST = 5

_FIGURE_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
    "toImageButtonOptions": {"format": "svg"},
}


@dataclass(frozen=True)
class Panel:
    """What the page shows of one scale; the figures are HTML that is safe to insert, `beyond` counts hidden points."""

    scale: str
    conditions: str
    epoch: int
    edf: str
    curves: str
    flops: str
    beyond: int
    curve_stride: int
    summaries: list[dict[str, Any]]
    best: list[dict[str, Any]]


def write_report(tables: Tables, verdicts: Sequence[Verdict], path: Path) -> None:
    """Write the report to `path`, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(render_report(tables, verdicts), encoding="utf-8")
    os.replace(draft, path)


def render_report(tables: Tables, verdicts: Sequence[Verdict]) -> str:
    """The report as HTML. The same tables and verdicts give the same text."""
    study = study_of(tables)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dashboards", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": words.percent,
        "signed": words.signed,
        "rule": words.rule_label,
        "pair": words.pair_label,
        "epochs": words.epochs_text,
        "duration": words.duration,
        "si": words.si,
    }
    return environment.get_template("report.html.j2").render(
        study=study,
        answers=words.answers(tables, verdicts),
        cautions=_cautions(tables),
        verdicts=[(verdict, _note(verdict, len(verdicts))) for verdict in verdicts],
        marks=figures.MARKS,
        titles={space: SPACES[space].title for space in study.spaces},
        colours=SPACE_COLOURS,
        forest=_embed(figures.forest_figure(verdicts), "forest") if verdicts else None,
        panels=_panels(tables, verdicts),
        cost=cost(tables),
        cost_figure=_embed(figures.cost_figure(tables), "cost"),
        machine=words.machine_text(tables),
        provenance=_provenance(tables),
        study_toml=to_toml(study.to_dict()),
        study_json=json.dumps(tables.metadata.get("draws"), indent=1),
        plotly_js=get_plotlyjs(),
    )


def _panels(tables: Tables, verdicts: Sequence[Verdict]) -> list[Panel]:
    epochs = figures.rungs_shown(tables, verdicts)
    summaries = summarise(tables)
    return [
        _panel(tables, index, scale, epochs[scale.name], [s for s in summaries if s.scale == scale.name])
        for index, scale in enumerate(study_of(tables).scale)
    ]


def _panel(tables: Tables, index: int, scale: Any, epoch: int, summaries: Sequence[Any]) -> Panel:
    name = scale.name
    errors = figures.errors_by_space(tables, scale=name, epoch=epoch)
    high = figures.error_window(errors.values())[1]
    return Panel(
        scale=name,
        conditions=f"{scale.resolution} px, {words.si(scale.flops_min)} to {words.si(scale.flops_max)} flops",
        epoch=epoch,
        edf=_embed(figures.edf_figure(tables, scale=name, epoch=epoch), f"edf-{index}"),
        curves=_embed(figures.curves_figure(tables, scale=name), f"curves-{index}"),
        flops=_embed(figures.flops_figure(tables, scale=name, epoch=epoch), f"flops-{index}"),
        beyond=int(sum(np.count_nonzero(found > high) for found in errors.values())),
        curve_stride=figures.curve_stride(tables, scale=name),
        summaries=[_summary_row(s) for s in summaries],
        best=[_best_row(tables, row) for row in best_trials(tables, scale=name, limit=NUM_BEST)],
    )
