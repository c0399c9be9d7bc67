"""What a report says of reruns: three estimates, and in one sentence by how much the sweep flattered its best."""

import numpy as np
import pytest
import synthetic

from dashboards.report import render_report
from dashboards.words import rerun_text
from sweep.statistics import estimates, flattery_pct, judge_study, over_seeds


def candidate(number: int, sweep_pct: float, *confirmed_pct: float, architecture_id: str = "") -> dict:
    return {
        "trial_id": f"regnet_x-small-{number:04d}", "space": "regnet_x", "scale": "small",
        "architecture_id": architecture_id or f"{number:012x}", "architecture": "{}", "sweep_error_pct": sweep_pct,
        "confirmed_error_pct": list(confirmed_pct),
    }  # fmt: skip


def rerun(*candidates: dict, **changes) -> dict:
    return {
        "candidate": candidates[0], "candidates": list(candidates), "num_networks": 80, "sweep_epochs": 4,
        "num_validation": 2500, "confidence": 0.95, "epochs": 15, "resolution": 28, "num_workers": 2,
        "batch_size": 128, "learning_rate": 0.1, "num_train": 60_000, "num_test": 10_000, "test_error_pct": 7.4,
        "test_loss": 0.2, "train_time_s": 900.0, "seed": 1, "named": "", "warm_start": None, "ensemble": None,
        "provenance": {"machine": {"host": "example", "cpu": "Example CPU", "num_cpus": 2}}, **changes,
    }  # fmt: skip


CONFIRMED = rerun(candidate(2, 13.4, 13.9, 14.1, 13.8), candidate(1, 13.0, 14.6, 14.2, 14.4))


@pytest.fixture(scope="module")
def tables():
    return synthetic.tables(rng=np.random.default_rng(0))


def page(tables, *reruns: dict) -> str:
    return " ".join(render_report(tables, synthetic.only(judge_study(tables)), reruns=reruns).split())


def test_the_three_estimates_and_their_intervals():
    in_sweep, confirmed, full_scale = estimates(CONFIRMED)
    assert (in_sweep.error_pct, full_scale.error_pct) == (13.4, 7.4)
    assert confirmed.error_pct == pytest.approx(13.9333, abs=1e-4)
    # Student, 2 degrees of freedom: 4.3027 · 0.15275 / √3
    assert confirmed.high_pct - confirmed.error_pct == pytest.approx(0.3795, abs=1e-3)
    assert in_sweep.low_pct < 13.4 < in_sweep.high_pct
    assert over_seeds([12.0], confidence=0.95).low_pct is None


def test_regression_to_the_mean_is_that_of_the_sweeps_best_not_of_the_winner():
    assert flattery_pct(CONFIRMED) == pytest.approx(1.4)
    assert flattery_pct(rerun(candidate(1, 13.0))) is None
    text = rerun_text(CONFIRMED, estimates(CONFIRMED)[1])
    assert "The best of 80 had looked 1.40 points better than it was, 3 fresh seeds say." in text
    assert "regnet_x-small-0002 has 7.40 % error on the 10,000 test images" in text


def test_words_where_the_sweep_did_not_flatter_or_nothing_was_confirmed():
    lucky = rerun(candidate(1, 13.0, 12.5, 12.7))
    assert "no worse with 2 fresh seeds than it had looked" in rerun_text(lucky, estimates(lucky)[1])
    assert "was not confirmed" in rerun_text(rerun(candidate(1, 13.0)), None)


def test_the_page_holds_the_section_after_the_best_networks(tables):
    text = page(tables, CONFIRMED)
    assert text.index('id="best"') < text.index('id="rerun"') < text.index('id="reproduce"')
    assert "had looked 1.40 points better than it was" in text
    for number in ("13.40 %", "13.93 %", "13.55 to 14.31", "7.40 %", "14.40 %", "+1.40"):
        assert number in text


def test_several_reruns_have_a_heading_each_and_none_has_no_section(tables):
    text = page(tables, CONFIRMED, rerun(candidate(7, 15.0)))
    assert "<h3>regnet_x-small-0002</h3>" in text
    assert "<h3>regnet_x-small-0007</h3>" in text
    assert text.count("not confirmed") == 2  # the table's cell; the sentence
    assert 'id="rerun"' not in page(tables)
