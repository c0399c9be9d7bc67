"""The spaces: exact sizes, nested membership, and which pairs of spaces test which rule."""

import re
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spaces.strategies import CHAIN, CONVOLUTIONAL, PAPER, small

from sweep.spaces import (
    RULES,
    SPACES,
    ZOO,
    Architecture,
    Mlp,
    MlpRanges,
    Ranges,
    Stage,
    Vit,
    VitRanges,
    get_space,
    rule_pairs,
)  # fmt: skip
from sweep.spaces.space import MEMBER

TINY = Ranges(
    num_stages=2, depth_max=3, width_min=8, width_max=32, bottleneck_ratios=(1, 2, 4), group_widths=(1, 8, 16)
)


def everything(ranges):
    """Every network whose parts lie in the ranges."""
    stages = [
        Stage(d, w, g or int(w / b), b)
        for d, w, b, g in product(ranges.depths, ranges.widths, ranges.bottleneck_ratios, ranges.group_widths)
        if w % b == 0 and (w / b) % (g or 1) == 0
    ]
    parts = [template.parts() for template in ranges.templates]
    return [Architecture(chosen, **part) for chosen in product(stages, repeat=ranges.num_stages) for part in parts]


@pytest.mark.parametrize("name", CONVOLUTIONAL)
@pytest.mark.parametrize("num_stages", [2, 3])
def test_the_number_of_networks_equals_a_count_of_the_members(name, num_stages):
    ranges = TINY if num_stages == 2 else replace(TINY, num_stages=3, depth_max=2, width_max=16, group_widths=(1, 8))
    space = SPACES[name]
    count = sum(space.contains(network, ranges) for network in everything(space.within(ranges)))
    assert count == space.num_networks(ranges)
    assert space.line == "on" or space.size(ranges) == count


def test_parts_with_several_values_multiply_the_space():
    ranges = replace(TINY, norm=("batch", "group"), activation=("relu", "gelu", "silu"))
    for name in ("anynet_c", "regnet_x", "vionet_unquantised"):
        assert SPACES[name].num_networks(ranges) == 6 * SPACES[name].num_networks(TINY)
        assert SPACES[name].degrees_of_freedom(ranges) == SPACES[name].degrees_of_freedom(TINY) + 2
    network = Architecture((Stage(1, 8, 8), Stage(1, 16, 8)), norm="group", activation="gelu")
    assert SPACES["anynet_e"].contains(network, ranges)
    assert not SPACES["anynet_e"].contains(network, TINY)


@pytest.mark.parametrize("name", ["mlp_a", "mlp_b", "mlp_c", "mlp_d"])
def test_the_number_of_perceptrons_equals_a_count_of_the_members(name):
    ranges = MlpRanges(depth_max=3, width_max=64, dropout=(0.0, 0.2))
    networks = [
        Mlp(widths, skip, norm, dropout=dropout)
        for depth in (1, 2, 3)
        for widths in product(ranges.widths, repeat=depth)
        for skip in (False, True)
        for norm in ("none", "batch", "layer")
        for dropout in (0.0, 0.2)
    ]
    count = sum(SPACES[name].contains(network, ranges) for network in networks)
    assert count == SPACES[name].size(ranges) > 0
    assert not SPACES[name].contains(ZOO["regnetx32"], ranges)


def test_the_transformers_are_counted():
    ranges = VitRanges(depth_max=3, width_max=64, patch=(4, 7))
    networks = [
        Vit(p, w, d, h)
        for p in (4, 5, 7)
        for w in range(8, 80, 8)
        for d in range(1, 6)
        for h in (1, 2, 3, 4)
        if w % h == 0
    ]
    assert sum(SPACES["vit"].contains(network, ranges) for network in networks) == SPACES["vit"].size(ranges) == 24


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=4)
@given(seed=st.integers(0, 2**32))
def test_what_is_drawn_is_a_member(name, seed):
    space = SPACES[name]
    ranges = small(space)
    draws = space.draw(ranges, np.random.default_rng(seed), 2000)
    rows = np.flatnonzero(draws.reasons == MEMBER)[:15]
    assert len(rows)
    for row in rows:
        network = draws.network(row)
        assert space.contains(network, ranges)
        assert all(a.contains(network, ranges) for a in space.ancestors if space.TABLE == "mlp" or not space.settings)
        assert name.endswith("_equal") or space.breaks is None or not space.breaks.predicate(network)
        assert all(rule.predicate(network) for rule in space.rules)


