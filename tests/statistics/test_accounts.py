"""What a sweep cost and what became of its trials."""

from dataclasses import replace

import numpy as np
import pytest
import synthetic

from sweep.statistics import best_trials, cost, summarise


@pytest.fixture(scope="module")
def tables():
    return synthetic.tables(
        rng=np.random.default_rng(0), scales=("small", "large"), num_diverged=2, num_failed=1, num_unfinished=1
    )


def test_every_trial_is_counted_once(tables):
    summaries = summarise(tables)
    assert [(s.scale, s.space) for s in summaries][:5] == [
        ("small", "anynet_c"),
        ("small", "anynet_d"),
        ("small", "anynet_e"),
        ("small", "regnet_x"),
        ("large", "anynet_c"),
    ]
    for summary in summaries:
        outcomes = summary.outcomes
        assert sum(outcomes.values()) == summary.num_trials == 20
        assert (outcomes["failed"], outcomes["diverged"], outcomes["running"], outcomes["pending"]) == (1, 2, 1, 1)
        assert summary.num_at_rung == outcomes["completed"] + outcomes["stopped"] + outcomes["diverged"]
        assert summary.best_error_pct <= summary.median_error_pct < summary.mean_error_pct


def test_an_empty_cohort_has_no_errors():
    nothing = synthetic.tables({"anynet_c": 20.0}, rng=np.random.default_rng(0), trials_per_space=2, num_unfinished=1)
    nothing = replace(nothing, trials=nothing.trials.slice(1), epochs=nothing.epochs.slice(0, 0))
    (summary,) = summarise(nothing)
    assert (summary.num_trials, summary.num_at_rung, summary.outcomes) == (1, 0, {"pending": 1})
    assert summary.mean_error_pct is summary.median_error_pct is summary.best_error_pct is None
    assert cost(nothing).share_saved == 0


def test_only_stopped_trials_save(tables):
    trials = tables.trials.to_pylist()
    stopped = [row for row in trials if row["outcome"] == "stopped"]
    total = cost(tables)
    assert total.num_trials == 160
    assert total.epochs_trained == sum(row["epochs_trained"] for row in trials) == tables.epochs.num_rows
    assert total.epochs_saved == 2 * len(stopped)
    assert total.share_saved == pytest.approx(2 * len(stopped) / total.epochs_if_all_completed)
    # Each stopped trial ran half of its epochs.
    assert total.train_time_saved_s == pytest.approx(sum(row["train_time_s"] for row in stopped))
    assert total.train_time_s == pytest.approx(sum(row["train_time_s"] for row in trials))


def test_a_stopped_trial_saves_what_its_own_scale_would_have_trained(tables):
    """Scale large trains for ten epochs, small for four."""
    longer = synthetic.with_scale(tables, 1, flops_min=4e5, flops_max=8e5, max_epochs=10)
    stopped = [row["scale"] for row in tables.trials.to_pylist() if row["outcome"] == "stopped"]
    assert cost(longer).epochs_saved == 2 * stopped.count("small") + 8 * stopped.count("large")
    assert cost(longer, scale="small") == cost(tables, scale="small")


def test_costs_of_the_parts_add_up(tables):
    whole = cost(tables)
    parts = [
        cost(tables, scale=scale, space=space) for scale in ("small", "large") for space in synthetic.MEAN_ERRORS_PCT
    ]
    assert sum(part.epochs_trained for part in parts) == whole.epochs_trained
    assert sum(part.epochs_if_all_completed for part in parts) == whole.epochs_if_all_completed
    assert sum(part.train_time_s for part in parts) == pytest.approx(whole.train_time_s)


def test_the_best_have_completed_and_come_with_their_architecture(tables):
    best = best_trials(tables, scale="small", limit=5)
    completed = [
        row["last_val_error_pct"]
        for row in tables.trials.to_pylist()
        if row["scale"] == "small" and row["outcome"] == "completed"
    ]
    assert [row["last_val_error_pct"] for row in best] == sorted(completed)[:5]
    assert all(row["epochs_trained"] == 4 and len(row["widths"]) == 3 for row in best)


def test_nothing_completed_nothing_is_best():
    tables = synthetic.tables({"anynet_c": 20.0}, rng=np.random.default_rng(0), trials_per_space=3, num_failed=3)
    assert best_trials(tables, scale="small", limit=5) == []
