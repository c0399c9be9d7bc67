"""Larger networks from the weights of smaller ones: what is taken, what it answers at first, what is refused."""

from dataclasses import replace

import pytest
import torch
from models.reference import shaken
from torchvision.models import regnet_x_400mf

from sweep.models import build
from sweep.models.torchvision import from_torchvision
from sweep.models.warm_start import widen_or_deepen
from sweep.spaces import ZOO, Architecture, Stage

SMALL = Architecture((Stage(1, 8, 4), Stage(2, 16, 8, 2)), stem_width=8, se_ratio=0.25)
DEEPER = replace(SMALL, stages=(Stage(3, 8, 4), Stage(3, 16, 8, 2)))
WIDER = replace(SMALL, stages=(Stage(1, 16, 4), Stage(2, 16, 8, 1)), stem_width=12)
IMAGE = {"channels": 3, "classes": 5}


def trained(architecture, seed=0, **image):
    torch.manual_seed(seed)
    return shaken(build(architecture, **(IMAGE | image))).eval()


def warm(small, network, large, **image):
    torch.manual_seed(1)
    start = widen_or_deepen(small, network.state_dict(), large, **(IMAGE | image))
    larger = build(large, **(IMAGE | image)).eval()
    larger.load_state_dict(start.state)
    return start, larger


def assert_same_logits(network, larger):
    images = torch.randn(3, 3, 17, 17)
    assert torch.equal(network(images), larger(images))


@pytest.mark.parametrize("parts", [{}, {"activation_order": "pre", "stem_order": "pre", "norm": "none"}])
def test_an_equal_network_answers_the_same(parts):
    small = replace(SMALL, **parts)
    network = trained(small)
    start, larger = warm(small, network, replace(small, dropout=0.1))
    assert (start.num_whole, start.num_part, start.num_fresh) == (len(network.state_dict()), 0, 0)
    assert_same_logits(network, larger)


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"norm": "layer", "downsampling": "pool"},
        {"activation_order": "pre"},
        {"activation_order": "pre", "norm": "none", "activation": "gelu", "conv_bias": True},
    ],
)
def test_a_deeper_network_answers_the_same_at_first(parts):
    small, large = replace(SMALL, **parts), replace(DEEPER, **parts)
    network = trained(small)
    start, larger = warm(small, network, large)
    assert_same_logits(network, larger)
    assert (start.num_whole, start.num_part) == (len(network.state_dict()), 0)
    assert start.num_fresh == len(larger.state_dict()) - start.num_whole > 0


def test_a_deeper_network_learns_in_its_new_blocks():
    _, larger = warm(SMALL, trained(SMALL), DEEPER)
    larger.train()(torch.randn(4, 3, 17, 17)).square().sum().backward()
    assert larger.get_parameter("stages.0.blocks.2.norm3.weight").grad.any()


def test_a_wider_network_has_the_small_one_in_its_leading_channels():
    network = trained(SMALL)
    old = network.state_dict()
    start, _ = warm(SMALL, network, WIDER)
    for name, tensor in old.items():
        if name == "stages.1.blocks.0.conv2.weight":
            continue
        assert torch.equal(start.state[name][tuple(slice(size) for size in tensor.shape)], tensor), name
    assert start.num_fresh == 0
    equal = [name for name, tensor in old.items() if start.state[name].shape == tensor.shape]
    assert (start.num_whole, start.num_part) == (len(equal), len(old) - len(equal))
    assert 0 < len(equal) < len(old)
    torch.manual_seed(1)
    fresh = build(WIDER, **IMAGE).state_dict()
    assert torch.equal(start.state["stem.0.weight"][8:], fresh["stem.0.weight"][8:])


