"""What is drawn: log-uniform values, exact conditional distributions, rules that change order alone."""

import numpy as np
import pytest
from spaces.strategies import CHAIN

from sweep.spaces import SPACES, Ranges
from sweep.spaces.space import MEMBER

NUM = 60_000
# Narrow enough that wide groups fit few widths or none: the case in which distributions could part.
NARROW = Ranges(num_stages=2, depth_max=4, width_max=64)


def drawn(space, ranges=NARROW, seed=0, num=NUM):
    return SPACES[space].draw(ranges, np.random.default_rng(seed), num)


def frequencies(*columns):
    rows, counts = np.unique(np.stack(columns, axis=1), axis=0, return_counts=True)
    return {tuple(row): count / len(columns[0]) for row, count in zip(rows.tolist(), counts.tolist())}


def expect(found, expected, num):
    """Each frequency within five standard errors of its expectation."""
    assert set(found) <= set(expected)
    for value, chance in expected.items():
        assert found.get(value, 0) == pytest.approx(chance, abs=5 * np.sqrt(chance / num)), value


def log_uniform(values):
    total = sum(1 / value for value in values)
    return {value: 1 / value / total for value in values}


def test_depths_are_log_uniform():
    for stage in range(2):
        expected = {(depth,): chance for depth, chance in log_uniform(range(1, 5)).items()}
        expect(frequencies(drawn("anynet_a").depths[:, stage]), expected, NUM)


def test_pairs_are_even_and_widths_log_uniform_among_those_that_fit():
    expected = {
        (index, width): chance / len(NARROW.pairs)
        for index, pair in enumerate(NARROW.pairs)
        for width, chance in log_uniform(NARROW.widths_for(*pair)).items()
    }
    draws = drawn("anynet_a")
    for stage in range(2):
        expect(frequencies(draws.pairs[:, stage], draws.widths[:, stage]), expected, NUM)


@pytest.mark.parametrize(("space", "shared"), [("anynet_b", (0,)), ("anynet_c", (0, 1))])
def test_b_and_c_are_a_given_that_stages_share(space, shared):
    """Against A with the networks that break the rule left out."""
    pairs = np.array(NARROW.pairs)
    kept = drawn("anynet_a", num=400_000).pairs
    for column in shared:
        kept = kept[(pairs[kept, column] == pairs[kept[:, :1], column]).all(axis=1)]
    assert len(kept) > 20_000
    expect(frequencies(*drawn(space).pairs.T), frequencies(*kept.T), len(kept) / 2)


def test_d_and_e_are_c_in_order():
    """The same generator gives the same networks, sorted: sizes, groups and ratios stay those of C."""
    anynet_c, anynet_d, anynet_e = (drawn(space, num=1000) for space in ("anynet_c", "anynet_d", "anynet_e"))
    np.testing.assert_array_equal(anynet_d.widths, np.sort(anynet_c.widths, axis=1))
    np.testing.assert_array_equal(anynet_d.depths, anynet_c.depths)
    np.testing.assert_array_equal(anynet_e.widths, anynet_d.widths)
    np.testing.assert_array_equal(anynet_e.depths, np.sort(anynet_c.depths, axis=1))
    np.testing.assert_array_equal(anynet_e.pairs, anynet_c.pairs)


def test_anynet_wastes_no_draw():
    for space in CHAIN[:5]:
        assert (drawn(space, num=1000).reasons == MEMBER).all()


def test_regnet_meets_every_reason():
    draws = drawn("regnet_x", Ranges(num_stages=3, depth_max=6, width_max=128), num=100_000)
    assert set(draws.reasons.tolist()) == set(range(6))


def test_groups_of_regnet_stay_even_where_the_widths_are_ample():
    ranges = Ranges(bottleneck_ratios=(1,), group_widths=(1, 2, 4, 8, 16))
    draws = drawn("regnet_x", ranges, num=400_000)
    kept = draws.pairs[draws.reasons == MEMBER, 0]
    shares = np.bincount(kept, minlength=5) / len(kept)
    assert shares[:4] == pytest.approx(np.full(4, shares[0]), abs=0.03)
    assert shares[4] > 0.1, "rejecting what does not fit would leave g = 16 one network in a hundred"


def test_a_vionet_differs_from_e_in_what_it_breaks_alone():
    """The same generator draws the same sizes, groups and ratios; only the order is another."""
    anynet_e, widths_down, depths_down = (
        drawn(space, num=1000) for space in ("anynet_e", "vionet_widths_down", "vionet_depths_down")
    )
    np.testing.assert_array_equal(widths_down.widths, anynet_e.widths[:, ::-1])
    np.testing.assert_array_equal(widths_down.depths, anynet_e.depths)
    np.testing.assert_array_equal(depths_down.depths, anynet_e.depths[:, ::-1])
    np.testing.assert_array_equal(depths_down.pairs, anynet_e.pairs)
    equal = (anynet_e.widths == anynet_e.widths[:, :1]).all(axis=1)
    np.testing.assert_array_equal(widths_down.reasons == MEMBER, ~equal)


@pytest.mark.parametrize(("space", "kept"), [("vionet_unshared_b", 1), ("vionet_unshared_g", 0)])
def test_what_stays_shared_keeps_its_mix(space, kept):
    """Before networks that break nothing are left out, the shared half of (b, g) is distributed as in E."""
    values = np.array(NARROW.pairs)[:, kept]
    draws = drawn(space)
    assert (values[draws.pairs] == values[draws.pairs[:, :1]]).all()
    expect(frequencies(values[draws.pairs[:, 0]]), frequencies(values[drawn("anynet_e", seed=1).pairs[:, 0]]), NUM / 2)


def test_parts_with_several_values_are_even():
    ranges = Ranges(num_stages=2, width_max=64, norm=("batch", "layer"), activation=("relu", "gelu", "silu"))
    templates = drawn("anynet_e", ranges).templates
    expect(frequencies(templates), {(number,): 1 / 6 for number in range(6)}, NUM)
