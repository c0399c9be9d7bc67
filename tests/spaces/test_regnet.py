"""The quantised line: against the published formula, and membership against a search through a whole grid."""

import time
from itertools import product

import numpy as np
import pytest

from sweep.spaces import SPACES, ZOO, Architecture, Ranges, Stage, regnet
from sweep.spaces.regnet import ANY_LINE, follows_line, line_grid


def blocks_by_logarithm(d, w_0, w_a, w_m):
    """Width of each block and distance of each exponent from a tie, straight from the published formula."""
    u = w_0 + w_a * np.arange(d)
    exponents = np.log(u / w_0) / np.log(w_m)
    levels = np.round(exponents)
    widths = (np.round(w_0 * w_m**levels / 8) * 8).astype(int)
    return widths, levels, np.abs(exponents - levels).max()


def adjusted(width, ratio, group_width):
    """pycls' adjustment of one width, in plain Python; its BOT_MUL is 1/ratio."""
    bottleneck = int(max(1, width / ratio))
    group = min(group_width, bottleneck)
    bottleneck = max(group, round(bottleneck / group) * group)
    return int(bottleneck * ratio), group


def test_blocks_equal_the_published_formula():
    rng = np.random.default_rng(0)
    compared = 0
    for _ in range(500):
        d, w_0 = int(rng.integers(1, 65)), 8 * int(rng.integers(1, 33))
        w_a, w_m = rng.uniform(1, 256), rng.uniform(1.1, 3)
        widths, _, off_level = blocks_by_logarithm(d, w_0, w_a, w_m)
        if off_level > 0.5 - 1e-9:
            continue
        built = regnet(d, w_0, w_a, w_m, 1)
        assert np.repeat(built.widths, built.depths).tolist() == widths.tolist()
        compared += 1
    assert compared > 450


def test_ties_go_to_the_even_level():
    # w_m = 2.25: block 1 lies at 24 = 16 · 2.25^0.5, half-way between levels 0 and 1; or at 54 = 16 · 2.25^1.5.
    assert regnet(2, 16, 8, 2.25, 1).depths == (2,)
    assert regnet(2, 16, 38, 2.25, 1).widths == (16, 80)


@pytest.mark.parametrize(
    ("g", "b", "widths", "group_widths"),
    [
        (8, 1, (24, 64, 160), (8, 8, 8)),
        (16, 1, (32, 64, 160), (16, 16, 16)),  # 24 is 1.5 groups of 16: half to even, 2
        (32, 1, (24, 64, 160), (24, 32, 32)),  # a group is no wider than its bottleneck
        (16, 4, (24, 64, 128), (6, 16, 16)),  # bottlenecks 6, 16, 40; 40 is 2.5 groups: half to even, 2
        (24, 0.25, (24, 66, 162), (24, 24, 24)),  # bottlenecks 96, 256, 640 become 96, 264, 648
    ],
)
def test_widths_are_made_compatible(g, b, widths, group_widths):
    network = regnet(6, 24, 32, 2.6, g, b=b)
    assert network.widths == widths
    assert network.group_widths == group_widths


def test_other_parts_are_passed_on():
    network = regnet(6, 24, 32, 2.6, 8, b=2, se_ratio=0.25, stem_width=16, num_stages=3)
    assert network.bottleneck_ratios == (2, 2, 2)
    assert (network.se_ratio, network.stem_width, network.conv_bias) == (0.25, 16, False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d": 0}, "d = 0 is not a positive whole number"),
        ({"w0": 20}, "w0 = 20 is not a multiple of 8; use 24"),
        ({"wa": -1}, "wa = -1 is not a positive, finite number"),
        ({"wa": "x"}, "wa = 'x' is not a number"),
        ({"wm": 1}, "wm = 1 makes stages less than 1 % wider; use more"),
        ({"g": 0}, "g = 0 is not a positive whole number"),
        ({"b": 0}, "b = 0 is not a positive, finite number"),
        ({"num_stages": 2}, "num_stages = 2 is not what the line gives, 3; change d, wa or wm"),
    ],
)
def test_parameters_outside_the_rule_are_refused(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        regnet(**{"d": 6, "w0": 24, "wa": 32, "wm": 2.6, "g": 8, **changes})


def test_membership_equals_a_search_through_the_whole_grid():
    ranges = Ranges(
        num_stages=3,
        depth_max=3,
        width_max=96,
        bottleneck_ratios=(1, 2),
        group_widths=(1, 8, 16),
        regnet_width_max=24,
        regnet_slope_min=6.5,
        regnet_multiplier_min=1.7,
        regnet_multiplier_max=1.73,
    )
    found = networks_on_the_grid(ranges)
    space = SPACES["regnet_x"]
    candidates = [
        Architecture(tuple(Stage(d, w, g, b) for d, w in zip(depths, widths)))
        for b, g in ranges.pairs
        for widths in product(ranges.widths_for(b, g), repeat=3)
        for depths in product(ranges.depths, repeat=3)
        if list(widths) == sorted(widths) and list(depths) == sorted(depths)
    ]
    members = {network for network in candidates if space.contains(network, ranges)}
    assert members == found
    assert 40 < len(members) < len(candidates) / 20


def networks_on_the_grid(ranges):
    """Every network that some parameters of the grid give, one level a stage, with non-decreasing depths."""
    lines = set()
    for w_0, slope, thousandths in product(ranges.regnet_first_widths, ranges.regnet_slopes, ranges.regnet_multipliers):
        for d in ranges.regnet_depths:
            widths, levels, off_level = blocks_by_logarithm(d, w_0, slope / 10, thousandths / 1000)
            assert off_level < 0.5 - 1e-9, "choose a grid without ties"
            distinct, depths = np.unique(widths, return_counts=True)
            if len(distinct) == levels[-1] + 1 == 3 and depths.max() <= 3 and (np.diff(depths) >= 0).all():
                lines.add((tuple(depths.tolist()), tuple(distinct.tolist())))
    networks = set()
    for (depths, widths), (b, g) in product(lines, ranges.pairs):
        fitting = [adjusted(width, b, g) for width in widths]
        if all(group == g and width in ranges.widths for width, group in fitting):
            networks.add(Architecture(tuple(Stage(d, w, g, b) for d, (w, _) in zip(depths, fitting))))
    return networks


def test_membership_depends_on_the_grid():
    network = regnet(13, 24, 36.44, 2.49, 8)
    assert follows_line(network)
    assert follows_line(network, line_grid(Ranges()))
    assert not follows_line(network, line_grid(Ranges(regnet_multiplier_max=2.2)))
    assert not follows_line(network, line_grid(Ranges(regnet_width_max=16)))
    assert not follows_line(network, line_grid(Ranges(regnet_slope_min=60)))
    assert not follows_line(ZOO["regnetx_32gf"], line_grid(Ranges())), "its w_0 is 320"


def test_membership_takes_milliseconds():
    # The dearest case: wide groups in a narrow bottleneck leave many w_0, and no slope fits.
    network = Architecture(tuple(Stage(d, w, 32, 4) for d, w in ((5, 256), (1, 512), (5, 1024), (1, 2048))))
    start = time.perf_counter()
    assert not any(follows_line(network, ANY_LINE) for _ in range(5))
    assert (time.perf_counter() - start) / 5 < 0.2
