"""How fast one slot trains: multiply-adds per second on small and large networks, the range that `sweep plan` uses.

Run with `python tests/benchmarks/slot_speed.py`; prints one JSON line a network: images and multiply-adds per second,
training passes counted as three forward ones. Medians of five rounds, the networks interleaved.
"""

import json
import statistics
import time

import numpy as np

from sweep.scheduling.population import draw_population
from sweep.spaces import ZOO, Architecture, complexity
from sweep.studies import Recipe, load_study
from sweep.training.data import Split
from sweep.training.trial import Trial

BATCH, NUM_IMAGES, ROUNDS = 128, 640, 5


def networks() -> dict[str, tuple[Architecture, int]]:
    """Some of the quickstart's at 28 pixels, d2l's RegNetX32 and RegNetX-200MF at 96."""
    drawn = draw_population(load_study("quickstart", ["trials_per_space=2"]))[0]
    small = {row.trial_id: (Architecture.from_json(row.architecture), 28) for row in drawn[:4]}
    return small | {name: (ZOO[name], 96) for name in ("regnetx32", "regnetx_200mf")}


def make_trial(architecture: Architecture, resolution: int) -> Trial:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (NUM_IMAGES, resolution, resolution)).astype(np.uint8)
    labels = rng.integers(0, 10, NUM_IMAGES).astype(np.uint8)
    split = Split(images, labels, np.arange(NUM_IMAGES), np.array([], dtype=int), 0.5, 0.29)
    return Trial(architecture, Recipe(batch_size=BATCH), split, num_epochs=ROUNDS + 1, seed=0)


def main() -> None:
    trials = {name: make_trial(*network) for name, network in networks().items()}
    runs = {name: trial.run() for name, trial in trials.items()}
    for run in runs.values():
        next(run)  # the first epoch warms up
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            started = time.perf_counter()
            next(run)
            seconds[name].append(time.perf_counter() - started)
    for name, (architecture, resolution) in networks().items():
        images_per_s = NUM_IMAGES / statistics.median(seconds[name])
        flops = complexity(architecture, resolution=resolution, channels=1, classes=10).flops
        line = {
            "network": name,
            "resolution": resolution,
            "flops": flops,
            "images_per_s": round(images_per_s),
            "flops_per_s": round(3 * flops * images_per_s),
        }
        print(json.dumps(line))  # noqa: T201


if __name__ == "__main__":
    main()
