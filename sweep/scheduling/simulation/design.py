"""Choosing the lottery: which design of a sweep reaches a wished precision, or finds a good network, at least cost.

In: a pilot's complete curves (pools.py), a study, wishes. Out: a `Plan`: for each wish the cheapest of the designs
tried, beside what the study says and what training all networks fully would take.

Each design of a coarse grid (reduction factor, grace period, audit fraction) is replayed at a quarter, half, once and
twice the study's trials, all on the same draws. Widths are those of the intervals that a sweep prints, of the model-
assisted mean at the full budget, in the space where it is widest; where the estimates scatter more than their
intervals say (few audited networks, errors with a heavy tail), that of intervals that would do. Widths and regret are
interpolated between the numbers of trials that were replayed. For more trials widths follow the square root of the
number; regret follows no such law and is not extrapolated.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from sweep.scheduling.simulation.accuracy import difference, places
from sweep.scheduling.simulation.peers import METHODS, Design
from sweep.scheduling.simulation.pools import Pool
from sweep.scheduling.simulation.repetitions import ESTIMATORS, HIGH, LOW, VALUE, Repetitions, repeat
from sweep.scheduling.simulation.simulate import known_pairs, processes_for
from sweep.statistics.samples import Floats
from sweep.studies import Study

REDUCTION_FACTORS = (3, 4, 9)
GRACE_EPOCHS = (1, 2, 4)
AUDIT_FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.4)
SIZES = (0.25, 0.5, 1.0, 2.0)  # times the study's trials
# The mean width of so many intervals is known within a few percent, and regret well enough to rank designs by.
NUM_REPETITIONS = 40
FEWEST_TRIALS = 10  # of a space: fewer networks have no interval worth its name
EXEMPT_NEEDED = 5  # networks of a space that the lottery must exempt on average, for the same reason

_MODEL_ASSISTED = ESTIMATORS.index("model_assisted")
_TINY = 1e-9  # a regret of 0 has no logarithm
_NORMAL_REACH = 1.96  # standard errors on either side of an estimate, at 95 % confidence
_NUM_WORKERS = 8  # of the virtual clock: they change who arrives first, and hardly anything that is asked here
_WISHES = {
    "width": "{:g} points wide, of a mean",
    "effect_width": "{:g} points wide, of an effect",
    "regret": "{:g} points from the best",
}


@dataclass(frozen=True)
class Wishes:
    """Points of error, None where not wished: widths of 95 % intervals of a space's mean and of the effect between two
    spaces, and the regret of the network found against the best of the pilot."""

    width: float | None = None
    effect_width: float | None = None
    regret: float | None = None


BySize = dict[int, float]
"""A number for each number of trials that was replayed, from few to many."""


@dataclass(frozen=True)
class Measured:
    """A design as it was replayed. `epochs` of one network on average, at the study's number of trials; widths and
    regrets in points, widths lacking where there is no lottery to make intervals from, or too small a one."""

    design: Design
    epochs: float
    widths_pct: BySize
    effect_widths_pct: BySize
    regrets_pct: BySize


@dataclass(frozen=True)
class Choice:
    """A design for a wish, with `num_trials` of each space.

    `epochs` in all; `share` of training so many networks fully. Widths and regret are those expected of it.
    `extrapolated`: it is more trials than were replayed, and widths follow the square root of their number.
    """

    wish: str
    design: Design
    num_trials: int
    epochs: int
    share: float
    width_pct: float | None
    effect_width_pct: float | None
    regret_pct: float | None
    extrapolated: bool


@dataclass(frozen=True)
class Plan:
    """`choices`: what the study says, then the cheapest for each wish, and for all of them, each followed by its rival,
    the design "none" that trains all networks fully. `unreachable`: wishes that no design tried can fulfil."""

    pilot: str
    spaces: list[str]
    num_repetitions: int
    choices: list[Choice]
    unreachable: list[str]

    @property
    def chosen(self) -> list[Choice]:
        """One for each wish that can be fulfilled, the rivals left out."""
        return [choice for choice in self.choices[1:] if choice.design.scheduler != "none"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with each choice as lines of TOML."""
        plain = asdict(self)
        for choice, told in zip(self.choices, plain["choices"]):
            told["toml"] = toml_of(choice)
        return plain


