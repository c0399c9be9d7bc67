"""What the verbs of Python write, apart from whole sweeps (tests/sweeps)."""

import json
from dataclasses import replace

import numpy as np
import synthetic

from sweep import api
from sweep.statistics import judge


def test_the_note_in_mlflow_says_what_verdicts_are_matched_on(tmp_path):
    verdict, *_ = judge(
        synthetic.tables(rng=np.random.default_rng(0)), margin_pct=0.5, confidence=0.95, num_bootstrap=999, seed=1
    )
    matched = replace(verdict, matched_on="flops", num_matched_without=17, num_matched_with=15)
    (tmp_path / "verdicts.json").write_text(json.dumps([verdict.to_dict(), matched.to_dict()]))
    *_, plain, told = api._note(tmp_path).splitlines()
    assert "| 20 + 20 | **" in plain
    assert "| 17 + 15, matched on flops | **" in told


def test_the_note_in_mlflow_says_how_looks_stand(tmp_path):
    (tmp_path / "verdicts.json").write_text("[]")
    looks = {
        "planned": 4, "num_trials": 96, "num_decided": 3, "num_comparisons": 3, "decided_at_look": 2,
        "decided_at_trial": 48, "ended_early": True,
    }  # fmt: skip
    assert api._note(tmp_path, looks).endswith(
        "Looks: ended early after look 2 of 4 (48 of 96 trials), as the study wanted: all 3 rules decided."
    )
