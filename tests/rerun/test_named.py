"""Networks that the user names in place of the sweep's choice, and what they begin from."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import synthetic
import torch
from rerun.local import train_here, work_of
from rerun.small_sweep import make_journal, network

import sweep
from dashboards.report import render_report
from sweep.models import build
from sweep.models.torchvision import to_torchvision
from sweep.records import Journal, from_journal
from sweep.rerun.card import model_card
from sweep.rerun.record import _validation, judge_champion
from sweep.rerun.result import read, read_results
from sweep.rerun.warm_start import open_source
from sweep.spaces import ZOO, Architecture, Mlp, Stage
from sweep.statistics import judge_study

LARGER = Architecture((Stage(2, 8, 8), Stage(2, 32, 8)), stem_width=8)


class CutError(Exception):
    """Whoever trains is gone."""


def cut_at_two(stage, epoch):
    if epoch.epoch == 2:
        raise CutError


@pytest.fixture(scope="module", autouse=True)
def here():
    with pytest.MonkeyPatch.context() as patch:
        train_here(patch)
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> SimpleNamespace:
    """The sweep's best at full scale; a larger network afresh, and one that begins from the best."""
    home = tmp_path_factory.mktemp("named")
    run_dir, file = make_journal(home / "run"), home / "my network.yaml"
    file.write_text(LARGER.to_yaml())
    best = work_of(run_dir).chosen(1, 1, 1)
    fresh = work_of(run_dir).named(str(file), "")
    warm = work_of(run_dir).named(str(file), best.directory)
    return SimpleNamespace(run_dir=run_dir, file=file, best=best, fresh=fresh, warm=warm)


def losses(result) -> list[float]:
    return [row["train_loss"] for row in result.history]


def test_it_is_trained_by_the_recipe_of_the_sweep_and_says_that_it_was_named(done):
    result = done.fresh
    assert result.named == str(done.file)
    assert result.candidate.architecture_id == LARGER.id
    assert result.candidate.validation_error_pct is None
    assert (result.epochs, result.learning_rate, result.num_train, result.resolution) == (4, 0.05, 640, 12)
    assert read(Path(result.directory)) == result
    assert [row["named"] for row in read_results(done.run_dir)] == [
        "",
        str(done.file),
        str(done.file),
    ]  # last, as unjudged


def test_the_larger_one_begins_from_the_smaller_and_is_ahead(done):
    start = done.warm.warm_start
    assert start.architecture_id == done.best.candidate.architecture_id
    assert start.weights_sha256 == done.best.weights_sha256
    assert start.source == f"rerun {done.best.candidate.architecture_id}"
    tensors = torch.load(Path(done.warm.directory, "weights.pt"), weights_only=True)
    assert start.num_whole + start.num_part + start.num_fresh == len(tensors)
    assert min(start.num_whole, start.num_part, start.num_fresh) > 0
    assert done.fresh.warm_start is None
    assert losses(done.warm)[0] < losses(done.fresh)[0] - 0.1


def test_cut_off_it_goes_on_and_does_not_begin_again(done, tmp_path):
    run_dir = make_journal(tmp_path / "run")
    with pytest.raises(CutError):
        work_of(run_dir, cut_at_two).named(str(done.file), done.best.directory)
    result = work_of(run_dir).named(str(done.file), done.best.directory)
    assert losses(result) == losses(done.warm)
    assert result.weights_sha256 == done.warm.weights_sha256


def test_a_second_call_answers_and_one_from_other_weights_is_another(done):
    assert work_of(done.run_dir, cut_at_two).named(str(done.file), done.best.directory) == done.warm
    assert len({done.fresh.directory, done.warm.directory, done.best.directory}) == 3


def test_card_report_and_champion_know_that_nobody_chose_it(done):
    with Journal.open(done.run_dir, read_only=True) as journal:
        metadata = from_journal(journal).metadata
    card = model_card(done.warm, metadata)
    assert "which a user named, trained for fashion_mnist" in card
    assert "No validation chose it" in card
    assert "| in the sweep |" not in card
    assert f"It began from the weights of rerun {done.best.candidate.architecture_id}" in card
    tables = synthetic.tables(rng=np.random.default_rng(0))
    text = " ".join(render_report(tables, synthetic.only(judge_study(tables)), reruns=[done.warm.to_dict()]).split())
    assert "A user named it in place of the sweep&#39;s choice; it began from the weights of rerun" in text
    assert text.count("named, not drawn") == 2
    assert judge_champion(done.warm, "1", {}, None) == (False, "it was named, and no validation chose it")
    assert _validation(done.warm) == {}


