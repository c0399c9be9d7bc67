"""What fits say of networks that they have not seen: main effects, and interactions, for each network held out.

In: the factors of networks (factors.py) and their errors. Out: a `CrossFit`, from which additive.py reads how much main
effects explain and importance.py which factor matters most.

On four fifths of the networks an additive function and a forest (forest.py) are fitted; on the other fifth both
predict, and a weighted sum of what they say is the prediction. The additive fit is a ridge regression (Hoerl and
Kennard 1970) on a basis for each column, one function for each level or cubic splines of the number's rank, its penalty
by generalised cross-validation (Golub, Heath and Wahba 1979). With networks enough for its coefficients it finds main
effects that a forest misses; with fewer the forest's main effects do better, as it takes few columns. The forest's
interactions are what is not additive.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.optimize import nnls

from sweep.statistics.bootstrap import Floats
from sweep.statistics.factors.factors import Column, Factors
from sweep.statistics.factors.forest import Decomposition, grow_forest

FEWEST_NETWORKS = 20
"""Fewer say nothing of what matters among several factors: the analyses give None."""

NUM_FOLDS, NUM_REPEATS = 5, 2
_MOST_SINGLE_LEVELS, _NUM_KNOTS, _DEGREE = 5, 4, 3
_PENALTIES = np.logspace(-3, 5, 25)


@dataclass(frozen=True, eq=False)
class CrossFit:
    """Each of N networks is held out once a repeat: V visits, in the order of the networks.

    Of a visit `held_out_errors`, (V,), less the mean error of the networks fitted; `additive`, (V, F), the main effect
    of each factor in the additive fit; `forest_mains`, (V, F), those of the forest; `interactions`, (V,), all else
    that the forest says; and `interactions_without`, (V, F), that averaged over all values of the factor. The
    additive fit to all networks leaves `residuals`, (N,), and spends `coefficients`, (F,), on each factor, shrunk ones
    counted in part. In points of error.
    """

    factors: Factors
    errors: Floats
    residuals: Floats
    coefficients: Floats
    held_out_errors: Floats
    additive: Floats
    forest_mains: Floats
    interactions: Floats
    interactions_without: Floats

    @property
    def num_coefficients(self) -> float:
        return float(self.coefficients.sum())

    @property
    def spare_networks(self) -> float:
        """How many networks the additive fit has beyond its coefficients and the mean; at least 1."""
        return max(1.0, len(self.errors) - 1 - self.num_coefficients)

    @cached_property
    def squared_deviations(self) -> Floats:
        """From the mean error, (N,); their mean is the variance that is to be explained."""
        return (self.errors - self.errors.mean()) ** 2

    @cached_property
    def weights(self) -> Floats:
        """Of the additive fit, of the forest's main effects and of its interactions, 0 or more."""
        return _stacked(self._parts, self.held_out_errors)

    @property
    def best(self) -> Floats:
        """The best prediction, (V,)."""
        return self._parts @ self.weights

    @property
    def best_additive(self) -> Floats:
        """The best prediction without interactions, (V,)."""
        mains_V = self._parts[:, :2]
        return mains_V @ _stacked(mains_V, self.held_out_errors)

    @cached_property
    def _parts(self) -> Floats:
        return np.stack([self.additive.sum(axis=1), self.forest_mains.sum(axis=1), self.interactions], axis=1)

    def by_network(self, values: Floats) -> Floats:
        """The mean over the visits of each network, (N, …)."""
        return values.reshape(len(self.errors), -1, *values.shape[1:]).mean(axis=1)


def cross_fit(factors: Factors, errors: Floats, *, rng: np.random.Generator) -> CrossFit | None:
    """Fit and predict each network held out; `errors`, shape (n,), in percent. Some seconds for 500 networks.

    None below `FEWEST_NETWORKS`, if no factor varies or errors do not. Raises `ValueError` if there is not one finite
    error for each network.
    """
    check_errors(factors, errors)
    if len(errors) < FEWEST_NETWORKS or not factors.factors or np.ptp(errors) == 0:
        return None
    bases = [np.concatenate([_basis(column) for column in factor.columns], axis=1) for factor in factors.factors]
    rows_told, parts_told = [], []
    for rows, held_out in _folds(len(errors), rng):
        additive = _Additive(bases, errors, rows)
        forest = Decomposition(grow_forest(factors, errors[rows], rows, rng=rng), factors, rng=rng)
        told = forest.at(factors, held_out)
        mains = told.mains.sum(axis=1, keepdims=True)
        rows_told.append(held_out)
        parts_told.append(
            np.column_stack(
                [
                    errors[held_out] - errors[rows].mean(),
                    told.prediction - forest.mean - mains[:, 0],
                    additive.at(held_out),
                    told.mains,
                    told.without - forest.mean - (mains - told.mains),
                ]
            )
        )
    order = np.argsort(np.concatenate(rows_told), kind="stable")
    told_V = np.concatenate(parts_told)[order]
    additive_VF, mains_VF, interactions_VF = np.split(told_V[:, 2:], 3, axis=1)
    everywhere = np.arange(len(errors))
    whole = _Additive(bases, errors, everywhere)
    return CrossFit(
        factors=factors,
        errors=errors,
        residuals=errors - errors.mean() - whole.at(everywhere).sum(axis=1),
        coefficients=whole.coefficients,
        held_out_errors=told_V[:, 0],
        additive=additive_VF,
        forest_mains=mains_VF,
        interactions=told_V[:, 1],
        interactions_without=interactions_VF,
    )


