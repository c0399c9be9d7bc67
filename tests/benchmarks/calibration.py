"""Do the verdicts err as rarely as they say? Populations in which each rule is true, false or free by construction.

Out: `sweep/statistics/CALIBRATION.md`, by `make calibration` (about half an hour on two cores), or less of it with
`python tests/benchmarks/calibration.py --repetitions 50`. Each population is judged by the very functions that judge
sweeps: three rules between four spaces as one family.
"""

import argparse
import os
import platform
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import stopped

from sweep.spaces import RulePair
from sweep.statistics.bootstrap import mean_interval
from sweep.statistics.cohorts import Cohort
from sweep.statistics.full_budget import full_budget
from sweep.statistics.rules.comparisons import at_full_budget, at_rung
from sweep.statistics.rules.effects import quantile_interval
from sweep.statistics.rules.verdicts import Terms, Verdict, judge_contrasts

PAGE = Path(__file__).parents[2] / "sweep" / "statistics" / "CALIBRATION.md"
TERMS = Terms(margin_pct=2.0, confidence=0.95, num_bootstrap=999, seed=0)
SPACES = ("first", "second", "third", "fourth")
PAIRS = [RulePair(f"rule {b}", "", a, b) for a, b in pairwise(SPACES)]
POOL = 200_000

