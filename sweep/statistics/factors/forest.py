"""A forest of boosted trees as a sum over boxes, and its exact decomposition into main effects and interactions.

In: the encoded columns of factors (factors.py) and the errors of networks. Out: predictions, main effects, predictions
without a factor, and their variances, all exact for that forest. fanova.py and importance.py read them off.

Shapes: N networks, F factors, C encoded columns, L leaves of all trees, R distinct values of a factor. Each leaf is a
box with one side for each factor, so under a distribution in which factors are independent everything is a sum over
leaves of products of chances (Hutter, Hoos and Leyton-Brown 2014, section 4.2); second moments are sums over pairs of
leaves.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweep.statistics.bootstrap import Floats
from sweep.statistics.factors.factors import Factors

Flags = NDArray[np.bool_]

# Stochastic gradient boosting (Friedman 2002): small steps, each tree on half of the networks. Of 80 to 500 networks
# with and without noise none of a dozen other settings did better throughout.
_NUM_TREES, _LEARNING_RATE, _LEAVES, _SHARE_OF_NETWORKS, _NETWORKS_PER_LEAF = 200, 0.05, 8, 0.5, 3
_MAX_VALUES = 256  # distinct values of one factor; of more, so many networks stand for all
_BLOCK_LEAVES = 128


@dataclass(frozen=True, eq=False)
class Forest:
    """A prediction is `offset` plus the `values` of all leaves with `lower` < columns ≤ `upper`."""

    lower: Floats
    upper: Floats
    values: Floats
    offset: float

    def inside(self, rows_RC: Floats, columns: slice) -> Flags:
        """Which rows of these columns alone lie within the sides of which leaves, (R, L)."""
        inside = np.ones((len(rows_RC), len(self.values)), dtype=bool)
        for place, column in enumerate(range(columns.start, columns.stop)):
            values = rows_RC[:, place, None]
            inside &= (values > self.lower[:, column]) & (values <= self.upper[:, column])
        return inside


@dataclass(frozen=True, eq=False)
class AtNetworks:
    """What a forest says of networks: its prediction, (N,); the main effect of each factor, (N, F), and the prediction
    averaged over all values of that factor, (N, F)."""

    prediction: Floats
    mains: Floats
    without: Floats


def grow_forest(factors: Factors, targets: Floats, rows: NDArray[np.int_], *, rng: np.random.Generator) -> Forest:
    """The forest of the networks at `rows`, whose numbers to predict are `targets`, (rows,)."""
    from sklearn.ensemble import GradientBoostingRegressor  # here: its import takes a second, and few commands need it

    model = GradientBoostingRegressor(
        n_estimators=_NUM_TREES,
        learning_rate=_LEARNING_RATE,
        max_depth=None,
        max_leaf_nodes=_LEAVES,
        min_samples_leaf=_NETWORKS_PER_LEAF,
        subsample=_SHARE_OF_NETWORKS,
        random_state=int(rng.integers(2**31)),
    )
    encoded_NC = np.concatenate([factor.encoded[rows] for factor in factors.factors], axis=1)
    model.fit(encoded_NC, targets)
    boxes = [_boxes(tree, encoded_NC.shape[1]) for tree in model.estimators_[:, 0]]
    lower, upper, values = (np.concatenate(parts) for parts in zip(*boxes))
    return Forest(lower, upper, _LEARNING_RATE * values, float(targets.mean()))


def _boxes(regressor: Any, num_columns: int) -> tuple[Floats, Floats, Floats]:
    """Lower and upper sides and values of the leaves of one tree of scikit-learn."""
    tree = regressor.tree_
    lower = np.full((tree.node_count, num_columns), -np.inf)
    upper = np.full((tree.node_count, num_columns), np.inf)
    nodes = np.array([0])
    while nodes.size:  # level by level, each node's box cut in two for its children
        nodes = nodes[tree.children_left[nodes] >= 0]
        left, right = tree.children_left[nodes], tree.children_right[nodes]
        for child in (left, right):
            lower[child], upper[child] = lower[nodes], upper[nodes]
        upper[left, tree.feature[nodes]] = lower[right, tree.feature[nodes]] = tree.threshold[nodes]
        nodes = np.concatenate([left, right])
    leaves = np.flatnonzero(tree.children_left < 0)
    return lower[leaves], upper[leaves], tree.value[leaves, 0, 0]


class Decomposition:
    """A forest under the distribution in which factors are independent, each distributed as among all networks.

    The columns of one factor are distributed jointly. Variances are in the squared unit of the errors.
    """

    def __init__(self, forest: Forest, factors: Factors, *, rng: np.random.Generator) -> None:
        self.forest = forest
        ends = np.cumsum([factor.encoded.shape[1] for factor in factors.factors])
        self._columns = [slice(int(end - f.encoded.shape[1]), int(end)) for f, end in zip(factors.factors, ends)]
        values = [_distinct(factor.encoded, rng) for factor in factors.factors]
        self._weights = [weights for _, weights in values]
        self._inside = [forest.inside(rows, columns) for (rows, _), columns in zip(values, self._columns)]
        self._chances_FL = np.stack([weights @ inside for weights, inside in zip(self._weights, self._inside)])
        # A leaf's value times the chance of all its sides but that of one factor.
        self._rests_FL = forest.values * _products_without(self._chances_FL)
        self._mean = float(self._chances_FL[0] @ self._rests_FL[0])  # without the offset, as everything in here

    @cached_property
    def _main_effects(self) -> list[Floats]:
        """Each factor's, at each of its values."""
        return [inside @ rest - self._mean for inside, rest in zip(self._inside, self._rests_FL)]

    def main_variances(self) -> Floats:
        """Of each factor's main effect, (F,)."""
        return np.array([weights @ effect**2 for weights, effect in zip(self._weights, self._main_effects)])

    def pair_variances(self) -> dict[tuple[int, int], float]:
        """Of what two factors do together beyond their main effects, by their places."""
        return {pair: self._pair_variance(*pair) for pair in combinations(range(len(self._weights)), 2)}

    def _pair_variance(self, j: int, k: int) -> float:
        rest = self.forest.values * np.delete(self._chances_FL, (j, k), axis=0).prod(axis=0)
        joint = (self._inside[j] * rest) @ self._inside[k].T - self._mean
        joint -= self._main_effects[j][:, None] + self._main_effects[k]
        return float(self._weights[j] @ joint**2 @ self._weights[k])

    def variances(self) -> tuple[float, Floats]:
        """Of the prediction, and of the prediction averaged over all values of each factor, (F,).

        From all pairs of leaves: the chance that a network lies in both is a product over factors.
        """
        values, chances = self.forest.values, self._chances_FL
        inside_F = [inside.astype(np.float64) for inside in self._inside]
        moment, moments_F = 0.0, np.zeros(len(chances))
        for start in range(0, len(values), _BLOCK_LEAVES):
            block = slice(start, start + _BLOCK_LEAVES)
            both_FBL = np.stack(
                [(inside[:, block] * weights[:, None]).T @ inside for inside, weights in zip(inside_F, self._weights)]
            )
            without_FBL = _products_without(both_FBL)
            moment += float(values[block] @ (both_FBL[0] * without_FBL[0]) @ values)
            apart = chances[:, block] * values[block], chances * values
            moments_F += np.einsum("fb,fbl,fl->f", apart[0], without_FBL, apart[1], optimize=True)
        return moment - self._mean**2, moments_F - self._mean**2

    def at(self, factors: Factors, rows: NDArray[np.int_]) -> AtNetworks:
        """What the forest says of the networks at `rows`."""
        inside_F = [
            self.forest.inside(factor.encoded[rows], columns) for factor, columns in zip(factors.factors, self._columns)
        ]
        outside_NL = sum((~inside).astype(np.int16) for inside in inside_F)
        values, offset = self.forest.values, self.forest.offset
        mains = [inside @ rest - self._mean for inside, rest in zip(inside_F, self._rests_FL)]
        without = [
            offset + (outside_NL == ~inside) @ (values * chances) for inside, chances in zip(inside_F, self._chances_FL)
        ]
        return AtNetworks(offset + (outside_NL == 0) @ values, np.stack(mains, axis=1), np.stack(without, axis=1))

    @property
    def mean(self) -> float:
        """The mean prediction."""
        return self.forest.offset + self._mean


def _distinct(encoded_NC: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """The distinct rows and their shares of the networks."""
    rows, counts = np.unique(encoded_NC, axis=0, return_counts=True)
    if len(rows) > _MAX_VALUES:
        drawn = encoded_NC[rng.choice(len(encoded_NC), size=_MAX_VALUES, replace=False)]
        rows, counts = np.unique(drawn, axis=0, return_counts=True)
    return rows, counts / counts.sum()


def _products_without(factors_F: Floats) -> Floats:
    """Along the first axis, the product of all others: no quotient, for a chance may be 0."""
    products = np.ones_like(factors_F)
    for place in range(1, len(factors_F)):  # of those before; a cumulative product along the first axis strides
        np.multiply(products[place - 1], factors_F[place - 1], out=products[place])
    after = np.ones_like(factors_F[0])
    for place in range(len(factors_F) - 2, -1, -1):
        after *= factors_F[place + 1]
        products[place] *= after
    return products
