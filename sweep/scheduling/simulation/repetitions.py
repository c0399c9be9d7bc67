"""What a scheduler costs, finds and lets one say: many sweeps replayed on recorded curves, held against all of them.

In: pools of complete curves (pools.py), designs (peers.py). Out: for each design its cost, the regret of the network
that it finds, and for each estimator of the full budget (sweep/statistics/full_budget.py) bias, error and coverage,
and how often verdicts agree with those on the full data.

Each repetition draws the networks of a sweep from the pools, with replacement: so the pool *is* the population, its
mean and quantiles are the truth, and the draws are independent as those of a sweep are. It draws the order in which
they start and the lottery too. All designs of a repetition share the draws, so that they differ by what they are and
not by chance, and the estimators of a design share its sweep. Repetitions are seeded one by one: the numbers do not
depend on how many processes share the work.

"survivors" takes those that trained to the end because the rule never wanted to stop them, which is all that a sweep
without a lottery has. Two estimators need no early stopping: "all" trains every network drawn to the end, and "fewer"
so many of them, chosen at random, as cost the same number of epochs as the design. "first_rung" takes all networks
drawn at the first rung; it speaks of another budget, and is held against the others for its verdicts alone.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from statistics import NormalDist
from typing import cast

import numpy as np

from sweep.scheduling.simulation.peers import Design, schedule
from sweep.scheduling.simulation.pools import Pool
from sweep.scheduling.simulation.replay import Course, Trials, play
from sweep.statistics.bootstrap import mean_interval
from sweep.statistics.cohorts import Cohort, Ints
from sweep.statistics.full_budget import FullBudget, Method, full_budget
from sweep.statistics.rules.effects import quantile, quantile_interval
from sweep.statistics.samples import Complete, Floats, Sample

QUANTITIES: dict[str, float | None] = {"mean": None, "q10": 0.10, "q25": 0.25, "q50": 0.50, "q75": 0.75}
OF_FULL_BUDGET = ("survivors", "horvitz_thompson", "hajek", "model_assisted", "fewer", "all")
ESTIMATORS = (*OF_FULL_BUDGET, "first_rung")
VALUE, STANDARD_ERROR, LOW, HIGH = range(4)

CONFIDENCE = 0.95
_NUM_BOOTSTRAP = 399
LEAST_FEWER = 2  # networks of a space, so that their mean has a standard error


@dataclass(frozen=True)
class Repetitions:
    """What R repetitions of a design gave in S spaces.

    `epochs` (R × S), and `full_epochs`, those of training to the end all that were drawn; `wall_s`, `busy_s` (R),
    seconds of the virtual clock and of all workers together; `found_pct` and `found_by_fewer_pct` (R × S), the
    full-budget error of the best network that finished; `best_drawn_pct` (R × S), that of the best of all drawn;
    `estimates` (R × S × ESTIMATORS × QUANTITIES × value, standard error, low, high), NaN where an estimator has nothing
    to say.
    """

    epochs: Floats
    full_epochs: Floats
    wall_s: Floats
    busy_s: Floats
    found_pct: Floats
    found_by_fewer_pct: Floats
    best_drawn_pct: Floats
    estimates: Floats


def repeat(
    pools: Sequence[Pool],
    designs: Sequence[Design],
    *,
    num_repetitions: int,
    seed: int,
    cost: float | None = None,
    estimators: Sequence[str] = ESTIMATORS,
    quantities: Sequence[str] = tuple(QUANTITIES),
    num_processes: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Repetitions]:
    """Replay each design so often. `cost`: the share of full training that "random" may take, None for that of "asha"
    in the same repetition; `estimators` and `quantities`: those to compute; `progress` hears how many repetitions are
    done."""
    work = _Work(tuple(pools), tuple(designs), seed, cost, tuple(estimators), tuple(quantities))
    size = max(1, min(25, num_repetitions // (4 * num_processes)))
    chunks = [range(first, min(first + size, num_repetitions)) for first in range(0, num_repetitions, size)]
    found: dict[range, list[Repetitions]] = {}
    for chunk, outcome in _results(work, chunks, num_processes):
        found[chunk] = outcome
        progress(sum(map(len, found)))
    in_order = [found[chunk] for chunk in chunks]
    return [_joined([outcome[number] for outcome in in_order]) for number in range(len(designs))]


def _joined(parts: Sequence[Repetitions]) -> Repetitions:
    fields = Repetitions.__dataclass_fields__
    return Repetitions(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in fields})


def _stacked(parts: Sequence[Repetitions]) -> Repetitions:
    fields = Repetitions.__dataclass_fields__
    return Repetitions(**{name: np.stack([getattr(part, name) for part in parts]) for name in fields})


# -- processes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Work:
    """What each process needs to know."""

    pools: tuple[Pool, ...]
    designs: tuple[Design, ...]
    seed: int
    cost: float | None
    estimators: tuple[str, ...]
    quantities: tuple[str, ...]


def _results(work: _Work, chunks: Sequence[range], num_processes: int) -> Iterator[tuple[range, list[Repetitions]]]:
    if num_processes == 1:
        yield from ((chunk, _chunk(work, chunk)) for chunk in chunks)
        return
    with (
        _one_thread_each(),
        ProcessPoolExecutor(num_processes, get_context("spawn"), initializer=_begin, initargs=(work,)) as executor,
    ):
        waiting = {executor.submit(_chunk_of_process, chunk): chunk for chunk in chunks}
        for done in as_completed(waiting):
            yield waiting[done], done.result()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that share the cores must not start a thread for each core: their libraries read this as they load."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


_work_of_process: list[_Work] = []  # set once, when a process begins: the pools are large and do not travel again


def _begin(work: _Work) -> None:
    _work_of_process.append(work)


def _chunk_of_process(chunk: range) -> list[Repetitions]:
    return _chunk(_work_of_process[0], chunk)


def _chunk(work: _Work, chunk: range) -> list[Repetitions]:
    repetitions = [_repetition(work, number) for number in chunk]
    return [_stacked([outcomes[number] for outcomes in repetitions]) for number in range(len(work.designs))]


# -- one repetition --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Draw:
    """Chance, for the largest of the designs: a smaller one takes the first networks of each space.

    All S × n: `networks`, places in the pools; tickets of the `lottery` and of the `order`, uniform in [0, 1).
    """

    networks: Ints
    lottery: Floats
    order: Floats


def _draw(work: _Work, number: int) -> _Draw:
    """The first n of a space are the same whatever the largest number, so that designs can be compared across calls."""
    most = max(design.num_trials for design in work.designs)
    chance = np.stack(
        [np.random.default_rng([work.seed, number, space]).random((most, 3)) for space in range(len(work.pools))]
    )
    networks = [pool.drawn(row[:, 0]) for pool, row in zip(work.pools, chance)]
    return _Draw(np.stack(networks), chance[:, :, 1], chance[:, :, 2])


def _repetition(work: _Work, number: int) -> list[Repetitions]:
    draw = _draw(work, number)
    # The same chance for the intervals of each design.
    return [_outcome(work, design, draw, np.random.default_rng([work.seed, number])) for design in work.designs]


def _outcome(work: _Work, design: Design, draw: _Draw, rng: np.random.Generator) -> Repetitions:
    """One repetition of one design; arrays without the first axis."""
    pools, num = work.pools, design.num_trials
    course = _course(work, design, draw)
    epochs = course.epochs.reshape(len(pools), num).sum(axis=1)
    full_epochs = np.empty(len(pools))
    estimates = np.full((len(pools), len(ESTIMATORS), len(QUANTITIES), 4), np.nan)
    found, found_by_fewer, best = (np.empty(len(pools)) for _ in range(3))
    for space, pool in enumerate(pools):
        own = slice(space * num, (space + 1) * num)
        drawn = pool.cohort.take(draw.networks[space, :num])
        ends, full_epochs[space] = drawn.final_errors, _full_epochs(drawn)
        num_fewer = _affordable(epochs[space] / full_epochs[space], num)
        # A sweep that finished nothing found nothing: as bad as the worst.
        found[space] = ends[course.finished[own]].min(initial=ends.max())
        found_by_fewer[space], best[space] = ends[:num_fewer].min(), ends.min()
        seen = _stopped(drawn, course, own, design)
        for place, estimator in enumerate(ESTIMATORS):
            sample = _sample(estimator, drawn, seen, num_fewer, design) if estimator in work.estimators else None
            if sample is not None and len(sample.values):
                _estimate(sample, work.quantities, rng, out=estimates[space, place])
    return Repetitions(
        epochs=epochs.astype(float),
        full_epochs=full_epochs,
        wall_s=np.array(course.wall_s),
        busy_s=np.array(course.busy_s),
        found_pct=found,
        found_by_fewer_pct=found_by_fewer,
        best_drawn_pct=best,
        estimates=estimates,
    )


def _course(work: _Work, design: Design, draw: _Draw) -> Course:
    """The sweep of all spaces together, space by space."""
    num = design.num_trials
    spaces = [pool.space for pool in work.pools for _ in range(num)]
    chosen = [(pool, networks[:num]) for pool, networks in zip(work.pools, draw.networks)]
    tickets = draw.lottery[:, :num].ravel()
    plan = schedule(design, spaces)
    trials = Trials(
        max_epochs=design.max_epochs,
        cohorts=plan.cohorts,
        rungs=plan.rungs,
        errors_pct={
            rung: np.concatenate([pool.cohort.errors_at(rung)[networks] for pool, networks in chosen])
            for rung in design.rungs
        },
        diverged_at=np.concatenate([pool.cohort.diverged_at[networks] for pool, networks in chosen]),
        audited=(tickets < design.lottery(among_worst=False)).tolist(),
        audited_if_worst=(tickets < design.lottery(among_worst=True)).tolist(),
        epoch_s=np.concatenate([pool.epoch_s[networks] for pool, networks in chosen]),
    )
    order = np.argsort(draw.order[:, :num].ravel()).tolist()
    if design.scheduler == "random":
        affordable = [_affordable(share, num) for share in _shares(work, design, draw)]
        order = [trial for trial in order if trial % num < affordable[trial // num]]
    return play(plan.rule, trials, order, num_workers=design.num_workers)


def _shares(work: _Work, design: Design, draw: _Draw) -> list[float]:
    """Of full training, that "random" may take of each space: `cost`, else what "asha" takes in this repetition."""
    if work.cost is not None:
        return [work.cost] * len(work.pools)
    num = design.num_trials
    epochs = _course(work, replace(design, scheduler="asha"), draw).epochs.reshape(-1, num).sum(axis=1)
    drawn = [pool.cohort.take(networks[:num]) for pool, networks in zip(work.pools, draw.networks)]
    return [float(taken / _full_epochs(cohort)) for taken, cohort in zip(epochs, drawn)]


def _affordable(share: float, num: int) -> int:
    """How many of `num` networks can be trained fully for a share of the cost of all."""
    return min(num, max(LEAST_FEWER, round(share * num)))


def _full_epochs(cohort: Cohort) -> int:
    """What training each to its end takes; one that diverges ends there."""
    return int(np.where(cohort.diverged_at > 0, cohort.diverged_at, cohort.full_budget).sum())


def _sample(estimator: str, drawn: Cohort, seen: Cohort, num_fewer: int, design: Design) -> Sample | None:
    """What an estimator makes of the networks `drawn` of a space, of which the sweep has `seen` a part; or nothing."""
    if estimator == "all":
        return Complete(drawn.final_errors)
    if estimator == "fewer":
        return Complete(drawn.final_errors[:num_fewer])
    if estimator == "first_rung":
        return Complete(drawn.errors_at(design.rungs[0])) if design.rungs else None
    if estimator == "survivors":
        return Complete(seen.final_errors[(seen.would_stop_at == 0) & (seen.diverged_at == 0)])
    return full_budget(seen, cast(Method, estimator))


def _stopped(drawn: Cohort, course: Course, own: slice, design: Design) -> Cohort:
    """What the sweep of a course knows of the networks drawn of a space, its trials `own`."""
    epochs, finished = course.epochs[own], course.finished[own]
    untrained = ~finished[:, np.newaxis] & (drawn.epochs > epochs[:, np.newaxis])
    seen = replace(
        drawn,
        errors=np.where(untrained, np.nan, drawn.errors),
        would_stop_at=course.would_stop_at[own],
        audit_fraction=np.where(
            course.among_worst[own], design.lottery(among_worst=True), design.lottery(among_worst=False)
        ),
    )
    return seen.take(epochs > 0)


def _estimate(sample: Sample, quantities: Sequence[str], rng: np.random.Generator, *, out: Floats) -> None:
    """Value, standard error, low and high of each of the quantities, into `out`; of one network no interval."""
    for number, (quantity, tau) in enumerate(QUANTITIES.items()):
        if quantity not in quantities:
            continue
        if not sample.has_spread:
            out[number, VALUE] = sample.mean if tau is None else quantile([(1.0, sample)], tau)
        elif tau is None:
            out[number] = _mean(sample, rng)
        else:
            value, low, high = quantile_interval([(1.0, sample)], tau, confidence=CONFIDENCE)
            out[number] = value, np.nan, low, high


def _mean(sample: Sample, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """With the interval that a sweep prints; of weights without a model, which have none, that of a normal estimate."""
    standard_error = math.sqrt(sample.squared_error)
    if isinstance(sample, FullBudget) and sample.method != "model_assisted":
        reach = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * standard_error
        return sample.mean, standard_error, sample.mean - reach, sample.mean + reach
    limits = mean_interval(sample, confidence=CONFIDENCE, num_bootstrap=_NUM_BOOTSTRAP, rng=rng)
    return sample.mean, standard_error, *(limits or (np.nan, np.nan))
