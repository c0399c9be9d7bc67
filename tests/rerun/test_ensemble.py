"""The best of a sweep together: each trained on its own, cut off in between, all tested at once, recorded."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rerun.local import train_here, work_of
from rerun.small_sweep import BEST, SECOND, make_sweep, network
from tracking.journal_maker import asking

import sweep
from dashboards.words import ensemble_text
from sweep.models import build
from sweep.records import Journal, from_journal
from sweep.rerun import full_scale
from sweep.rerun.card import model_card
from sweep.rerun.result import read
from sweep.training.data import open_test, prepare

WITHOUT_MLFLOW = shutil.ignore_patterns("mlflow.db", "mlartifacts")


class CutError(Exception):
    """Whoever trains is gone."""


def cut_in_the_second(stage, epoch):
    if stage == f"full scale {SECOND}" and epoch.epoch == 2:
        raise CutError


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A rerun of two networks, cut off in the training of the second, and called again."""
    run_dir = make_sweep(tmp_path_factory.mktemp("ensemble") / "run", rerun={"epochs": 4, "ensemble": 2})
    with pytest.MonkeyPatch.context() as patch:
        train_here(patch)
        with pytest.raises(CutError):
            sweep.rerun(run_dir, best=1, seeds=1, progress=cut_in_the_second)
        kept = {path: path.stat().st_mtime_ns for path in run_dir.glob("rerun/*/weights.pt")}
        was_shut = not list(run_dir.glob("rerun/*/result.json"))
        told: list = []
        result, registered = sweep.rerun(
            run_dir, best=1, seeds=1, progress=lambda stage, epoch: told.append((stage, epoch.epoch))
        )
        yield SimpleNamespace(
            run_dir=run_dir, result=result, registered=registered, kept=kept, was_shut=was_shut, told=told
        )


def test_cut_off_it_goes_on_with_what_was_left_and_the_test_was_shut(done, alone):
    assert done.was_shut
    assert len(done.kept) == 1
    assert {path: path.stat().st_mtime_ns for path in done.kept} == done.kept  # the first was not trained again
    assert {stage for stage, _ in done.told} == {f"full scale {SECOND}"}
    members = done.result.ensemble.members
    assert [member.trial_id for member in members] == [BEST, SECOND]
    for member in members:
        rows = full_scale.read_history(done.run_dir / "rerun" / member.folder)
        assert [row["train_loss"] for row in rows] == alone(int(member.trial_id[-4:]))
    assert not list((done.run_dir / "stores").iterdir())  # their states are of no more use


def test_the_ensemble_answers_by_the_mean_of_probabilities(done):
    images, labels = map(torch.from_numpy, open_test(prepare(resolution=12))[:2])
    result, ensemble = done.result, done.result.ensemble
    x_BCHW = (images.unsqueeze(1) / 255 - result.pixel_mean) / result.pixel_std
    probabilities = []
    for member in ensemble.members:
        trained = build(network(int(member.trial_id[-4:])), resolution=12, channels=1, classes=10)
        weights = done.run_dir / "rerun" / member.folder / "weights.pt"
        trained.load_state_dict(torch.load(weights, weights_only=True))
        with torch.inference_mode():
            probabilities.append(trained.eval()(x_BCHW).softmax(1))
    single, together = ((p.argmax(1) != labels) for p in (probabilities[0], sum(probabilities) / 2))
    assert result.test_error_pct == pytest.approx(float(single.float().mean()) * 100, abs=0.03)
    assert ensemble.test_error_pct == pytest.approx(float(together.float().mean()) * 100, abs=0.03)
    assert ensemble.num_only_single_wrong == pytest.approx(int((single & ~together).sum()), abs=3)
    gain = (ensemble.num_only_ensemble_wrong - ensemble.num_only_single_wrong) / 100
    assert ensemble.test_error_pct - result.test_error_pct == pytest.approx(gain)  # of 10,000 images, in points
    assert result.candidate.trial_id == BEST  # by validation, whatever the test says
    assert not ensemble.single_was_known


def test_it_is_kept_and_answered(done, monkeypatch):
    def shut(*_, **__):
        raise AssertionError("trained or opened again")

    monkeypatch.setattr(full_scale, "_train_over_workers", shut)
    monkeypatch.setattr("sweep.training.data.open_test", shut)
    assert read(Path(done.result.directory)) == done.result
    for num_members in (1, 2):
        assert work_of(done.run_dir).chosen(1, 1, num_members) == done.result


