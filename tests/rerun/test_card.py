"""The model card of a network for colour images: what it says of them, and that its code classifies them."""

import hashlib
import re

import numpy as np
import pytest
import torch

from sweep.models import build
from sweep.rerun.card import model_card
from sweep.rerun.choose import Candidate
from sweep.rerun.result import RerunResult, keep, read
from sweep.spaces import Architecture, Stage

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
STUDY = {
    "name": "mine",
    "spaces": ["anynet_a"],
    "scale": [{"resolution": 12, "flops_min": 1, "flops_max": 2}],
    "data": {"name": "image_folder", "path": "/secret/canary", "num_classes": 3, "num_train": 9, "num_validation": 1},
    "recipe": {"batch_size": 2},
}


@pytest.fixture
def result(tmp_path):
    architecture = Architecture(stages=(Stage(depth=1, width=16, group_width=8),), stem_width=8)
    network = build(architecture, resolution=12, channels=3, classes=3)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    (tmp_path / "architecture.yaml").write_text(architecture.to_yaml())
    candidate = Candidate("anynet_a-small-0000", "anynet_a", "small", architecture.id, architecture.to_json(), 12.0)
    return RerunResult(
        candidate=candidate, candidates=(candidate,), num_networks=2, sweep_epochs=1, num_validation=1, confidence=0.95,
        epochs=1, resolution=12, num_workers=1, batch_size=2, learning_rate=0.1, num_train=10, num_test=3,
        test_error_pct=33.3, test_loss=1.0, train_time_s=1.0, seed=0, pixel_mean=MEAN, pixel_std=STD,
        weights_sha256=hashlib.sha256((tmp_path / "weights.pt").read_bytes()).hexdigest(), directory=str(tmp_path),
        provenance={}, history=({"host": "here"},),
    )  # fmt: skip


def test_its_code_classifies_colour_images(result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    card = model_card(result, {"study": STUDY, "data": {"digest": "0123456789ab"}})
    assert "less 0.400000, 0.500000, 0.600000, divided by 0.200000, 0.250000, 0.300000 (red, green, blue)" in card
    assert "Digest 0123456789ab" in card
    assert "canary" not in card
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict = {}
    exec(snippet, names)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 12, 12, 3)).astype(np.uint8))
    mean, std = (torch.tensor(value)[:, None, None] for value in (MEAN, STD))
    with torch.inference_mode():
        expected = names["network"]((images.permute(0, 3, 1, 2) / 255 - mean) / std).argmax(1)
    assert torch.equal(names["predict"](images), expected)


def test_a_result_with_three_channels_is_read_as_it_was_kept(result, tmp_path):
    keep(result)
    assert read(tmp_path) == result
