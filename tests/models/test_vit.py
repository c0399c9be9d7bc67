"""Transformers: their layers by hand, what they see, and the first weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sweep.models import build
from sweep.spaces import Vit, layer_table

SMALL = Vit(patch=4, width=12, num_blocks=2, num_heads=3, mlp_ratio=2)
IMAGE = {"resolution": 9, "channels": 2, "classes": 3}


def built(network, **image):
    torch.manual_seed(0)
    return build(network, **(IMAGE | image))


def by_hand(state, images_BCHW):
    """SMALL, with attention written out for one head after the other."""

    def linear(name, x):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name, x):
        return F.layer_norm(x, (12,), state[f"{name}.weight"], state[f"{name}.bias"])

    patches = [images_BCHW[:, :, row : row + 4, column : column + 4] for row in (0, 4) for column in (0, 4)]
    kernel_DP = state["stem.weight"].flatten(1)
    x_BND = torch.stack([patch.flatten(1) @ kernel_DP.T + state["stem.bias"] for patch in patches], dim=1)
    x_BND = x_BND + state["positions"]
    for block in ("blocks.0", "blocks.1"):
        given = linear(f"{block}.attention.queries_keys_values", norm(f"{block}.norm1", x_BND))
        queries, keys, values = given.split(12, dim=2)
        heads = [slice(4 * head, 4 * head + 4) for head in range(3)]
        weights = [(queries[:, :, h] @ keys[:, :, h].transpose(1, 2) / 2).softmax(2) for h in heads]
        seen = torch.cat([weight @ values[:, :, h] for weight, h in zip(weights, heads)], dim=2)
        x_BND = x_BND + linear(f"{block}.attention.output", seen)
        inner = F.gelu(linear(f"{block}.perceptron.0", norm(f"{block}.norm2", x_BND)))
        x_BND = x_BND + linear(f"{block}.perceptron.3", inner)
    return linear("head", norm("norm", x_BND).mean(1))


def test_layers_by_hand():
    network = built(SMALL).eval()
    state = network.state_dict()
    for tensor in state.values():
        tensor.uniform_(-0.5, 0.5)
    images = torch.randn(5, 2, 9, 9)
    torch.testing.assert_close(network(images), by_hand(state, images))


def test_pixels_that_fill_no_patch_are_not_seen():
    network = built(SMALL).eval()
    images = torch.randn(1, 2, 9, 9)
    changed = images.clone()
    changed[..., 8] = changed[..., 8, :] = 7
    assert torch.equal(network(images), network(changed))
    changed[..., 7, 7] = 7
    assert not torch.equal(network(images), network(changed))


def test_parts_are_those_of_the_layer_table():
    network = built(SMALL)
    counted = {name.split(".")[0]: 0 for name, _ in network.named_parameters()}
    for name, parameter in network.named_parameters():
        counted[name.split(".")[0]] += parameter.numel()
    stem, blocks, head = (row.params for row in layer_table(SMALL, **IMAGE))
    assert (counted["stem"] + counted["positions"], counted["blocks"]) == (stem, blocks)
    assert counted["norm"] + counted["head"] == head


def test_dropout_is_where_the_paper_has_it():
    network = built(Vit(patch=4, width=12, num_blocks=2, num_heads=3, dropout=0.2))
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Dropout)]
    inside = ("dropout", "perceptron.2", "perceptron.4")
    assert names == ["dropout", *(f"blocks.{block}.{name}" for block in (0, 1) for name in inside)]
    assert not any(isinstance(module, nn.Dropout) for module in built(SMALL).modules())
    images = torch.randn(2, 2, 9, 9)
    assert not torch.equal(network(images), network(images))
    assert torch.equal(network.eval()(images), network(images))


def test_images_smaller_than_a_patch_are_refused():
    with pytest.raises(ValueError, match=r"patch = 4 is more than the image's 3 pixels; take a smaller one"):
        built(SMALL, resolution=3)


def test_first_weights():
    network = built(Vit(patch=4, width=96, num_blocks=1, num_heads=3))
    assert network.stem.weight.std().item() == pytest.approx((1 / 32) ** 0.5, rel=0.1)
    assert network.positions.std().item() == pytest.approx(0.02, rel=0.2)
    for layer in (network.blocks[0].attention.queries_keys_values, network.blocks[0].perceptron[3]):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not layer.bias.any()
    assert network.head.weight.std().item() == pytest.approx(0.01, rel=0.2)


def test_a_transformer_learns_a_batch_by_heart():
    network = built(SMALL)
    images, labels = torch.randn(12, 2, 9, 9), torch.arange(12) % 3
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 < losses[0]
    assert all(parameter.grad is not None for parameter in network.parameters())
