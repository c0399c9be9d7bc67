"""A network trained at full scale, as other programs read it: ONNX, or a state dict with torchvision's names.

In: the directory of a rerun, or of a sweep, whose latest rerun is then meant. Out: a new folder with `network.onnx` or
`network.pth` and a card, README.md, that says what it is, how to load it and how good it is; the code in it is executed
by a test. The written file is read back by its own runtime and compared with our network on random images of the test
images' shape: where a logit differs by more than `TOLERANCE`, nothing is left behind.

* onnx: one self-contained graph (opset 18). `images`, float32 (batch, channels, height, width), are pixels from 0 to
  255, whose normalisation is part of the graph; `logits`, float32 (batch, classes). The batch is of any size.
* torchvision: the state dict of a `torchvision.models.RegNet`; images are to be normalised as the card says.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.records import Journal, find_run, from_journal
from sweep.rerun.card import card, per_channel
from sweep.rerun.result import FOLDER, RESULT, RerunResult, read
from sweep.rerun.trained import load_weights
from sweep.spaces import Architecture, Network, network_from_json
from sweep.studies import study_from_dict

if TYPE_CHECKING:
    from torch import Tensor, nn

TOLERANCE = 1e-4
OPSET = 18
CARD = "README.md"
_BATCHES = (1, 15)  # a network that froze the batch of its example would fail at one of them


@dataclass(frozen=True)
class Exported:
    """`max_difference`: the largest absolute one between logits, ours and the file's, on `num_images` random images."""

    form: str
    file: str
    card: str
    sha256: str
    max_difference: float
    num_images: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Given:
    """What is exported: a rerun, what the sweep knows of itself, and the network as it was trained."""

    result: RerunResult
    metadata: dict[str, Any]
    architecture: Network
    network: "nn.Module"
    channels: int
    classes: int


def export(rerun: str | Path, to: str, *, out: str | Path | None = None) -> Exported:
    """Write the network of a rerun as `to`, "onnx" or "torchvision", into the new folder `out`.

    Raises `ValueError` for bad input, also where torchvision has no such network; `RuntimeError` where the file does
    not answer as the network does.
    """
    if to not in _FORMS:
        raise ValueError(f"--to: {to!r} is not known; name one of {', '.join(_FORMS)}")
    file_name, write = _FORMS[to]
    result = _result(rerun)
    folder = Path(out).expanduser() if out else Path(result.directory) / to
    _refuse_foreign(folder, file_name)
    given = _given(result)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as scratch:
        draft = Path(scratch, file_name)
        answers, loading = write(given, draft)
        difference, num_images = _compare(given, answers, file_name)
        page = Path(scratch, CARD)
        exported = Exported(to, str(folder / file_name), str(folder / CARD), _sha256(draft), difference, num_images)
        page.write_text(_card(given, exported, loading), encoding="utf-8")
        folder.mkdir(exist_ok=True)
        os.replace(draft, folder / file_name)
        os.replace(page, folder / CARD)
    return exported


def _result(rerun: str | Path) -> RerunResult:
    folder = Path(rerun).expanduser()
    if (folder / RESULT).is_file():
        found = read(folder.absolute())
        if found is None:
            raise ValueError(f"RERUN = {str(rerun)!r}: its {RESULT} is of another version; call `sweep rerun` again")
        return found
    run_dir = find_run(rerun)
    written = sorted((run_dir / FOLDER).glob(f"*/{RESULT}"), key=lambda path: path.stat().st_mtime_ns)
    known = [result for path in written if (result := read(path.parent))]
    if not known:
        raise ValueError(
            f"RUN = {str(rerun)!r}: no network of this sweep has been trained at full scale; call `sweep rerun` first"
        )
    return known[-1]