def _stacked(parts_V: Floats, errors_V: Floats) -> Floats:
    """Weights by least squares over networks held out (stacking, Breiman 1996): a fit says too much of what it has
    learnt from noise, and a boosted one too little of what is there."""
    return nnls(parts_V, errors_V)[0]


def check_errors(factors: Factors, errors: Floats) -> None:
    """Raises `ValueError` unless there is one finite error for each network."""
    if errors.shape != (factors.num_networks,):
        raise ValueError(f"errors: shape {errors.shape} for {factors.num_networks} networks; give one for each")
    missing = np.count_nonzero(~np.isfinite(errors))
    if missing:
        raise ValueError(
            f"errors: {missing} of {len(errors)} are not finite; count a diverged network at chance level, "
            "leave out those without an error"
        )


def _folds(num: int, rng: np.random.Generator) -> Iterator[tuple[NDArray[np.int_], NDArray[np.int_]]]:
    """Rows to fit and rows held out: `NUM_REPEATS` times a partition into `NUM_FOLDS`."""
    for _ in range(NUM_REPEATS):
        for held_out in np.array_split(rng.permutation(num), NUM_FOLDS):
            yield np.setdiff1d(np.arange(num), held_out), held_out


def _basis(column: Column) -> Floats:
    """The column as functions of it, (N, functions): one for each level, or splines of its rank."""
    if column.is_category or len(column.levels) <= _MOST_SINGLE_LEVELS:
        return np.eye(len(column.levels))[column.codes]
    counts = np.bincount(column.codes)
    middles = np.cumsum(counts) - counts / 2
    positions = (middles - middles[0]) / (middles[-1] - middles[0])
    knots = np.pad(np.linspace(0, 1, _NUM_KNOTS), _DEGREE, mode="edge")
    return BSpline.design_matrix(positions, knots, _DEGREE).toarray()[column.codes]


class _Additive:
    """The additive fit to the networks at `rows`, with its degrees of freedom for each factor, `coefficients`."""

    def __init__(self, bases: list[Floats], errors: Floats, rows: NDArray[np.int_]) -> None:
        self._bases = bases
        ends = np.cumsum([of_factor.shape[1] for of_factor in bases])
        self._places = [slice(int(end - b.shape[1]), int(end)) for b, end in zip(bases, ends)]
        basis = np.concatenate([of_factor[rows] for of_factor in bases], axis=1)
        self._middle, spread = basis.mean(axis=0), basis.std(axis=0)
        self._spread = np.where(spread > 0, spread, 1.0)  # a level may have no network here
        deviations = errors[rows] - errors[rows].mean()
        left, singular, right = np.linalg.svd((basis - self._middle) / self._spread, full_matrices=False)
        projected = left.T @ deviations
        shrinkage_PS = singular**2 / (singular**2 + _PENALTIES[:, None])
        freedoms_P = shrinkage_PS.sum(axis=1)
        # What the basis cannot reach, and what shrinking leaves of what it can.
        beyond = max(0.0, np.sum(deviations**2) - np.sum(projected**2))
        left_over_P = beyond + np.sum(((1 - shrinkage_PS) * projected) ** 2, axis=1)
        best = int(np.argmin(left_over_P / np.maximum(len(rows) - 1 - freedoms_P, 1e-9) ** 2))
        self._coefficients = right.T @ (projected * singular / (singular**2 + _PENALTIES[best]))
        of_columns = shrinkage_PS[best] @ right**2
        self.coefficients = np.array([of_columns[place].sum() for place in self._places])

    def at(self, rows: NDArray[np.int_]) -> Floats:
        """The main effect of each factor on the networks at `rows`, (rows, F)."""
        effects = [
            (of_factor[rows] - self._middle[here]) / self._spread[here] @ self._coefficients[here]
            for of_factor, here in zip(self._bases, self._places)
        ]
        return np.stack(effects, axis=1)
