"""The spaces: exact sizes, nested membership, and which pairs of spaces test which rule."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spaces.strategies import PAPER

from sweep.spaces import RULES, SPACES, ZOO, Architecture, Ranges, Stage, get_space, rule_pairs

TINY = Ranges(
    num_stages=2, depth_max=3, width_min=8, width_max=32, bottleneck_ratios=(1, 2, 4), group_widths=(1, 8, 16)
)


def everything(ranges):
    """Every network whose parts lie in the ranges."""
    stages = [
        Stage(d, w, g, b)
        for d, w, b, g in product(ranges.depths, ranges.widths, ranges.bottleneck_ratios, ranges.group_widths)
        if w % b == 0 and (w // b) % g == 0
    ]
    return [Architecture(chosen) for chosen in product(stages, repeat=ranges.num_stages)]


@pytest.mark.parametrize("name", [name for name in SPACES if name != "regnet_x"])
def test_size_equals_a_count_of_the_members(name):
    count = sum(SPACES[name].contains(network, TINY) for network in everything(TINY))
    assert count == SPACES[name].size(TINY)


def test_the_size_of_regnet_counts_settings_of_the_grid():
    # d 2 … 6; w_0 8, 16; w_a 15, 15.1 … 16; w_m 2, 2.001 … 2.004. Of nine pairs (b, g), (4, 16) fits no width.
    ranges = replace(
        TINY, regnet_width_max=16, regnet_slope_min=15, regnet_multiplier_min=2, regnet_multiplier_max=2.004
    )
    assert SPACES["regnet_x"].size(ranges) == 5 * 2 * 11 * 5 * 8
    assert SPACES["regnet_x"].size(ranges, compatible=False) == 5 * 2 * 11 * 5 * 9


@pytest.mark.parametrize(
    ("name", "exact", "published"),
    [
        ("anynet_a", (16 * 128 * 3 * 6) ** 4, 1.8e18),
        ("anynet_b", (16 * 128 * 6) ** 4 * 3, 6.8e16),
        ("anynet_c", (16 * 128) ** 4 * 18, 3.2e14),
    ],
)
def test_published_sizes_ignore_compatibility(name, exact, published):
    assert SPACES[name].size(PAPER, compatible=False) == exact
    assert float(f"{exact:.1e}") == published == SPACES[name].published_size


def test_published_sizes_of_d_and_e_divide_by_the_orders_of_four_stages():
    anynet_c = (16 * 128) ** 4 * 18
    assert float(f"{anynet_c / 24:.1e}") == SPACES["anynet_d"].published_size
    assert float(f"{anynet_c / 24**2:.1e}") == SPACES["anynet_e"].published_size
    # Stages may be equal, so there are more: 5 % for widths of 128 values, 42 % for depths of 16.
    more_widths, more_depths = 131 * 130 * 129 / 128**3, 19 * 18 * 17 / 16**3
    exact_d, exact_e = (SPACES[name].size(PAPER, compatible=False) for name in ("anynet_d", "anynet_e"))
    assert exact_d / (anynet_c / 24) == pytest.approx(more_widths)
    assert exact_e / (anynet_c / 24**2) == pytest.approx(more_widths * more_depths)


def test_the_published_size_of_regnet_has_64_values_for_each_parameter_of_the_line():
    assert SPACES["regnet_x"].published_size == float(f"{64**4 * 18:.1e}")


def test_sizes_are_plain_and_shrink():
    sizes = [SPACES[name].size(PAPER) for name in SPACES]
    assert all(type(size) is int for size in sizes)
    assert sizes == sorted(sizes, reverse=True)


def test_degrees_of_freedom_are_the_papers():
    assert [space.degrees_of_freedom(PAPER) for space in SPACES.values()] == [16, 13, 10, 10, 10, 6]
    assert [space.degrees_of_freedom(Ranges(num_stages=3)) for space in SPACES.values()] == [12, 10, 8, 8, 8, 6]


def test_each_space_adds_one_rule_to_its_parent():
    assert [space.rule.name for space in SPACES.values() if space.rule] == list(RULES)
    assert [space.parent for space in SPACES.values()] == [None, *list(SPACES)[:-1]]
    assert [len(space.rules) for space in SPACES.values()] == [0, 1, 2, 3, 4, 5]


@given(
    st.lists(st.sampled_from([1, 1, 2, 3]), min_size=2, max_size=2),
    st.lists(st.sampled_from([8, 16, 24, 32]), min_size=2, max_size=2),
    st.lists(st.sampled_from([(1, 1), (1, 1), (1, 8), (2, 1)]), min_size=2, max_size=2),
)
def test_a_member_is_a_member_of_every_ancestor(depths, widths, pairs):
    network = Architecture(tuple(Stage(d, w, g, b) for d, w, (b, g) in zip(depths, widths, pairs)))
    memberships = [space.contains(network, TINY) for space in SPACES.values()]
    assert memberships[0]
    assert memberships == sorted(memberships, reverse=True)


def test_membership_asks_for_the_ranges():
    assert SPACES["regnet_x"].contains(ZOO["regnetx_400mf"], PAPER)
    assert not SPACES["anynet_a"].contains(ZOO["regnetx_400mf"], Ranges(depth_max=11))
    assert not SPACES["regnet_x"].contains(ZOO["regnetx_400mf"], Ranges(regnet_depth_max=21))
    assert SPACES["anynet_e"].contains(ZOO["regnetx_400mf"], Ranges(regnet_depth_max=21))
    assert not SPACES["regnet_x"].contains(ZOO["regnety_200mf"], PAPER)
    assert SPACES["regnet_x"].contains(ZOO["regnety_200mf"], Ranges(se_ratio=0.25))


def test_spaces_are_found_by_name():
    assert get_space("anynet_c").title == "AnyNet C"
    with pytest.raises(ValueError, match=r"^space = 'anynet_f' is not known; did you mean 'anynet_"):
        get_space("anynet_f")
    with pytest.raises(ValueError, match=r"^space = 'x1' is not known; known are anynet_a, anynet_b"):
        get_space("x1")


def test_all_spaces_give_one_pair_a_rule():
    pairs = rule_pairs(SPACES)
    assert [pair.rule for pair in pairs] == list(RULES)
    assert [pair.claim for pair in pairs] == [rule.claim for rule in RULES.values()]
    assert [(pair.space_without, pair.space_with) for pair in pairs] == list(zip(SPACES, list(SPACES)[1:]))


def test_rules_between_distant_spaces_are_joined():
    (pair,) = rule_pairs(["regnet_x", "anynet_c"])
    assert (pair.space_without, pair.space_with) == ("anynet_c", "regnet_x")
    assert pair.rule == "widths_up+depths_up+quantised_widths"
    assert pair.claim == "; ".join(RULES[name].claim for name in pair.rule.split("+"))


def test_one_space_tests_nothing_and_unknown_ones_are_refused():
    assert rule_pairs(["anynet_d"]) == []
    assert rule_pairs([]) == []
    with pytest.raises(ValueError, match="did you mean 'regnet_x'"):
        rule_pairs(["anynet_d", "regnetx"])
