"""What a rerun says of a network: three estimates of its error, each with the interval that it deserves.

In: a rerun as `result.json` holds it (sweep/rerun). Out: the sweep's estimate, the confirmed one, the full-scale
result. They speak of different things: the first is the luckiest of many; the second is the same budget with fresh
seeds; the third is more training on more images, judged on the test images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from sweep.statistics.distributions import share_interval


@dataclass(frozen=True)
class Estimate:
    """An error in percent, and its interval: None where a single seed gives none.

    `spread` says what the interval is for: the choice of the "images", or that of the "seeds".
    """

    error_pct: float
    low_pct: float | None
    high_pct: float | None
    spread: str
    num: int


def over_seeds(errors_pct: Sequence[float], *, confidence: float) -> Estimate:
    """The mean of one network's errors under several seeds, with Student's interval; at least one error."""
    mean, num = float(np.mean(errors_pct)), len(errors_pct)
    if num < 2:
        return Estimate(mean, None, None, "seeds", num)
    half = float(stdtrit(num - 1, (1 + confidence) / 2)) * standard_error(errors_pct)
    return Estimate(mean, max(0.0, mean - half), min(100.0, mean + half), "seeds", num)


def standard_error(errors_pct: Sequence[float]) -> float:
    """Of the mean of at least two errors."""
    return float(np.std(errors_pct, ddof=1) / np.sqrt(len(errors_pct)))


def over_images(error_pct: float, num_images: int, *, confidence: float) -> Estimate:
    """One network's error on `num_images` images, with the exact binomial interval of their choice."""
    wrong = np.array([round(error_pct / 100 * num_images)])
    low, high = share_interval(wrong, num_images, confidence=confidence)
    return Estimate(error_pct, 100 * float(low[0]), 100 * float(high[0]), "images", num_images)


def estimates(rerun: Mapping[str, Any]) -> tuple[Estimate | None, Estimate | None, Estimate]:
    """Of the network that was trained at full scale: in the sweep, confirmed, at full scale.

    The first is None for a network that the sweep did not choose, the second where nothing was confirmed.
    """
    candidate, confidence = rerun["candidate"], rerun["confidence"]
    confirmed, in_sweep_pct = candidate["confirmed_error_pct"], candidate["sweep_error_pct"]
    return (
        None if in_sweep_pct is None else over_images(in_sweep_pct, rerun["num_validation"], confidence=confidence),
        over_seeds(confirmed, confidence=confidence) if confirmed else None,
        over_images(rerun["test_error_pct"], rerun["num_test"], confidence=confidence),
    )


def flattery_pct(rerun: Mapping[str, Any]) -> float | None:
    """By how many points the sweep's best looked better than fresh seeds confirm: the regression to the mean.

    It is asked of the best of the sweep, whichever candidate won afterwards. None if nothing was confirmed.
    """
    confirmed = [candidate for candidate in rerun["candidates"] if candidate["confirmed_error_pct"]]
    if not confirmed:
        return None
    best = min(confirmed, key=lambda candidate: candidate["sweep_error_pct"])
    return float(np.mean(best["confirmed_error_pct"])) - best["sweep_error_pct"]
