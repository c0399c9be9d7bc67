"""Each part of an AnyNet: the modules against a second writing of the same text, and what that writing cannot see."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from models.reference import Reference, shaken
from spaces.strategies import architectures
from torch import nn

from sweep.models import build
from sweep.models.layers import StochasticDepth, num_norm_groups
from sweep.spaces import Architecture, Stage
from sweep.spaces.parts import ACTIVATIONS

TINY = Architecture((Stage(2, 8, 4), Stage(2, 16, 4, 2)), stem_width=8, se_ratio=0.25)
PRE = replace(TINY, activation_order="pre", stem_order="pre")


def built(architecture, **image):
    torch.manual_seed(0)
    return build(architecture, **{"channels": 3, "classes": 5, **image})


@settings(max_examples=40)
@given(architectures())
def test_all_parts_do_what_their_text_says(architecture):
    network = shaken(built(architecture).double()).eval()
    images = torch.randn(2, 3, 11, 11, dtype=torch.float64)
    torch.testing.assert_close(network(images), Reference(architecture, network.state_dict())(images))


def test_activation_before_convolution_by_hand():
    """One pixel, one channel, no norm: every number can be followed."""
    architecture = Architecture(
        (Stage(2, 1, 1),), stem_width=1, stem_kernel=1, kernel_size=1, norm="none", activation_order="pre"
    )
    network = built(architecture, channels=1, classes=1)
    weights = {"stem.0": 2.0, "stages.0.blocks.0.skip.0": 11.0, "head.2": 1.0}
    for block in (0, 1):
        weights |= {f"stages.0.blocks.{block}.conv{n}": value for n, value in ((1, 3.0), (2, 5.0), (3, -7.0))}
    with torch.no_grad():
        for name, value in weights.items():
            network.get_parameter(f"{name}.weight").fill_(value)
        network.get_parameter("head.2.bias").fill_(0.5)
        image = torch.ones(1, 1, 1, 1)
        last = network.stages(network.stem(image))
        logit = network(image)
    # 2 leaves the stem; -7·5·3·2 + 11·2 = -188 the first block; the second, whose branch sees relu(-188) = 0, keeps it.
    assert last.item() == -188
    assert logit.item() == 0.5, "the head activates what it pools"


def test_activation_before_convolution_changes_neither_images_nor_skips():
    architecture = replace(PRE, norm="none", se_ratio=0)
    images = torch.randn(2, 3, 9, 9)
    before = images.clone()
    built(architecture)(images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("order", ["post", "pre"])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_every_activation_has_a_gradient(activation, order, norm):
    parts = {"activation": activation, "activation_order": order, "stem_order": order, "norm": norm}
    network = built(replace(TINY, conv_bias=True, **parts))
    network(torch.randn(3, 3, 16, 16)).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    assert all(parameter.grad.any() for name, parameter in network.named_parameters() if "skip" in name)


@pytest.mark.parametrize(
    ("norm", "kind"), [("batch", nn.BatchNorm2d), ("layer", nn.GroupNorm), ("group", nn.GroupNorm)]
)
def test_norms_are_all_of_one_kind(norm, kind):
    norms = [m for m in built(replace(TINY, norm=norm)).modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
    assert len(norms) == 1 + 4 * 3 + 2
    assert {type(one) for one in norms} == {kind}
    if norm == "layer":
        assert {one.num_groups for one in norms} == {1}


def test_groups_of_a_norm():
    known = {1: 1, 3: 1, 7: 1, 8: 2, 12: 3, 37: 1, 64: 16, 100: 25, 128: 32, 160: 32, 368: 23}
    assert {channels: num_norm_groups(channels) for channels in known} == known


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_norms_of_an_image_need_no_other_image(norm):
    network = built(replace(TINY, norm=norm))
    images = torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(network(images)[:1], network(images[:1]))


def test_dropout_stands_before_the_classifier():
    network = built(replace(TINY, dropout=0.25))
    assert [name for name, _ in network.head.named_children()] == ["0", "1", "dropout", "2"]
    ones = torch.ones(4000)
    kept = network.head.get_submodule("dropout")(ones)
    torch.testing.assert_close(kept.unique(), torch.tensor([0, 1 / 0.75]))
    assert kept.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(network.eval().head.get_submodule("dropout")(ones), ones)


def test_stochastic_depth_rises_from_the_first_block_to_the_last():
    network = built(replace(TINY, stochastic_depth=0.3))
    rates = [getattr(block.drop, "rate", 0) for stage in network.blocks() for block in stage]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])
    (alone,) = built(replace(TINY, stages=TINY.stages[:1], stochastic_depth=0.3)).blocks()
    assert [getattr(block.drop, "rate", 0) for block in alone] == [0, 0.3]


def test_a_lone_block_is_the_last():
    ((block,),) = built(Architecture((Stage(1, 8, 8),), stochastic_depth=0.3)).blocks()
    assert block.drop.rate == 0.3


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    drop = StochasticDepth(0.25)
    dropped = drop(torch.ones(4000, 2, 3, 3))
    assert torch.equal(dropped, dropped[:, :1, :1, :1].expand_as(dropped))
    torch.testing.assert_close(dropped.unique(), torch.tensor([0, 1 / 0.75]))
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(drop.eval()(dropped), dropped)


def test_a_dropped_block_leaves_its_skip_connection():
    network = built(replace(TINY, stochastic_depth=0.999999))
    block = network.blocks()[-1][-1]
    x_BCHW = torch.rand(4, 16, 3, 3)
    assert torch.equal(block(x_BCHW), x_BCHW)
    assert not torch.equal(block.eval()(x_BCHW), x_BCHW)


def test_only_networks_that_draw_say_so():
    def drawing(**parts):
        modules = list(built(replace(TINY, **parts)).modules())
        return any(isinstance(m, nn.Dropout) or getattr(m, "is_stochastic", False) for m in modules)

    assert [drawing(), drawing(dropout=0.1), drawing(stochastic_depth=0.1)] == [False, True, True]


def test_xavier_is_that_of_d2l():
    """Weights uniform within √(6 / (fan-in + fan-out)), biases as torch draws them."""
    network = built(Architecture((Stage(1, 64, 16),), initialisation="xavier", conv_bias=True), classes=100)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            receptive = module.weight[0, 0].numel()
            fan_in, fan_out = module.weight[0].numel(), len(module.weight) * receptive
            bound = (6 / (fan_in + fan_out)) ** 0.5
            assert 0.9 * bound < module.weight.abs().max().item() <= bound
            assert 0.5 / fan_in**0.5 < module.bias.abs().max().item() <= 1 / fan_in**0.5


@pytest.mark.parametrize("order", ["post", "pre"])
@pytest.mark.parametrize("block", ["bottleneck", "basic"])
def test_blocks_may_begin_as_their_skip_connection(order, block):
    stages = (Stage(2, 8, 8), Stage(2, 16, 16))
    given = replace(TINY, stages=stages, block=block, activation_order=order, initialisation="zero_last_norm")
    network = built(given).eval()
    for (_, second), width in zip(network.blocks(), (8, 16)):
        x_BCHW = torch.rand(2, width, 4, 4)
        assert torch.equal(second(x_BCHW), x_BCHW)
    he = built(replace(given, initialisation="he")).state_dict()
    changed = [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, he[name])]
    last = "norm" if order == "post" else "conv"
    number = 3 if block == "bottleneck" else 2
    assert changed == [f"stages.{s}.blocks.{b}.{last}{number}.weight" for s in (0, 1) for b in (0, 1)]
