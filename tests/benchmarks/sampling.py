"""How fast populations are drawn: 100,000 distinct networks of each space in a band of flops.

    python tests/benchmarks/sampling.py [SPACE …]

Each space is drawn three times, in turn with a peer: the plain way, one network at a time in Python, as pycls samples
(the same chances as AnyNet A; weighed by the closed form of one network). Printed: medians of the seconds, and how many
networks of the band a second either gives, as a ratio.
"""

import random
import statistics
import sys
import time

from sweep.spaces import SPACES, Architecture, Ranges, Space, Stage, complexity, sample_population

NUM, NUM_PLAIN, ROUNDS = 100_000, 300, 3
BAND = (3e8, 6e8)
SMALL = {"resolution": 28, "channels": 1, "classes": 10}
BANDS = {"mlp": ((3e5, 1e6), SMALL), "ranges": (BAND, {})}


def plainly(ranges: Ranges) -> float:
    """Networks of the band a second."""
    rng, found, start = random.Random(0), 0, time.perf_counter()
    depths, depth_weights = list(ranges.depths), [1 / depth for depth in ranges.depths]
    while found < NUM_PLAIN:
        stages = []
        for _ in range(ranges.num_stages):
            ratio, group_width = rng.choice(ranges.pairs)
            widths = ranges.widths_for(ratio, group_width)
            (width,) = rng.choices(widths, [1 / width for width in widths])
            (depth,) = rng.choices(depths, depth_weights)
            stages.append(Stage(depth, width, group_width, ratio))
        found += BAND[0] <= complexity(Architecture(tuple(stages))).flops <= BAND[1]
    return found / (time.perf_counter() - start)


def drawn_s(space: Space, seed: int) -> float:
    (flops_min, flops_max), image = BANDS[space.TABLE]
    start = time.perf_counter()
    sample_population(
        space, space.RANGES(), num=NUM, seed=seed, flops_min=flops_min, flops_max=flops_max, max_draws=10**7, **image
    )
    return time.perf_counter() - start


def main(names: list[str]) -> None:
    print(f"{'space':22}{'s':>8}{'networks/s':>12}{'of plain':>10}")  # noqa: T201
    for name in names:
        seconds, plain = [], []
        for seed in range(ROUNDS):
            plain.append(plainly(Ranges()))
            seconds.append(drawn_s(SPACES[name], seed))
        time_s = statistics.median(seconds)
        ratio = NUM / time_s / statistics.median(plain)
        print(f"{name:22}{time_s:8.1f}{NUM / time_s:12,.0f}{ratio:10,.0f}")  # noqa: T201


if __name__ == "__main__":
    # The band holds fewer basic ResNets than that, and the transformers are 288.
    main(sys.argv[1:] or [name for name in SPACES if name not in ("resnet_basic", "vit")])
