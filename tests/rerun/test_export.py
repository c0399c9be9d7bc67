"""Networks as other programs read them: the files answer as the network does, and the cards' code works."""

import hashlib
import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from rerun.small_sweep import make_journal, network

from sweep.cli import cli
from sweep.models import build
from sweep.rerun import export as room
from sweep.rerun.choose import Candidate
from sweep.rerun.export import export
from sweep.rerun.result import RerunResult, keep
from sweep.spaces import Architecture, Mlp, Network, Stage, Vit

REGNET = Architecture((Stage(1, 8, 8), Stage(2, 16, 8)), stem_width=8, se_ratio=0.25)
OWN = Architecture((Stage(1, 8, 4, 2), Stage(1, 12, 6)), stem_width=8, activation="silu", block="bottleneck")
NETWORKS = {
    "regnet": REGNET,
    "anynet": OWN,
    "mlp": Mlp((16, 16), skip=True, norm="batch"),
    "vit": Vit(patch=4, width=16, num_blocks=1, num_heads=2),
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    return make_journal(tmp_path_factory.mktemp("export ’") / "run")


@pytest.fixture(scope="module")
def colour_run_dir(tmp_path_factory) -> Path:
    images = {"name": "cifar10", "num_train": 192, "num_validation": 250}
    return make_journal(tmp_path_factory.mktemp("export") / "colour", data=images)


@pytest.fixture(scope="module")
def rerun_of(run_dir):
    """`rerun_of(network)`: the directory of a rerun of it, with weights that were not trained but are not as drawn."""

    def make(architecture: Network, run_dir: Path = run_dir, channels: int = 1, mean=0.286, std=0.353) -> Path:
        folder = run_dir / "rerun" / architecture.id
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        trained = build(architecture, resolution=12, channels=channels, classes=10)
        for tensor in trained.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
        torch.save(trained.state_dict(), folder / "weights.pt")
        candidate = Candidate(
            "t-0001", "anynet_d", "small", architecture.id, architecture.to_json(), 20.0, (21.0, 22.0)
        )
        keep(RerunResult(
            candidate=candidate, candidates=(candidate,), num_networks=5, sweep_epochs=3, num_validation=250,
            confidence=0.95, epochs=4, resolution=12, num_workers=1, batch_size=64, learning_rate=0.05, num_train=640,
            num_test=10_000, test_error_pct=33.3, test_loss=1.0, train_time_s=1.0, seed=7, pixel_mean=mean,
            pixel_std=std, weights_sha256=hashlib.sha256((folder / "weights.pt").read_bytes()).hexdigest(),
            directory=str(folder), provenance={}, history=({"host": "here"},),
        ))  # fmt: skip
        return folder

    return make


def expected(architecture: Network, folder: Path, images_BHW: np.ndarray) -> np.ndarray:
    trained = build(architecture, resolution=12, channels=1, classes=10)
    trained.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    with torch.inference_mode():
        return trained.eval()((torch.from_numpy(images_BHW).unsqueeze(1) / 255 - 0.286) / 0.353).numpy()


def code_of(card: str) -> str:
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return snippet


IMAGES_BHW = np.random.default_rng(0).integers(0, 256, (7, 12, 12)).astype(np.uint8)


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_answers_as_the_network_for_any_batch(name, rerun_of, monkeypatch, capfd):
    import onnx
    import onnxruntime

    folder = rerun_of(NETWORKS[name])
    exported = export(folder, "onnx")
    assert capfd.readouterr() == ("", "")
    assert exported.max_difference <= 1e-4
    assert {path.name for path in (folder / "onnx").iterdir()} == {"network.onnx", "README.md"}
    graph = onnx.load(exported.file)
    onnx.checker.check_model(graph, full_check=True)
    assert [opset.version for opset in graph.opset_import if opset.domain == ""] == [18]
    session = onnxruntime.InferenceSession(exported.file, providers=["CPUExecutionProvider"])
    assert [(one.name, one.shape, one.type) for one in session.get_inputs()] == [
        ("images", ["batch", 1, 12, 12], "tensor(float)")
    ]
    wanted = expected(NETWORKS[name], folder, IMAGES_BHW)
    (logits,) = session.run(["logits"], {"images": IMAGES_BHW[:, None].astype(np.float32)})
    assert logits == pytest.approx(wanted, abs=1e-4)
    assert np.ptp(wanted) > 0.01  # logits that tell images apart
    card = Path(exported.card).read_text(encoding="utf-8")
    monkeypatch.chdir(folder / "onnx")
    names: dict = {}
    exec(code_of(card), names)
    assert (names["predict"](IMAGES_BHW[:, None]) == wanted.argmax(1)).all()
    Path("network.onnx").write_bytes(b"changed")
    with pytest.raises(AssertionError):
        exec(code_of(card), {})


@pytest.mark.parametrize(
    "architecture",
    [REGNET, Architecture((Stage(2, 8, 4, 2), Stage(1, 12, 24, 0.5)), stem_width=16)],
    ids=["y", "bottlenecks"],
)
def test_torchvision_loads_it_strictly_and_answers_alike(architecture, rerun_of, monkeypatch):
    folder = rerun_of(architecture)
    exported = export(folder, "torchvision")
    assert exported.max_difference == 0
    monkeypatch.chdir(folder / "torchvision")
    names: dict = {}
    exec(code_of(Path("README.md").read_text(encoding="utf-8")), names)
    assert type(names["network"]).__module__ == "torchvision.models.regnet"
    wanted = expected(architecture, folder, IMAGES_BHW)
    with torch.inference_mode():
        images_BCHW = (torch.from_numpy(IMAGES_BHW).unsqueeze(1) / 255 - 0.286) / 0.353
        assert names["network"](images_BCHW).numpy() == pytest.approx(wanted, abs=1e-6)
    assert (names["predict"](torch.from_numpy(IMAGES_BHW[:, None])).numpy() == wanted.argmax(1)).all()


@pytest.mark.parametrize("form", ["onnx", "torchvision"])
def test_colour_images_are_normalised_channel_by_channel(form, colour_run_dir, rerun_of, monkeypatch):
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    folder = rerun_of(REGNET, colour_run_dir, channels=3, mean=mean, std=std)
    export(folder, form)
    trained = build(REGNET, resolution=12, channels=3, classes=10)
    trained.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    images_BCHW = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (5, 3, 12, 12)).astype(np.uint8))
    mean_C11, std_C11 = (torch.tensor(value)[:, None, None] for value in (mean, std))
    with torch.inference_mode():
        wanted = trained.eval()((images_BCHW / 255 - mean_C11) / std_C11).argmax(1)
    monkeypatch.chdir(folder / form)
    names: dict = {}
    exec(code_of(Path("README.md").read_text(encoding="utf-8")), names)
    given = images_BCHW.numpy() if form == "onnx" else images_BCHW
    assert (np.asarray(names["predict"](given)) == wanted.numpy()).all()
    assert "(red, green, blue)" in Path("README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("architecture", "why"),
    [
        (NETWORKS["mlp"], "a mlp is not what torchvision builds; export it to onnx"),
        (NETWORKS["vit"], "a vit is not what torchvision builds"),
        (OWN, "activation = 'silu' is not what torchvision builds; use 'relu'; or export it to onnx"),
        (replace(REGNET, conv_bias=True), "conv_bias = True is not what torchvision builds; use False"),
    ],
)
def test_what_torchvision_cannot_hold_is_refused_and_nothing_is_left(architecture, why, rerun_of):
    folder = rerun_of(architecture)
    with pytest.raises(ValueError, match=f"--to torchvision: {why}"):
        export(folder, "torchvision")
    assert not (folder / "torchvision").exists()


