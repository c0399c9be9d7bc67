"""The population: all trials of a study, drawn before any machine starts (DESIGN, section 3).

In: a study. Out: one `TrialRow` a trial, in the shuffled order of launch, and how many draws were rejected and why.
The same study gives the same population on a laptop and on a cluster, and the first k trials of each space stay
when `trials_per_space` grows: a trial's id, network, seed and lottery depend on its number alone, so what is drawn
later (extend.py) is what a larger study would have had.

A trial's id ends with its number, of four digits or as many as it takes. As text `…-10000` therefore sorts before
`…-9999`: lists that people read are ordered by `launch_order` or `draw`, and where an id breaks a tie any fixed order
will do.
"""

import hashlib
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sweep.records import TrialRow
from sweep.spaces import Complexity, Network, sample_population
from sweep.studies import Scale, Study, derive_seed, draw_share


@dataclass(frozen=True)
class Draws:
    """How the networks of one space at one scale were found: `rejected` counts draws by reason."""

    space: str
    scale: str
    num_draws: int
    rejected: dict[str, int]


@dataclass(frozen=True)
class Members:
    """Which networks of a space at a scale: from number `first` to before `end`, in the order of their draws."""

    space: str
    scale: Scale
    first: int
    end: int


def draw_population(study: Study) -> tuple[list[TrialRow], list[Draws]]:
    """Raises `ValueError` where a flops band holds no member of a space, or too few."""
    wanted = [Members(space, scale, 0, study.trials_per_space) for scale in study.scale for space in study.spaces]
    return draw_members(study, wanted)


def draw_members(
    study: Study, wanted: Sequence[Members], *, wave: int = 0, launch_from: int = 0
) -> tuple[list[TrialRow], list[Draws]]:
    """The trials of these members, launched one after another from `launch_from` on. About 1.2 KB a trial.

    `wave` 0 is the study's own population, 1 its first extension, and so on. The draws are counted from a space's
    first member, whichever is wanted first.
    """
    # Shuffled over all cohorts, so that a sweep cut short has seen every space alike.
    seed = derive_seed(study.seed, "order", wave) if wave else derive_seed(study.seed, "order")
    order = np.random.default_rng(seed).permutation(sum(members.end - members.first for members in wanted))
    positions = iter((np.argsort(order) + launch_from).tolist())
    trials: list[TrialRow] = []
    draws: list[Draws] = []
    for members in wanted:
        found, networks = _draw(study, members)
        draws.append(found)
        for draw, (architecture, cost) in enumerate(networks, start=members.first):
            cohort = _cohort(study, members, cost.flops, wave)
            trials.append(_trial(study, members, draw, architecture, cost, cohort, next(positions)))
    return sorted(trials, key=lambda trial: trial.launch_order), draws


def _draw(study: Study, members: Members) -> tuple[Draws, Iterator[tuple[Network, Complexity]]]:
    scale, space = members.scale, study.get_space(members.space)
    try:
        population = sample_population(
            space,
            scale.ranges_of(space),
            num=members.end,
            seed=derive_seed(study.seed, "population", members.space, scale.name),
            flops_min=scale.flops_min,
            flops_max=scale.flops_max,
            resolution=scale.resolution,
            channels=study.data.num_channels,
            classes=study.data.num_classes,
        )
    except ValueError as error:
        raise ValueError(f"{members.space} at scale {scale.name!r}: {error}") from error
    found = Draws(members.space, scale.name, population.num_draws, dict(population.rejected))
    return found, zip(population.members[members.first :], population.costs[members.first :], strict=True)


def _trial(
    study: Study,
    members: Members,
    draw: int,
    architecture: Network,
    cost: Complexity,
    cohort: str,
    launch_order: int,
) -> TrialRow:
    trial_id = f"{members.space}-{members.scale.name}-{draw:04d}"
    content = architecture.to_json()
    return TrialRow(
        trial_id=trial_id,
        launch_order=launch_order,
        space=members.space,
        scale=members.scale.name,
        cohort=sys.intern(cohort),  # one text for all of a cohort
        draw=draw,
        architecture_id=hashlib.sha256(content.encode()).hexdigest()[:12],  # its `id`, without the JSON once more
        architecture=content,
        flops=cost.flops,
        params=cost.params,
        activations=cost.activations,
        seed=derive_seed(study.seed, "trial", trial_id),
        # The audit lottery: drawn once, before the trial starts. Such a trial is never stopped, so a known
        # fraction of those that the rule would stop is seen to the end (DESIGN 4.1b).
        audited=draw_share(study.seed, "audit", trial_id) < study.stopping.audit_fraction,
    )


def _cohort(study: Study, members: Members, flops: int, wave: int) -> str:
    """Space and scale; where a study asks the flops stratum: bands of equal ratio, counted from the cheapest.

    A synchronous rung is decided when all of its cohort have arrived, so what is added later is a cohort of its own.
    """
    scale, stopping = members.scale, study.stopping
    cohort = f"{members.space}/{scale.name}"
    if stopping.flops_strata > 1:
        share = math.log(flops / scale.flops_min) / math.log(scale.flops_max / scale.flops_min)
        cohort += f"/{min(int(share * stopping.flops_strata), stopping.flops_strata - 1)}"
    return f"{cohort}/+{wave}" if wave and stopping.method == "synchronous" else cohort
