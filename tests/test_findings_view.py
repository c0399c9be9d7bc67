"""What a sweep found, in a terminal: at 80 columns and at 120, with every interval whole."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
import synthetic
from rich.console import Console

from dashboards.assumption_words import assumptions_told, error_ends
from sweep import findings_view
from sweep.statistics import Findings, judge, judge_study

TWO = {"anynet_c": 24.0, "anynet_d": 21.5}


@pytest.fixture(scope="module")
def findings() -> Findings:
    return synthetic.found(synthetic.scaled(np.random.default_rng(0), mean_errors_pct=TWO, trials_per_space=40))


def shown(findings: Findings, *, width: int) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width)
    for part in findings_view.findings_tables(findings):
        console.print(part)
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_everything_fits_and_no_interval_is_cut(findings, width):
    text = shown(findings, width=width)
    assert max(map(len, text.splitlines())) <= width
    for verdict in findings.verdicts:
        assert f"{verdict.effect_pct:+.2f} [{verdict.ci_low_pct:+.2f}, {verdict.ci_high_pct:+.2f}]" in text
        median, best, wins = verdict.others
        for other in (median, best):
            assert f"{other.effect:+.2f} [{other.low:+.2f}, {other.high:+.2f}]" in text
        assert f"{wins.with_:.0%} [{0.5 - wins.high:.0%}, {0.5 - wins.low:.0%}]" in text
    for estimate in findings.estimates:
        assert f"{estimate.num_known} of {estimate.num_networks}" in text
        assert f"{estimate.mean.value:.1f} [{error_ends(estimate.mean)}]" in text


def test_an_interval_that_is_open_is_not_taken_for_markup(findings):
    unbounded = [one for e in findings.estimates if (one := e.quantiles["q10"]).low == 0]
    assert unbounded
    for best in unbounded:
        assert f"{best.value:.1f} [up to {best.high:.1f}]" in shown(findings, width=80)


def test_names_from_anywhere_are_shown_as_they_are(findings):
    named = replace(findings.at_rungs[0], space_without="[red]plain[/red]", rule="[bold]")
    text = shown(synthetic.only([named]), width=120)
    assert "[red]plain[/red] → anynet_d" in text
    assert "[bold]" in text


def test_sections_come_with_what_there_is_to_say(findings):
    headings = ("Estimated at the full budget", "Not only on average", "Spaces at their full budget",
                "What cheap search rests on")  # fmt: skip
    text = shown(findings, width=80)
    places = [text.index(heading) for heading in headings]
    assert places == sorted(places)
    little = shown(synthetic.only(findings.at_rungs), width=80)
    assert [heading for heading in headings if heading in little] == ["Not only on average"]
    assert shown(synthetic.only([]), width=80) == "no two of the spaces differ by a rule\n"


def test_assumptions_are_a_short_block_of_sentences(findings):
    block = shown(findings, width=80).partition("What cheap search rests on\n")[2]
    assert len(block.splitlines()) <= 27
    for told in assumptions_told(findings.assumptions):
        assert f"{told.question} {told.text}" in " ".join(block.split())


def test_a_space_without_an_estimate_shows_its_bounds():
    tables = synthetic.kept(synthetic.tables(TWO, rng=np.random.default_rng(0)), lottery=False, stopped=True)
    findings = synthetic.found(tables)
    text = shown(findings, width=80)
    for estimate in findings.estimates:
        bounds = f"{estimate.bounds.low_pct:.1f} to {estimate.bounds.high_pct:.1f}"
        assert re.search(rf"{estimate.num_known} of {estimate.num_networks} {bounds} +– +–", text)
    assert "AnyNet C has no estimate: the lottery kept none" in " ".join(text.split())


def test_the_table_of_verdicts_says_what_it_is_matched_on():
    tables = synthetic.tables(rng=np.random.default_rng(0))
    shown = []
    for match in ("none", "params"):
        verdicts = judge(tables, margin_pct=0.5, confidence=0.95, num_bootstrap=999, seed=1, match=match)
        stream = io.StringIO()
        Console(file=stream, width=80).print(findings_view.verdict_table(verdicts))
        shown.append(" ".join(stream.getvalue().split()))
    assert "matched" not in shown[0]
    assert "matched on params (up to" in shown[1]
    assert f" {verdicts[0].num_matched_without}+{verdicts[0].num_matched_with} " in shown[1]


def test_the_table_of_verdicts_says_that_it_is_corrected_for_looks():
    sweep = synthetic.looked_at(dict.fromkeys(("anynet_c", "anynet_d"), 22.0))
    shown = []
    for num_begun in (7, 8, 20):
        stream = io.StringIO()
        verdicts = judge_study(synthetic.at_moment(sweep, num_begun))
        Console(file=stream, width=80).print(findings_view.verdict_table(verdicts))
        shown.append(" ".join(stream.getvalue().split()))
    assert "corrected for their number, and say nothing before the first look." in shown[0]
    assert "corrected for their number, and for 1 look so far." in shown[1]
    assert "and for 2 looks so far." in shown[2]
