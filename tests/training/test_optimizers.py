"""The steps are those of torch's own classes, and training does not import torch's compiler for them."""

import copy
import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from sweep.studies import Recipe
from sweep.training.optimizers import optimizer_of


def small() -> torch.nn.Module:
    torch.manual_seed(3)
    layers = (torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(64, 3))
    return torch.nn.Sequential(*layers)


def train(net: torch.nn.Module, optimizer, steps: range, *learning_rate: float, clip: float = 0.0) -> None:
    for number in steps:
        generator = torch.Generator().manual_seed(number)
        images, labels = torch.randn(8, 1, 6, 6, generator=generator), torch.randint(3, (8,), generator=generator)
        optimizer.zero_grad()
        functional.cross_entropy(net(images), labels).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
        optimizer.step(*learning_rate)


CASES = {
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9, "nesterov": False, "weight_decay": 0.0}),
    "plain": (torch.optim.SGD, {"momentum": 0.0, "nesterov": False, "weight_decay": 1e-3}),
    "adam": (torch.optim.Adam, {"momentum": 0.9, "beta2": 0.99, "weight_decay": 1e-2}),
    "adam, no decay": (torch.optim.Adam, {"momentum": 0.0, "weight_decay": 0.0}),
    "adamw": (torch.optim.AdamW, {"momentum": 0.8, "beta2": 0.999, "weight_decay": 0.1}),
}


@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize(("torchs", "settings"), CASES.values(), ids=CASES)
def test_steps_equal_those_of_torch_to_the_bit_also_after_a_resume(torchs, settings, clip):
    recipe = Recipe(optimizer=torchs.__name__.lower(), gradient_clip=clip, **settings)
    ours, theirs = small(), small()
    options = dict(settings)
    if torchs is not torch.optim.SGD:
        options["betas"] = (options.pop("momentum"), options.pop("beta2", 0.999))
    train(theirs, torchs(theirs.parameters(), lr=0.1, **options), range(5), clip=clip)
    optimizer = optimizer_of(recipe, ours.parameters())
    train(ours, optimizer, range(2), 0.1)
    resumed = optimizer_of(recipe, ours.parameters())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(ours, resumed, range(2, 5), 0.1)
    assert all(torch.equal(one, other) for one, other in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_the_l1_penalty_pulls_each_parameter_towards_zero_by_its_sign():
    weights = torch.nn.Parameter(torch.tensor([2.0, -2.0, 0.0]))
    plain = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    optimizer = optimizer_of(Recipe(l1_decay=0.5, gradient_clip=5.0, **plain), [weights])
    weights.grad = torch.tensor([6.0, 0.0, 8.0])  # of norm 10, clipped to 5 before the penalty
    optimizer.step(0.1)
    torch.testing.assert_close(weights.data, torch.tensor([2 - 0.1 * 3.5, -2 + 0.1 * 0.5, -0.1 * 4.0]))


@pytest.mark.parametrize("settings", [{}, {"optimizer": "adam"}])
def test_a_state_of_another_network_is_refused(settings):
    state = {"momentum": [None], "means": [None], "squares": [None], "num_steps": 1}
    with pytest.raises(ValueError, match="zip"):
        optimizer_of(Recipe(**settings), small().parameters()).load_state_dict(state)


_TRIAL = """
import io
import sys
import numpy as np
import torch
from sweep.spaces import Architecture
from sweep.studies import Recipe
from sweep.training import trial as trial_module
from sweep.training.data import Split
from sweep.training.trial import Trial

build = trial_module.build
trial_module.build = lambda *given, **options: torch.nn.Sequential(torch.nn.Dropout(0.1), build(*given, **options))
pixels = np.zeros((96, 12, 12), np.uint8)
split = Split(pixels, np.zeros(96, np.uint8), np.arange(64), np.arange(64, 96), mean=0.0, std=1.0)
architecture = Architecture.from_json(sys.stdin.read())
more = {"gradient_clip": 1.0, "l1_decay": 1e-5, "mixup": 0.2, "random_erasing": 0.5}
for settings in ({}, {"optimizer": "adam", **more}, {"optimizer": "adamw"}):
    trial = Trial(architecture, Recipe(batch_size=16, **settings), split, num_epochs=1, seed=1)
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
