"""The population: all trials of a study, drawn before any machine starts (DESIGN, section 3).

In: a study. Out: one `TrialRow` a trial, in the shuffled order of launch, and how many draws were rejected and why.
The same study gives the same population on a laptop and on a cluster, and the first k trials of each space stay
when `trials_per_space` grows: a trial's id, network, seed and lottery depend on its number alone, so what is drawn
later (extend.py) is what a larger study would have had.

The networks of a scale with `of` are those of another scale, scaled (sweep/spaces/scaling.py): a pair has one space and
one number. They need not differ from each other, where a factor below 1 makes two networks one.

A trial's id ends with its number, of four digits or as many as it takes. As text `…-10000` therefore sorts before
`…-9999`: lists that people read are ordered by `launch_order` or `draw`, and where an id breaks a tie any fixed order
will do.
"""

import hashlib
import math
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.records import TrialRow
from sweep.scheduling.asha import Cohort
from sweep.spaces import Complexity, Network, Population, complexity, sample_population, scaled
from sweep.studies import Scale, Study, derive_seed, draw_share

SpaceAtScale = tuple[str, str]
"""The names of both."""


@dataclass(frozen=True)
class Draws:
    """How the networks of one space at one scale were found: `rejected` counts draws by reason.

    Where they are those of another scale, `scaled_from` names it, and nothing was drawn.
    """

    space: str
    scale: str
    num_draws: int
    rejected: dict[str, int]
    scaled_from: str | None = None


@dataclass(frozen=True)
class Members:
    """Which networks of a space at a scale: their numbers, rising."""

    space: str
    scale: Scale
    draws: Sequence[int]


def draw_population(study: Study) -> tuple[list[TrialRow], list[Draws]]:
    """Raises `ValueError` where a flops band holds no member of a space, or too few, or where a network cannot be
    scaled."""
    return draw_members(study, next_members(study, study.spaces, study.trials_per_space))


def next_members(
    study: Study, spaces: Sequence[str], trials: int, existing: Mapping[SpaceAtScale, Collection[int]] | None = None
) -> list[Members]:
    """The next `trials` networks of each space at each scale that draws its own, and those that are scaled from them.

    `existing`: the numbers that each space has at each scale already. A scale with `of` has all of its original's, or
    grows to its own `trials_per_space`, from what it lacks, and no further.
    """
    known = {place: set(draws) for place, draws in (existing or {}).items()}
    wanted = []
    for scale in study.scale:
        for space in spaces:
            there = known.setdefault((space, scale.name), set())
            draws: Sequence[int] = range(len(there), len(there) + trials)
            if scale.of:
                draws = _to_scale(study, space, scale, known[space, scale.of], there)
            there.update(draws)
            if draws:
                wanted.append(Members(space, scale, draws))
    return wanted


def _to_scale(study: Study, space: str, scale: Scale, originals: set[int], there: set[int]) -> list[int]:
    missing = sorted(originals - there)
    if not scale.trials_per_space:
        return missing
    lottery = _lottery(study, scale.of)
    missing.sort(key=lambda draw: not lottery(trial_id_of(space, scale.of, draw))[0])
    return sorted(missing[: max(0, scale.trials_per_space - len(there))])


def trial_id_of(space: str, scale: str, draw: int) -> str:
    return f"{space}-{scale}-{draw:04d}"


def _lottery(study: Study, scale: str) -> Callable[[str], tuple[bool, bool]]:
    """From a trial's id to whether it is exempt from stopping, and whether it is if it is among the worst of its rung;
    drawn once, before the trial starts. So a known fraction of those that the rule would stop is seen to the end
    (DESIGN 4.1b). Of a repeat, all are."""
    if study.is_repeat(scale):
        return lambda trial_id: (True, True)
    stopping = study.stopping

    def exempt(trial_id: str) -> tuple[bool, bool]:
        ticket = draw_share(study.seed, "audit", trial_id)
        return ticket < stopping.lottery(among_worst=False), ticket < stopping.lottery(among_worst=True)

    return exempt


def draw_members(
    study: Study, wanted: Sequence[Members], *, wave: int = 0, launch_from: int = 0
) -> tuple[list[TrialRow], list[Draws]]:
    """The trials of these members, launched one after another from `launch_from` on. About 1.2 KB a trial.

    `wave` 0 is the study's own population, 1 its first extension, and so on. The draws are counted from a space's
    first member, whichever is wanted first.
    """
    # Shuffled over all cohorts, so that a sweep cut short has seen every space alike.
    seed = derive_seed(study.seed, "order", wave) if wave else derive_seed(study.seed, "order")
    ends = np.cumsum([len(members.draws) for members in wanted]).tolist()
    positions = np.argsort(np.random.default_rng(seed).permutation(ends[-1])) + launch_from
    by_root: dict[SpaceAtScale, list[int]] = {}
    for number, members in enumerate(wanted):
        root = study.lineage(members.scale.name)[0]
        by_root.setdefault((members.space, root.name), []).append(number)
    trials: list[TrialRow] = []
    draws: dict[int, Draws] = {}
    for (space, root_name), numbers in by_root.items():  # one population at a time: they can be large
        num = 1 + max(max(wanted[number].draws) for number in numbers)
        population = _draw(study, space, study.get_scale(root_name), num)
        for number in numbers:
            members, start = wanted[number], ends[number] - len(wanted[number].draws)
            orders = positions[start : ends[number]].tolist()
            trials += _trials(study, members, population, orders, wave)
            draws[number] = _draws(members, population)
    return sorted(trials, key=lambda trial: trial.launch_order), [draws[number] for number in range(len(wanted))]


