"""Curves from anywhere: what a file says, and how it is refused."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sweep.statistics import find_in_cohorts, pairs_of
from sweep.statistics.reading import cohorts_of_curves, read_curves
from sweep.statistics.rules.verdicts import Terms

TERMS = Terms(margin_pct=1.0, confidence=0.95, num_bootstrap=999, seed=1)


def table(curves: dict[str, list[float | None]], *, space: str = "a", **of_trial: dict) -> pa.Table:
    """A curve a trial; `of_trial`: a column, by trial."""
    rows = [
        {"trial_id": trial, "space": space, "epoch": epoch, "val_error_pct": error}
        | {name: values[trial] for name, values in of_trial.items()}
        for trial, errors in curves.items()
        for epoch, error in enumerate(errors, start=1)
    ]
    return pa.Table.from_pylist(rows)


def only(made: pa.Table, **settings):
    [cohort] = cohorts_of_curves(made, **settings).values()
    return cohort


def test_curves_become_a_matrix():
    cohort = only(table({"x": [50.0, 20.0], "y": [60.0, 30.0]}))
    assert cohort.errors.tolist() == [[50.0, 20.0], [60.0, 30.0]]
    assert cohort.epochs.tolist() == [1, 2]
    assert (cohort.space, cohort.scale, cohort.trial_ids) == ("a", "all", ("x", "y"))
    assert cohort.is_certain.all()


def test_rows_may_come_in_any_order_and_epochs_may_have_gaps():
    made = table({"x": [50.0, 20.0], "y": [60.0, 30.0]})
    made = made.set_column(2, "epoch", pa.array([3, 9, 3, 9])).take([3, 0, 2, 1])
    cohort = only(made)
    assert cohort.epochs.tolist() == [3, 9]
    assert cohort.errors_at(9).tolist() == [30.0, 20.0]
    assert np.isnan(cohort.errors_at(4)).all()


@pytest.mark.parametrize("lost", [None, float("nan"), float("inf")])
def test_a_network_that_diverged_counts_with_chance(lost):
    cohort = only(table({"x": [50.0, 20.0], "y": [60.0, lost]}), num_classes=4)
    assert cohort.errors.tolist() == [[50.0, 20.0], [60.0, 75.0]]
    assert cohort.diverged_at.tolist() == [0, 2]
    assert cohort.is_finished.all()


def test_what_ended_early_without_a_word_leaves_only_bounds():
    made = table({f"t{i}": [50.0 - i, 20.0 - i][: 1 + i % 2] for i in range(8)})
    cohort = only(made)
    [estimate] = find_in_cohorts(cohorts_of_curves(made), [], TERMS).estimates
    assert cohort.would_stop_at.tolist() == [1, 0] * 4
    assert estimate.estimator is None
    assert estimate.bounds.low_pct < estimate.bounds.high_if_no_worse_pct < estimate.bounds.high_pct
    assert estimate.survivors_mean_pct == pytest.approx(np.mean([20.0 - i for i in (1, 3, 5, 7)]))


def test_audited_networks_stand_for_those_that_were_stopped():
    names = [f"t{i}" for i in range(8)]
    curves = {name: [50.0, 20.0 - i][: 1 + i % 2] for i, name in enumerate(names)}
    made = table(
        curves,
        would_stop_at={name: 0 if i == 7 else 1 for i, name in enumerate(names)},
        fully_trained={name: bool(i % 2) for i, name in enumerate(names)},
    )
    [estimate] = find_in_cohorts(cohorts_of_curves(made), [], TERMS).estimates
    assert (estimate.estimator, estimate.num_audited, estimate.num_wanted_to_end) == ("model_assisted", 3, 7)
    assert estimate.mean.value == pytest.approx((13.0 + 7 * np.mean([19.0, 17.0, 15.0])) / 8)


def test_scales_have_budgets_of_their_own_and_pairs_are_compared_at_each():
    rng = np.random.default_rng(1)
    parts = []
    for scale, epochs in (("small", 2), ("large", 3)):
        for space, mean in (("plain", 30.0), ("ruled", 20.0)):
            curves = {f"{i}": (mean + rng.normal(size=epochs)).tolist() for i in range(12)}
            made = table(curves, space=space)
            parts.append(made.append_column("scale", pa.array([scale] * made.num_rows)))
    cohorts = cohorts_of_curves(pa.concat_tables(parts))
    found = find_in_cohorts(cohorts, pairs_of(cohorts, ["plain:ruled"]), TERMS)
    assert [(v.scale, v.rung_epochs, v.budget, v.verdict) for v in found.verdicts] == [
        ("small", 2, "full", "helps"), ("large", 3, "full", "helps"),
    ]  # fmt: skip
    assert pairs_of(cohorts) == pairs_of(cohorts, ["plain:ruled"])  # the only two
    json.dumps(found.to_dict(), allow_nan=False)


def test_spaces_that_ship_are_paired_by_their_rules():
    made = [table({f"{i}": [20.0 + i] for i in range(4)}, space=space) for space in ("anynet_d", "anynet_c", "other")]
    cohorts = cohorts_of_curves(pa.concat_tables(made))
    assert [(pair.space_without, pair.space_with) for pair in pairs_of(cohorts)] == [("anynet_c", "anynet_d")]


def changed(made: pa.Table, column: str, values: list) -> pa.Table:
    return made.set_column(made.schema.get_field_index(column), column, pa.array(values))


SWEEP = [sys.executable, "-m", "sweep"]
GOOD = table({"x": [50.0, 20.0], "y": [60.0, 30.0]})


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (changed(GOOD, "epoch", [1, 1, 1, 2]), "epoch: trial 'x' has epoch 1 twice"),
        (changed(GOOD, "epoch", [0, 1, 1, 2]), "epoch: holds values that are no whole numbers from 1 on"),
        (changed(GOOD, "epoch", ["a", "b", "c", "d"]), "epoch: is of type string; give numbers"),
        (changed(GOOD, "val_error_pct", [0.5, 0.2, 0.6, 0.3]), "are they shares?"),
        (changed(GOOD, "val_error_pct", [150.0, 20.0, 60.0, 30.0]), "val_error_pct: 150 is no error in percent"),
        (changed(GOOD, "space", ["a", "a", None, "a"]), "space: holds nulls"),
        (GOOD.slice(0, 0), "the table has no rows"),
        (GOOD.slice(0, 3).append_column("fully_trained", pa.array([True] * 3)), "'y' is said to be trained in full"),
        (GOOD.slice(0, 3).append_column("would_stop_at", pa.array([0] * 3)), "'y' was not trained in full, though no"),
    ],
)
def test_what_is_wrong_is_named(made, said):
    with pytest.raises(ValueError, match=said):
        cohorts_of_curves(made)


def test_a_file_that_is_missing_or_something_else_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        read_curves(tmp_path / "nothing.parquet")
    (tmp_path / "text.parquet").write_text("trial_id,space")
    with pytest.raises(ValueError, match="is not a Parquet file"):
        read_curves(tmp_path / "text.parquet")
    pq.write_table(GOOD.drop_columns(["space"]), tmp_path / "lacking.parquet")
    with pytest.raises(ValueError, match=r"has no column 'space' \(it has trial_id, epoch, val_error_pct\)"):
        read_curves(tmp_path / "lacking.parquet")


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["a"], "--pairs: 'a' is not WITHOUT:WITH"),
        (["a:bb"], "--pairs: the curves hold no space 'bb'; did you mean 'b'"),
        (["a:a"], "compares a space with itself"),
    ],
)
def test_pairs_that_cannot_be_are_refused(pairs, said):
    cohorts = cohorts_of_curves(pa.concat_tables([GOOD, changed(GOOD, "space", ["b"] * 4)]))
    with pytest.raises(ValueError, match=said):
        pairs_of(cohorts, pairs)


def test_the_command_line_judges_curves(tmp_path):
    rng = np.random.default_rng(2)
    made = [
        table({f"{i}": [float(mean + rng.normal())] for i in range(15)}, space=space)
        for space, mean in (("it's: a", 30.0), ("b ü", 20.0))
    ]
    path = tmp_path / "my curves.parquet"
    pq.write_table(pa.concat_tables(made), path)
    arguments = ["judge", "--curves", str(path), "--pairs", "it's: a:b ü", "--json"]
    done = subprocess.run([*SWEEP, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    [verdict] = json.loads(done.stdout)["verdicts"]
    assert (verdict["space_without"], verdict["space_with"], verdict["verdict"]) == ("it's: a", "b ü", "helps")
    refused = subprocess.run([*SWEEP, *arguments, "--confidence", "2"], capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2
