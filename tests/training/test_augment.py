"""Augmentation: nothing but what is asked for, image by image, and the same in parts as in the whole."""

import math

import pytest
import torch
from torch.nn import functional

from sweep.studies import Recipe
from sweep.training.augment import augment, draw_mixing, mixup

NOTHING = {"crop_padding": 0, "flip": False}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_augmentation_flips_and_shifts_each_image_by_itself():
    image = torch.arange(1.0, 17.0).reshape(1, 1, 4, 4).expand(200, 1, 4, 4)
    moved = augment(image, Recipe(crop_padding=1, flip=True), seeded())
    seen = {tuple(one.flatten().tolist()) for one in moved}
    padded = functional.pad(image[:1], (1, 1, 1, 1), value=1.0)
    possible = set()
    for row in range(3):
        for column in range(3):
            crop = padded[0, 0, row : row + 4, column : column + 4]
            possible |= {tuple(crop.flatten().tolist()), tuple(crop.flip(1).flatten().tolist())}
    assert seen == possible  # 9 shifts, each also mirrored, and nothing else


def test_the_border_of_colour_is_the_black_of_each_channel():
    images = torch.rand(50, 3, 4, 4) + torch.tensor([0.0, 5.0, -7.0])[:, None, None]
    moved = augment(images, Recipe(crop_padding=2, flip=False), torch.Generator().manual_seed(0))
    for channel in range(3):
        low = images[:, channel].min()
        assert moved[:, channel].min() == low
        assert set(moved[:, channel].flatten().tolist()) <= set(images[:, channel].flatten().tolist())
        assert (moved[:, channel] == low).sum() > 50


def test_no_augmentation_changes_nothing():
    images = torch.rand(5, 1, 6, 6)
    assert torch.equal(augment(images, Recipe(**NOTHING), seeded()), images)


def erased(probability: float, num: int = 4000, size: tuple[int, int] = (28, 24)) -> torch.Tensor:
    """Where each of `num` white images has been erased."""
    return augment(torch.ones(num, 3, *size), Recipe(random_erasing=probability, **NOTHING), seeded()) == 0


def test_a_rectangle_is_erased_in_all_channels_of_as_many_images_as_asked():
    lost_BCHW = erased(0.3)
    assert torch.equal(lost_BCHW.all(1), lost_BCHW.any(1))
    lost_BHW = lost_BCHW[:, 0]
    rows, columns = lost_BHW.any(2), lost_BHW.any(1)
    assert torch.equal(lost_BHW, rows[:, :, None] & columns[:, None, :])  # a rectangle of whole rows and columns
    for sides in (rows, columns):  # in one piece
        assert ((sides[:, 1:] != sides[:, :-1]).sum(1) <= 2).all()
    assert abs(float(rows.any(1).float().mean()) - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 4000)


def test_rectangles_take_the_areas_and_ratios_of_the_paper_and_lie_everywhere():
    lost_BHW = erased(1.0)[:, 0]
    heights, widths = lost_BHW.any(2).sum(1).double(), lost_BHW.any(1).sum(1).double()
    assert heights.min() >= 1
    areas, ratios = heights * widths / (28 * 24), heights / widths
    assert 0.01 < areas.min() < 0.03
    assert 0.31 < areas.max() < 0.36
    assert abs(areas.mean() - 0.175) < 0.01  # uniform from 0.02 to 0.33
    assert 0.2 < ratios.min() < 0.33
    assert 3.0 < ratios.max() < 4.5
    assert abs(ratios.log().mean()) < 0.05  # tall as often as wide
    assert lost_BHW.any(0).all()


@pytest.mark.parametrize("part", [slice(0, 3), slice(3, 7), slice(0, 7)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_part_is_augmented_as_it_is_in_the_whole(part, channels):
    images = torch.rand(7, channels, 6, 5).contiguous(memory_format=torch.channels_last)
    recipe = Recipe(random_erasing=0.5)
    whole, own = augment(images, recipe, seeded()), augment(images, recipe, seeded(), part)
    assert torch.equal(own, whole[part])
    assert own.is_contiguous(memory_format=torch.channels_last)
    labels, kept = torch.arange(7), draw_mixing(0.4, seed=3)
    mixed, targets = mixup(images, labels, 9, kept, seeded())
    own_mixed, own_targets = mixup(images, labels, 9, kept, seeded(), part)
    assert torch.equal(own_mixed, mixed[part])
    assert torch.equal(own_targets, targets[part])


def test_mixed_images_have_the_mixed_loss():
    images, labels = torch.eye(4).reshape(4, 1, 2, 2), torch.tensor([0, 1, 2, 2])
    mixed, targets = mixup(images, labels, 3, 0.75, seeded())
    other = mixed.flatten(1).sub(0.75 * torch.eye(4)).argmax(1)  # image i is the only one with pixel i
    assert sorted(other.tolist()) == [0, 1, 2, 3]
    assert other.tolist() != [0, 1, 2, 3]
    assert torch.equal(mixed, 0.75 * images + 0.25 * images[other])
    logits = torch.randn(4, 3, generator=seeded())
    for smoothing in (0.0, 0.1):
        of = {"label_smoothing": smoothing}
        ours = functional.cross_entropy(logits, targets, **of)
        both = [functional.cross_entropy(logits, one, **of) for one in (labels, labels[other])]
        assert float(ours) == pytest.approx(0.75 * float(both[0]) + 0.25 * float(both[1]), rel=1e-6)


def test_what_is_kept_in_mixing_follows_beta():
    assert draw_mixing(0.4, seed=3) == draw_mixing(0.4, seed=3)
    drawn = torch.tensor([draw_mixing(0.4, seed) for seed in range(2000)])
    assert abs(float(drawn.mean()) - 0.5) < 0.04
    assert float(drawn.var()) == pytest.approx(0.25 / 1.8, rel=0.06)  # 1 / (4 (2 alpha + 1))
