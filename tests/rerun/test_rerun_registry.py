"""The registered model: one run, one version, its card; and the alias, which only a network of lower error takes."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rerun.small_sweep import make_sweep
from tracking.journal_maker import asking

from sweep.records import Journal, from_journal
from sweep.rerun.card import model_card
from sweep.rerun.choose import Candidate
from sweep.rerun.record import judge_champion, model_name, record
from sweep.studies import PRESETS
from sweep.tracking import TrackingError, default_tracking_uri, serve
from sweep.tracking.delivery import connect


def metadata_of(run_dir):
    with Journal.open(run_dir, read_only=True) as journal:
        return from_journal(journal).metadata


def test_run_and_sweep_are_linked_both_ways(rerun_done):
    sql = asking(rerun_done.run_dir / "mlflow.db")
    run_id, metadata = rerun_done.registered.run_id, metadata_of(rerun_done.run_dir)
    tags = dict(sql("SELECT key, value FROM tags WHERE run_uuid = ?", run_id))
    assert tags["mlflow.parentRunId"] == metadata["parent_run_id"]
    parent = dict(sql("SELECT key, value FROM tags WHERE run_uuid = ?", metadata["parent_run_id"]))
    assert parent["rerun_run_id"] == parent["champion"] == run_id
    errors = dict(sql("SELECT key, value FROM metrics WHERE run_uuid = ? AND step = 0", run_id))
    assert errors["test/error_pct"] == rerun_done.result.test_error_pct
    assert errors["confirmed/error_pct"] == pytest.approx(rerun_done.result.candidate.validation_error_pct)
    assert sql("SELECT status FROM runs WHERE run_uuid = ?", run_id) == [("FINISHED",)]


def test_the_version_is_the_runs_model_and_the_champion(rerun_done):
    client = connect(default_tracking_uri(rerun_done.run_dir))
    version = client.get_model_version_by_alias("small sweep", "champion")
    assert (str(version.version), version.run_id) == (rerun_done.registered.version, rerun_done.registered.run_id)
    assert version.tags["weights_sha256"] == rerun_done.result.weights_sha256
    assert version.tags["sweep_run_id"] == metadata_of(rerun_done.run_dir)["parent_run_id"]
    names = {item.path for item in client.list_artifacts(version.run_id, "model")}
    assert names == {"model/weights.pt", "model/architecture.yaml", "model/README.md"}
    report = {item.path for item in client.list_artifacts(version.tags["sweep_run_id"])}
    assert "report.html" in report


def test_the_card_says_how_to_load_it_and_what_it_says_works(rerun_done, tmp_path, monkeypatch):
    import mlflow
    import torch

    from sweep.training.data import open_test, prepare

    client = connect(default_tracking_uri(rerun_done.run_dir))
    version = client.get_model_version_by_alias("small sweep", "champion")
    folder = mlflow.artifacts.download_artifacts(
        run_id=version.run_id, artifact_path="model", dst_path=str(tmp_path),
        tracking_uri=default_tracking_uri(rerun_done.run_dir),
    )  # fmt: skip
    monkeypatch.chdir(folder)
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict = {}
    exec(snippet, names)
    images, labels, _ = map(torch.from_numpy, open_test(prepare(resolution=12)))
    wrong = int((names["predict"](images[:2000]) != labels[:2000]).sum())
    assert wrong / 20 == pytest.approx(rerun_done.result.test_error_pct, abs=5)
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    (in_readme,) = (code for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "weights.pt" in code)
    loaded: dict = {}
    exec(in_readme, loaded)
    assert all(map(torch.equal, loaded["network"].state_dict().values(), names["network"].state_dict().values()))
    (tmp_path / "model" / "weights.pt").write_bytes(b"changed")
    with pytest.raises(AssertionError):
        exec(snippet, {})


def test_the_card_tells_estimates_data_and_provenance(rerun_done):
    result, metadata = rerun_done.result, metadata_of(rerun_done.run_dir)
    card = model_card(result, metadata)
    assert not card.startswith("#")  # the registry shows the first line raw
    for text in (
        f"{result.test_error_pct:.2f} %", f"{result.candidate.validation_error_pct:.2f} %", "2 fresh seeds",
        "MIT licence", metadata["study_hash"], str(result.seed), result.weights_sha256, "Workers: 2",
        "batch size of 64 is that of all workers together", result.provenance["machine"]["cpu"],
        "SGD with momentum 0.9 (Nesterov), weight decay 0.0005, label smoothing 0.1; learning rate",
        "linear warm-up over 5 steps, one cosine to zero,", "random flips, shifts by up to 2 pixels; fp32",
    ):  # fmt: skip
        assert text in card
    metadata = {**metadata, "study": {**metadata["study"], "recipe": PRESETS["seed"]}}
    card = model_card(result, metadata)
    assert "SGD with no momentum; learning rate" in card
    assert "constant,\n" in card
    assert "the last short batch of each too; no augmentation; fp32" in card
    metadata["study"]["recipe"] = {
        "optimizer": "adamw", "beta2": 0.95, "l1_decay": 1e-5, "gradient_clip": 1.0, "label_smoothing": 0.0,
        "schedule": "step", "warmup_steps": 0, "step_at": [0.5, 0.9], "mixup": 0.2, "random_erasing": 0.25,
    }  # fmt: skip
    card = model_card(result, metadata)
    assert "AdamW with betas 0.9 and 0.95, weight decay 0.0005, L1 decay 1e-05, gradients clipped to norm 1;" in card
    assert "times 0.1 after 50 %, 90 % of all steps," in card
    assert "pixels, random erasing with probability 0.25, mixup with alpha 0.2; fp32" in card


def version_of(number: int, *, error_pct: float, seeds: int = 3, study_hash: str = "s", architecture_id: str = "old"):
    tags = {
        "validation_error_pct": str(error_pct), "num_fresh_seeds": str(seeds), "study_hash": study_hash,
        "architecture_id": architecture_id,
    }  # fmt: skip
    return SimpleNamespace(version=str(number), tags=tags)


def challenge(result, champion, *, error_pct: float = 20.0, seeds: int = 3, others: tuple = ()):
    mine = Candidate("t", "anynet_d", "small", "new", "{}", 19.0, (error_pct,) * seeds)
    tags = {"study_hash": "s", "num_fresh_seeds": str(seeds)}
    return judge_champion(replace(result, candidate=mine, candidates=(mine, *others)), "2", tags, champion)


def test_the_first_of_its_name_is_champion_and_stays_it(rerun_done):
    assert challenge(rerun_done.result, None)[0]
    assert challenge(rerun_done.result, version_of(2, error_pct=1.0))[0]


@pytest.mark.parametrize(("error_pct", "wins"), [(20.5, True), (19.5, False)])
def test_the_better_by_confirmed_error_takes_it(rerun_done, error_pct, wins):
    is_champion, why = challenge(rerun_done.result, version_of(1, error_pct=error_pct))
    assert is_champion is wins
    assert f"20.00 % validation error, version 1 has {error_pct:.2f} %" in why


@pytest.mark.parametrize("change", [{"study_hash": "another"}, {"seeds": 0}])
def test_what_cannot_be_compared_stays(rerun_done, change):
    is_champion, why = challenge(rerun_done.result, version_of(1, error_pct=99.0, **change))
    assert not is_champion
    assert "cannot be compared" in why


def test_an_unconfirmed_champion_that_was_confirmed_since_can_be_compared(rerun_done):
    rival = Candidate("u", "anynet_d", "small", "old", "{}", 18.0, (21.0, 22.0))
    assert challenge(rerun_done.result, version_of(1, error_pct=18.0, seeds=0), others=(rival,))[0]


def test_a_server_takes_it_too_once_however_often_it_is_told(rerun_done, tmp_path):
    from tracking.test_tracking_server import free_port

    home, port = tmp_path / "server", free_port()
    home.mkdir()
    connect(default_tracking_uri(home))
    server = serve(default_tracking_uri(home), home / "mlartifacts", port=port, log_path=home / "log")
    try:
        run_dir = make_sweep(tmp_path / "run", tracking_uri=f"http://127.0.0.1:{port}")
        metadata = metadata_of(run_dir)
        report = rerun_done.run_dir / "report.html"
        first, second = (record(rerun_done.result, metadata, report) for _ in range(2))
        assert (first.run_id, first.version) == (second.run_id, second.version)
        assert second.is_champion
        assert model_name(metadata) == first.model
        client = connect(f"http://127.0.0.1:{port}")
        assert client.get_model_version_by_alias("small sweep", "champion").run_id == first.run_id
        assert "model/weights.pt" in {item.path for item in client.list_artifacts(first.run_id, "model")}
    finally:
        server.terminate()
        server.wait()


def test_a_server_that_is_away_loses_nothing(rerun_done):
    metadata = metadata_of(rerun_done.run_dir) | {"tracking_uri": "http://127.0.0.1:9"}
    with pytest.raises(TrackingError, match=r"not recorded in http://127\.0\.0\.1:9"):
        record(rerun_done.result, metadata, rerun_done.run_dir / "report.html")
    with pytest.raises(RuntimeError, match="has no run in MLflow yet"):
        record(rerun_done.result, {}, rerun_done.run_dir / "report.html")


def test_a_name_with_a_colon_is_none_for_a_model():
    assert model_name({"study": {"name": "a: b"}}) == "a- b"
    assert json.dumps(model_name({"study": {"name": "plain"}})) == '"plain"'