def _refuse_foreign(folder: Path, file_name: str) -> None:
    """A folder of its own: a README.md of something else must not be lost."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out: {str(folder)!r} is a file; name a new folder")
    others = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if others and set(others) != {CARD, file_name}:
        raise ValueError(f"--out: {str(folder)!r} holds other files ({sorted(others)[0]}, …); name a new folder")


def _given(result: RerunResult) -> _Given:
    import torch

    from sweep.models import build

    folder = Path(result.directory)
    with Journal.open(find_run(folder.parents[1]), read_only=True) as journal:
        metadata = from_journal(journal).metadata
    data = study_from_dict(metadata["study"]).data
    architecture = network_from_json(result.candidate.architecture)
    with torch.random.fork_rng(devices=[]):
        network = build(
            architecture, resolution=result.resolution, channels=data.num_channels, classes=data.num_classes
        )
    network.load_state_dict(load_weights("RERUN", folder, result.weights_sha256))
    return _Given(result, metadata, architecture, network.eval(), data.num_channels, data.num_classes)


def _normalised(given: _Given, images_BCHW: "Tensor") -> "Tensor":
    """Pixels from 0 to 255 as the network was trained on them."""
    import torch

    mean, std = (torch.tensor(value).reshape(-1, 1, 1) for value in (given.result.pixel_mean, given.result.pixel_std))
    return (images_BCHW / 255 - mean) / std


Answers = Callable[["Tensor"], "Tensor"]
"""From pixels (B, C, H, W), 0 to 255, to the file's logits (B, classes)."""


def _compare(given: _Given, answers: Answers, file_name: str) -> tuple[float, int]:
    import torch

    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch in _BATCHES:
        shape = (batch, given.channels, given.result.resolution, given.result.resolution)
        images_BCHW = torch.randint(256, shape, generator=generator).float()
        with torch.inference_mode():
            difference = (given.network(_normalised(given, images_BCHW)) - answers(images_BCHW)).abs().max().item()
        worst = max(worst, difference) if difference == difference else float("nan")
    if not worst <= TOLERANCE:
        raise RuntimeError(
            f"export: {file_name} answers otherwise than the network, its logits differ by {worst:g}, more than "
            f"{TOLERANCE:g}; nothing was written. Please report it, with architecture.yaml"
        )
    return worst, sum(_BATCHES)


# ---- ONNX --------------------------------------------------------------------------------------------------------
def _write_onnx(given: _Given, path: Path) -> tuple[Answers, str]:
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"--to onnx: {', '.join(missing)} is not installed; pip install designspace-sweep[onnx] brings it"
        )
    import torch
    from torch import nn

    class SelfContained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = given.network

        def forward(self, images: "Tensor") -> "Tensor":
            return self.network(_normalised(given, images))

    side = given.result.resolution
    program = torch.onnx.export(
        SelfContained().eval(),
        (torch.zeros(2, given.channels, side, side),),
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        opset_version=OPSET,
        verbose=False,
    )
    assert program is not None
    program.save(path)
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def answers(images_BCHW: "Tensor") -> "Tensor":
        return torch.from_numpy(session.run(["logits"], {"images": images_BCHW.numpy()})[0])

    return answers, _onnx_loading(given, path)


def _onnx_loading(given: _Given, path: Path) -> str:
    shape = f"(batch, {given.channels}, {given.result.resolution}, {given.result.resolution})"
    return f"""An ONNX graph, opset {OPSET}. Its input `images`, float32 {shape}, are pixels from 0 to 255, which are
normalised inside. Its output is `logits`, float32 (batch, {given.classes}). The batch is of any size. In the folder of
this file:

```python
import hashlib
from pathlib import Path

import numpy as np
import onnxruntime

assert hashlib.sha256(Path("{path.name}").read_bytes()).hexdigest() == "{_sha256(path)}"
session = onnxruntime.InferenceSession("{path.name}", providers=["CPUExecutionProvider"])


def predict(images):  # numbers from 0 to 255, {shape}
    (logits,) = session.run(["logits"], {{"images": np.asarray(images, dtype=np.float32)}})
    return logits.argmax(1)
```
"""


