"""Every study that ships goes the whole way in miniature: real data, real Ray, real MLflow, a verdict for each pair."""

import json

import pytest
from mlflow.tracking import MlflowClient

from sweep.spaces import rule_pairs
from sweep.studies import load_study, shipped_studies


@pytest.mark.parametrize("name", [name for name in shipped_studies() if name != "quickstart"])
def test_the_smoke_form_goes_the_whole_way(name, sweep_cli, tmp_path):
    study = load_study(name).smoke()
    done = sweep_cli("launch", name, "--smoke", "--run-dir", tmp_path / "run", "--json", timeout=240)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    trials = summary["trials"]
    assert trials["completed"] + trials["stopped"] + trials["diverged"] == study.num_trials
    pairs = [(pair.rule, pair.space_without, pair.space_with) for pair in rule_pairs(study.design_spaces)]
    found = json.loads((tmp_path / "run" / "verdicts.json").read_text(encoding="utf-8"))
    verdicts = [(v["rule"], v["space_without"], v["space_with"]) for v in found]
    assert sorted(verdicts) == sorted(pairs * len(study.judged_scales))
    client = MlflowClient(summary["tracking_uri"])
    runs = client.search_runs([summary["experiment_id"]], max_results=1000)
    assert len(runs) == study.num_trials + 1
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert all(space.title in report for space in study.design_spaces)
