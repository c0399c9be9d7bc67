"""Two classifiers on the same images: by how much their errors differ, with an interval that knows they are paired.

In: how many images each of the two alone got wrong. Out: the difference in points of error with its interval: adjusted
Wald, two pseudo-images in the cells that count (Bonett and Price 2012, “Adjusted Wald confidence interval for a
difference of binomial proportions based on paired data”). Images that both got right, or both wrong, say nothing of the
difference, so it is known far better than from two intervals of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

from scipy.special import ndtri


@dataclass(frozen=True)
class Difference:
    """In points of error, with its interval."""

    points: float
    low: float
    high: float


def paired_difference(num_only_first: int, num_only_second: int, num_images: int, *, confidence: float) -> Difference:
    """Second minus first, in points of error. The limits are about a value drawn a little towards zero."""
    total = num_images + 2
    first, second = (num_only_first + 1) / total, (num_only_second + 1) / total
    half = float(ndtri((1 + confidence) / 2)) * sqrt((first + second - (second - first) ** 2) / total)
    middle = second - first
    low, high = max(-1.0, middle - half), min(1.0, middle + half)
    return Difference(100 * (num_only_second - num_only_first) / num_images, 100 * low, 100 * high)


def ensemble_gain(rerun: Mapping[str, Any]) -> Difference:
    """Error of the ensemble minus that of the single network, of a rerun with an ensemble as `result.json` holds it."""
    ensemble = rerun["ensemble"]
    only_single, only_ensemble = ensemble["num_only_single_wrong"], ensemble["num_only_ensemble_wrong"]
    return paired_difference(only_single, only_ensemble, rerun["num_test"], confidence=rerun["confidence"])
