"""The note in MLflow holds the verdicts, the spaces at their full budget and the assumptions, and is short."""

from dataclasses import replace

import numpy as np
import pytest
import synthetic
from synthetic import only

from dashboards.assumption_words import assumptions_told
from dashboards.note import findings_note
from sweep.statistics import judge


@pytest.fixture(scope="module")
def verdicts():
    tables = synthetic.tables(rng=np.random.default_rng(0))
    return judge(tables, margin_pct=0.5, confidence=0.95, num_bootstrap=999, seed=1)


@pytest.fixture(scope="module")
def findings():
    return synthetic.found(synthetic.scaled(np.random.default_rng(0), trials_per_space=24))


def test_it_says_what_verdicts_are_matched_on(verdicts):
    matched = replace(verdicts[0], matched_on="flops", num_matched_without=17, num_matched_with=15)
    *_, plain, told = findings_note(only([verdicts[0], matched])).splitlines()
    assert "| 20 + 20 | **" in plain
    assert "| 17 + 15, matched on flops | **" in told


def test_it_says_how_looks_stand(verdicts):
    assert findings_note(only([]), "ended early after look 2 of 4") == "Looks: ended early after look 2 of 4."
    assert findings_note(only(verdicts), "1 look") == f"{findings_note(only(verdicts))}\n\nLooks: 1 look."


def test_it_holds_a_row_a_verdict_and_a_space_and_a_line_an_assumption(findings):
    note = findings_note(findings)
    rows = [line for line in note.splitlines() if line.startswith("| ") and not line.startswith(("| rule", "| space"))]
    assert len(rows) == len(findings.at_rungs) + len(findings.estimates) == 6 + 8
    for verdict in findings.at_rungs:
        assert f"{verdict.effect_pct:+.2f} [{verdict.ci_low_pct:+.2f}, {verdict.ci_high_pct:+.2f}]" in note
    for estimate in findings.estimates:
        assert f"| {estimate.num_known} of {estimate.num_networks} |" in note
        if estimate.mean is not None:
            assert f"| {estimate.mean.value:.1f} [" in note
    for told in assumptions_told(findings.assumptions):
        assert f"- *{told.question}* {told.text}" in note
    assert len(assumptions_told(findings.assumptions)) == 5
    assert len(note) < 5000


def test_what_is_otherwise_at_the_full_budget_is_a_line_a_scale(findings):
    lines = [line for line in findings_note(findings).splitlines() if "Estimated at the full budget" in line]
    scales = dict.fromkeys(verdict.scale for verdict in findings.at_full_budget)
    assert [line.split(":")[0] for line in lines] == [f"- {scale}" for scale in scales]


def test_a_space_without_an_estimate_has_its_bounds():
    tables = synthetic.kept(synthetic.tables(rng=np.random.default_rng(0)), lottery=False, stopped=True)
    findings = synthetic.found(tables)
    note = findings_note(findings)
    for estimate in findings.estimates:
        assert f"| between {estimate.bounds.low_pct:.1f} and {estimate.bounds.high_pct:.1f} | – |" in note


def test_a_sweep_that_found_nothing_has_an_empty_note():
    assert findings_note(only([])) == ""
