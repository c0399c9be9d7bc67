"""Functional analysis of variance on a forest: how much of the variance of error each factor, and each pair, makes.

In: the factors of networks (factors.py) and their errors. Out: the shares of variance of a forest's predictions, exact
for that forest. Stands for the seed's assumption that aspects of design factor approximately, and for exercise 3 of
d2l.ai 8.8, which of them matters most; DDS has no counterpart.

The method is that of Hutter, Hoos and Leyton-Brown 2014, *An Efficient Approach for Assessing Hyperparameter
Importance*: each leaf of a tree is a box, so the mean prediction over all but some factors is a sum over leaves of the
leaf's value times the chance of the other sides of its box.

**Measure.** Factors are taken as independent of each other, each distributed as among the networks (the columns of one
factor jointly, so sorted widths stay sorted). Within a band of flops they are not independent, for deeper networks are
narrower: the shares then speak of combinations that the sample hardly has, as all of fANOVA does. Hutter et al. take
the uniform distribution over the whole space; that of the sample weights a log-uniform space as it is drawn.

Where this deviates from them:
* The forest is boosted (Friedman 2002, trees of 8 leaves), not bagged. Of 80 to 500 networks a random forest explained
  13 to 15 points less variance of networks unseen on NAS-Bench-Macro, and gave factors that matter little a third of
  their due.
* The shares are those of the forest as a whole. The mean of single trees' shares, which they report, counts what a tree
  takes from its own resample as interaction.
* A forest learns a large effect before a small one and main effects before interactions: of few networks the share of
  main effects is too high. additive.py bounds it; importance.py measures what holds for networks unseen.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sweep.statistics.bootstrap import Floats
from sweep.statistics.factors.crossfit import FEWEST_NETWORKS, check_errors
from sweep.statistics.factors.factors import Factors
from sweep.statistics.factors.forest import Decomposition, grow_forest


@dataclass(frozen=True)
class FactorShare:
    """Of the variance of predictions, 0 to 1: what the factor makes by itself, and with all that it interacts in."""

    factor: str
    main: float
    total: float


@dataclass(frozen=True)
class PairShare:
    """Of the variance of predictions, 0 to 1: what two factors make together beyond what each makes by itself."""

    first: str
    second: str
    share: float


@dataclass(frozen=True)
class Fanova:
    """The variance of a forest's predictions, `variance_pct2` in points², and whose it is.

    Factors by falling total, pairs by falling share. `share_main`, `share_pairs` and `share_higher` sum to 1.
    """

    num_networks: int
    variance_pct2: float
    factors: tuple[FactorShare, ...]
    pairs: tuple[PairShare, ...]
    share_main: float
    share_pairs: float
    share_higher: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, in the order of the fields."""
        return asdict(self)


def fanova(factors: Factors, errors: Floats, *, rng: np.random.Generator) -> Fanova | None:
    """The shares of variance of a forest grown on all networks; `errors`, shape (n,), in percent.

    None below `FEWEST_NETWORKS`, if no factor varies, or if the forest finds nothing. Raises `ValueError` if there is
    not one finite error for each network.
    """
    check_errors(factors, errors)
    if len(errors) < FEWEST_NETWORKS or not factors.factors:
        return None
    forest = grow_forest(factors, errors, np.arange(len(errors)), rng=rng)
    parts = Decomposition(forest, factors, rng=rng)
    main, pairs, (variance, without) = parts.main_variances(), parts.pair_variances(), parts.variances()
    if not variance > 0:
        return None
    names = factors.names
    shares = [
        FactorShare(name, float(own / variance), float(1 - rest / variance))
        for name, own, rest in zip(names, main, without)
    ]
    pair_shares = [PairShare(names[j], names[k], float(value / variance)) for (j, k), value in pairs.items()]
    share_main, share_pairs = float(main.sum() / variance), sum(pair.share for pair in pair_shares)
    return Fanova(
        num_networks=len(errors),
        variance_pct2=float(variance),
        factors=tuple(sorted(shares, key=lambda share: -share.total)),
        pairs=tuple(sorted(pair_shares, key=lambda pair: -pair.share)),
        share_main=share_main,
        share_pairs=share_pairs,
        share_higher=max(0.0, 1 - share_main - share_pairs),
    )
