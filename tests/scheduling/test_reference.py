"""The reference curves that ship: complete, traceable, and what their replay is to show."""

import json
from importlib.resources import as_file, files

import numpy as np
import pyarrow.parquet as pq
import pytest

from sweep.scheduling.simulation.peers import Design
from sweep.scheduling.simulation.pools import REFERENCE, REFERENCE_FILE, pools_of
from sweep.scheduling.simulation.simulate import simulate
from sweep.studies import load_study


@pytest.fixture(scope="module")
def pools():
    return pools_of(REFERENCE)


def test_all_networks_of_the_study_that_ended_are_there_to_the_end(pools):
    study = load_study("reference")
    assert tuple(sorted(pool.cohort.space for pool in pools)) == tuple(sorted(study.spaces))
    for pool in pools:
        assert 40 <= len(pool.cohort) <= study.trials_per_space
        assert pool.cohort.errors.shape[1] == study.stopping.max_epochs
        assert not np.isnan(pool.cohort.errors).any()
        assert set(pool.cohort.complexity) == {"flops", "params", "activations"}
        assert (pool.epoch_s > 0).all()


def test_they_tell_where_they_come_from():
    with as_file(files("sweep.studies") / REFERENCE_FILE) as path:
        told = json.loads(pq.read_schema(path).metadata[b"designspace_sweep"])
    assert told["study_hash"] == load_study("reference").hash
    assert told["git_commit"]
    assert told["machine"]["cpu"]
    assert "torch" in told["versions"]


def test_survivors_are_biased_and_the_estimate_is_not(pools):
    design = Design("asha", 16, grace_epochs=1, reduction_factor=4, audit_fraction=0.2, num_trials=60, num_workers=4)
    replayed = simulate(pools, [design], source=REFERENCE, num_repetitions=60, seed=1, margin_pct=1.0, pairs=[])
    [found] = replayed.designs
    for space in ("anynet_a", "anynet_c"):
        by_estimator = {a.estimator: a for a in found.accuracies if a.space == space and a.quantity == "mean"}
        survivors, model = by_estimator["survivors"].bias, by_estimator["model_assisted"].bias
        assert survivors.value < -8 * survivors.standard_error
        assert abs(model.value) < 3.5 * model.standard_error
