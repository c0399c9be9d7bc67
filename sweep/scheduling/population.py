"""The population: all trials of a study, drawn before any machine starts (DESIGN, section 3).

In: a study. Out: one `TrialRow` a trial, in the shuffled order of launch, and how many draws were rejected and why.
The same study gives the same population on a laptop and on a cluster, and the first k trials of each space stay
when `trials_per_space` grows.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from sweep.records import TrialRow
from sweep.spaces import complexity, get_space, sample_population
from sweep.studies import Scale, Study, derive_seed, draw_share


@dataclass(frozen=True)
class Draws:
    """How the networks of one space at one scale were found: `rejected` counts draws by reason."""

    space: str
    scale: str
    num_draws: int
    rejected: dict[str, int]


def draw_population(study: Study) -> tuple[list[TrialRow], list[Draws]]:
    """Raises `ValueError` where a flops band holds no member of a space."""
    trials: list[TrialRow] = []
    draws: list[Draws] = []
    for scale in study.scale:
        for space in study.spaces:
            members, found = _draw_space(study, scale, space)
            trials += members
            draws.append(found)
    # Shuffled over all cohorts, so that a sweep cut short has seen every space alike.
    order = np.random.default_rng(derive_seed(study.seed, "order")).permutation(len(trials))
    shuffled = [trials[i] for i in order]
    return [replace(trial, launch_order=position) for position, trial in enumerate(shuffled)], draws


def _draw_space(study: Study, scale: Scale, space: str) -> tuple[list[TrialRow], Draws]:
    image = {"resolution": scale.resolution, "channels": study.data.num_channels, "classes": study.data.num_classes}
    population = sample_population(
        get_space(space),
        scale.to_ranges(),
        num=study.trials_per_space,
        seed=derive_seed(study.seed, "population", space, scale.name),
        flops_min=scale.flops_min,
        flops_max=scale.flops_max,
        **image,
    )
    rows = []
    for draw, architecture in enumerate(population.members):
        cost = complexity(architecture, **image)
        trial_id = f"{space}-{scale.name}-{draw:04d}"
        rows.append(
            TrialRow(
                trial_id=trial_id,
                launch_order=0,
                space=space,
                scale=scale.name,
                cohort=_cohort(study, scale, space, cost.flops),
                draw=draw,
                architecture_id=architecture.id,
                architecture=architecture.to_json(),
                flops=cost.flops,
                params=cost.params,
                activations=cost.activations,
                seed=derive_seed(study.seed, "trial", trial_id),
                # The audit lottery: drawn once, before the trial starts. Such a trial is never stopped, so a known
                # fraction of those that the rule would stop is seen to the end (DESIGN 4.1b).
                audited=draw_share(study.seed, "audit", trial_id) < study.stopping.audit_fraction,
            )
        )
    return rows, Draws(space, scale.name, population.num_draws, dict(population.rejected))


def _cohort(study: Study, scale: Scale, space: str, flops: int) -> str:
    """Space and scale, and where a study asks the flops stratum: bands of equal ratio, counted from the cheapest."""
    if study.stopping.flops_strata == 1:
        return f"{space}/{scale.name}"
    share = math.log(flops / scale.flops_min) / math.log(scale.flops_max / scale.flops_min)
    stratum = min(int(share * study.stopping.flops_strata), study.stopping.flops_strata - 1)
    return f"{space}/{scale.name}/{stratum}"