def _draw(study: Study, space: str, scale: Scale, num: int) -> Population:
    found, band = study.get_space(space), scale.band
    assert band is not None, "a scale that draws has a band"
    try:
        return sample_population(
            found,
            scale.ranges_of(found),
            num=num,
            seed=derive_seed(study.seed, "population", space, scale.name),
            flops_min=band[0],
            flops_max=band[1],
            resolution=scale.resolution,
            channels=study.data.num_channels,
            classes=study.data.num_classes,
        )
    except ValueError as error:
        raise ValueError(f"{space} at scale {scale.name!r}: {error}") from error


def _draws(members: Members, population: Population) -> Draws:
    space, scale = members.space, members.scale
    if scale.of:
        return Draws(space, scale.name, 0, {}, scaled_from=scale.of)
    return Draws(space, scale.name, population.num_draws, dict(population.rejected))


def _trials(
    study: Study, members: Members, population: Population, launch_orders: Sequence[int], wave: int
) -> Iterator[TrialRow]:
    lottery = _lottery(study, members.scale.name)
    networks = _scaled(study, members, population) if members.scale.of else _drawn(members, population)
    for draw, launch_order, (network, cost) in zip(members.draws, launch_orders, networks, strict=True):
        trial_id = trial_id_of(members.space, members.scale.name, draw)
        content = network.to_json()
        audited, audited_if_worst = lottery(trial_id)
        yield TrialRow(
            trial_id=trial_id,
            launch_order=launch_order,
            space=members.space,
            scale=members.scale.name,
            # One text for all of a cohort.
            cohort=sys.intern(_cohort(study, members, population.costs[draw].flops, wave)),
            draw=draw,
            architecture_id=hashlib.sha256(content.encode()).hexdigest()[:12],  # its `id`, without the JSON once more
            architecture=content,
            flops=cost.flops,
            params=cost.params,
            activations=cost.activations,
            seed=derive_seed(study.seed, "trial", trial_id),
            audited=audited,
            audited_if_worst=audited_if_worst,
        )


def _drawn(members: Members, population: Population) -> Iterator[tuple[Network, Complexity]]:
    return ((population.members[draw], population.costs[draw]) for draw in members.draws)


def _scaled(study: Study, members: Members, population: Population) -> list[tuple[Network, Complexity]]:
    """Raises `ValueError` that names the network which cannot be scaled, or which its scale's band does not hold."""
    space, scale = study.get_space(members.space), members.scale
    root, *steps = study.lineage(scale.name)
    ranges, found = root.ranges_of(space), []
    for draw in members.draws:
        network = population.members[draw]
        try:
            for step in steps:
                network = scaled(network, space, ranges, width_factor=step.width_factor, depth_factor=step.depth_factor)
            image = {"channels": study.data.num_channels, "classes": study.data.num_classes}
            found.append((network, complexity(network, resolution=scale.resolution, **image)))
        except ValueError as error:
            original = trial_id_of(members.space, scale.of, draw)
            raise ValueError(f"scale {scale.name!r}: {original} cannot be scaled: {error}") from error
    _check_band(members, [cost.flops for _, cost in found])
    return found


def _check_band(members: Members, flops: Sequence[int]) -> None:
    if (band := members.scale.band) is None:
        return
    outside = [draw for draw, cost in zip(members.draws, flops) if not band[0] <= cost <= band[1]]
    if outside:
        first = trial_id_of(members.space, members.scale.name, outside[0])
        raise ValueError(
            f"scale {members.scale.name!r}: flops_min = {band[0]:g}, flops_max = {band[1]:g} does not hold "
            f"{len(outside)} of {len(flops)} networks that are scaled from {members.scale.of!r}, {first} among them, "
            f"and those of {members.space} have {min(flops):.4g} to {max(flops):.4g}; widen the band or leave it out"
        )


def _cohort(study: Study, members: Members, flops: int, wave: int) -> str:
    """Space and scale; where a study asks the flops stratum: bands of equal ratio, counted from the cheapest. A scaled
    network is in the stratum of the one that was drawn, whose `flops` these are.

    A synchronous rung is decided when all of its cohort have arrived, so what is added later is a cohort of its own.
    """
    scale, stopping = members.scale, study.stopping
    cohort = f"{members.space}/{scale.name}"
    if stopping.flops_strata > 1:
        low, high = study.lineage(scale.name)[0].band or (1.0, math.e)
        share = math.log(flops / low) / math.log(high / low)
        cohort += f"/{min(int(share * stopping.flops_strata), stopping.flops_strata - 1)}"
    return f"{cohort}/+{wave}" if wave and stopping.method == "synchronous" else cohort


def cohorts_of(study: Study, trials: Iterable[Any]) -> dict[str, Cohort]:
    """What a rule must know of the cohorts; trials are rows of the journal, or `TrialRow`s as dicts."""
    members: dict[str, list[str]] = {}
    scales: dict[str, str] = {}
    for trial in trials:
        members.setdefault(trial["cohort"], []).append(trial["trial_id"])
        scales[trial["cohort"]] = trial["scale"]
    return {name: Cohort(study.stopping_at(scales[name]).rungs, known) for name, known in members.items()}
