"""What a study will cost, before it starts: epochs from a simulation of its stopping rule, hours from its flops, disk.

In: a study and its drawn trials. Out: a `Forecast`. The simulation plays the very `asha.py` of the sweep (replay.py)
over trials of random merit in random order, so its spread is that of the rule and not a guess. A trial is as good at
one rung as at the next, none fails, and there is one worker: with many, the promotions of "asha_promotion" come a
little later than here. Synchronous halving does not depend on the order; there the spread is what the lottery leaves
open.

The work is bounded whatever the size of the study: a simulation plays some 30,000 trials at most, a part of each large
cohort standing for all of it. Then the range is a little too wide, and the mean too high by some thousandths: the first
arrivals at a rung go on more easily.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from heapq import nlargest
from typing import Any

import numpy as np

from sweep.records import TrialRow
from sweep.scheduling.asha import rule_of
from sweep.scheduling.simulation.replay import Trials, play
from sweep.spaces import network_from_json
from sweep.studies import Recipe, Stopping, Study

# Multiply-adds per second of one core in training, fp32: from 5e9 for networks of 0.5 MF at 28 pixels to 4e10 for
# those of 40 MF at 96 (`tests/benchmarks/slot_speed.py`: six networks, medians of five rounds, torch 2.14 on one of
# two cores of an AMD EPYC), and half of that where all cores train and neighbours are busy.
CPU_FLOPS_PER_S = (2.5e9, 4e10)
_TRAIN_PASSES = 3  # forward, and a backward that costs about two of them

_TRIALS_PLAYED = 200_000  # in all simulations together, but for the least number of them
_MIN_SIMULATIONS, _MAX_SIMULATIONS = 8, 200
_TRIALS_AT_ONCE, _LEAST_OF_COHORT = 30_000, 1_000

# A state on disk: weights and momentum in fp32, batch norm's statistics, what torch.save writes around each tensor. A
# bound that a test holds against real ones: the states of 60 networks of five studies, of 722 to 27 million parameters,
# took 75 to 98 % of it (torch 2.14). Adam has two such means for each parameter where SGD has one.
_STATE_OF_ADAM = 1.5
_STATE_BYTES, _STATE_BYTES_PER_PARAM, _STATE_BYTES_PER_BLOCK = 12_000, 8.2, 16_000
_STATES_OF_TRAINING_TRIAL = 4  # after its last two epochs, in the middle of one, and the one that is being written
# The journal and MLflow's SQLite file, and in each trial's artifacts and log three small files and folders (120 trials
# of 1 and of 16 epochs with MLflow 3.17: 7.8 kB a trial and 1.8 kB an epoch; then 4 kB for each file or folder).
_RECORD_BYTES, _RECORD_BYTES_PER_TRIAL, _RECORD_BYTES_PER_EPOCH = 1_000_000, 24_000, 2_000


@dataclass(frozen=True)
class Disk:
    """What lies on disk, at most at once.

    Checkpoints lie where the profile says (`storage.checkpoints`), else in the run directory: for each trial in
    training as if it were the largest, for the best `num_kept` that trained to the end, and for those that wait at a
    rung as if all did. `records_bytes`: the journal and MLflow at `epochs_high`, without what a verbose trial logs.
    """

    per_training_trial_bytes: int
    num_kept: int
    kept_best_bytes: int
    waiting_bytes: int
    records_bytes: int

    def checkpoints_bytes(self, num_training: int) -> int:
        """With so many trials in training at a time."""
        return num_training * self.per_training_trial_bytes + self.kept_best_bytes + self.waiting_bytes


@dataclass(frozen=True)
class Forecast:
    """Ranges are the 5 % and 95 % quantiles of the simulation; hours add the range of a core's speed. `rung_epochs` and
    `max_epochs` are by scale."""

    num_trials: int
    trials_by_cohort: dict[str, int]
    rung_epochs: dict[str, tuple[int, ...]]
    max_epochs: dict[str, int]
    epochs_if_all_completed: int
    epochs_low: int
    epochs_mean: float
    epochs_high: int
    device_hours_low: float
    device_hours_high: float
    device: str
    disk: Disk

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def forecast(study: Study, trials: Sequence[TrialRow], *, keep_best: int = 3) -> Forecast:
    """`keep_best`: the profile's `storage.keep_best`. A few seconds at most, however many trials there are."""
    stopping = {scale.name: study.stopping_at(scale.name) for scale in study.scale}
    epochs, work = _play_often(study, trials)
    epochs_high = int(np.ceil(np.quantile(epochs, 0.95)))
    return Forecast(
        num_trials=len(trials),
        trials_by_cohort=dict(sorted(Counter(trial.cohort for trial in trials).items())),
        rung_epochs={name: one.rungs for name, one in stopping.items()},
        max_epochs={name: one.max_epochs for name, one in stopping.items()},
        epochs_if_all_completed=sum(stopping[trial.scale].max_epochs for trial in trials),
        epochs_low=int(np.quantile(epochs, 0.05)),
        epochs_mean=float(epochs.mean()),
        epochs_high=epochs_high,
        device_hours_low=float(np.quantile(work, 0.05) / CPU_FLOPS_PER_S[1] / 3600),
        device_hours_high=float(np.quantile(work, 0.95) / CPU_FLOPS_PER_S[0] / 3600),
        device="one CPU core",
        disk=_disk(study, trials, epochs_high, keep_best),
    )