def public_file(path: Path, name: str, **changes) -> Path:
    """Weights as torchvision publishes them, of a network that is small for its kind."""
    torch.save(to_torchvision(ZOO[name], build(ZOO[name], **changes).state_dict()), path)
    return path


def test_public_weights_begin_with_their_names_and_their_sum(done, tmp_path):
    name = "torchvision:regnet_y_400mf"
    source = open_source(f"{name}={public_file(tmp_path / 'my=weights.pth', name)}")
    assert source.architecture == ZOO[name]
    assert source.name == name
    with pytest.raises(ValueError, match=r"--warm-start: .* cannot begin from torchvision:regnet_y_400mf: .*se_ratio"):
        work_of(done.run_dir).named(str(done.file), f"{name}={tmp_path / 'my=weights.pth'}")


def damaged(done, tmp_path, change) -> Path:
    folder = Path(shutil.copytree(done.best.directory, tmp_path / "rerun"))
    change(folder)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "weights.pt").write_bytes(b""), r"the SHA-256 of weights\.pt is not the recorded"),
        (lambda folder: (folder / "weights.pt").unlink(), r"holds no weights\.pt; name the directory of a rerun"),
        (lambda folder: (folder / "trained.json").unlink(), r"holds no trained\.json"),
        (lambda folder: (folder / "architecture.yaml").write_text("stages: 3"), r"architecture\.yaml: "),
        (
            lambda folder: (folder / "architecture.yaml").write_text(Mlp((16,)).to_yaml()),
            "is a mlp, and only networks of convolutions",
        ),
        (
            lambda folder: (folder / "architecture.yaml").write_text(replace(network(1), se_ratio=0.25).to_yaml()),
            "cannot begin from",
        ),
    ],
)  # fmt: skip
def test_weights_that_are_not_what_they_say_are_refused_before_anything_starts(done, tmp_path, change, message):
    folder = damaged(done, tmp_path, change)
    with pytest.raises(ValueError, match=f"--warm-start.*{message}"):
        work_of(done.run_dir, cut_at_two).named(str(done.file), str(folder))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no such folder", "is no directory; name that of an earlier rerun"),
        ("torchvision:regnet_x_400mf", "names no file; write"),
        ("torchvision:regnet_x_400mf=gone.pth", "'gone.pth' is no file"),
        ("torchvision:regnet_x_401mf={file}", "did you mean 'torchvision:regnet_x_400mf'"),
        ("torchvision:regnet_x_400mf={file}", "holds no weights"),
    ],
)  # fmt: skip
def test_sources_that_are_none_are_refused(done, text, message):
    with pytest.raises(ValueError, match=f"--warm-start.*{message}"):
        work_of(done.run_dir).named(str(done.file), text.format(file=done.file))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "regnetx_401mf"}, "--network: architecture = 'regnetx_401mf'.*did you mean"),
        ({"network": "gone.yaml"}, "--network: .*is no file"),
        ({"network": "vit:patch=16,width=16,num_blocks=1,num_heads=2"}, "--network: "),
        ({"network": "regnetx_400mf", "ensemble": 2}, "--ensemble: a network that you name is one"),
        ({"warm_start": "runs/x"}, "--warm-start: which network begins from it"),
    ],
)  # fmt: skip
def test_other_bad_input(done, options, message):
    with pytest.raises(ValueError, match=message):
        sweep.rerun(done.run_dir, **options)


def test_what_cannot_begin_from_it_is_refused(done):
    with pytest.raises(ValueError, match=r"--warm-start: mlp:widths=16 is a mlp, and only networks of convolutions"):
        work_of(done.run_dir).named("mlp:widths=16", done.best.directory)
    narrower = done.file.with_name("narrower.yaml")
    narrower.write_text(Architecture((Stage(1, 8, 8), Stage(1, 16, 8)), stem_width=8).to_yaml())
    with pytest.raises(ValueError, match=r"cannot begin from rerun .*stages\[1\]: width = 16 is less than"):
        work_of(done.run_dir).named(str(narrower), done.best.directory)


def test_what_is_recorded_beside_the_weights(done):
    recorded = json.loads(Path(done.warm.directory, "trained.json").read_text())
    assert recorded["warm_start"] == asdict(done.warm.warm_start)
    assert recorded["weights_sha256"] == done.warm.weights_sha256
    assert Architecture.from_yaml(Path(done.warm.directory, "architecture.yaml").read_text()) == LARGER
