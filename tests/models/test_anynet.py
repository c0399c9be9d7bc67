"""AnyNet modules: shapes, names, training, initialisation, speed of construction."""

import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from sweep.models import build
from sweep.spaces import ZOO, Architecture, Stage, complexity, layer_table

TINY = Architecture((Stage(1, 8, 4), Stage(2, 16, 2, 4)), stem_width=8, se_ratio=0.25)
FIRST_WEIGHTS = {
    "stem.0.weight": -0.1876400,
    "stages.0.blocks.0.conv1.weight": -0.0016519,
    "stages.0.blocks.0.conv2.weight": -0.1382278,
    "stages.0.blocks.0.se.squeeze.weight": -0.1956766,
    "stages.0.blocks.0.se.excite.weight": -0.3297758,
    "stages.0.blocks.0.conv3.weight": 0.5304422,
    "stages.0.blocks.0.skip.0.weight": -0.4384755,
    "stages.1.blocks.0.conv1.weight": -0.0067034,
    "stages.1.blocks.0.conv2.weight": 0.0985421,
    "stages.1.blocks.0.se.squeeze.weight": 0.0351474,
    "stages.1.blocks.0.se.excite.weight": -0.4308965,
    "stages.1.blocks.0.conv3.weight": -0.6397709,
    "stages.1.blocks.0.skip.0.weight": -0.2693051,
    "stages.1.blocks.1.conv1.weight": 0.5052161,
    "stages.1.blocks.1.conv2.weight": 0.2093000,
    "stages.1.blocks.1.se.squeeze.weight": 0.4479343,
    "stages.1.blocks.1.se.excite.weight": -0.5291604,
    "stages.1.blocks.1.conv3.weight": -0.5230764,
    "head.2.weight": -0.0037223,
}
LOGITS = [[0.0055666, -0.0023597, -0.0025259], [-0.0002578, -0.001401, 0.005528]]
NEXT_DRAW = 0.0846076


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def outputs_of(network, images):
    """The output of the stem, of each stage and of the head."""
    outputs = [network.stem(images)]
    for stage in network.stages:
        outputs.append(stage(outputs[-1]))
    return [*outputs, network.head(outputs[-1])]


def test_shapes_are_those_of_d2l():
    network = build(ZOO["regnetx32"], channels=1, classes=10)
    shapes = [tuple(output.shape) for output in outputs_of(network, torch.zeros(2, 1, 96, 96))]
    assert shapes == [(2, 32, 48, 48), (2, 32, 24, 24), (2, 80, 12, 12), (2, 10)]
    assert sum(parameter.numel() for parameter in network.parameters()) == 179_290


@pytest.mark.parametrize("resolution", [1, 28, 33])
@pytest.mark.parametrize("stem_stride", [1, 2])
def test_shapes_are_those_of_the_layer_table(resolution, stem_stride):
    architecture = replace(TINY, stem_stride=stem_stride)
    network = build(architecture, channels=3, classes=5).eval()
    rows = layer_table(architecture, resolution=resolution, channels=3, classes=5)
    shapes = [tuple(output.shape[1:]) for output in outputs_of(network, torch.zeros(1, 3, resolution, resolution))]
    assert shapes == [row.output_shape for row in rows]


def test_parts_are_named_and_counted_as_in_the_layer_table():
    network = build(TINY, channels=3, classes=5)
    parts = [network.stem, *network.stages, network.head]
    counted = [sum(parameter.numel() for parameter in part.parameters()) for part in parts]
    assert counted == [row.params for row in layer_table(TINY, classes=5)]
    assert isinstance(network.get_submodule("stages.1.blocks.0.conv2"), nn.Conv2d)
    assert {name.split(".")[0] for name, _ in network.named_parameters()} == {"stem", "stages", "head"}


def test_blocks_are_those_of_the_paper():
    network = build(TINY)
    first, second = network.get_submodule("stages.1.blocks.0"), network.get_submodule("stages.1.blocks.1")
    assert (first.conv1.stride, first.conv2.stride, first.conv3.stride) == ((1, 1), (2, 2), (1, 1))
    assert (first.conv2.kernel_size, first.conv2.groups, first.conv2.in_channels) == ((3, 3), 2, 4)
    assert (first.skip[0].stride, first.skip[0].kernel_size) == ((2, 2), (1, 1))
    assert isinstance(second.skip, nn.Identity)
    assert first.se.squeeze.out_channels == 2, "a quarter of the block's input width, 8"
    assert second.se.squeeze.out_channels == 4, "and of 16"
    assert all(conv.bias is None for conv in (first.conv1, first.conv2, first.conv3, network.stem[0]))
    assert build(replace(TINY, conv_bias=True)).stem[0].bias is not None


def test_a_network_learns_a_batch_by_heart():
    torch.manual_seed(0)
    network = build(TINY, channels=1, classes=3).to(memory_format=torch.channels_last)
    images, labels = torch.randn(12, 1, 16, 16), torch.arange(12) % 3
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(40):
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 < losses[0]
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_channels_last_memory_is_kept_and_changes_nothing():
    torch.manual_seed(0)
    network = build(TINY, channels=3, classes=5).eval()
    images = torch.randn(2, 3, 28, 28)
    expected = network(images)
    network = network.to(memory_format=torch.channels_last)
    last = network.stages(network.stem(images.to(memory_format=torch.channels_last)))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network(images.to(memory_format=torch.channels_last)), expected)


def test_weights_follow_the_current_random_state():
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([parameter.flatten() for parameter in build(TINY).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_weights_of_a_seed_stay_what_they_were():
    """The first of each tensor, and logits, as this code drew them before there were other parts."""
    torch.manual_seed(0)
    network = build(TINY, channels=1, classes=3).eval()
    drawn = {name: tensor.flatten()[0].item() for name, tensor in network.state_dict().items() if tensor.dim() > 1}
    assert drawn == pytest.approx(FIRST_WEIGHTS, abs=2e-6)
    images = torch.linspace(-1, 1, 2 * 16 * 16).view(2, 1, 16, 16)
    torch.testing.assert_close(network(images), torch.tensor(LOGITS), rtol=0, atol=1e-6)
    assert torch.rand(()).item() == pytest.approx(NEXT_DRAW, abs=1e-6), "nothing else was drawn"


def test_weights_are_initialised_as_documented():
    torch.manual_seed(0)
    network = build(Architecture((Stage(1, 128, 8),), conv_bias=True, se_ratio=0.25), channels=3, classes=1000)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.15)
            assert not module.bias.any()
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert not module.bias.any()
        elif isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.05)
            assert not module.bias.any()


def test_state_moves_between_equal_networks():
    torch.manual_seed(0)
    one, other = build(TINY).eval(), build(TINY).eval()
    other.load_state_dict(one.state_dict())
    images = torch.randn(1, 3, 20, 20)
    assert torch.equal(one(images), other(images))


def test_construction_is_fast():
    architecture = ZOO["regnetx_400mf"]
    with torch.device("meta"):
        build(architecture)
        start = time.perf_counter()
        for _ in range(3):
            build(architecture)
    per_network_s = (time.perf_counter() - start) / 3
    assert architecture.depth == 22
    assert per_network_s < 0.2, "about 20 ms on a quiet machine"
    assert complexity(architecture).params == sum(p.numel() for p in build(architecture).parameters())
