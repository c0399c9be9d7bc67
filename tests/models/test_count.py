"""Counts by hooks on the modules, against the closed form and against torch's own counter."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spaces.strategies import SMALL_BAND, SMALL_IMAGE, architectures, mlps, small, vits
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sweep.models import build, count
from sweep.spaces import SPACES, ZOO, Complexity, complexity, sample_population

resolutions = st.sampled_from([1, 7, 28, 32, 33, 96])


def bias_flops(module, resolution, channels):
    """Additions of biases, which torch's counter leaves out: one for each output of a layer that has one."""
    total = 0

    def add(layer, inputs, output):
        nonlocal total
        total += output.numel() if layer.bias is not None else 0

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(add)
    module(torch.empty(1, channels, resolution, resolution, device="meta"))
    return total


@settings(max_examples=40)
@given(architectures(), resolutions, st.sampled_from([1, 3]), st.sampled_from([2, 10]))
def test_hooks_agree_with_the_closed_form(architecture, resolution, channels, classes):
    with torch.device("meta"):
        module = build(architecture, channels=channels, classes=classes)
    expected = complexity(architecture, resolution=resolution, channels=channels, classes=classes)
    assert count(module, resolution, channels) == expected


@settings(max_examples=40)
@given(st.one_of(mlps(), vits()), st.sampled_from([8, 9, 15, 28]), st.sampled_from([1, 3]), st.sampled_from([2, 10]))
def test_hooks_agree_on_perceptrons_and_transformers(network, resolution, channels, classes):
    image = {"resolution": resolution, "channels": channels, "classes": classes}
    with torch.device("meta"):
        module = build(network, **image)
    assert count(module, resolution, channels) == complexity(network, **image)


@settings(max_examples=20)
@given(st.one_of(architectures(), mlps(), vits()), st.sampled_from([8, 28, 33]), st.sampled_from([1, 3]))
def test_torchs_counter_agrees_with_the_closed_form(network, resolution, channels):
    """It counts a multiply-add as two and leaves biases out."""
    with torch.device("meta"):
        module = build(network, resolution=resolution, channels=channels, classes=10).eval()
    with FlopCounterMode(display=False) as counter:
        module(torch.empty(1, channels, resolution, resolution, device="meta"))
    expected = complexity(network, resolution=resolution, channels=channels, classes=10).flops
    assert counter.get_total_flops() // 2 == expected - bias_flops(module, resolution, channels)


@pytest.mark.parametrize("name", ["regnetx_400mf", "regnetx_8.0gf", "regnety_600mf", "regnetx32", "vit_tiny"])
def test_published_networks(name):
    with torch.device("meta"):
        module = build(ZOO[name])
    assert count(module, 224, 3) == complexity(ZOO[name])


@pytest.mark.parametrize("space", SPACES)
def test_sampled_networks(space):
    population = sample_population(SPACES[space], small(SPACES[space]), num=3, seed=5, **SMALL_BAND, **SMALL_IMAGE)
    for network in population.members:
        with torch.device("meta"):
            module = build(network, **SMALL_IMAGE)
        assert count(module, 28, 1) == complexity(network, **SMALL_IMAGE)


def test_max_pooling_counts_as_activations():
    module = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3))
    assert count(module, 4, 1) == Complexity(flops=32 * 10 + 3 * 9, params=20 + 27, activations=32 + 8 + 3)


def test_the_module_stays_as_it_was():
    torch.manual_seed(0)
    module = build(ZOO["regnetx32"], channels=1, classes=10)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    count(module, 28, 1)
    assert module.training
    assert not any(layer._forward_hooks for layer in module.modules())
    after = module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(RuntimeError):
        count(module, 28, 3)
    assert not any(layer._forward_hooks for layer in module.modules())
