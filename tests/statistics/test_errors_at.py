"""Which networks count at which budget, and with what error."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import synthetic

from sweep.records.tables import EPOCHS, TRIALS, Tables
from sweep.statistics import chance_error_pct, errors_at, shared_rung, study_of

CHANCE_PCT = 90.0


def made(*trials: tuple[str, str, list[float | None]]) -> Tables:
    """Tables of one cohort from (trial_id, outcome, errors by epoch)."""
    base = {"space": "anynet_c", "scale": "small"}
    return Tables(
        architectures=pa.table({}),
        trials=pa.Table.from_pylist(
            [
                base | {"trial_id": trial_id, "outcome": outcome, "epochs_trained": len(errors)}
                for trial_id, outcome, errors in trials
            ],
            TRIALS,
        ),
        epochs=pa.Table.from_pylist(
            [
                base | {"trial_id": trial_id, "epoch": epoch, "val_error_pct": error}
                for trial_id, _, errors in trials
                for epoch, error in enumerate(errors, start=1)
            ],
            EPOCHS,
        ),
        metadata={"study": synthetic.study()},
    )


def at(tables: Tables, epoch: int) -> list[float]:
    errors = errors_at(tables, scale="small", space="anynet_c", epoch=epoch)
    assert errors.dtype == np.float64
    return errors.tolist()


def test_all_that_reached_the_epoch_count_whether_they_have_ended_or_not():
    tables = made(
        ("a", "completed", [40.0, 30.0, 25.0, 20.0]),
        ("b", "stopped", [45.0, 35.0]),
        ("c", "running", [44.0, 34.0]),
        ("d", "running", [43.0]),
        ("e", "pending", []),
    )
    assert at(tables, 2) == [30.0, 35.0, 34.0]
    assert at(tables, 4) == [20.0]


def test_diverged_counts_at_chance_from_where_its_error_is_not_finite():
    tables = made(("a", "diverged", [40.0, None]), ("b", "diverged", []), ("c", "completed", [40.0, 30.0, 25.0, 20.0]))
    assert at(tables, 1) == [40.0, CHANCE_PCT, 40.0]
    assert at(tables, 2) == [CHANCE_PCT, CHANCE_PCT, 30.0]
    assert at(tables, 4) == [CHANCE_PCT, CHANCE_PCT, 20.0]


def test_an_error_that_is_not_finite_counts_at_chance_even_if_the_trial_went_on():
    assert at(made(("a", "completed", [40.0, None, 25.0, 20.0])), 2) == [CHANCE_PCT]


def test_failed_trials_never_count():
    assert at(made(("a", "failed", [40.0, 30.0]), ("b", "failed", [])), 2) == []


def test_other_cohorts_do_not_count():
    tables = synthetic.tables(rng=np.random.default_rng(0), scales=("small", "large"), trials_per_space=5)
    for scale in ("small", "large"):
        found = errors_at(tables, scale=scale, space="anynet_d", epoch=2)
        assert len(found) == 5


def test_shared_rung_is_the_fewest_epochs_of_those_that_ended_as_they_should():
    tables = made(
        ("a", "completed", [40.0, 30.0, 25.0, 20.0]),
        ("b", "stopped", [45.0, 35.0, 30.0]),
        ("c", "diverged", [None]),
        ("d", "failed", []),
    )
    assert shared_rung(tables, "small") == 3


def test_shared_rung_of_an_unfinished_sweep_is_the_first_of_its_scale():
    tables = synthetic.tables(rng=np.random.default_rng(0), scales=("small", "large"), num_unfinished=1)
    early = synthetic.with_scale(tables, 1, flops_min=4e5, flops_max=8e5, grace_epochs=1)
    assert [shared_rung(tables, scale) for scale in ("small", "large")] == [2, 2]
    assert [shared_rung(early, scale) for scale in ("small", "large")] == [2, 1]


def test_shared_rung_of_an_unfinished_sweep_is_never_above_the_first_rung():
    tables = made(("a", "completed", [40.0, 30.0, 25.0, 20.0]), ("b", "running", [45.0, 35.0]), ("c", "pending", []))
    assert shared_rung(tables, "small") == synthetic.GRACE_EPOCHS


def test_shared_rung_of_a_sweep_that_has_not_begun_is_the_first_rung():
    assert shared_rung(made(("a", "pending", [])), "small") == synthetic.GRACE_EPOCHS
    assert shared_rung(made(), "small") == synthetic.GRACE_EPOCHS


def test_without_stopping_the_only_budget_is_the_full_one():
    tables = made(("a", "running", [40.0]))
    study = tables.metadata["study"]
    tables = replace(tables, metadata={"study": study | {"stopping": study["stopping"] | {"method": "none"}}})
    assert shared_rung(tables, "small") == synthetic.MAX_EPOCHS


def test_chance_is_ninety_percent_for_ten_classes():
    assert chance_error_pct(study_of(made())) == pytest.approx(CHANCE_PCT)


def test_tables_without_a_study_are_refused():
    with pytest.raises(ValueError, match="study"):
        study_of(replace(made(), metadata={}))
