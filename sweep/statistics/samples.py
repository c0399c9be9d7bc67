"""What is known of the errors of a space at one budget: all its networks, or those that early stopping left.

In: errors in percent. Out: a `Sample`, which answers with means, their standard errors and resamples: effects.py and
bootstrap.py compare two of them, whatever their kind. `Complete` holds every network's error; `FullBudget`
(full_budget.py) knows some and weights them.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Beyond so many networks a studentised mean is taken as normal: resampling more of them would only take time.
NORMAL_ABOVE = 3_000


class Sample(Protocol):
    """Networks of a space at one budget."""

    @property
    def num(self) -> int:
        """How many networks it speaks of."""
        ...

    @property
    def values(self) -> Floats:
        """(k,): the errors that are known, in percent."""
        ...

    @property
    def weights(self) -> Floats:
        """(k,): what each of them counts; they sum to 1."""
        ...

    @property
    def has_spread(self) -> bool:
        """Whether anything can be said of the standard error of the mean."""
        ...

    @property
    def mean(self) -> float:
        """The mean error of all networks."""
        ...

    @property
    def squared_error(self) -> float:
        """Of `mean`, as in the resamples."""
        ...

    def means(self, of: Floats) -> tuple[Floats, Floats]:
        """Estimated means over all networks, and their squared standard errors: (q,) each, of `of` (k, q), the values
        that some functions of the error have for the networks that are known."""
        ...

    def shares(self, grid: Floats) -> tuple[Floats, Floats]:
        """Of all networks, those at or below each error of `grid` (q,), and the squared standard errors."""
        ...

    def resample(self, size: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Mean errors and their squared standard errors of `size` resamples of the networks."""
        ...


@dataclass(frozen=True)
class Complete:
    """A sample of which every network's error is known."""

    values: Floats

    @property
    def num(self) -> int:
        return len(self.values)

    @property
    def weights(self) -> Floats:
        return np.full(len(self.values), 1 / max(1, len(self.values)))

    @property
    def has_spread(self) -> bool:
        return len(self.values) > 1 and float(np.ptp(self.values)) > 0

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def squared_error(self) -> float:
        return float(np.var(self.values, ddof=1)) / self.num

    def means(self, of: Floats) -> tuple[Floats, Floats]:
        if self.num < 2:
            return of.mean(axis=0), np.full(of.shape[1], np.nan)
        return of.mean(axis=0), of.var(axis=0, ddof=1) / self.num

    def shares(self, grid: Floats) -> tuple[Floats, Floats]:
        return self.means(at_or_below(self.values, grid))

    def resample(self, size: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        num = self.num
        if num > NORMAL_ABOVE:
            return rng.normal(self.mean, self.squared_error**0.5, size), np.full(size, self.squared_error)
        drawn = self.values[rng.integers(num, size=(size, num))]
        # A resample of one value repeated must have exactly no spread, which rounding in var() does not promise.
        variance = np.where(np.ptp(drawn, axis=1) == 0, 0.0, drawn.var(axis=1, ddof=1))
        return drawn.mean(axis=1), variance / num


def at_or_below(values: Floats, grid: Floats) -> Floats:
    """(k, q): 1 where a value is at or below an error of `grid`, else 0."""
    return (values[:, None] <= grid).astype(np.float64)
