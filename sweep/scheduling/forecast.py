"""What a study will cost, before it starts: epochs from a simulation of its stopping rule, hours from its flops.

In: a study and its drawn trials. Out: a `Forecast`. The simulation plays the very `asha.py` of the sweep over
trials of random merit in random order, so its spread is that of asynchronous arrival, not a guess.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sweep.records import TrialRow
from sweep.scheduling.asha import Asha
from sweep.studies import Study

# Multiply-adds per second of one core in training, fp32: from 5e9 for networks of 0.5 MF at 28 pixels to 4e10 for
# those of 40 MF at 96 (`tests/benchmarks/slot_speed.py`: six networks, medians of five rounds, torch 2.14 on one of
# two cores of an AMD EPYC), and half of that where all cores train and neighbours are busy.
CPU_FLOPS_PER_S = (2.5e9, 4e10)
_TRAIN_PASSES = 3  # forward, and a backward that costs about two of them


@dataclass(frozen=True)
class Forecast:
    """Ranges are the 5 % and 95 % quantiles of the simulation; hours add the range of a core's speed."""

    num_trials: int
    trials_by_cohort: dict[str, int]
    rung_epochs: tuple[int, ...]
    max_epochs: int
    epochs_if_all_completed: int
    epochs_low: int
    epochs_mean: float
    epochs_high: int
    device_hours_low: float
    device_hours_high: float
    device: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def forecast(study: Study, trials: Sequence[TrialRow]) -> Forecast:
    stopping = study.stopping
    levels = stopping.rungs
    rng = np.random.default_rng(study.seed)
    num_simulations = max(20, min(200, 200_000 // len(trials)))  # large studies vary less and cost more to play
    per_trial = np.array([_simulate(study, trials, levels, rng) for _ in range(num_simulations)])
    epochs = per_trial.sum(axis=1)
    flops = np.array([trial.flops for trial in trials])
    images = _TRAIN_PASSES * study.data.num_train + study.data.num_validation
    work = per_trial @ flops * images
    cohorts = [trial.cohort for trial in trials]
    return Forecast(
        num_trials=len(trials),
        trials_by_cohort={cohort: cohorts.count(cohort) for cohort in sorted(set(cohorts))},
        rung_epochs=levels,
        max_epochs=stopping.max_epochs,
        epochs_if_all_completed=len(trials) * stopping.max_epochs,
        epochs_low=int(np.quantile(epochs, 0.05)),
        epochs_mean=float(epochs.mean()),
        epochs_high=int(np.ceil(np.quantile(epochs, 0.95))),
        device_hours_low=float(np.quantile(work, 0.05) / CPU_FLOPS_PER_S[1] / 3600),
        device_hours_high=float(np.quantile(work, 0.95) / CPU_FLOPS_PER_S[0] / 3600),
        device="one CPU core",
    )


def _simulate(
    study: Study, trials: Sequence[TrialRow], levels: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray:
    """Epochs of each trial when merits and order are random and a trial is as good at one rung as at the next."""
    asha = Asha(study.stopping.reduction_factor)
    merits = rng.random(len(trials))
    epochs = np.full(len(trials), study.stopping.max_epochs)
    for i in rng.permutation(len(trials)):
        for level in levels:
            would_stop = asha.arrive(trials[i].cohort, level, float(merits[i])).would_stop
            if would_stop and not trials[i].audited:
                epochs[i] = level
                break
    return epochs