def test_mlflow_has_both_errors_their_difference_and_all_weights(done):
    sql = asking(done.run_dir / "mlflow.db")
    metrics = dict(sql("SELECT key, value FROM latest_metrics WHERE run_uuid = ?", done.registered.run_id))
    ensemble = done.result.ensemble
    assert metrics["ensemble/error_pct"] == ensemble.test_error_pct
    difference = metrics["ensemble/difference_pct"]
    assert difference == pytest.approx(ensemble.test_error_pct - done.result.test_error_pct)
    assert metrics["ensemble/difference_low_pct"] < difference < metrics["ensemble/difference_high_pct"]
    assert metrics["ensemble/flops"] == sum(member.flops for member in ensemble.members)
    (other,) = (member for member in ensemble.members if member.trial_id == SECOND)
    stored = {path.relative_to(done.run_dir).as_posix() for path in (done.run_dir / "mlartifacts").rglob("*.pt")}
    assert any(path.endswith(f"model/ensemble/{other.folder}/weights.pt") for path in stored)


def test_card_report_and_words_say_what_it_costs_and_gains(done):
    with Journal.open(done.run_dir, read_only=True) as journal:
        metadata = from_journal(journal).metadata
    card = model_card(done.result, metadata)
    text = ensemble_text(done.result.to_dict())
    page = " ".join((done.run_dir / "report.html").read_text(encoding="utf-8").split())
    for member in done.result.ensemble.members:
        assert member.weights_sha256 in card
        assert f"{member.flops / 1e6:.2f} M" in card
    assert "As the first of an ensemble" in card
    assert "paired, adjusted Wald of Bonett and Price 2012" in card
    assert "The best 2 by validation error" in text
    assert "times its multiply-adds" in text
    assert text[:60] in page
    assert "was known" not in card + text
    known = done.result.to_dict() | {"ensemble": asdict(done.result.ensemble) | {"single_was_known": True}}
    assert "Its error was known when the ensemble was asked for." in ensemble_text(known)


def test_a_larger_one_trains_the_newcomer_alone_and_says_that_the_test_had_been_open(done, tmp_path):
    run_dir = Path(shutil.copytree(done.run_dir, tmp_path / "run", ignore=WITHOUT_MLFLOW))
    told: list = []
    result = work_of(run_dir, lambda stage, epoch: told.append(stage)).chosen(1, 1, 3)
    assert len(result.ensemble.members) == 3
    assert len(set(told)) == 1
    assert result.ensemble.single_was_known
    assert result.test_error_pct == done.result.test_error_pct


def test_weights_that_were_damaged_are_trained_again(done, tmp_path):
    run_dir = Path(shutil.copytree(done.run_dir, tmp_path / "run", ignore=WITHOUT_MLFLOW))
    second = run_dir / "rerun" / done.result.ensemble.members[1].folder
    (second / "weights.pt").write_bytes(b"cut")
    (run_dir / "rerun" / done.result.candidate.architecture_id / "result.json").unlink()
    result = work_of(run_dir).chosen(1, 1, 2)
    assert asdict(result.ensemble)["members"][1] | {"train_time_s": 0} == asdict(done.result.ensemble.members[1]) | {
        "train_time_s": 0
    }


def test_more_members_than_networks_are_refused_before_anything_starts(done):
    with pytest.raises(ValueError, match=r"--ensemble: 4 networks, but only 3 different ones .* name fewer"):
        work_of(done.run_dir).chosen(1, 1, 4)
    with pytest.raises(ValueError, match="--ensemble: 0 is less than 1"):
        sweep.rerun(done.run_dir, ensemble=0)


def test_a_result_of_before_ensembles_is_still_read(done, tmp_path):
    saved = json.loads(Path(done.result.directory, "result.json").read_text())
    for later in ("ensemble", "named", "warm_start"):
        del saved[later]
    (tmp_path / "result.json").write_text(json.dumps(saved))
    found = read(tmp_path)
    assert found.ensemble is None
    assert found.test_error_pct == done.result.test_error_pct
    (tmp_path / "result.json").write_text(json.dumps(saved | {"of": "tomorrow"}))
    assert read(tmp_path) is None