def test_wider_groups_keep_the_connections_of_the_narrow():
    """Two groups of four become one of eight, and a second of new channels: written out by channels."""
    small = Architecture((Stage(1, 8, 4),), stem_width=8)
    large = Architecture((Stage(1, 16, 8),), stem_width=8)
    network = trained(small)
    old = network.state_dict()["stages.0.blocks.0.conv2.weight"]
    new = warm(small, network, large)[0].state["stages.0.blocks.0.conv2.weight"]
    assert torch.equal(new[:4, :4], old[:4])
    assert torch.equal(new[4:8, 4:8], old[4:])
    narrower = Architecture((Stage(1, 12, 3),), stem_width=8)
    new = warm(small, network, narrower)[0].state["stages.0.blocks.0.conv2.weight"]
    assert torch.equal(new[:3], old[:3, :3]), "channels 0 to 2 are together in both"
    assert torch.equal(new[3, 0], old[3, 3]), "3 was with 0 to 3, and is with 3 to 5"
    assert torch.equal(new[4:6, 1:], old[4:6, :2])
    assert torch.equal(new[6:8, :2], old[6:8, 2:])


def test_a_projection_that_only_the_larger_network_needs_is_fresh():
    small = replace(SMALL, downsampling="pool", stages=(Stage(1, 8, 4),))
    start, larger = warm(small, trained(small), replace(small, stages=(Stage(1, 16, 4),)))
    projection = [name for name in larger.state_dict() if ".skip." in name]
    assert start.num_fresh == len(projection) == 1 + 5


def test_other_classes_and_channels_begin_afresh():
    network = trained(SMALL, channels=1, classes=2)
    start, larger = warm(SMALL, network, SMALL)
    assert start.num_fresh == 3, "the first convolution, the head's weights and biases"
    assert start.num_part == 0
    assert torch.equal(larger.stages.state_dict()["0.blocks.0.conv1.weight"], network.stages[0].blocks[0].conv1.weight)
    pre = replace(SMALL, stem_order="pre", norm="layer")
    start, _ = warm(pre, trained(pre, channels=1), pre)
    assert start.num_fresh == 3, "scale and shift of the image's norm, and the first convolution"


def test_weights_of_torchvision():
    small = ZOO["torchvision:regnet_x_400mf"]
    torch.manual_seed(0)
    state = from_torchvision(small, shaken(regnet_x_400mf(num_classes=5)).state_dict())
    network = build(small, **IMAGE).eval()
    network.load_state_dict(state)
    first, *others = small.stages
    _, larger = warm(small, network, replace(small, stages=(replace(first, depth=2), *others)))
    assert_same_logits(network, larger)


@pytest.mark.parametrize(
    ("small", "large", "message"),
    [
        ({}, {"norm": "layer"}, "norm = 'layer' is not the small network's 'batch'; keep"),
        ({}, {"stages": SMALL.stages[:1]}, "stages = 1 is not the small network's 2; keep their number"),
        ({}, {"stem_width": 4}, "stem_width = 4 is less than the small network's 8; make it that or more"),
        ({}, {"stages": (Stage(1, 8, 4), Stage(1, 16, 8, 2))}, r"stages\[1\]: depth = 1 is less than"),
        ({}, {"stages": (Stage(1, 8, 4), Stage(2, 16, 4, 4))}, r"stages\[1\]: bottleneck_width = 4 is less than"),
        ({"activation": "gelu"}, {"activation": "gelu", "stages": DEEPER.stages}, "activation = 'gelu' changes what"),
        ({"norm": "none"}, {"norm": "none", "stages": DEEPER.stages}, "norm = 'none' leaves no scale"),
    ],
)
def test_what_is_not_the_small_network_made_larger_is_refused(small, large, message):
    small, large = replace(SMALL, **small), replace(SMALL, **large)
    with pytest.raises(ValueError, match=f"^{message}"):
        widen_or_deepen(small, trained(small).state_dict(), large, **IMAGE)


def test_a_state_of_another_network_is_refused():
    state = trained(WIDER).state_dict()
    with pytest.raises(ValueError, match=r"^state: tensors .* of another shape \(stem.0.weight of \(12, 3, 3, 3\)"):
        widen_or_deepen(SMALL, state, WIDER, **IMAGE)
    with pytest.raises(ValueError, match=r"^state: tensors .* missing"):
        widen_or_deepen(SMALL, {}, WIDER, **IMAGE)
