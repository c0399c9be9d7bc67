"""What a run holds: names, tags, params, points, note, saved view."""

import base64
import json
import zlib
from pathlib import Path

import pytest
from tracking.journal_maker import STUDY, make_journal, train

from sweep.spaces import SPACES, Architecture, Mlp, Vit
from sweep.studies import Recipe, study_from_dict
from sweep.tracking import content

META = {"study": STUDY, "study_hash": "0123456789ab", "git_commit": "f" * 40, "created_at_ms": 1_700_000_000_000}


@pytest.fixture
def trial(tmp_path: Path) -> dict:
    with make_journal(tmp_path / "run") as journal:
        train(journal, "regnet_x-small-0000", [40.0, float("nan")], "diverged")
        return {
            **journal.trials()[0],
            "epochs": [dict(row) for row in journal.undelivered_epochs_of("regnet_x-small-0000")],
        }


def test_names_fit_the_viewer(trial):
    assert content.trial_name(trial, several_scales=False) == "RegNetX-0000"
    assert content.trial_name(trial, several_scales=True) == "RegNetX-0000-small"
    for space in SPACES:
        assert len(content.trial_name({**trial, "space": space}, several_scales=False)) <= 20
    assert content.parent_name(META) == "quickstart-1114-0123"
    assert "/" not in content.experiment_name("a/b\\c")


def test_trial_tags_are_those_to_filter_by(trial):
    tags = content.trial_tags(trial, "parent", "#c01b1f")
    assert tags["mlflow.parentRunId"] == "parent"
    assert tags["mlflow.runColor"] == "#c01b1f"
    assert (tags["kind"], tags["space"], tags["scale"], tags["audited"]) == ("trial", "regnet_x", "small", "yes")
    assert all(isinstance(value, str) for value in tags.values())


def test_trial_params_are_few_short_and_say_the_architecture(trial):
    architecture = Architecture.from_json(trial["architecture"])
    params = content.trial_params(trial, architecture, {"norm"})
    assert list(params) == sorted(params)
    assert params["widths"] == "16, 16, 32"
    assert params["bottleneck_ratios"] == "1, 1, 1"
    assert params["norm"] == "batch"
    assert "activation" not in params, "all networks of the study have the same"
    assert max(map(len, params.values())) < 60


def test_trial_params_of_other_families_say_what_they_are(trial):
    perceptron = content.trial_params(trial, Mlp((64, 32), skip=True), {"skip"})
    assert (perceptron["widths"], perceptron["skip"]) == ("64, 32", "True")
    transformer = content.trial_params(trial, Vit(4, 64, 6, 4), ())
    assert (transformer["depth"], transformer["width"]) == ("6", "64")


def test_points_leave_out_what_is_not_finite_and_take_the_journal_times(trial):
    points = list(content.epoch_points(trial["epochs"]))
    assert ("error_pct", 40.0, trial["epochs"][0]["recorded_at_ms"], 1) in points
    assert {key for key, _, _, step in points if step == 2} == {
        "train/learning_rate", "perf/train_time_s", "perf/eval_time_s",
    }  # fmt: skip
    architecture = Architecture.from_json(trial["architecture"])
    static = {key: (value, step) for key, value, _, step in content.static_points(trial, architecture)}
    assert static["flops_m"] == (trial["flops"] / 1e6, 0)
    assert len(static) + len(content.CURVES) + 1 < 20


def test_params_of_the_sweep_are_an_allow_list():
    params = content.parent_params({**STUDY, "secret": "canary"})
    assert params["spaces"] == "anynet_c, anynet_d, anynet_e, regnet_x"
    assert params["scale.small.flops_min"] == "400000"
    assert params["stopping.reduction_factor"] == "2"
    everything = json.dumps([params, content.parent_tags(META), content.note(STUDY), content.dataset(META)])
    assert "canary" not in everything


def test_params_tell_what_a_scale_has_of_its_own():
    large = {"name": "large", "of": "small", "width_factor": 2.0, "max_epochs": 12}
    params = content.parent_params(study_from_dict({**STUDY, "scale": [*STUDY["scale"], large]}).to_dict())
    assert {key: value for key, value in params.items() if key.startswith("scale.large.")} == {
        "scale.large.of": "small", "scale.large.width_factor": "2", "scale.large.depth_factor": "1",
        "scale.large.resolution": "28", "scale.large.max_epochs": "12",
    }  # fmt: skip
    assert {key for key in params if key.startswith("scale.small.")} == {
        f"scale.small.{key}" for key in ("resolution", "flops_min", "flops_max")
    }


def test_params_of_the_sweep_hold_the_whole_recipe():
    study = study_from_dict({**STUDY, "recipe": {"optimizer": "adamw", "schedule": "step", "step_at": [0.25, 0.5]}})
    params = content.parent_params(study.to_dict())
    assert {f"recipe.{name}" for name in Recipe.model_fields} <= set(params)
    assert (params["recipe.optimizer"], params["recipe.step_at"], params["recipe.mixup"]) == ("adamw", "0.25, 0.5", "0")


def test_note_begins_with_the_question_and_the_verdicts():
    # The viewer folds all but the first lines away.
    assert content.note(STUDY, "**Verdicts**").startswith(f"{STUDY['question']}\n\n**Verdicts**\n\nThis run")
    assert content.note(STUDY).startswith(f"{STUDY['question']}\n\nThis run")
    assert len(content.note(STUDY, "x" * 10_000)) == 8000


def test_a_sweep_that_trained_nothing_says_so():
    rehearsal = {**STUDY, "objective": "curves:answer_pct"}
    assert content.parent_params(rehearsal)["objective"] == "curves:answer_pct"
    assert "No network was trained: the function `curves:answer_pct` answered the errors." in content.note(rehearsal)
    assert "No network was trained" not in content.note(STUDY)


def test_saved_view_is_what_the_viewer_unpacks():
    tag = content.saved_view("0" * 32, 1)
    assert len(tag) < 20_000
    view = json.loads(tag)
    kind, _, packed = view["state"].partition(";")
    state = json.loads(zlib.decompress(base64.b64decode(packed)))
    assert kind == "deflate"
    assert state["searchFilter"] == f"tags.`mlflow.parentRunId` = '{'0' * 32}'"
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} <= sections
    # Each key of a trial has a card: the viewer makes one of its own for a key without.
    keys = {chart.get("metricKey") for chart in state["compareRunCharts"]}
    assert set(content.CURVES.values()) | {"flops_m", "params_m", "activations_m", "depth", "epochs_trained"} <= keys
