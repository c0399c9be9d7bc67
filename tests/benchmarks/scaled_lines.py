"""How far scaled RegNets are from a quantised line: what sweep/spaces/scaling.py says of them.

    python tests/benchmarks/scaled_lines.py

For the ranges of the paper and for those of the quickstart: 150 RegNets X and 150 networks of AnyNet E (seed 0), then
the RegNets scaled. Of each the nearest line is sought on a grid, and the mean over all blocks of |log(width on the line
/ width)| is taken; printed are its median and its 90 % quantile over the networks, in percent. Two minutes of a core.
"""

import numpy as np

from sweep.spaces import SPACES, Architecture, Ranges, scaled
from sweep.spaces.space import MEMBER
from sweep.studies import load_study

NUM = 150
FACTORS = ((2, 1), (1.5, 1), (1, 2), (1, 1.5), (2, 1.5))
REGNET, ANYNET = SPACES["regnet_x"], SPACES["anynet_e"]


def drawn(name: str, ranges: Ranges) -> list[Architecture]:
    draws = SPACES[name].draw(ranges, np.random.default_rng(0), 20_000)
    found = {}
    for row in np.flatnonzero(draws.reasons == MEMBER):
        network = draws.network(row)
        found.setdefault(network.id, network)
        if len(found) == NUM:
            break
    return list(found.values())


def off_the_line(network: Architecture) -> float:
    widths = np.log(np.repeat(network.widths, network.depths).astype(float))
    block, first, last = np.arange(len(widths)), network.widths[0], network.widths[-1]
    w_m = np.arange(1.3, 3.3, 0.02)[:, None, None]
    best = np.inf
    for w_0 in range(max(8, first - 16), first + 17, 8):
        steepest = 1.5 * max((1.5 * last - w_0) / max(len(widths) - 1, 1), 1)
        line = w_0 + np.geomspace(steepest / 60, steepest, 80)[:, None] * block
        level = np.rint(np.log(line / w_0) / np.log(w_m))
        best = min(best, np.abs(np.log(np.rint(w_0 * w_m**level / 8) * 8) - widths).mean(axis=-1).min())
    return float(best)


def tell(label: str, networks: list[Architecture]) -> None:
    off = 100 * np.array([off_the_line(network) for network in networks])
    print(f"  {label:28} {np.median(off):5.1f} {np.quantile(off, 0.9):5.1f}", flush=True)  # noqa: T201


def main() -> None:
    for name, ranges in (("paper", Ranges()), ("quickstart", load_study("quickstart").scale[0].ranges_of(REGNET))):
        print(f"{name}: median and 90 % quantile, %")  # noqa: T201
        networks = drawn("regnet_x", ranges)
        tell("RegNet X", networks)
        tell("AnyNet E", drawn("anynet_e", ranges))
        for width_factor, depth_factor in FACTORS:
            factors = {"width_factor": width_factor, "depth_factor": depth_factor}
            tell(f"widths × {width_factor}, depths × {depth_factor}",
                 [scaled(network, REGNET, ranges, **factors) for network in networks])  # fmt: skip


if __name__ == "__main__":
    main()
