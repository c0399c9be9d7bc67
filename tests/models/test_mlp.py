"""Perceptrons: their layers by hand, and the first weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sweep.models import build
from sweep.spaces import Mlp, layer_table

IMAGE = {"resolution": 4, "channels": 2, "classes": 3}


def built(network, **image):
    torch.manual_seed(0)
    return build(network, **(IMAGE | image))


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("skip", [False, True])
def test_layers_by_hand(norm, skip):
    network = built(Mlp((8, 8, 5), skip=skip, norm=norm, activation="tanh", dropout=0.5)).eval()
    state = network.state_dict()
    for tensor in state.values():  # so that no norm is like another
        if tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5)
    images = torch.randn(6, 2, 4, 4)
    x_BD = images.reshape(6, 32)
    for index, width in enumerate((8, 8, 5)):
        layer = f"hidden.{index}"
        y_BD = x_BD @ state[f"{layer}.linear.weight"].T + state[f"{layer}.linear.bias"]
        if norm == "layer":
            y_BD = F.layer_norm(y_BD, (width,), state[f"{layer}.norm.weight"], state[f"{layer}.norm.bias"])
        if norm == "batch":
            mean, var = state[f"{layer}.norm.running_mean"], state[f"{layer}.norm.running_var"]
            y_BD = (y_BD - mean) / (var + 1e-5).sqrt() * state[f"{layer}.norm.weight"] + state[f"{layer}.norm.bias"]
        y_BD = y_BD.tanh()
        if skip and index == 1:
            y_BD = y_BD + x_BD
        if skip and index == 2:
            y_BD = y_BD + x_BD @ state["hidden.2.skip.weight"].T
        x_BD = y_BD
    torch.testing.assert_close(network(images), x_BD @ state["head.weight"].T + state["head.bias"])
    assert ("hidden.2.skip.weight" in state) == skip
    assert "hidden.0.skip.weight" not in state, "the image has no skip"


def test_parts_are_those_of_the_layer_table():
    given = Mlp((8, 8, 5), skip=True, norm="batch")
    network = built(given)
    counted = [sum(p.numel() for p in part.parameters()) for part in [*network.hidden, network.head]]
    assert counted == [row.params for row in layer_table(given, **IMAGE)]


def test_dropout_is_after_every_hidden_layer_and_before_its_sum():
    network = built(Mlp((400, 400), skip=True, activation="sigmoid", dropout=0.3))
    seen = network.hidden[0](torch.randn(8, 32))
    assert (seen == 0).float().mean().item() == pytest.approx(0.3, abs=0.05)
    assert ((network.hidden[1](torch.ones(8, 400)) == 1).float().mean().item()) == pytest.approx(0.3, abs=0.05)
    assert not any(isinstance(module, nn.Dropout) for module in built(Mlp((8,))).modules())


def test_first_weights_keep_the_scale_of_signals():
    """Without norms, from 784 pixels through ten layers of falling widths."""
    network = built(Mlp(tuple(range(512, 0, -50))), resolution=28, channels=1)
    signals = network.hidden(torch.randn(64, 784))
    assert 0.2 < signals.square().mean().item() < 5
    assert network.hidden[0].linear.weight.std().item() == pytest.approx((2 / 784) ** 0.5, rel=0.02)
    assert not network.hidden[0].linear.bias.any()
    assert network.head.weight.std().item() == pytest.approx(0.01, rel=0.3)
    projecting = built(Mlp((400, 300), skip=True))
    assert projecting.hidden[1].skip.weight.std().item() == pytest.approx((1 / 400) ** 0.5, rel=0.02)


def test_xavier():
    weight = built(Mlp((400,), initialisation="xavier")).hidden[0].linear.weight
    bound = (6 / (32 + 400)) ** 0.5
    assert 0.99 * bound < weight.abs().max().item() <= bound
