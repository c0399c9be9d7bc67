"""Small splits: real Fashion-MNIST where a test speaks of learning, noise where it speaks of mechanics."""

import numpy as np
import pytest

from sweep.spaces import Architecture, Stage
from sweep.training.data import Split, open_split, prepare


@pytest.fixture(scope="session")
def network() -> Architecture:
    return Architecture(
        stages=(Stage(depth=1, width=16, group_width=8), Stage(depth=2, width=32, group_width=8)), stem_width=8
    )


@pytest.fixture(scope="session")
def fashion(tmp_path_factory) -> Split:
    files = prepare(cache=tmp_path_factory.mktemp("cache"))
    return open_split(files, num_train=1000, num_validation=500, seed=0)


@pytest.fixture
def noise() -> Split:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300, 12, 12)).astype(np.uint8)
    labels = rng.integers(0, 10, 300).astype(np.uint8)
    return Split(images, labels, np.arange(256), np.arange(256, 300), mean=0.5, std=0.29)
