"""Spaces at their full budget, and how early results guide, as figures: all networks, and survivors by that name."""

from dataclasses import replace

import numpy as np
import pytest
import synthetic

from dashboards.findings_figures import full_budget_figure, ranks_figure
from sweep.spaces.colours import SPACE_COLOURS
from sweep.statistics import cohorts_of, full_budget, share_below
from sweep.statistics.intervals import UNKNOWN

COLOURS = dict(SPACE_COLOURS)


@pytest.fixture(scope="module")
def tables():
    return synthetic.tables(rng=np.random.default_rng(0), trials_per_space=40, noise_pct=0.7)


@pytest.fixture(scope="module")
def cohorts(tables):
    return list(cohorts_of(tables).values())


@pytest.fixture(scope="module")
def budgets():
    return synthetic.found(synthetic.scaled(np.random.default_rng(0), trials_per_space=40)).assumptions.budgets


def traces(figure, *, dotted: bool = False) -> list:
    return [trace for trace in figure.data if trace.mode and (trace.line.dash == "dot") == dotted]


def test_each_space_has_its_estimated_share_with_a_band(cohorts):
    figure, num_beyond = full_budget_figure(cohorts, COLOURS, confidence=0.95)
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    assert len(traces(figure)) == len(bands) == 4
    for cohort, line, band in zip(cohorts, traces(figure), bands):
        sample = full_budget(cohort)
        assert line.name.endswith(f"({len(sample.values)} of 40 known)")
        assert line.line.color == SPACE_COLOURS[cohort.space]
        share, low, high = share_below([(1.0, sample)], line.x[1:], confidence=0.95)
        np.testing.assert_allclose(line.y[1:], share)
        np.testing.assert_allclose(band.y, np.concatenate([low, high[::-1]]))
        for rising in (share, low, high):
            assert (np.diff(rising) >= 0).all()
    assert num_beyond == sum(np.count_nonzero(full_budget(c).values > figure.layout.xaxis.range[1]) for c in cohorts)
    assert figure.layout.xaxis.title.text == "validation error after 4 epochs, %"


def test_survivors_are_dotted_and_called_so(cohorts):
    figure, _ = full_budget_figure(cohorts, COLOURS, confidence=0.95)
    dotted = traces(figure, dotted=True)
    assert len(dotted) == 4
    assert {trace.name for trace in dotted} == {"survivors alone, no sample of their space"}
    assert all("survivors of" in trace.hovertemplate for trace in dotted)
    assert [trace.showlegend for trace in dotted] == [True, False, False, False]
    for cohort, trace in zip(cohorts, dotted):
        errors = cohort.final_errors[cohort.is_certain & cohort.is_finished]
        inside = np.sort(errors)[np.sort(errors) <= figure.layout.xaxis.range[1]]
        np.testing.assert_allclose(trace.x[1:-1], inside)


def test_many_spaces_are_drawn_without_their_survivors(cohorts):
    many = [replace(cohort, space=f"{cohort.space}{n}") for n in (1, 2) for cohort in cohorts]
    colours = {cohort.space: "#123456" for cohort in many}
    figure, _ = full_budget_figure(many, colours, confidence=0.95)
    assert (len(traces(figure)), len(traces(figure, dotted=True))) == (8, 0)


def test_a_space_without_an_estimate_has_no_curve_at_all(tables, cohorts):
    none = list(cohorts_of(synthetic.kept(tables, lottery=False, stopped=True)).values())
    figure, _ = full_budget_figure([none[0], cohorts[1]], COLOURS, confidence=0.95)
    assert len(traces(figure)) == len(traces(figure, dotted=True)) == 1
    assert full_budget_figure([], COLOURS, confidence=0.95)[1] == 0
    assert not full_budget_figure(none, COLOURS, confidence=0.95)[0].data


def test_networks_beyond_the_axis_are_counted_and_keep_the_curve_below_1():
    tables = synthetic.tables(rng=np.random.default_rng(0), trials_per_space=40, num_diverged=4)
    figure, num_beyond = full_budget_figure(list(cohorts_of(tables).values()), COLOURS, confidence=0.95)
    assert num_beyond == 16
    assert all(0.8 < trace.y[-1] <= 0.9 + 1e-9 for trace in traces(figure))


def test_ranks_have_a_panel_a_scale_and_an_interval_each(budgets):
    figure = ranks_figure(budgets, COLOURS)
    assert len(figure.data) == len(budgets) == 8
    assert [annotation.text for annotation in figure.layout.annotations] == ["scale small", "scale large"]
    for budget, trace in zip(budgets, figure.data):
        ranks = budget.ranks.spearman
        assert trace.y == (ranks.value,)
        assert trace.y[0] - trace.error_y.arrayminus[0] == pytest.approx(ranks.low)
        assert trace.y[0] + trace.error_y.array[0] == pytest.approx(ranks.high)
        assert trace.line.color == SPACE_COLOURS[budget.space]
    assert figure.layout.xaxis.ticktext == ("2 epochs",)
    assert figure.layout.yaxis.range[0] < min(budget.ranks.spearman.low for budget in budgets)


def test_ranks_that_are_not_known_are_not_drawn(budgets):
    first = replace(budgets[0], ranks=replace(budgets[0].ranks, spearman=UNKNOWN))
    figure = ranks_figure([first, budgets[1]], COLOURS)
    assert [len(trace.y) for trace in figure.data] == [0, 1]
