"""The learning rate of each step, by the recipe's schedule: a pure function.

Deviations from `torch.optim.lr_scheduler`, which gives the same numbers: a rate belongs to a step, not to an epoch,
and a linear warm-up multiplies the schedule.
"""

import math

from sweep.studies import Recipe

_CYCLE_START, _CYCLE_END = 1 / 25, 1 / 250_000
"""What share of its highest rate a one-cycle schedule begins and ends with (torch's own)."""


def learning_rate(recipe: Recipe, step: int, num_steps: int) -> float:
    """At a step counted from 0 of `num_steps` over all epochs."""
    warmup = min(1.0, (step + 1) / recipe.warmup_steps) if recipe.warmup_steps else 1.0
    return recipe.learning_rate * warmup * _share(recipe, step, num_steps)


def _share(recipe: Recipe, step: int, num_steps: int) -> float:
    """Of the recipe's rate, without the warm-up."""
    if recipe.schedule == "constant":
        return 1.0
    if recipe.schedule == "step":
        # A share of all steps that is meant to be whole can lie a rounding above it: 0.1 of 30 does.
        num_falls = sum(step >= share * num_steps - 1e-6 for share in recipe.step_at)
        return float(recipe.step_factor**num_falls)
    if recipe.schedule == "one_cycle":
        return _one_cycle(recipe.cycle_rise, step, num_steps)
    return _falling(step, num_steps)


def _one_cycle(rise: float, step: int, num_steps: int) -> float:
    top = max(0.0, rise * num_steps - 1)
    if step < top:
        return 1 + (_CYCLE_START - 1) * _falling(step, top)
    return _CYCLE_END + (1 - _CYCLE_END) * _falling(step - top, max(1.0, num_steps - 1 - top))


def _falling(step: float, end: float) -> float:
    """Half a cosine, from 1 at step 0 to 0 at the end."""
    return 0.5 * (1 + math.cos(math.pi * step / end))
