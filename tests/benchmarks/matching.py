"""How often a 95 % interval errs, and finds an effect, where a rule comes with larger networks: unmatched and matched.

Run with `PYTHONPATH=tests python tests/benchmarks/matching.py [POPULATIONS]`; prints one JSON line for each number of
networks in a space: of so many populations (2,000; under a minute of one core), the shares in percent in which the
interval excludes the true difference, 0; in which it excludes 0 where the rule saves 1.5 points; and the networks that
matching leaves out.
"""

import json
import sys

import numpy as np
import synthetic

from sweep.statistics.bootstrap import Stratum, studentised_difference, unmatched
from sweep.statistics.rules.matching import matched

NUM_BOOTSTRAP, SAVED_PCT = 999, 1.5


def finds_an_effect(strata: list[Stratum], rng: np.random.Generator) -> bool:
    difference = studentised_difference(strata, num_bootstrap=NUM_BOOTSTRAP, rng=rng)
    return difference is not None and difference.p_value() < 0.05


def share_pct(found: list[bool]) -> float:
    return round(100 * sum(found) / len(found), 1)


def main(num_populations: int) -> None:
    for num in (20, 48, 100):
        rng = np.random.default_rng(num)
        nothing = [synthetic.confounded(rng, num) for _ in range(num_populations)]
        helps = [synthetic.confounded(rng, num, effect_pct=-SAVED_PCT) for _ in range(num_populations)]
        compared = [sum(s.without.num + s.with_.num for s in matched(*sample)) for sample in nothing]
        row = {
            "networks_per_space": num,
            "populations": num_populations,
            "errs_unmatched_pct": share_pct([finds_an_effect(unmatched(*sample[:2]), rng) for sample in nothing]),
            "errs_matched_pct": share_pct([finds_an_effect(matched(*sample), rng) for sample in nothing]),
            "finds_matched_pct": share_pct([finds_an_effect(matched(*sample), rng) for sample in helps]),
            "outside_pct": round(100 * (1 - float(np.mean(compared)) / (2 * num)), 1),
        }
        print(json.dumps(row), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
