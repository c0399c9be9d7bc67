"""The learning rate by hand, and against torch's own schedulers."""

from itertools import pairwise

import pytest
import torch
from torch.optim import lr_scheduler

from sweep.studies import Recipe
from sweep.training.schedule import learning_rate

PLAIN = {"learning_rate": 0.4, "warmup_steps": 0}


def rates(num_steps: int, **settings: object) -> list[float]:
    recipe = Recipe(**{**PLAIN, **settings})
    return [learning_rate(recipe, step, num_steps) for step in range(num_steps)]


def test_by_hand():
    assert rates(4) == pytest.approx([0.4, 0.2 * (1 + 0.5**0.5), 0.2, 0.2 * (1 - 0.5**0.5)])
    assert rates(4, schedule="constant") == [0.4] * 4
    assert rates(4, schedule="constant", warmup_steps=2) == [0.2, 0.4, 0.4, 0.4]
    assert rates(8, schedule="step") == pytest.approx([0.4] * 4 + [0.04] * 2 + [0.004] * 2)
    assert rates(4, schedule="step", step_at=(0.25,), step_factor=0.5, warmup_steps=2) == [0.2, 0.2, 0.2, 0.2]
    # Rises in half of eight steps: up to step 3, then four steps down to nothing.
    cycle = rates(8, schedule="one_cycle", cycle_rise=0.5)
    assert cycle[0] == pytest.approx(0.4 / 25)
    assert cycle[3] == pytest.approx(0.4)
    assert cycle[5] == pytest.approx(0.2, rel=1e-4)  # half way
    assert cycle[7] == pytest.approx(0.4 / 250_000)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_a_step_falls_at_a_whole_step_whatever_the_rounding(share):
    for num_steps in range(10, 400, 10):
        fallen = [rate < 0.4 for rate in rates(num_steps, schedule="step", step_at=(share,))]
        assert fallen.index(True) == round(share * num_steps)


TORCHS = {
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=50),
    "step": lambda optimizer: lr_scheduler.MultiStepLR(optimizer, milestones=[25, 38], gamma=0.1),
    "one_cycle": lambda optimizer: lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.4, total_steps=50, pct_start=0.3, cycle_momentum=False
    ),
}


@pytest.mark.parametrize("schedule", TORCHS)
def test_it_agrees_with_torch(schedule):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    scheduler, theirs = TORCHS[schedule](optimizer), []
    for _ in range(50):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates(50, schedule=schedule) == pytest.approx(theirs, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("rise", [0.01, 0.3, 0.99])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 10])
def test_a_cycle_of_few_steps_is_a_cycle(rise, num_steps):
    found = rates(num_steps, schedule="one_cycle", cycle_rise=rise)
    assert all(0 < rate <= 0.4 for rate in found)
    top = found.index(max(found))
    assert all(one < other for one, other in pairwise(found[: top + 1]))
    assert all(one > other for one, other in pairwise(found[top:]))
