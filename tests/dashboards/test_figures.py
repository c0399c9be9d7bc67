"""Figures show what the statistics say, at one budget a panel, and are quick with thousands of curves."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import synthetic
from PIL import Image

from dashboards import figures
from sweep.records.tables import Tables
from sweep.spaces.colours import SPACE_COLOURS
from sweep.statistics import Verdict, errors_at, judge


def judged(tables: Tables) -> list[Verdict]:
    return judge(tables, margin_pct=0.5, confidence=0.95, num_bootstrap=999, seed=1)


def sweep(seed: int = 0, **changes) -> Tables:
    return synthetic.tables(rng=np.random.default_rng(seed), **changes)


def lines(figure) -> list:
    return [trace for trace in figure.data if trace.mode and "lines" in trace.mode]


def test_edf_holds_every_network_of_the_rung_once():
    tables = sweep()
    figure = figures.edf_figure(tables, scale="small", epoch=2)
    assert [trace.name for trace in lines(figure)] == [f"AnyNet {letter} (n = 20)" for letter in "CDE"] + [
        "RegNet X (n = 20)"
    ]
    for trace, (space, colour) in zip(lines(figure), ((s, SPACE_COLOURS[s]) for s in synthetic.MEAN_ERRORS_PCT)):
        errors = errors_at(tables, scale="small", space=space, epoch=2)
        np.testing.assert_allclose(trace.x[1:-1], np.sort(errors))
        assert (trace.y[0], trace.y[-1]) == (0, 1)
        assert trace.line.color == colour
    assert "after 2 epochs" in figure.layout.xaxis.title.text


def test_edf_shows_diverged_networks_as_a_share_that_is_missing():
    figure = figures.edf_figure(sweep(num_diverged=4), scale="small", epoch=2)
    assert figure.layout.xaxis.range[1] < 60
    assert all(trace.y[-1] == pytest.approx(0.8) for trace in lines(figure))


def test_edf_of_a_sweep_without_results_is_empty():
    figure = figures.edf_figure(sweep(num_unfinished=10), scale="small", epoch=2)
    assert all(len(trace.x) == 0 for trace in lines(figure))


def test_forest_has_a_row_and_an_interval_for_each_verdict():
    tables = sweep(scales=("small", "large"))
    verdicts = judged(tables)
    figure = figures.forest_figure(verdicts)
    drawn = {y: (x, reach) for t in figure.data for x, y, reach in zip(t.x, t.y, t.error_x.array)}
    assert sorted(drawn) == list(range(6))
    for row, verdict in enumerate(verdicts):
        x, reach = drawn[row]
        assert x == verdict.effect_pct
        assert x + reach == pytest.approx(verdict.ci_high_pct)
    assert "large, AnyNet C" in figure.layout.yaxis.ticktext[3]


def test_forest_marks_agree_with_the_verdicts():
    verdicts = judged(sweep())
    figure = figures.forest_figure(verdicts)
    assert {t.name: len(t.x) for t in figure.data} == {
        name: sum(v.verdict == name for v in verdicts) for name in {v.verdict for v in verdicts}
    }


def test_forest_has_estimates_at_the_full_budget_small_and_just_below_their_rule():
    verdicts = judged(sweep())
    first = verdicts[0]
    changes = {"rung_epochs": 4, "num_known_with": 9, "verdict": "undecided", "effect_pct": 0.5}
    estimated = replace(first, **changes, ci_low_pct=-500.0, ci_high_pct=501.0)
    figure = figures.forest_figure(verdicts, [estimated])
    (small,) = [trace for trace in figure.data if trace.marker.size == 8]
    assert (list(small.x), list(small.error_x.array)) == ([0.5], [500.5])
    ticks = list(figure.layout.yaxis.tickvals)
    assert ticks[0] < small.y[0] < ticks[2]
    assert "estimated after 4 epochs" in figure.layout.yaxis.ticktext[1]
    assert len(ticks) == len(verdicts) + 1
    # An estimate that knows next to nothing does not squeeze the others.
    alone = figures.forest_figure(verdicts).layout.xaxis.range[1]
    assert alone < figure.layout.xaxis.range[1] <= 2 * alone


def test_forest_without_effects_keeps_its_rows():
    figure = figures.forest_figure(judged(sweep(num_unfinished=10)))
    assert len(figure.data) == 0
    assert len(figure.layout.yaxis.ticktext) == 3


def test_curves_are_drawn_to_the_budget_of_their_scale_with_its_rungs():
    tables = synthetic.with_scale(sweep(scales=("small", "large")), 1, flops_min=4e5, flops_max=8e5, max_epochs=12)
    for scale, most, rungs in (("small", 4, {2}), ("large", 12, {2, 4, 8})):
        figure = figures.curves_figure(tables, scale=scale)
        assert figure.layout.xaxis.range[1] == most + 0.3
        assert {shape.x0 for shape in figure.layout.shapes} == rungs
    titles = [annotation.text for annotation in figures.flops_figure(tables, scale="large", epoch=2).layout.annotations]
    assert titles == ["after 2 epochs: all networks", "after 12 epochs: survivors and audited"]


def test_the_summary_has_no_panel_for_a_repeat(tmp_path):
    again = synthetic.with_scale(sweep(scales=("small", "again")), 1, of="small")
    one = replace(again, metadata=again.metadata | {"study": synthetic.study()})
    for tables, name in ((again, "again.png"), (one, "one.png")):
        figures.summary_png(tables, judged(tables), tmp_path / name)
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "one.png").read_bytes()


def test_curves_are_one_trace_a_space_held_apart_by_gaps():
    tables = sweep()
    figure = figures.curves_figure(tables, scale="small")
    assert {type(trace).__name__ for trace in figure.data} == {"Scatter"}
    assert len(lines(figure)) == 4
    assert sum(int(np.isnan(trace.y).sum()) for trace in lines(figure)) == tables.trials.num_rows
    assert sum(int(np.isfinite(trace.y).sum()) for trace in lines(figure)) == tables.epochs.num_rows
    crosses = [trace for trace in figure.data if trace.mode == "markers"]
    assert sum(len(trace.x) for trace in crosses) == tables.trials["outcome"].to_pylist().count("stopped")
    assert {shape.x0 for shape in figure.layout.shapes} == {2}


def test_many_curves_are_drawn_by_webgl():
    figure = figures.curves_figure(sweep(trials_per_space=400), scale="small")
    assert {type(trace).__name__ for trace in figure.data} == {"Scattergl"}
    assert len(lines(figure)) == 4


def test_too_many_curves_are_thinned(monkeypatch):
    monkeypatch.setattr(figures, "MAX_CURVE_POINTS", 100)
    tables = sweep()
    stride = figures.curve_stride(tables, scale="small")
    assert stride > 1
    figure = figures.curves_figure(tables, scale="small")
    assert sum(int(np.isnan(trace.y).sum()) for trace in lines(figure)) == 4 * -(-20 // stride)


def test_flops_figure_keeps_budgets_apart_and_calls_survivors_so():
    tables = sweep(num_diverged=1)
    figure = figures.flops_figure(tables, scale="small", epoch=2)
    left = [trace for trace in figure.data if trace.xaxis == "x"]
    right = [trace for trace in figure.data if trace.xaxis == "x2"]
    outcomes = tables.trials["outcome"].to_pylist()
    assert sum(len(trace.x) for trace in left) == 80
    assert sum(len(trace.x) for trace in right) == outcomes.count("completed")
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles == ["after 2 epochs: all networks", "after 4 epochs: survivors and audited"]
    hollow = sum(symbol == "circle-open" for trace in right for symbol in trace.marker.symbol)
    kept = [t for t in tables.trials.to_pylist() if t["outcome"] == "completed" and t["would_stop_at_epoch"]]
    assert hollow == len(kept) > 0


def test_flops_figure_has_one_panel_if_all_were_trained_to_the_end():
    figure = figures.flops_figure(sweep(), scale="small", epoch=4)
    assert {trace.xaxis for trace in figure.data} == {"x"}


def test_cost_figure_adds_up():
    tables = sweep(scales=("small", "large"))
    trained, saved = figures.cost_figure(tables).data
    assert sum(trained.x) == tables.epochs.num_rows
    assert sum(saved.x) == 2 * tables.trials["outcome"].to_pylist().count("stopped")


def test_axis_leaves_outliers_out_on_the_bad_side_only():
    low, high = figures.error_window([np.array([10.0, 18.0, 19.0, 20.0, 21.0, 22.0, 90.0])])
    assert low < 10
    assert 22 < high < 40
    assert figures.error_window([]) == (0, 100)
    assert figures.error_window([np.array([90.0, 90.0])])[1] > 90


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"scales": ("small", "large"), "num_diverged": 2},
        {"num_unfinished": 10},
        {"num_diverged": 20},
        {"mean_errors_pct": {"anynet_c": 20.0}},
        {"name": "Σ $x^2$ <b>“ünïcode”</b>".replace("/", "")},
    ],
)
def test_summary_is_the_same_picture_each_time(tmp_path, changes):
    tables = sweep(**changes)
    verdicts = judged(tables)
    for name in ("first.png", "second.png"):
        figures.summary_png(tables, verdicts, tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    assert (tmp_path / "first.png").stat().st_size < 500_000
    with Image.open(tmp_path / "first.png") as image:
        assert image.width >= 1500
        assert image.height >= 600


def test_summary_and_figures_speak_of_the_rung_that_was_judged():
    tables = sweep()
    early = judge(tables, rung_epochs=1, margin_pct=0.5, confidence=0.95, num_bootstrap=999, seed=1)
    assert figures.rungs_shown(tables, early) == {"small": 1}
    assert figures.rungs_shown(tables, []) == {"small": 2}


def test_infinite_and_missing_errors_leave_gaps_not_crashes():
    tables = sweep()
    errors = [None if i % 3 == 0 else e for i, e in enumerate(tables.epochs["val_error_pct"].to_pylist())]
    column = tables.epochs.schema.get_field_index("val_error_pct")
    epochs = tables.epochs.set_column(column, "val_error_pct", pa.array(errors, pa.float64()))
    figure = figures.curves_figure(replace(tables, epochs=epochs), scale="small")
    drawn = sum(int(np.isfinite(trace.y).sum()) for trace in lines(figure))
    assert drawn == sum(error is not None for error in errors)