def plan_design(
    pools: Sequence[Pool],
    study: Study,
    wishes: Wishes,
    *,
    pilot: str,
    num_repetitions: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Plan:
    """Replay the grid on `pools`, curves of the study's `max_epochs`, and choose; `progress` hears how many of
    `num_sweeps` are done."""
    designs = _designs(study)
    own = designs[0]
    measured = _measured(pools, designs, num_repetitions=num_repetitions, seed=study.seed, progress=progress)
    candidates, full = measured[:-1], measured[-1]
    num_spaces = len(study.spaces)
    choices = [_choice("as the study says", measured[0], own.num_trials, num_spaces)]
    unreachable = []
    for name, wish in _wished(wishes):
        found = [choice for entry in candidates if (choice := _least(name, entry, wish, num_spaces))]
        if found:
            choices.append(min(found, key=lambda choice: choice.epochs))
        else:
            unreachable.append(name)
        if rival := _least(name, full, wish, num_spaces):
            choices.append(rival)
    return Plan(pilot, [pool.space for pool in pools], num_repetitions, choices, unreachable)


def study_design(study: Study) -> Design:
    """What the study says; one that stops nothing is planned for "asha". Raises `ValueError` where scales differ."""
    stopping, *others = (study.stopping_at(scale.name) for scale in study.judged_scales)
    if any(other != stopping for other in others):
        names = ", ".join(scale.name for scale in study.judged_scales)
        raise ValueError(
            f"scale: {names} have epochs of their own, and a pilot speaks of one budget; plan a study of one scale at "
            "a time"
        )
    schedulers = {method: scheduler for scheduler, method in METHODS.items() if method != "none"}
    return Design(
        scheduler=schedulers.get(stopping.method, "asha"),
        max_epochs=stopping.max_epochs,
        grace_epochs=stopping.grace_epochs,
        reduction_factor=stopping.reduction_factor,
        audit_fraction=stopping.audit_fraction,
        num_trials=study.trials_per_space,
        num_workers=_NUM_WORKERS,
    )


def toml_of(choice: Choice) -> str:
    """Lines for a study file."""
    design = choice.design
    return (
        f"trials_per_space = {choice.num_trials}\n\n[stopping]\n"
        f'method = "{METHODS[design.scheduler]}"\nmax_epochs = {design.max_epochs}\n'
        f"grace_epochs = {design.grace_epochs}\nreduction_factor = {design.reduction_factor}\n"
        f"audit_fraction = {design.audit_fraction:g}\n"
    )


# -- measuring -------------------------------------------------------------------------------------------------------


def num_sweeps(study: Study, num_repetitions: int) -> int:
    """How many `plan_design` replays."""
    return len(_designs(study)) * len(SIZES) * num_repetitions


def _designs(study: Study) -> list[Design]:
    """What the study says, the grid, and last no stopping at all."""
    own = study_design(study)
    grid = [
        replace(own, reduction_factor=eta, grace_epochs=grace, audit_fraction=audit)
        for eta in REDUCTION_FACTORS
        for grace in GRACE_EPOCHS
        for audit in AUDIT_FRACTIONS
        if grace < own.max_epochs
    ]
    return [own, *(design for design in grid if design != own), replace(own, scheduler="none")]


def _measured(
    pools: Sequence[Pool],
    designs: Sequence[Design],
    *,
    num_repetitions: int,
    seed: int,
    progress: Callable[[int], None],
) -> list[Measured]:
    """Each design at all sizes."""
    sizes = [max(2, round(size * designs[0].num_trials)) for size in SIZES]
    each = num_repetitions * len(designs)

    def tell(before: int) -> Callable[[int], None]:
        return lambda done: progress(before + done * len(designs))

    by_size = {
        size: repeat(
            pools,
            [replace(design, num_trials=size) for design in designs],
            num_repetitions=num_repetitions,
            seed=seed,
            estimators=("model_assisted",),
            quantities=("mean",),
            num_processes=processes_for(each),
            progress=tell(number * each),
        )
        for number, size in enumerate(sizes)
    }
    return [
        _measure(pools, design, {size: found[number] for size, found in by_size.items()})
        for number, design in enumerate(designs)
    ]


def _measure(pools: Sequence[Pool], design: Design, by_size: dict[int, Repetitions]) -> Measured:
    best, truths = np.array([pool.best_pct for pool in pools]), [pool.mean_pct for pool in pools]
    names = [pool.space for pool in pools]
    pairs = [places(pools, *pair) for pair in known_pairs(names) or combinations(names, 2)]
    widths, effect_widths = {}, {}
    for size, found in by_size.items():
        means = found.estimates[:, :, _MODEL_ASSISTED, 0]  # R × S × (value, standard error, low, high)
        effects = [difference(means[:, a], means[:, b]) for a, b in pairs]
        widths[size] = _width([means[:, space] for space in range(len(pools))], truths)
        effect_widths[size] = _width(effects, [truths[b] - truths[a] for a, b in pairs])
    return Measured(
        design=design,
        epochs=float(by_size[design.num_trials].epochs.mean() / design.num_trials),
        widths_pct={size: width for size, width in widths.items() if width is not None},
        effect_widths_pct={size: width for size, width in effect_widths.items() if width is not None},
        regrets_pct={size: float((found.found_pct - best).mean()) for size, found in by_size.items()},
    )


def _width(estimates: Sequence[Floats], truths: Sequence[float]) -> float | None:
    """Of the intervals in half the sweeps, or of those that would do, where it is the largest; None where one sweep in
    twenty has none."""
    widths = []
    for found, truth in zip(estimates, truths):
        if np.isnan(found[:, VALUE]).mean() > 0.05:
            return None
        scatter = math.sqrt(float(np.nanmean((found[:, VALUE] - truth) ** 2)))
        widths.append(max(float(np.nanmedian(found[:, HIGH] - found[:, LOW])), 2 * _NORMAL_REACH * scatter))
    return max(widths, default=None)


# -- choosing --------------------------------------------------------------------------------------------------------


def _wished(wishes: Wishes) -> list[tuple[str, Wishes]]:
    """Each wish by itself, then all of them."""
    named = [
        (text.format(value), Wishes(**{name: value}))
        for name, text in _WISHES.items()
        if (value := getattr(wishes, name)) is not None
    ]
    return [*named, ("all of these", wishes)] if len(named) > 1 else named


def _least(name: str, measured: Measured, wish: Wishes, num_spaces: int) -> Choice | None:
    """The design with as few trials as fulfil the wish; None where none do."""
    needed = [
        _fewest(measured.widths_pct, wish.width, by_square_root=True),
        _fewest(measured.effect_widths_pct, wish.effect_width, by_square_root=True),
        _fewest(measured.regrets_pct, wish.regret, by_square_root=False),
    ]
    found = [num for num in needed if num is not None]
    if len(found) < len(needed):
        return None
    design, wants_interval = measured.design, wish.width is not None or wish.effect_width is not None
    if wants_interval and design.scheduler != "none":
        found.append(math.ceil(EXEMPT_NEEDED / design.audit_fraction))
    return _choice(name, measured, max(FEWEST_TRIALS, *found), num_spaces)


def _fewest(measured: BySize, wished: float | None, *, by_square_root: bool) -> int | None:
    """The fewest trials that bring what was measured down to what is wished; None where none are known to.

    Between two numbers of trials that were replayed a power law joins them.
    """
    if wished is None:
        return 0
    before = None
    for size, found in measured.items():
        if found <= wished:
            if before is None:
                return size
            share = math.log(measured[before] / max(wished, _TINY)) / math.log(measured[before] / max(found, _TINY))
            return math.ceil(before * (size / before) ** share)
        before = size
    return math.ceil(before * (measured[before] / wished) ** 2) if by_square_root and before is not None else None


def _expected(measured: BySize, num_trials: int, *, by_square_root: bool) -> float | None:
    """With so many trials; the other way round than `_fewest`."""
    sizes = list(measured)
    if not sizes or num_trials < sizes[0] or (num_trials > sizes[-1] and not by_square_root):
        return None
    nearest = min(num_trials, sizes[-1])
    logs = np.log(np.maximum(list(measured.values()), _TINY))
    found = math.exp(float(np.interp(math.log(nearest), np.log(sizes), logs)))
    return found * math.sqrt(nearest / num_trials)


def _choice(name: str, measured: Measured, num_trials: int, num_spaces: int) -> Choice:
    design = measured.design
    return Choice(
        wish=name,
        design=design,
        num_trials=num_trials,
        epochs=round(measured.epochs * num_trials * num_spaces),
        share=measured.epochs / design.max_epochs,
        width_pct=_expected(measured.widths_pct, num_trials, by_square_root=True),
        effect_width_pct=_expected(measured.effect_widths_pct, num_trials, by_square_root=True),
        regret_pct=_expected(measured.regrets_pct, num_trials, by_square_root=False),
        extrapolated=num_trials > max(measured.regrets_pct),
    )
