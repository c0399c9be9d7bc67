"""Trials of every family of networks, with parts that draw numbers: each goes on bit for bit from what was saved."""

import io

import pytest
import torch

from sweep.spaces import Architecture, Mlp, Stage, Vit
from sweep.studies import Recipe
from sweep.training.trial import Trial

DRAWING = [
    Mlp((32, 16), skip=True, norm="batch", dropout=0.2),
    Vit(patch=4, width=16, num_blocks=2, num_heads=2, dropout=0.2),
    Architecture((Stage(2, 8, 4), Stage(2, 16, 4)), stem_width=8, dropout=0.2, stochastic_depth=0.3, norm="group"),
]


@pytest.mark.parametrize("network", DRAWING, ids=lambda network: type(network).__name__)
def test_it_learns_and_goes_on_bit_for_bit(network, noise):
    def trial():
        return Trial(network, Recipe(batch_size=32, learning_rate=0.05, warmup_steps=0), noise, num_epochs=3, seed=1)

    whole, first, second = trial(), trial(), trial()
    losses = [result.train_loss for result in whole.run()]
    next(iter(first.run()))
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    second.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    assert [result.train_loss for result in second.run()] == losses[1:]
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], tensor), name
    assert losses[-1] < losses[0]
