"""Choosing the lottery: which design of a sweep reaches a wished precision, or finds a good network, at least cost.

In: a pilot's complete curves (pools.py), a study, wishes. Out: a `Plan`: for each wish the cheapest of the designs
tried, beside what the study says and what training all networks fully would take.

Each design of a coarse grid (reduction factor, grace period, audit fraction) is replayed at half, once and twice the
study's trials, all on the same draws. Widths are those of the intervals that a sweep prints, of the model-assisted
mean at the full budget, in the space where it is widest; they are measured at the study's number of trials and scaled
by the square root of the number where another is wanted, which holds for a lottery of more than a few networks. Regret
follows no such law: it is interpolated between the numbers that were replayed, and never extrapolated.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from sweep.scheduling.accuracy import difference, places
from sweep.scheduling.peers import METHODS, Design
from sweep.scheduling.pools import Pool
from sweep.scheduling.repetitions import ESTIMATORS, HIGH, LOW, Repetitions, repeat
from sweep.scheduling.simulate import known_pairs, processes_for
from sweep.statistics.samples import Floats
from sweep.studies import Study

REDUCTION_FACTORS = (2, 3, 4)
GRACE_EPOCHS = (1, 2, 4)
AUDIT_FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.4)
SIZES = (0.5, 1.0, 2.0)  # times the study's trials
# The mean width of so many intervals is known within a few percent, and regret well enough to rank designs by.
NUM_REPETITIONS = 40
FEWEST_TRIALS = 10  # of a space: fewer networks have no interval worth its name
EXEMPT_NEEDED = 5  # networks of a space that the lottery must exempt on average, for the same reason

_MODEL_ASSISTED = ESTIMATORS.index("model_assisted")
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


@dataclass(frozen=True)
class Measured:
    """A design as it was replayed, at the study's number of trials.

    `epochs` of one network on average; `width_pct` and `effect_width_pct`, None without a lottery to make intervals
    from; `regrets_pct` by number of trials, from few to many.
    """

    design: Design
    epochs: float
    width_pct: float | None
    effect_width_pct: float | None
    regrets_pct: dict[int, float]


@dataclass(frozen=True)
class Choice:
    """A design for a wish, with `num_trials` of each space.

    `epochs` in all; `share` of training so many networks fully. Widths and regret are those expected of it. `scaled`:
    widths by the square-root law, because so many trials were not replayed.
    """

    wish: str
    design: Design
    num_trials: int
    epochs: int
    share: float
    width_pct: float | None
    effect_width_pct: float | None
    regret_pct: float | None
    scaled: bool


@dataclass(frozen=True)
class Plan:
    """`choices`: what the study says, then the cheapest for each wish, and for all of them, each with its rival that
    trains all networks fully. `unreachable`: wishes that no design tried can fulfil."""

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
    num_repetitions: int = NUM_REPETITIONS,
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
        if rival := _least(f"{name}, all trained fully", full, wish, num_spaces):
            choices.append(rival)
    return Plan(pilot, [pool.space for pool in pools], num_repetitions, choices, unreachable)


def study_design(study: Study) -> Design:
    """What the study says; one that stops nothing is planned for "asha"."""
    stopping = study.stopping
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


def num_sweeps(study: Study, num_repetitions: int = NUM_REPETITIONS) -> int:
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
    """Each design at all sizes; intervals at the study's size alone, for they take the most time."""
    sizes = [max(2, round(size * designs[0].num_trials)) for size in SIZES]
    settings = {"num_repetitions": num_repetitions, "seed": seed}
    processes = processes_for(num_repetitions * len(designs))

    def tell(before: int, each: int) -> Callable[[int], None]:
        return lambda done: progress(before + done * each)

    by_size = {
        size: repeat(
            pools,
            [replace(design, num_trials=size) for design in designs],
            estimators=("model_assisted",) if size == designs[0].num_trials else (),
            quantities=("mean",),
            num_processes=processes,
            progress=tell(number * num_repetitions * len(designs), len(designs)),
            **settings,
        )
        for number, size in enumerate(sizes)
    }
    best = np.array([pool.best_pct for pool in pools])
    pairs = known_pairs([pool.space for pool in pools]) or list(combinations([pool.space for pool in pools], 2))
    return [
        _measure(
            design,
            by_size[design.num_trials][number],
            {size: float((found[number].found_pct - best).mean()) for size, found in by_size.items()},
            [places(pools, *pair) for pair in pairs],
        )
        for number, design in enumerate(designs)
    ]


def _measure(
    design: Design, found: Repetitions, regrets_pct: dict[int, float], pairs: Sequence[tuple[int, int]]
) -> Measured:
    means = found.estimates[:, :, _MODEL_ASSISTED, 0]  # R × S × (value, standard error, low, high)
    effects = [difference(means[:, without], means[:, with_]) for without, with_ in pairs]
    return Measured(
        design=design,
        epochs=float(found.epochs.mean() / design.num_trials),
        width_pct=_width([means[:, space] for space in range(means.shape[1])]),
        effect_width_pct=_width(effects),
        regrets_pct=regrets_pct,
    )


def _width(estimates: Sequence[Floats]) -> float | None:
    """The mean width of the intervals, where it is the largest; None where one in twenty sweeps has none."""
    widths = np.array([found[:, HIGH] - found[:, LOW] for found in estimates])
    if widths.size == 0 or np.isnan(widths).mean() > 0.05:
        return None
    return float(np.nanmean(widths, axis=1).max())


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
        _trials_for_width(measured, measured.width_pct, wish.width),
        _trials_for_width(measured, measured.effect_width_pct, wish.effect_width),
        _trials_for_regret(measured, wish.regret),
    ]
    if None in needed:
        return None
    return _choice(name, measured, max(FEWEST_TRIALS, *(num for num in needed if num is not None)), num_spaces)


def _trials_for_width(measured: Measured, width: float | None, wished: float | None) -> int | None:
    if wished is None:
        return 0
    if width is None:
        return None
    design = measured.design
    num = math.ceil(design.num_trials * (width / wished) ** 2)
    if design.scheduler == "none":
        return num
    return max(num, math.ceil(EXEMPT_NEEDED / design.audit_fraction))


def _trials_for_regret(measured: Measured, wished: float | None) -> int | None:
    """By linear interpolation in the logarithm of the number of trials."""
    if wished is None:
        return 0
    sizes = list(measured.regrets_pct)
    for size in sizes:
        if measured.regrets_pct[size] <= wished:
            if size == sizes[0]:
                return size
            before = sizes[sizes.index(size) - 1]
            high, low = measured.regrets_pct[before], measured.regrets_pct[size]
            return math.ceil(before * (size / before) ** ((high - wished) / (high - low)))
    return None


def _choice(name: str, measured: Measured, num_trials: int, num_spaces: int) -> Choice:
    design, sizes = measured.design, list(measured.regrets_pct)
    scale = math.sqrt(design.num_trials / num_trials)
    regret = None
    if sizes[0] <= num_trials <= sizes[-1]:
        regret = float(np.interp(math.log(num_trials), np.log(sizes), list(measured.regrets_pct.values())))
    return Choice(
        wish=name,
        design=design,
        num_trials=num_trials,
        epochs=round(measured.epochs * num_trials * num_spaces),
        share=measured.epochs / design.max_epochs,
        width_pct=None if measured.width_pct is None else measured.width_pct * scale,
        effect_width_pct=None if measured.effect_width_pct is None else measured.effect_width_pct * scale,
        regret_pct=regret,
        scaled=num_trials != design.num_trials,
    )
