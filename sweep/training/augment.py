"""Augmentation on the tensor: flips and shifts, erased rectangles, images mixed with each other.

In: a normalised batch of any number of channels, a recipe, and the generator of the epoch. Out: the part of the batch
that a worker trains on. Everything is drawn for the whole batch and then sliced, so that several workers see the very
images that one would see.

Shapes: B batch, b the part of it, C channels, H height, W width, K classes.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sweep.studies import Recipe

# Random erasing as in Zhong et al. 2020, arXiv:1708.04896: the least and the most that a rectangle takes of an image,
# and its height over its width. Deviations: the ratio is drawn on a logarithmic scale, so that tall and wide are
# equally likely; a side longer than the image is cut to it, where the paper draws again; what is erased becomes the
# mean of all images.
_ERASED_AREA = (0.02, 0.33)
_ERASED_RATIO = (0.3, 3.3)

_ALL = slice(None)


def augment(x_BCHW: Tensor, recipe: Recipe, generator: torch.Generator, part: slice = _ALL) -> Tensor:
    """Each image flipped with probability one half and shifted by up to `crop_padding` pixels, by one gather, and
    robbed of a rectangle with probability `random_erasing`.

    Answers the images of `part`, changed as they are in the whole batch.
    """
    moved_bCHW = _moved(x_BCHW, recipe, generator, part)
    return _erased(moved_bCHW, len(x_BCHW), recipe.random_erasing, generator, part)


def _moved(x_BCHW: Tensor, recipe: Recipe, generator: torch.Generator, part: slice) -> Tensor:
    B, _, H, W = x_BCHW.shape
    padding, device = recipe.crop_padding, x_BCHW.device
    columns = torch.arange(W, device=device).expand(B, W)
    if recipe.flip:
        flipped = torch.rand(B, 1, generator=generator, device=device) < 0.5
        columns = torch.where(flipped, W - 1 - columns, columns)
    if padding == 0 and not recipe.flip:
        return x_BCHW[part]
    rows = torch.arange(H, device=device).expand(B, H)
    if padding:
        shift = torch.randint(2 * padding + 1, (2, B, 1), generator=generator, device=device)
        rows, columns = rows + shift[0], columns + shift[1]
        x_BCHW = _padded(x_BCHW, padding)
    image = torch.arange(B, device=device)[part, None, None]
    x_BHWC = x_BCHW.permute(0, 2, 3, 1)[image, rows[part, :, None], columns[part, None, :]]
    return x_BHWC.permute(0, 3, 1, 2)


def _padded(x_BCHW: Tensor, padding: int) -> Tensor:
    """With a border of the black of the normalised images, which is the smallest value of each channel."""
    B, C, H, W = x_BCHW.shape
    border_BCHW = x_BCHW.amin((0, 2, 3), keepdim=True).expand(B, C, H + 2 * padding, W + 2 * padding).clone()
    border_BCHW[:, :, padding : padding + H, padding : padding + W] = x_BCHW
    return border_BCHW


def _erased(x_bCHW: Tensor, B: int, probability: float, generator: torch.Generator, part: slice) -> Tensor:
    """With a rectangle at zero, which is the mean of normalised images."""
    if probability == 0:
        return x_bCHW
    H, W = x_bCHW.shape[2:]
    chance, area, ratio, top, left = torch.rand(5, B, generator=generator, device=x_bCHW.device)[:, part, None]
    area = H * W * (_ERASED_AREA[0] + area * (_ERASED_AREA[1] - _ERASED_AREA[0]))
    low, high = map(math.log, _ERASED_RATIO)
    ratio = (low + ratio * (high - low)).exp()
    rows = _stretch(top, (area * ratio).sqrt(), H) & (chance < probability)
    columns = _stretch(left, (area / ratio).sqrt(), W)
    # On a copy: `masked_fill` itself would not keep channels last.
    return x_bCHW.clone().masked_fill_(rows[:, None, :, None] & columns[:, None, None, :], 0)


def _stretch(place: Tensor, length: Tensor, size: int) -> Tensor:
    """(b, size) booleans: true for `length` pixels, rounded, that begin at `place` (0 to 1) of where they can begin."""
    length = length.round().clamp(1, size)
    begin = (place * (size - length + 1)).floor()
    pixel = torch.arange(size, device=place.device)
    return (pixel >= begin) & (pixel < begin + length)


def draw_mixing(alpha: float, seed: int) -> float:
    """The share that each image of a batch keeps of itself, from Beta(alpha, alpha)."""
    return float(np.random.default_rng(seed).beta(alpha, alpha))


def mixup(
    x_BCHW: Tensor, labels_B: Tensor, num_classes: int, own: float, generator: torch.Generator, part: slice = _ALL
) -> tuple[Tensor, Tensor]:
    """Images and targets (b, K): each is `own` itself, and for the rest another one of the batch (Zhang et al. 2018,
    arXiv:1710.09412). The cross-entropy of such a target is the mean of the two, so weighted."""
    other_b = torch.randperm(len(x_BCHW), generator=generator, device=x_BCHW.device)[part]
    targets_BK = functional.one_hot(labels_B, num_classes).float()
    return x_BCHW[part].lerp(x_BCHW[other_b], 1 - own), targets_BK[part].lerp(targets_BK[other_b], 1 - own)