# ---- torchvision -------------------------------------------------------------------------------------------------
def _write_torchvision(given: _Given, path: Path) -> tuple[Answers, str]:
    import torch

    from sweep.models.torchvision import to_torchvision

    if not isinstance(given.architecture, Architecture):
        raise ValueError(
            f"--to torchvision: a {type(given.architecture).__name__.lower()} is not what torchvision builds; "
            "export it to onnx"
        )
    try:
        state = to_torchvision(given.architecture, given.network.state_dict())
    except ValueError as error:
        raise ValueError(f"--to torchvision: {error}; or export it to onnx") from error
    torch.save(state, path)
    network = _regnet(given)
    network.load_state_dict(torch.load(path, weights_only=True))
    network.eval()

    def answers(images_BCHW: "Tensor") -> "Tensor":
        logits: Tensor = network(_normalised(given, images_BCHW))
        return logits

    return answers, _torchvision_loading(given, path)


def _blocks(architecture: Architecture) -> dict[str, Any]:
    """What torchvision's `BlockParams` takes, stage by stage."""
    stages = architecture.stages
    return {
        "depths": [stage.depth for stage in stages],
        "widths": [stage.width for stage in stages],
        "group_widths": [stage.group_width for stage in stages],
        "bottleneck_multipliers": [1 / stage.bottleneck_ratio for stage in stages],
        "strides": [2 for _ in stages],
        "se_ratio": architecture.se_ratio or None,
    }


def _regnet(given: _Given) -> Any:
    from torch import nn
    from torchvision.models.regnet import BlockParams, RegNet

    assert isinstance(given.architecture, Architecture)
    width = given.architecture.stem_width
    network = RegNet(BlockParams(**_blocks(given.architecture)), num_classes=given.classes, stem_width=width)
    network.stem[0] = nn.Conv2d(given.channels, width, 3, stride=2, padding=1, bias=False)
    return network


def _torchvision_loading(given: _Given, path: Path) -> str:
    assert isinstance(given.architecture, Architecture)
    blocks = "".join(f"    {key}={value!r},\n" for key, value in _blocks(given.architecture).items())
    width, side, channels = given.architecture.stem_width, given.result.resolution, given.channels
    stem = f"network.stem[0] = nn.Conv2d({channels}, {width}, 3, stride=2, padding=1, bias=False)"
    grey = "" if channels == 3 else f"{stem}  # torchvision's own stem takes images of three channels\n"
    mean, std = (per_channel(value) for value in (given.result.pixel_mean, given.result.pixel_std))
    return f"""A state dict of torchvision's RegNet, which takes normalised images. In the folder of this file:

```python
import hashlib
from pathlib import Path

import torch
from torch import nn
from torchvision.models.regnet import BlockParams, RegNet

blocks = BlockParams(
{blocks})
network = RegNet(blocks, num_classes={given.classes}, stem_width={width})
{grey}assert hashlib.sha256(Path("{path.name}").read_bytes()).hexdigest() == "{_sha256(path)}"
network.load_state_dict(torch.load("{path.name}", weights_only=True))
network.eval()


def predict(images):  # uint8, (batch, {channels}, {side}, {side})
    with torch.inference_mode():
        return network((images / 255 - {mean}) / {std}).argmax(1)
```
"""


# ---- what both have in common ------------------------------------------------------------------------------------
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _card(given: _Given, exported: Exported, loading: str) -> str:
    what = (
        f"`{Path(exported.file).name}` holds it. Read back, its logits differ from those of the network that was "
        f"trained by {exported.max_difference:.1g} at most, on {exported.num_images} random images."
    )
    return card(given.result, given.metadata, what=what, loading=loading)


_FORMS: dict[str, tuple[str, Callable[[_Given, Path], tuple[Answers, str]]]] = {
    "onnx": ("network.onnx", _write_onnx),
    "torchvision": ("network.pth", _write_torchvision),
}
"""File name, and what writes it: it answers what the file read back answers, and the card's words on loading."""
