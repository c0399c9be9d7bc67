"""What a trial sees of the arrays: images to train on and others to judge it; and, once, the test images.

In: `DataFiles`. Out: a `Split`, drawn from a seed; the test set by `open_test` alone, which a sweep never calls
(DESIGN 4.4). No DataLoader and no workers: a batch is one indexing of the mapped uint8 array.
"""

from dataclasses import dataclass

import numpy as np

from sweep.training.data.checking import mapped
from sweep.training.data.preparation import DataFiles

_MAX_FOR_STATISTICS = 10_000
_MAX_BYTES_FOR_STATISTICS = 2**28

PerChannel = float | tuple[float, ...]
"""A number for grey images, one for each channel of RGB."""


@dataclass(frozen=True)
class Split:
    """Mapped images uint8 (N, H, W) or (N, H, W, 3) and labels (N,), with the indices that train and those that judge.

    `mean` and `std` are of the training images' pixels, in units of 0 to 1.
    """

    images: np.ndarray
    labels: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    mean: PerChannel
    std: PerChannel

    @property
    def num_channels(self) -> int:
        return 1 if self.images.ndim == 3 else self.images.shape[3]


def open_split(files: DataFiles, *, num_train: int, num_validation: int, seed: int) -> Split:
    """Draw the split from `seed`: the validation images first, so that they stay when `num_train` changes.

    `num_validation` 0 and `num_train` of all images is the split of a full-scale rerun. Raises `DamagedDataError`.
    """
    images, labels = mapped(files.train_images), mapped(files.train_labels)
    good = _good_rows(len(images), files.bad_train)
    order = good[np.random.default_rng(seed).permutation(len(good))]
    validation, train = order[:num_validation], order[num_validation : num_validation + num_train]
    return Split(images, labels, train, validation, *_statistics(images, train))


def num_train_images(files: DataFiles) -> int:
    """All that can be trained on; what a full-scale rerun trains on."""
    return len(mapped(files.train_labels)) - len(files.bad_train)


def open_test(files: DataFiles) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The test images and labels, checked alike, and the rows that count.

    Opened once, at the end of a full-scale rerun, and nowhere else.
    """
    images, labels = mapped(files.test_images), mapped(files.test_labels)
    return images, labels, _good_rows(len(images), files.bad_test)


def _good_rows(num: int, bad: tuple[int, ...]) -> np.ndarray:
    return np.delete(np.arange(num), list(bad)) if bad else np.arange(num)


def _statistics(images: np.ndarray, train: np.ndarray) -> tuple[PerChannel, PerChannel]:
    """Mean and standard deviation of the pixels of some training images, as many as are quickly read."""
    num = min(_MAX_FOR_STATISTICS, max(1, _MAX_BYTES_FOR_STATISTICS // images[0].nbytes))
    index = np.sort(train)[:num]
    if images.ndim == 3:
        pixels = images[index] / np.float32(255)
        return float(pixels.mean()), float(pixels.std())
    # Sums of integers: exact in any order, and no copy of the pixels as floats.
    total, squares = np.zeros((2, images.shape[3]), np.int64)
    for chunk in np.array_split(index, max(1, len(index) // 100)):
        pixels = images[chunk].reshape(-1, images.shape[3])
        counts = [np.bincount(pixels[:, channel], minlength=256) for channel in range(images.shape[3])]
        total += [int(count @ np.arange(256)) for count in counts]
        squares += [int(count @ np.arange(256) ** 2) for count in counts]
    num_pixels = len(index) * images.shape[1] * images.shape[2]
    mean = total / num_pixels
    std = np.sqrt(squares / num_pixels - mean**2)
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())