Draw = Callable[[int, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Population:
    """Errors in percent of networks; `sizes` of the four spaces for a size n, as factors."""

    name: str
    draw: Draw
    sizes: tuple[float, ...] = (1, 1, 1, 1)


def plain(num: int, rng: np.random.Generator) -> np.ndarray:
    return 20 + 4 * rng.gumbel(size=num)


def heavy(num: int, rng: np.random.Generator) -> np.ndarray:
    return 12 + 5 * np.exp(0.9 * rng.normal(size=num))


def diverged(num: int, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(num) < 0.05, 90.0, plain(num, rng))


def tied(num: int, rng: np.random.Generator) -> np.ndarray:
    return plain(num, rng).round()


POPULATIONS = (
    Population("skewed (Gumbel, spread 5)", plain),
    Population("heavy tails (log-normal)", heavy),
    Population("one in twenty diverged", diverged),
    Population("ties (whole points)", tied),
    Population("unequal sizes (n, 3n, n, 3n)", plain, (1, 3, 1, 3)),
)
SIZES = (20, 50, 100)
EFFECT_PCT = 3.0


# -- without early stopping ----------------------------------------------------------------------------------------


def judged(population: Population, size: int, shifts: tuple[float, ...], seed: int) -> list[Verdict]:
    """Four spaces, each shifted by so many points, trained to the end."""
    rng = np.random.default_rng([seed, size])
    cohorts: dict[tuple[str, str], Cohort] = {}
    for space, factor, shift in zip(SPACES, population.sizes, shifts):
        errors = np.clip(population.draw(round(factor * size), rng) + shift, 0, 100)[:, None]
        cohorts["all", space] = stopped.bare(errors, np.zeros(len(errors)), space=space)
    contrasts = [at_rung(cohorts, pair, "all", 1, match="none", match_strata=0) for pair in PAIRS]
    return judge_contrasts(contrasts, TERMS)


def of_null(population: Population, size: int, seed: int) -> list[float]:
    """No rule does anything: [any helps or hurts, interval of the mean holds 0 (each rule), of median, tenth, wins]."""
    found = judged(population, size, (0, 0, 0, 0), seed)
    held = [_holds(v.ci_low_pct, v.ci_high_pct, 0.0) for v in found]
    others = [[_holds(o.low, o.high, 0.0) for o in v.others] for v in found]
    wrong = any(v.verdict in ("helps", "hurts") for v in found)
    wrong_others = [any(v.others[k].verdict in ("helps", "hurts") for v in found) for k in range(3)]
    return [wrong, *wrong_others, np.mean(held), *np.mean(others, axis=0)]


def of_margin(population: Population, size: int, seed: int) -> list[float]:
    """Each rule does just as much as the margin: any called free."""
    margin = TERMS.margin_pct
    return [any(v.verdict == "free" for v in judged(population, size, (0, margin, 2 * margin, margin), seed))]


def of_effect(population: Population, size: int, seed: int) -> list[float]:
    """The first rule helps, the second is free, the third hurts: how often each is found, and the interval's width."""
    first, second, third = judged(population, size, (EFFECT_PCT, 0, 0, EFFECT_PCT), seed)
    width = np.nan if first.ci_low_pct is None else first.ci_high_pct - first.ci_low_pct
    return [first.verdict == "helps", second.verdict == "free", third.verdict == "hurts", width]


def _holds(low: float | None, high: float | None, value: float) -> float:
    return np.nan if low is None or high is None else float(low <= value <= high)


# -- under early stopping with the lottery -------------------------------------------------------------------------


def stopped_null(size: int, is_heavy: bool, audit_fraction: float, seed: int) -> list[float]:
    """Four spaces that are the same, as ASHA leaves them: verdicts and intervals at the full budget."""
    rng = np.random.default_rng([seed, size, 7])
    pool = _pool(is_heavy)
    truth = [pool[:, -1].mean(), *np.quantile(pool[:, -1], [0.1, 0.5])]
    cohorts = {
        ("all", space): stopped.cohort(
            pool[rng.integers(len(pool), size=size)], rng, audit_fraction=audit_fraction, space=space
        )
        for space in SPACES
    }
    contrasts = [at_full_budget(cohorts, pair, "all", match="none", match_strata=0) for pair in PAIRS]
    found = judge_contrasts(contrasts, TERMS)
    first = cohorts["all", SPACES[0]]
    sample = full_budget(first)
    survivors = first.final_errors[first.is_certain].mean()
    cost = np.mean(np.isfinite(first.errors))
    if sample is None:
        return [*[np.nan] * 8, survivors - truth[0], cost]
    limits = mean_interval(sample, confidence=0.95, num_bootstrap=TERMS.num_bootstrap, rng=rng) or (np.nan, np.nan)
    quantiles = [quantile_interval([(1.0, sample)], level, confidence=0.95)[1:] for level in (0.1, 0.5)]
    return [
        any(v.verdict in ("helps", "hurts") for v in found),
        np.nanmean([_holds(v.ci_low_pct, v.ci_high_pct, 0.0) for v in found]),
        *(_holds(*interval, value) for interval, value in zip([limits, *quantiles], truth)),
        sample.mean - truth[0],
        (sample.mean - truth[0]) ** 2,
        np.var(pool[:, -1]) / (cost * size),
        survivors - truth[0],
        cost,
    ]


_POOLS: dict[bool, np.ndarray] = {}


def _pool(is_heavy: bool) -> np.ndarray:
    if is_heavy not in _POOLS:
        _POOLS[is_heavy] = stopped.curves(POOL, np.random.default_rng(5), heavy=is_heavy)
    return _POOLS[is_heavy]


# -- the page ------------------------------------------------------------------------------------------------------


def repeat(run: Callable[[int], list[float]], repetitions: int, pool: ProcessPoolExecutor) -> np.ndarray:
    """(repetitions, …); each is seeded by its number."""
    return np.array(list(pool.map(run, range(repetitions), chunksize=max(1, repetitions // 16))), dtype=float)


def page(repetitions: int) -> str:
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        return "\n".join([*_head(repetitions), *_errors(repetitions, pool), *_power(repetitions, pool),
                          *_stopping(repetitions, pool)]) + "\n"  # fmt: skip


def _head(repetitions: int) -> list[str]:
    noise = 100 * 1.96 * (0.05 * 0.95 / repetitions) ** 0.5
    return [
        "# Calibration",
        "",
        "Made by `make calibration`; do not edit. Populations in which each rule is true, false or free by "
        "construction, judged by the functions that judge sweeps: three rules between four spaces as one family, "
        f"{TERMS.confidence:.0%} confidence, a margin of {TERMS.margin_pct:g} points, {TERMS.num_bootstrap} resamples. "
        f"{repetitions:,} repetitions a row, so a rate of 5 % is known to ± {noise:.1f} points.",
        "",
        f"{datetime.now(UTC):%d %B %Y}, {platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}.",
        "",
    ]


def _errors(repetitions: int, pool: ProcessPoolExecutor) -> list[str]:
    lines = [
        "## Error rates without early stopping",
        "",
        "Wrong *helps* or *hurts*: any of the three, in %, where no rule does anything; wrong *free*: any of them, "
        "where each does just as much as the margin. Both are to be at most 5. Then how often 95 % intervals hold what "
        "is true.",
        "",
        "| population | n a space | wrong helps or hurts | on the median | on the best tenth | on wins | wrong free "
        "| interval of the mean | median | best tenth | wins |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for population in POPULATIONS:
        for size in SIZES:
            null = repeat(partial(of_null, population, size), repetitions, pool)
            free = repeat(partial(of_margin, population, size), repetitions, pool)
            rates = [_percent(value) for value in np.nanmean(null, axis=0)]
            lines.append(
                f"| {population.name} | {size} | {' | '.join([*rates[:4], _percent(free.mean()), *rates[4:]])} |"
            )
            _tell(lines[-1])
    return [*lines, ""]


def _power(repetitions: int, pool: ProcessPoolExecutor) -> list[str]:
    lines = [
        "## Power",
        "",
        f"The first rule helps by {EFFECT_PCT:g} points, the second does nothing, the third hurts as much: how "
        "often each is found, in %, and how wide the first one's interval is.",
        "",
        "| population | n a space | helps found | free found | hurts found | width, points |",
        "|---|---|---|---|---|---|",
    ]
    for population in POPULATIONS:
        for size in (*SIZES, 200):
            found = np.nanmean(repeat(partial(of_effect, population, size), repetitions // 4, pool), axis=0)
            lines.append(f"| {population.name} | {size} | {' | '.join(map(_percent, found[:3]))} | {found[3]:.1f} |")
            _tell(lines[-1])
    return [*lines, ""]


def _stopping(repetitions: int, pool: ProcessPoolExecutor) -> list[str]:
    lines = [
        "## Under ASHA with the lottery, at the full budget",
        "",
        f"Curves of 9 epochs, rungs after {' and '.join(map(str, stopped.RUNGS))}, about one in "
        f"{stopped.REDUCTION_FACTOR} goes on; no rule does anything. Bias of the model-assisted mean with its standard "
        "error, in points, and its root mean square error beside that of training fewer networks in full for the same "
        "cost. The survivors' bias is what the lottery is for.",
        "",
        "| population | n a space | lottery | cost | wrong helps or hurts | interval of the difference | of the mean "
        "| of the best tenth | of the median | bias | rmse | fewer in full | survivors' bias |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for is_heavy in (False, True):
        name = "skewed, one in twenty never learns" if is_heavy else "skewed"
        for size in (100, 200):
            for audit_fraction in (0.1, 0.2):
                found = repeat(partial(stopped_null, size, is_heavy, audit_fraction), repetitions, pool)
                mean = np.nanmean(found, axis=0)
                rates = " | ".join(map(_percent, mean[:5]))
                noise = np.nanstd(found[:, 5]) / len(found) ** 0.5
                lines.append(
                    f"| {name} | {size} | {audit_fraction:g} | {mean[9]:.0%} | {rates} | {mean[5]:+.3f} ± {noise:.3f} "
                    f"| {mean[6] ** 0.5:.2f} | {mean[7] ** 0.5:.2f} | {mean[8]:+.2f} |"
                )
                _tell(lines[-1])
    return lines


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--page", type=Path, default=PAGE)
    asked = parser.parse_args()
    asked.page.write_text(page(asked.repetitions), encoding="utf-8")