def test_the_card_tells_numbers_with_their_grounds(rerun_of):
    exported = export(rerun_of(REGNET), "torchvision")
    card = Path(exported.card).read_text(encoding="utf-8")
    for text in (
        "| at full scale | 33.30 % | 32.38 to 34.23, over images |",
        "10,000 test images, one seed, 4 epochs on 640 images",
        "21.50 %", "2 fresh seeds", "MIT licence", "`network.pth` holds it", exported.sha256,
        "less 0.286000, divided by 0.353000", "network.stem[0] = nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False)",
    ):  # fmt: skip
        assert text in card
    assert "weights.pt" not in card


def test_a_file_that_answers_otherwise_is_not_left_behind(rerun_of, monkeypatch):
    folder = rerun_of(replace(REGNET, stem_width=24))
    monkeypatch.setattr(room, "_normalised", lambda given, images: images * torch.rand(1))
    with pytest.raises(RuntimeError, match=r"network\.pth answers otherwise .* differ by .*, more than 0\.0001"):
        export(folder, "torchvision")
    assert not (folder / "torchvision").exists()


def test_without_the_extra_it_says_how_to_get_it(rerun_of, monkeypatch):
    monkeypatch.setattr(room, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ValueError, match=r"onnxscript is not installed; pip install designspace-sweep\[onnx\]"):
        export(rerun_of(REGNET), "onnx")


def test_of_a_sweep_the_latest_rerun_is_meant(run_dir, rerun_of, tmp_path):
    rerun_of(NETWORKS["mlp"])
    latest = rerun_of(REGNET)
    done = CliRunner().invoke(
        cli, ["export", str(run_dir), "--to", "torchvision", "--out", str(tmp_path / "out"), "--json"]
    )
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed == asdict(export(latest, "torchvision", out=tmp_path / "out"))  # and again, over its own files
    assert Path(printed["file"]) == tmp_path / "out" / "network.pth"


def test_bad_input(run_dir, rerun_of, tmp_path):
    folder = rerun_of(network(0))
    with pytest.raises(ValueError, match="--to: 'tflite' is not known; name one of onnx, torchvision"):
        export(folder, "tflite")
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ValueError, match=r"--out: .* holds other files \(README\.md, …\); name a new folder"):
        export(folder, "onnx", out=tmp_path)
    (tmp_path / "main.py").touch()
    with pytest.raises(ValueError, match=r"--out: .* is a file; name a new folder"):
        export(folder, "onnx", out=tmp_path / "main.py")
    with pytest.raises(ValueError, match="no network of this sweep has been trained at full scale"):
        export(make_journal(tmp_path / "run"), "onnx")
    with pytest.raises(ValueError, match="run: "):
        export(tmp_path / "nothing", "onnx")
    (folder / "weights.pt").write_bytes(b"cut")
    with pytest.raises(ValueError, match=r"RERUN = .*the SHA-256 of weights\.pt is not the recorded"):
        export(folder, "onnx")
    shutil.rmtree(folder)
