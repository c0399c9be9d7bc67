"""Matching: two spaces compared as if their networks had the same complexities.

In: the errors and the complexities (flops, parameters or activations) of two samples of networks. Out: strata within
which networks of like complexity are compared, and the weight of each stratum.

Within a flops band one space may hold larger networks than the other; then the effect of its rule and that of being
larger mix. NDS (Radosavovic et al. 2019, "Controlling for complexity") normalises error distributions: it weights the
networks so that all spaces have one and the same distribution of complexity, a uniform one. Here too strata are bands
of equal ratio over the complexities that both spaces have, and a network weighs as much as any other of its space and
stratum. What differs is the distribution aimed at:

* Overlap weights (Li, Morgan and Zaslavsky 2018): a stratum with n networks of one space and m of the other has the
  weight n·m / (n + m), divided by the sum over strata. Of all weights that balance the strata these give the effect
  its least variance, if effect and spread are the same everywhere; and a stratum fades out as either space thins out.
  A uniform target would give a stratum of two networks as much say as one of twenty.
* Strata in which a space has fewer than two networks say nothing of its spread. They are left out, as is what lies
  beyond the complexities of the other space, and a verdict says how many networks that are.

The verdict then speaks of networks of the complexities that both spaces have. Inference takes strata and weights as
given, because complexities are known before anything is trained: the bootstrap resamples errors within each space and
stratum. Differences within a stratum stay (five strata leave about a tenth of a bias, Cochran 1968), so the more
networks there are, the more strata they are cut into. All networks compared reached their rung with certainty
(sweep/statistics/cohorts.py), so no weights of early stopping come on top.
"""

import numpy as np
from numpy.typing import NDArray

from sweep.statistics.bootstrap import Stratum
from sweep.statistics.samples import Complete, Floats

Ints = NDArray[np.int64]

NETWORKS_PER_STRATUM, MAX_STRATA = 8, 10
_FEWEST = 2  # of each space in a stratum: one has no variance


def matched(
    without: Floats, with_: Floats, complexity_without: Floats, complexity_with: Floats, *, num_strata: int = 0
) -> list[Stratum]:
    """Errors of two samples in the strata of `like_complexity`."""
    found = like_complexity(complexity_without, complexity_with, num_strata=num_strata)
    return [Stratum(Complete(without[a]), Complete(with_[b]), weight) for a, b, weight in found]


def like_complexity(
    complexity_without: Floats, complexity_with: Floats, *, num_strata: int = 0
) -> list[tuple[Ints, Ints, float]]:
    """The strata in which both samples have at least two networks, in rising complexity: the numbers of their networks,
    and their weights, which sum to 1.

    `num_strata` 0 takes one for every 8 networks of the smaller sample within the complexities that both have, 1 to 10.
    Complexities are above 0, in any unit. An empty list if no stratum has two networks of each.
    """
    if not len(complexity_without) or not len(complexity_with):
        return []
    low = max(complexity_without.min(), complexity_with.min())
    high = min(complexity_without.max(), complexity_with.max())
    shared = [(low <= complexity) & (complexity <= high) for complexity in (complexity_without, complexity_with)]
    if low > high:
        return []
    num_shared = min(int(np.count_nonzero(inside)) for inside in shared)
    num_strata = num_strata or min(max(num_shared // NETWORKS_PER_STRATUM, 1), MAX_STRATA)
    inner_edges = np.geomspace(low, high, num_strata + 1)[1:-1]
    place_without, place_with = (
        np.where(inside, np.searchsorted(inner_edges, complexity, side="right"), -1)
        for inside, complexity in zip(shared, (complexity_without, complexity_with))
    )
    cells = [(np.flatnonzero(place_without == k), np.flatnonzero(place_with == k)) for k in range(num_strata)]
    kept = [cell for cell in cells if min(map(len, cell)) >= _FEWEST]
    overlaps = [len(a) * len(b) / (len(a) + len(b)) for a, b in kept]
    return [(a, b, overlap / sum(overlaps)) for (a, b), overlap in zip(kept, overlaps)]
