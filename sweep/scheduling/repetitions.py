"""What a scheduler costs, finds and lets one say: many sweeps replayed on recorded curves, held against all of them.

In: pools of complete curves (pools.py), designs (peers.py). Out: for each design its cost, the regret of the network
that it finds, and for each estimator of the full budget (sweep/statistics/full_budget.py) bias, error and coverage,
and how often verdicts agree with those on the full data.

Each repetition draws the networks of a sweep from the pools, with replacement: so the pool *is* the population, its
mean and quantiles are the truth, and the draws are independent as those of a sweep are. It draws the order in which
they start and the lottery too. All designs of a repetition share the draws, so that they differ by what they are and
not by chance, and the estimators of a design share its sweep. Repetitions are seeded one by one: the numbers do not
depend on how many processes share the work.

Two estimators need no early stopping: "all" trains every network drawn to the end, and "fewer" so many of them, chosen
at random, as cost the same number of epochs as the design. "first_rung" takes all networks drawn at the first rung, as
the verdicts of a sweep do; it speaks of another budget, and is held against the others for its verdicts alone.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from sweep.scheduling.peers import Design, schedule
from sweep.scheduling.pools import Pool
from sweep.scheduling.replay import Course, Trials, play
from sweep.statistics.cohorts import Cohort
from sweep.statistics.full_budget import full_budget

Floats = NDArray[np.float64]

QUANTITIES: dict[str, float | None] = {"mean": None, "q10": 0.10, "q25": 0.25, "q50": 0.50, "q75": 0.75}
WITH_LOTTERY = ("horvitz_thompson", "hajek", "model_assisted")
OF_FULL_BUDGET = ("survivors", *WITH_LOTTERY, "fewer", "all")
ESTIMATORS = (*OF_FULL_BUDGET, "first_rung")
_OF_STOPPED = ("survivors", *WITH_LOTTERY)
VALUE, STANDARD_ERROR, LOW, HIGH = range(4)

CONFIDENCE = 0.95
LEAST_FEWER = 2  # networks of a space, so that their mean has a standard error


@dataclass(frozen=True)
class Repetitions:
    """What R repetitions of a design gave in S spaces.

    `epochs` (R × S); `wall_s`, `busy_s` (R), seconds of the virtual clock and of all workers together; `found_pct`
    and `found_by_fewer_pct` (R × S), the full-budget error of the best network that finished; `best_drawn_pct` (R × S),
    that of the best of all drawn; `estimates` (R × S × ESTIMATORS × QUANTITIES × value, standard error, low, high), NaN
    where an estimator has nothing to say.
    """

    epochs: Floats
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

    networks: NDArray[np.int64]
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
    return [_outcome(work, design, draw) for design in work.designs]


def _outcome(work: _Work, design: Design, draw: _Draw) -> Repetitions:
    """One repetition of one design; arrays without the first axis."""
    pools, num = work.pools, design.num_trials
    course = _course(work, design, draw)
    epochs = course.epochs.reshape(len(pools), num).sum(axis=1)
    estimates = np.full((len(pools), len(ESTIMATORS), len(QUANTITIES), 4), np.nan)
    found, found_by_fewer, best = (np.empty(len(pools)) for _ in range(3))
    for space, pool in enumerate(pools):
        own = slice(space * num, (space + 1) * num)
        networks = draw.networks[space, :num]
        ends = pool.errors_pct[networks, design.max_epochs - 1]
        num_fewer = min(num, max(LEAST_FEWER, round(epochs[space] / design.max_epochs)))
        found[space] = ends[course.finished[own]].min(initial=ends.max())  # nothing found: as bad as the worst
        found_by_fewer[space], best[space] = ends[:num_fewer].min(), ends.min()
        samples = {
            "stopped": _cohort(pool, networks, course, own, design),
            "fewer": _cohort(pool, networks[:num_fewer], None, own, design),
            "all": _cohort(pool, networks, None, own, design),
        }
        if design.rungs:
            samples["first_rung"] = _cohort(pool, networks, None, own, replace(design, max_epochs=design.grace_epochs))
        for number, estimator in enumerate(ESTIMATORS):
            if estimator in work.estimators and (estimator != "first_rung" or design.rungs):
                _estimate(
                    samples.get(estimator, samples["stopped"]), estimator, work.quantities, out=estimates[space, number]
                )
    return Repetitions(
        epochs=epochs.astype(float),
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
    audited = (draw.lottery[:, :num].ravel() < design.audit_fraction).tolist()
    plan = schedule(design, spaces, audited)
    trials = Trials(
        errors_pct=np.concatenate([pool.errors_pct[networks, : design.max_epochs] for pool, networks in chosen]),
        cohorts=plan.cohorts,
        rungs=plan.rungs,
        audited=audited,
        epoch_s=np.concatenate([pool.epoch_s[networks] for pool, networks in chosen]),
    )
    order = np.argsort(draw.order[:, :num].ravel()).tolist()
    if design.scheduler == "random":
        affordable = _affordable(work, design, draw)
        order = [trial for trial in order if trial % num < affordable[trial // num]]
    return play(plan.rule, trials, order, num_workers=design.num_workers)


def _affordable(work: _Work, design: Design, draw: _Draw) -> list[int]:
    """How many networks of each space "random" trains: for `cost`, else for what "asha" costs in this repetition."""
    num = design.num_trials
    if work.cost is not None:
        shares = [work.cost] * len(work.pools)
    else:
        course = _course(work, replace(design, scheduler="asha"), draw)
        shares = (course.epochs.reshape(-1, num).sum(axis=1) / (num * design.max_epochs)).tolist()
    return [min(num, max(LEAST_FEWER, round(share * num))) for share in shares]


def _cohort(pool: Pool, networks: NDArray[np.int64], course: Course | None, own: slice, design: Design) -> Cohort:
    """What is known of the networks of a space: of the trials `own` of a course, or, without one, all of them."""
    errors = pool.errors_pct[networks, : design.max_epochs]
    num = len(networks)
    would_stop_at, finished = np.zeros(num, dtype=np.int64), np.ones(num, dtype=np.bool_)
    if course is not None:
        epochs = course.epochs[own]
        started = epochs > 0
        networks, errors = networks[started], errors[started]
        would_stop_at, finished, epochs = (
            course.would_stop_at[own][started],
            course.finished[own][started],
            epochs[started],
        )
        errors[np.arange(design.max_epochs) >= epochs[:, np.newaxis]] = np.nan
    complexities = {
        name: None if (values := getattr(pool, name)) is None else values[networks]
        for name in ("flops", "params", "activations")
    }
    return Cohort(
        space=pool.space,
        scale="",
        trial_ids=list(map(str, range(len(networks)))),
        errors=errors,
        would_stop_at=would_stop_at,
        finished=finished,
        audit_fraction=design.audit_fraction,
        **complexities,
    )


def _estimate(cohort: Cohort, estimator: str, quantities: Sequence[str], *, out: Floats) -> None:
    """Value, standard error, low and high of each of the quantities, into `out`."""
    if estimator in WITH_LOTTERY and not cohort.finished.all() and cohort.audit_fraction == 0:
        return
    estimates = full_budget(cohort, estimator if estimator in _OF_STOPPED else "hajek")
    for number, (quantity, tau) in enumerate(QUANTITIES.items()):
        if quantity not in quantities:
            continue
        estimate = estimates.mean() if tau is None else estimates.quantile(tau)
        out[number] = estimate.value, estimate.standard_error, estimate.low, estimate.high
