"""Weighted samples of networks, and the bootstrap of anything that is computed from their weights.

In: what networks weigh (their inverse inclusion probabilities, sweep/statistics/assumptions/ranks.py). Out: the same
weights in bootstrap samples. All networks are drawn, those that early stopping kept from the full budget as well: they
carry the sampling of the lottery, in that a sample has now more finished networks, now fewer (the bootstrap of a
design with independent inclusions; Särndal, Swensson and Wretman 1992, chapter 11).
"""

from collections.abc import Iterator

import numpy as np

from sweep.statistics.bootstrap import Floats

# Resampled values held at once: what is computed from them takes about ten arrays of this size, 100 MB.
_BLOCK_VALUES = 1_000_000


def finished(*errors: Floats, weights: Floats | None) -> tuple[Floats, ...]:
    """Of the networks that have all of `errors`: those, and last their weights (1 if there are none); shape (n,) each.

    Raises `ValueError` if shapes differ, if a weight is not above 0, or if errors are missing and there are no weights.
    """
    shapes = [array.shape for array in (*errors, weights) if array is not None]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1:
        raise ValueError(f"errors, weights: shapes {shapes}; give each one number for every network")
    complete = ~np.any([np.isnan(one) for one in errors], axis=0)
    if weights is None and not complete.all():
        raise ValueError(
            f"weights: {np.count_nonzero(~complete)} of {len(complete)} networks lack an error; give inverse inclusion "
            "probabilities, or leave those out that are missing by chance"
        )
    kept = np.ones(np.count_nonzero(complete)) if weights is None else weights[complete]
    if not np.all((kept > 0) & np.isfinite(kept)):
        raise ValueError("weights: some are not above 0 and finite; give 1 over the probability to finish, 1 or more")
    return *(one[complete] for one in errors), kept


def effective_number(weights: Floats) -> float | None:
    """Kish's effective number of networks, (Σ w)² / Σ w²; None if there is none."""
    return float(weights.sum() ** 2 / (weights**2).sum()) if len(weights) else None


def resampled_weights(
    weights: Floats, num_networks: int, *, num_bootstrap: int, rng: np.random.Generator
) -> Iterator[Floats]:
    """Blocks, shape (samples, n), of the `weights` of n finished of `num_networks`, times how often each was drawn.

    Samples without any finished network are left out, so there may be fewer than `num_bootstrap`.
    """
    num, size = len(weights), max(1, _BLOCK_VALUES // num_networks)
    for start in range(0, num_bootstrap, size):
        samples = min(size, num_bootstrap - start)
        drawn = rng.integers(num_networks, size=(samples, num_networks), dtype=np.int32)
        drawn += np.arange(samples, dtype=np.int32)[:, None] * np.int32(num_networks)
        counts = np.bincount(drawn.ravel(), minlength=samples * num_networks).reshape(samples, num_networks)[:, :num]
        some = counts.any(axis=1)
        yield (counts if some.all() else counts[some]) * weights
