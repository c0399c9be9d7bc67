"""The step is that of `torch.optim.SGD`, and training does not import torch's compiler for it."""

import copy
import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from sweep.training.sgd import SGD


def small() -> torch.nn.Module:
    torch.manual_seed(3)
    layers = (torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(64, 3))
    return torch.nn.Sequential(*layers)


def train(net: torch.nn.Module, optimizer, steps: range, *learning_rate: float) -> None:
    for number in steps:
        generator = torch.Generator().manual_seed(number)
        images, labels = torch.randn(8, 1, 6, 6, generator=generator), torch.randint(3, (8,), generator=generator)
        optimizer.zero_grad()
        functional.cross_entropy(net(images), labels).backward()
        optimizer.step(*learning_rate)


@pytest.mark.parametrize(
    ("momentum", "nesterov", "weight_decay"),
    [(0.9, True, 1e-3), (0.9, False, 0.0), (0.0, False, 1e-3)],
    ids=["nesterov", "momentum", "neither"],
)
def test_steps_equal_those_of_torch_to_the_bit_also_after_a_resume(momentum, nesterov, weight_decay):
    settings = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    ours, theirs = small(), small()
    train(theirs, torch.optim.SGD(theirs.parameters(), lr=0.1, **settings), range(5))
    optimizer = SGD(ours.parameters(), **settings)
    train(ours, optimizer, range(2), 0.1)
    resumed = SGD(ours.parameters(), **settings)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(ours, resumed, range(2, 5), 0.1)
    assert all(torch.equal(one, other) for one, other in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_a_state_of_another_network_is_refused():
    with pytest.raises(ValueError, match="zip"):
        SGD(small().parameters(), momentum=0.9, nesterov=True, weight_decay=0.0).load_state_dict({"momentum": [None]})


_TRIAL = """
import io
import sys
import numpy as np
import torch
from sweep.spaces import Architecture
from sweep.studies import Recipe
from sweep.training.data import Split
from sweep.training.trial import Trial

pixels = np.zeros((96, 12, 12), np.uint8)
split = Split(pixels, np.zeros(96, np.uint8), np.arange(64), np.arange(64, 96), mean=0.0, std=1.0)
architecture = Architecture.from_json(sys.stdin.read())
trial = Trial(architecture, Recipe(batch_size=16), split, num_epochs=1, seed=1)
assert len(list(trial.run())) == 1
state = io.BytesIO()
torch.save(trial.state_dict(), state)
trial.load_state_dict(torch.load(io.BytesIO(state.getvalue()), weights_only=True))
print("torch._dynamo" in sys.modules)
"""


def test_an_epoch_of_a_trial_and_its_state_do_not_import_the_compiler(network):
    command = [sys.executable, "-c", _TRIAL]
    done = subprocess.run(command, input=network.to_json(), capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout == "False\n"
