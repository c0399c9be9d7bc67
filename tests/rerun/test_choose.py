"""The best by validation error of those that trained to the end, each network once."""

from dataclasses import replace

import pyarrow as pa
import pytest
from rerun.small_sweep import BEST, ERRORS_PCT, make_journal, study

import sweep
from sweep.records import Journal, from_journal
from sweep.rerun.choose import Candidate, choose


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    with Journal.open(make_journal(tmp_path_factory.mktemp("choose")), read_only=True) as journal:
        return from_journal(journal)


def test_the_best_first_and_never_one_that_was_stopped(tables):
    assert [candidate.sweep_error_pct for candidate in choose(tables, 2)] == [20.0, 30.0]
    assert min(ERRORS_PCT) == 10.0  # of the trial that was stopped


def test_a_network_drawn_twice_is_one_candidate(tables):
    assert [candidate.trial_id[-1] for candidate in choose(tables, 9)] == ["1", "0", "2"]


def test_a_repeat_of_a_scale_gives_no_second_chance(tables):
    """The best network as the repeat had it, and the others at the scale itself."""
    scales = study().to_dict()["scale"]
    told = study(scale=[*scales, {"name": "again", "of": "small"}]).to_dict()
    rows = [row | {"scale": "again" if row["trial_id"] == BEST else "small"} for row in tables.trials.to_pylist()]
    repeated = replace(
        tables, trials=pa.Table.from_pylist(rows, tables.trials.schema), metadata=tables.metadata | {"study": told}
    )
    assert [candidate.trial_id[-1] for candidate in choose(repeated, 9)] == ["0", "2"]


def test_a_sweep_in_which_nothing_was_completed_has_no_best(tables):
    with pytest.raises(ValueError, match="no trial of this sweep has trained to the end"):
        choose(replace(tables, trials=tables.trials.slice(0, 0)), 1)


def test_networks_that_were_not_trained_cannot_be_trained_again(tmp_path):
    run_dir = make_journal(tmp_path / "rehearsal", objective="curves:answer_pct")
    with pytest.raises(ValueError, match=r"run: .*objective = 'curves:answer_pct'; there is nothing to train"):
        sweep.rerun(run_dir)


def test_what_it_is_chosen_by():
    candidate = Candidate("t", "anynet_d", "small", "id", "{}", 20.0)
    assert candidate.validation_error_pct == 20.0
    assert replace(candidate, confirmed_error_pct=(21.0, 23.0)).validation_error_pct == 22.0
