"""e_fit: 0 for RegNets, by hand where widths fall, and no worse than a search over every line of a dense grid."""

import math

import numpy as np
import pytest

from sweep.spaces import Architecture, Mlp, Ranges, Stage, get_space, regnet, resolve, sample_population
from sweep.statistics.factors.line_fit import fit_errors
from sweep.statistics.factors.trends import trends


def anynet(*stages: tuple[int, int]) -> Architecture:
    return Architecture(tuple(Stage(depth, width, 8) for depth, width in stages))


def test_published_regnets_and_any_other_lie_on_their_line():
    networks = [resolve("regnetx_400mf"), resolve("regnety_3.2gf"), regnet(13, 24, 36.4, 2.5, 8)]
    assert fit_errors(networks).tolist() == [0, 0, 0]


def test_one_width_lies_on_a_flat_line():
    assert fit_errors([anynet((5, 64)), anynet((2, 64), (3, 64))]).tolist() == [0, 0]


def test_falling_widths_are_as_far_from_a_line_as_from_a_constant():
    # No line falls: one of two blocks, 64 or 32 wide, is off by a factor of 2.
    assert fit_errors([anynet((1, 64), (1, 32))])[0] == pytest.approx(math.log(2) / 2)
    assert fit_errors([anynet((3, 64), (1, 32))])[0] == pytest.approx(math.log(2) / 4)


def every_line(network: Architecture) -> float:
    """The best of a dense grid, computed block by block as the paper writes it; without groups to suit."""
    widths = np.repeat(network.widths, network.depths)
    blocks = np.arange(len(widths))
    best = math.inf
    for w_0 in range(8, 264, 8):
        for w_m in np.linspace(1.5, 3, 76):
            w_a = np.geomspace(0.1, 300, 150)[:, None]
            levels = np.round(np.log((w_0 + w_a * blocks) / w_0) / np.log(w_m))
            line = np.maximum(8, np.round(w_0 * w_m**levels / 8) * 8)
            best = min(best, np.abs(np.log(line / widths)).mean(axis=1).min())
    return best


def test_search_finds_what_a_dense_grid_finds():
    networks = [anynet((2, 16), (3, 72), (2, 40), (4, 200)), anynet((1, 128), (5, 32), (2, 256))]
    for network, found in zip(networks, fit_errors(networks)):
        assert found == pytest.approx(every_line(network), abs=0.02)


def test_rules_bring_widths_nearer_to_a_line_and_error_may_go_with_it():
    ranges = Ranges(width_min=8, width_max=256, depth_max=6, bottleneck_ratios=(1, 2), group_widths=(4, 8))
    fitted = {}
    for space in ("anynet_c", "anynet_e"):
        population = sample_population(
            get_space(space),
            ranges,
            num=60,
            seed=1,
            flops_min=4e5,
            flops_max=1.6e6,
            resolution=28,
            channels=1,
            classes=10,
        )
        fitted[space] = fit_errors(population.members)
    assert np.median(fitted["anynet_e"]) < 0.6 * np.median(fitted["anynet_c"])
    errors = 20 + 5 * fitted["anynet_c"] + np.random.default_rng(1).normal(size=60)
    (trend,) = trends({"e_fit": fitted["anynet_c"]}, errors, confidence=0.95)
    assert trend.with_error.low > 0.2


def test_none_is_none_and_other_families_are_refused():
    assert fit_errors([]).shape == (0,)
    with pytest.raises(ValueError, match="networks: Mlp has no stages"):
        fit_errors([Mlp((8, 8))])
