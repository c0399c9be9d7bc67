"""An array of the cache from one that is at hand (import as `training.data.arrays`)."""

from pathlib import Path

import numpy as np

from sweep.training.data import cache


def save_array(path: Path, array: np.ndarray) -> None:
    """Write it, whole or not at all, in place of whatever is there."""
    cache.remove(path)
    cache.build(path, array.shape, array.dtype, lambda first, end: array[first:end])