def _disk(study: Study, trials: Sequence[TrialRow], epochs_high: int, keep_best: int) -> Disk:
    states = [state_bytes(trial.params, trial.architecture, study.recipe) for trial in trials]
    waits = {
        scale.name
        for scale in study.scale
        if study.stopping_at(scale.name).rungs and study.stopping.method in ("asha_promotion", "synchronous")
    }
    return Disk(
        per_training_trial_bytes=_STATES_OF_TRAINING_TRIAL * max(states),
        num_kept=keep_best,
        kept_best_bytes=sum(nlargest(keep_best, states)),
        waiting_bytes=sum(state for state, trial in zip(states, trials) if trial.scale in waits),
        records_bytes=_RECORD_BYTES + _RECORD_BYTES_PER_TRIAL * len(trials) + _RECORD_BYTES_PER_EPOCH * epochs_high,
    )


def state_bytes(params: int, architecture: str, recipe: Recipe) -> int:
    """What the state of a network (JSON) after an epoch takes on disk, at most."""
    num_blocks = network_from_json(architecture).depth
    tensors = _STATE_BYTES_PER_PARAM * params + _STATE_BYTES_PER_BLOCK * num_blocks
    return round(_STATE_BYTES + (1.0 if recipe.optimizer == "sgd" else _STATE_OF_ADAM) * tensors)


# -- the simulation ------------------------------------------------------------------------------------------------