@pytest.mark.parametrize("name", [name for name in SPACES if name.startswith("vionet")])
def test_no_vionet_shares_a_network_with_its_counterpart_but_by_its_parts(name):
    space = SPACES[name]
    members = [network for network in everything(space.within(TINY)) if space.contains(network, TINY)]
    common = [network for network in members if space.counterpart.contains(network, TINY)]
    if name == "vionet_depthwise":  # one of the group widths of E
        assert len(common) == len(members)
    elif name.endswith("_equal"):  # equal is the limit of going up
        assert 0 < len(common) == len(members)
    else:
        assert members
        assert not common


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
    sizes = [SPACES[name].size(PAPER) for name in CHAIN]
    assert all(type(size) is int for size in sizes)
    assert sizes == sorted(sizes, reverse=True)


def test_degrees_of_freedom_are_the_papers():
    assert [SPACES[name].degrees_of_freedom(PAPER) for name in CHAIN] == [16, 13, 10, 10, 10, 6]
    assert [SPACES[name].degrees_of_freedom(Ranges(num_stages=3)) for name in CHAIN] == [12, 10, 8, 8, 8, 6]


def test_each_space_of_the_chain_adds_one_rule_to_its_parent():
    chain = [SPACES[name] for name in CHAIN]
    assert [space.rule.name for space in chain if space.rule] == list(RULES)[:5]
    assert [space.parent for space in chain] == [None, *chain[:-1]]
    assert [len(space.rules) for space in chain] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", SPACES)
def test_each_space_says_what_it_claims_and_how_it_is_drawn(name):
    space = SPACES[name]
    assert space.claim
    assert re.search(r"\d", space.citation), "a year or a section"
    assert space.distribution


@given(
    st.lists(st.sampled_from([1, 1, 2, 3]), min_size=2, max_size=2),
    st.lists(st.sampled_from([8, 16, 24, 32]), min_size=2, max_size=2),
    st.lists(st.sampled_from([(1, 1), (1, 1), (1, 8), (2, 1)]), min_size=2, max_size=2),
)
def test_a_member_is_a_member_of_every_ancestor(depths, widths, pairs):
    network = Architecture(tuple(Stage(d, w, g, b) for d, w, (b, g) in zip(depths, widths, pairs)))
    memberships = [SPACES[name].contains(network, TINY) for name in CHAIN]
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


def named(*names):
    return [SPACES[name] for name in names]


def test_the_chain_gives_one_pair_a_rule():
    pairs = rule_pairs(named(*CHAIN))
    rules = list(RULES.values())[:5]
    assert [pair.rule for pair in pairs] == [rule.name for rule in rules]
    assert [pair.claim for pair in pairs] == [rule.claim for rule in rules]
    assert [(pair.space_without, pair.space_with) for pair in pairs] == list(pairwise(CHAIN))


def test_a_broken_rule_is_judged_against_the_counterpart():
    pairs = rule_pairs(named("anynet_e", "vionet_widths_down", "vionet_inverted", "vionet_unquantised"))
    assert [(pair.rule, pair.space_without, pair.space_with) for pair in pairs] == [
        ("widths_up", "vionet_widths_down", "anynet_e"),
        ("no_inverted_bottleneck", "vionet_inverted", "anynet_e"),
    ]


def test_rules_between_distant_spaces_are_joined():
    (pair,) = rule_pairs(named("regnet_x", "anynet_c"))
    assert (pair.space_without, pair.space_with) == ("anynet_c", "regnet_x")
    assert pair.rule == "widths_up+depths_up+quantised_widths"
    assert pair.claim == "; ".join(RULES[name].claim for name in pair.rule.split("+"))


def test_one_space_tests_nothing():
    assert rule_pairs(named("anynet_d")) == rule_pairs(named("mlp_a", "vit")) == rule_pairs([]) == []
