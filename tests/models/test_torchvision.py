"""Torchvision's RegNets and ours: names, numbers and logits; what does not fit is refused."""

from dataclasses import replace

import pytest
import torch
from models.reference import shaken
from torchvision.models import get_model, get_model_weights
from torchvision.models import regnet as theirs

from sweep.models import build
from sweep.models.torchvision import from_torchvision, to_torchvision, torchvision_weights
from sweep.spaces import ZOO, Architecture, Stage, complexity

NAMES = [name for name in ZOO if name.startswith("torchvision:")]
SMALL = "torchvision:regnet_x_400mf"


def made(name, **options):
    return get_model(name.removeprefix("torchvision:"), **options)


@pytest.fixture
def on_meta(monkeypatch):
    """Torchvision's networks without numbers: the sizes are worked out on the CPU, so a device context will not do."""
    regnet = theirs.RegNet

    def shapes_only(*args, **options):
        with torch.device("meta"):
            return regnet(*args, **options)

    monkeypatch.setattr(theirs, "RegNet", shapes_only)


@pytest.mark.parametrize("name", NAMES)
def test_every_size_has_the_same_tensors_under_other_names(name, on_meta):
    network = made(name)
    state = network.state_dict()
    ours = from_torchvision(ZOO[name], state)  # which compares names and shapes
    back = to_torchvision(ZOO[name], ours)
    assert back.keys() == state.keys()
    assert all(back[key] is tensor for key, tensor in state.items())
    published = get_model_weights(name.removeprefix("torchvision:")).DEFAULT.meta["num_params"]
    assert complexity(ZOO[name]).params == sum(p.numel() for p in network.parameters()) == published


@pytest.mark.parametrize(
    ("name", "resolution"),
    [
        (SMALL, 64),
        ("torchvision:regnet_y_400mf", 64),
        pytest.param("torchvision:regnet_x_8gf", 64, marks=pytest.mark.slow),
        pytest.param("torchvision:regnet_y_16gf", 64, marks=pytest.mark.slow),
    ],
)
def test_logits_are_the_same(name, resolution):
    torch.manual_seed(0)
    network = shaken(made(name, num_classes=7)).eval()
    state = from_torchvision(ZOO[name], network.state_dict())
    with torch.device("meta"):
        ours = build(ZOO[name], classes=7).eval()
    ours.load_state_dict(state, assign=True)
    images = torch.randn(2, 3, resolution, resolution)
    with torch.inference_mode():
        expected = network(images)
        assert expected.std() > 1e-3
        torch.testing.assert_close(ours(images), expected, rtol=1e-5, atol=1e-5)


def test_parts_that_change_no_logits_are_free(on_meta):
    state = made(SMALL).state_dict()
    tuning = replace(ZOO[SMALL], dropout=0.2, stochastic_depth=0.1, initialisation="xavier")
    assert from_torchvision(tuning, state).keys() == from_torchvision(ZOO[SMALL], state).keys()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"conv_bias": True}, "conv_bias = True is not what torchvision builds; use False"),
        ({"norm": "layer"}, "norm = 'layer' is not what torchvision builds; use 'batch'"),
        ({"activation": "silu"}, "activation = 'silu' is not what torchvision builds; use 'relu'"),
    ],
)
def test_other_kinds_of_networks_are_refused(changed, message):
    for translate in (from_torchvision, to_torchvision):
        with pytest.raises(ValueError, match=f"^{message}$"):
            translate(replace(ZOO[SMALL], **changed), {})


def test_tensors_that_do_not_fit_are_named(on_meta):
    state = made(SMALL).state_dict()
    state["fc.extra"] = state.pop("stem.0.weight")
    state["trunk_output.block1.block1-0.f.b.0.weight"] = torch.empty(32, 32, 3, 3)
    with pytest.raises(ValueError) as refused:
        from_torchvision(ZOO[SMALL], state)
    assert str(refused.value) == (
        "state: tensors 1 missing (stem.0.weight), 1 not known (fc.extra), 1 of another shape "
        "(trunk_output.block1.block1-0.f.b.0.weight of (32, 32, 3, 3) instead of (32, 16, 3, 3)); "
        "give the state dict of this very architecture"
    )
    with pytest.raises(ValueError, match=r"missing \(stem.0.weight, stem.1.weight, stem.1.bias …\)"):
        to_torchvision(ZOO[SMALL], {})


def test_a_file_of_weights(tmp_path):
    path = tmp_path / "my 'weights' ü.pth"
    small = Architecture((Stage(1, 8, 8),))
    torch.save(made(SMALL).state_dict(), path)
    state = torchvision_weights(SMALL, path)
    build(ZOO[SMALL]).load_state_dict(state)
    with pytest.raises(ValueError, match=r"weights.*: state: tensors .* missing"):
        torchvision_weights("torchvision:regnet_x_800mf", path)
    with pytest.raises(ValueError, match=r"name = 'regnet_x_400mf' .*; did you mean 'torchvision:regnet_x_400mf'\?"):
        torchvision_weights("regnet_x_400mf", path)
    torch.save(build(small), path)  # a whole network: reading it would run code
    with pytest.raises(ValueError, match="holds no weights that can be read without running code"):
        torchvision_weights(SMALL, path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="holds no state dict; save a network's state_dict"):
        torchvision_weights(SMALL, path)
    with pytest.raises(ValueError, match=r"holds no weights .*FileNotFoundError"):
        torchvision_weights(SMALL, tmp_path / "none.pth")
