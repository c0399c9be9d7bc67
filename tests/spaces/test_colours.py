"""The spaces' colours: one each, legible on light and dark pages, told apart with every kind of colour vision."""

import re
from itertools import combinations

import numpy as np
import pytest
from spaces.strategies import CHAIN

from sweep.spaces import SPACES, colours_of
from sweep.spaces.colours import MORE_COLOURS, SPACE_COLOURS

# Linear RGB as seen without one kind of cone (Machado, Oliveira and Fernandes 2009, severity 1).
VISION = {
    "full": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear_rgb(colour):
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    x, y, z = np.cbrt(TO_XYZ @ np.clip(rgb, 1e-9, 1) / TO_XYZ.sum(axis=1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one, other):
    light, dark = sorted((TO_XYZ[1] @ linear_rgb(colour) + 0.05 for colour in (one, other)), reverse=True)
    return light / dark


ALL = [*SPACE_COLOURS.values(), *MORE_COLOURS]


def test_the_chain_has_colours_of_its_own_and_others_take_what_is_free():
    assert list(SPACE_COLOURS) == CHAIN
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in ALL)
    colours = colours_of(["regnet_x", "mlp_a", "anynet_a", "my_own"])
    assert list(colours.values()) == ["#c01b1f", "#2d69ff", "#626262", "#9f2ea8"]


def test_twelve_spaces_differ_and_more_are_no_error():
    assert len(set(colours_of(list(SPACES)[:12]).values())) == 12
    assert list(colours_of(list(SPACES))) == list(SPACES)


@pytest.mark.parametrize("page", ["#ffffff", "#111418"])
def test_colours_stand_out_from_the_page(page):
    assert min(contrast(colour, page) for colour in ALL) >= 3


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(("colours", "distance"), [(list(SPACE_COLOURS.values()), 25), (ALL, 17)])
def test_colours_are_told_apart(vision, colours, distance):
    seen = [lab(np.array(VISION[vision]) @ linear_rgb(colour)) for colour in colours]
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) >= distance
