"""`sweep simulate`: schedulers tried on recorded curves, thousands of times, before a single network is trained.

In: pools of complete curves (pools.py) and designs (peers.py). Out: a `Simulation`, which holds what was replayed and
what came out; it prints as JSON, and dashboards/simulated.py draws it.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cluster.machine import num_cores
from sweep.scheduling.simulation.accuracy import Simulated, simulated
from sweep.scheduling.simulation.peers import Design
from sweep.scheduling.simulation.pools import Pool
from sweep.scheduling.simulation.repetitions import QUANTITIES, repeat
from sweep.spaces import SPACES, rule_pairs

# Below so many sweeps, processes of their own take longer to start than the work takes.
_SWEEPS_FOR_A_PROCESS = 200


@dataclass(frozen=True)
class Population:
    """What is drawn from: the full-budget error of its networks in percent, which is the truth here."""

    space: str
    num_networks: int
    best_pct: float
    mean_pct: float
    quantiles_pct: dict[str, float]


@dataclass(frozen=True)
class Simulation:
    """`num_repetitions` sweeps of each design; `margin_pct` is what verdicts count as free."""

    source: str
    num_repetitions: int
    seed: int
    margin_pct: float
    spaces: list[Population]
    designs: list[Simulated]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **{name: getattr(self, name) for name in ("source", "num_repetitions", "seed", "margin_pct")},
            "spaces": [asdict(population) for population in self.spaces],
            "designs": [design.to_dict() for design in self.designs],
        }


def simulate(
    pools: Sequence[Pool],
    designs: Sequence[Design],
    *,
    source: str,
    num_repetitions: int,
    seed: int,
    margin_pct: float,
    pairs: Sequence[tuple[str, str]] | None = None,
    cost: float | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Simulation:
    """Replay each design so often, on as many cores as there are.

    `pairs` (without, with) of spaces to judge, None for those that differ by a rule; `cost`: the share of full training
    that "random" may take, None for what "asha" costs in the same repetition. Raises `ValueError` naming what is wrong.
    """
    if num_repetitions < 2:
        raise ValueError(f"repetitions: {num_repetitions} say nothing of chance; give 2 or more, better 1000")
    if cost is not None and not 0 < cost <= 1:
        raise ValueError(f"cost: {cost} is no share of full training; give a number above 0, at most 1")
    _check_rungs(pools, designs)
    names = [pool.space for pool in pools]
    pairs = known_pairs(names) if pairs is None else pairs
    for space in (space for pair in pairs for space in pair):
        if space not in names:
            raise ValueError(f"pairs: there are no curves of {space!r}; there are those of {', '.join(names)}")
    repetitions = repeat(
        pools,
        designs,
        num_repetitions=num_repetitions,
        seed=seed,
        cost=cost,
        num_processes=processes_for(num_repetitions * len(designs)),
        progress=progress,
    )
    return Simulation(
        source=source,
        num_repetitions=num_repetitions,
        seed=seed,
        margin_pct=margin_pct,
        spaces=[_population(pool) for pool in pools],
        designs=[
            simulated(design, found, pools, pairs=pairs, margin_pct=margin_pct)
            for design, found in zip(designs, repetitions)
        ],
    )


def _check_rungs(pools: Sequence[Pool], designs: Sequence[Design]) -> None:
    """Curves may have been recorded at some epochs only."""
    for design in designs:
        for pool in pools:
            missing = sorted(set(design.rungs) - set(pool.cohort.epochs.tolist()))
            if missing:
                raise ValueError(
                    f"scheduler: {design.scheduler!r} with grace {design.grace_epochs} and eta "
                    f"{design.reduction_factor} judges after {missing[0]} epochs, where the curves of {pool.space} "
                    "hold no error; change --grace or --eta, or record every epoch"
                )


def known_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs (without, with) of spaces that ship and differ by a rule."""
    shipped = [SPACES[name] for name in names if name in SPACES]
    return [(pair.space_without, pair.space_with) for pair in rule_pairs(shipped)]


def processes_for(num_sweeps: int) -> int:
    """How many processes to share so many replayed sweeps."""
    return max(1, min(num_cores(), num_sweeps // _SWEEPS_FOR_A_PROCESS))


def _population(pool: Pool) -> Population:
    return Population(
        space=pool.space,
        num_networks=len(pool.chances),
        best_pct=pool.best_pct,
        mean_pct=pool.mean_pct,
        quantiles_pct={name: pool.quantile_pct(tau) for name, tau in QUANTITIES.items() if tau is not None},
    )