Play = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""From the indices of the trials that play to the epochs of each."""


@dataclass(frozen=True)
class _AtScale:
    """The trials of one scale: `cohorts` hold their indices, `work` the multiply-adds of an epoch of each. Of a cohort
    no more than `most` play."""

    play: Play
    cohorts: list[np.ndarray]
    work: np.ndarray
    most: int

    @property
    def num_played(self) -> int:
        return sum(min(len(indices), self.most) for indices in self.cohorts)


def _play_often(study: Study, trials: Sequence[TrialRow]) -> tuple[np.ndarray, np.ndarray]:
    """For each simulation the epochs of all trials together, and the multiply-adds of all epochs."""
    rng = np.random.default_rng(study.seed)
    # No cohort has trials of two scales, so each scale plays by itself.
    by_scale: dict[str, list[TrialRow]] = {}
    for trial in trials:
        by_scale.setdefault(trial.scale, []).append(trial)
    num_cohorts = len({trial.cohort for trial in trials})
    scales = [_at_scale(study, scale, theirs, num_cohorts) for scale, theirs in by_scale.items()]
    num_played = sum(scale.num_played for scale in scales)
    totals = []
    for _ in range(max(_MIN_SIMULATIONS, min(_MAX_SIMULATIONS, _TRIALS_PLAYED // num_played))):
        total = np.zeros(2)
        for scale in scales:
            playing, stands_for = _sample(scale.cohorts, scale.most, rng)
            epochs = scale.play(playing, rng) * stands_for
            total += epochs.sum(), epochs @ scale.work[playing]
        totals.append(total)
    columns = np.array(totals)
    return columns[:, 0], columns[:, 1]


def _at_scale(study: Study, scale: str, trials: Sequence[TrialRow], num_cohorts: int) -> _AtScale:
    stopping, data = study.stopping_at(scale), study.data_at(scale)
    images = _TRAIN_PASSES * data.num_train + data.num_validation
    flops = np.array([trial.flops for trial in trials], dtype=float)  # the sums would overflow int64
    most = max(_LEAST_OF_COHORT, _TRIALS_AT_ONCE // num_cohorts) if _by_arrival(stopping) else len(trials)
    return _AtScale(_play_of(stopping, trials), _indices_by_cohort(trials), flops * images, most)


def _indices_by_cohort(trials: Sequence[TrialRow]) -> list[np.ndarray]:
    found: dict[str, list[int]] = {}
    for index, trial in enumerate(trials):
        found.setdefault(trial.cohort, []).append(index)
    return [np.array(indices) for indices in found.values()]


def _sample(
    cohorts: Sequence[np.ndarray], most: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | float]:
    """Indices of trials, of each cohort no more than `most`, and for how many each stands."""
    if max(map(len, cohorts)) <= most:
        return np.arange(sum(map(len, cohorts))), 1.0
    parts = [rng.permutation(indices)[:most] for indices in cohorts]
    weights = [np.full(len(part), len(indices) / len(part)) for part, indices in zip(parts, cohorts)]
    return np.concatenate(parts), np.concatenate(weights)


def _play_of(stopping: Stopping, trials: Sequence[TrialRow]) -> Play:
    names, numbers = np.unique([trial.cohort for trial in trials], return_inverse=True)
    cohorts, audited = names.tolist(), np.array([trial.audited for trial in trials], dtype=bool)
    audited_if_worst = np.array([trial.audited_if_worst for trial in trials], dtype=bool)

    def arrivals(playing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        merits, order = rng.random(len(playing)), rng.permutation(len(playing)).tolist()
        rule = rule_of(stopping.method, stopping.reduction_factor, {})
        trials = Trials(
            max_epochs=stopping.max_epochs,
            cohorts=[cohorts[number] for number in numbers[playing].tolist()],
            rungs=dict.fromkeys(cohorts, stopping.rungs),
            errors_pct=dict.fromkeys(stopping.rungs, merits),
            diverged_at=np.zeros(len(playing), dtype=np.int64),
            audited=audited[playing].tolist(),
            audited_if_worst=audited_if_worst[playing].tolist(),
            epoch_s=np.ones(len(playing)),
        )
        return play(rule, trials, order).epochs

    def halving(playing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return play_halving(stopping, numbers[playing], audited[playing], rng.random(len(playing)))

    return arrivals if _by_arrival(stopping) else halving


def _by_arrival(stopping: Stopping) -> bool:
    """Whether the order of arrival decides, so that it must be played one by one."""
    return bool(stopping.rungs) and stopping.method != "synchronous"


def play_halving(stopping: Stopping, cohorts: np.ndarray, audited: np.ndarray, merits: np.ndarray) -> np.ndarray:
    """What `replay.play` gives for synchronous halving and without rungs, cohort (a number) by cohort."""
    epochs = np.full(len(merits), stopping.max_epochs)
    for cohort in np.unique(cohorts):
        members = np.flatnonzero(cohorts == cohort)
        ranked = members[np.argsort(merits[members])]
        for rung in stopping.rungs:
            num_best = max(1, len(ranked) // stopping.reduction_factor)
            lost = ranked[num_best:]
            epochs[lost[~audited[lost]]] = rung
            ranked = ranked[:num_best]
    return epochs
