"""Each rule on networks worked out by hand, true and false."""

import re

import pytest

from sweep.spaces import RULES, ZOO, Architecture, Mlp, Stage


def network(*stages: tuple) -> Architecture:
    """Stages as (depth, width, group width, bottleneck ratio)."""
    return Architecture(tuple(Stage(*stage) for stage in stages))


# The line w_0 = 16, w_a = 16, w_m = 2 has blocks at 16, 32, 48, 64, 80, 96; the levels 16, 32, 64 and 128 meet at
# 16·√2 = 22.6, at 45.3 and at 90.5.
ON_A_LINE = [(1, 16, 8), (1, 32, 8), (3, 64, 8)]

CASES = {
    "shared_bottleneck_ratio": (
        [[(1, 16, 8, 2), (1, 32, 8, 2)], [(3, 16, 4, 4)]],
        [[(1, 16, 8, 2), (1, 32, 8, 1)], [(1, 16, 8), (1, 16, 8), (1, 16, 8, 2)]],
    ),
    "shared_group_width": (
        [[(1, 16, 8, 2), (1, 32, 8, 1)], [(3, 16, 4)]],
        [[(1, 16, 8), (1, 16, 4)], [(1, 16, 8), (1, 16, 8), (1, 16, 16)]],
    ),
    "widths_up": (
        [[(2, 16, 8), (1, 24, 8)], [(1, 16, 8), (1, 16, 8)], [(1, 8, 8)]],
        [[(1, 24, 8), (1, 16, 8)], [(1, 16, 8), (1, 32, 8), (1, 24, 8)]],
    ),
    "depths_up": (
        [[(1, 24, 8), (2, 16, 8)], [(2, 16, 8), (2, 8, 8)], [(5, 8, 8)]],
        [[(2, 16, 8), (1, 16, 8)], [(1, 16, 8), (3, 16, 8), (2, 16, 8)]],
    ),
    "quantised_widths": (
        [
            ON_A_LINE,
            [(1, 16, 1), (1, 32, 1), (1, 64, 1)],  # cut short
            [(9, 48, 8)],  # one level only, however deep
            [(1, 16, 16), (1, 32, 16), (3, 64, 16)],
            [(1, 32, 32), (1, 64, 32)],  # levels 24 … 48 all become 32 for groups of 32 channels
        ],
        [
            [(1, 16, 8), (1, 24, 8), (3, 96, 8)],  # 24/16 and 96/24: no one multiplier
            [(1, 16, 8), (1, 32, 8), (1, 40, 8)],
            [(1, 64, 8), (1, 32, 8)],  # down
            [(1, 16, 8), (1, 16, 8)],  # no rise
            [(5, 16, 8), (1, 32, 8), (5, 64, 8)],  # a straight line cannot hurry through level 1 alone
            [(1, 16, 8), (1, 64, 8)],  # w_m = 4 is more than 3
            [(1, 12, 4), (1, 24, 4)],  # no multiple of 8
        ],
    ),
}


# Networks themselves, for the rules on blocks and on perceptrons.
OTHER_CASES = {
    "no_inverted_bottleneck": (
        [network((1, 16, 8)), network((1, 16, 8, 2))],
        [network((1, 16, 8, 0.5)), network((1, 16, 8), (1, 16, 8, 0.25))],
    ),
    "no_depthwise_groups": ([network((1, 16, 2))], [network((1, 16, 1)), network((1, 16, 8), (1, 16, 1))]),
    "resnext_blocks": (
        [network((1, 16, 8))],
        [network((1, 16, 16)), Architecture((Stage(1, 16, 16),), block="basic")],
    ),
    "squeeze_excitation": ([ZOO["regnety_400mf"]], [ZOO["regnetx_400mf"]]),
    "layers_narrow": ([Mlp((64,)), Mlp((64, 64, 32))], [Mlp((32, 64)), Mlp((64, 32, 48))]),
    "layers_normed": ([Mlp((64,), norm="batch"), Mlp((64,), norm="layer")], [Mlp((64,))]),
    "layers_skipped": ([Mlp((64, 64), skip=True)], [Mlp((64, 64))]),
}


def test_every_rule_is_tried():
    assert [*CASES, *OTHER_CASES] == list(RULES)


@pytest.mark.parametrize("name", OTHER_CASES)
def test_rules_on_blocks_and_perceptrons_hold_where_they_should(name):
    obeying, breaking = OTHER_CASES[name]
    assert all(RULES[name].predicate(network) for network in obeying)
    assert not any(RULES[name].predicate(network) for network in breaking)


@pytest.mark.parametrize("name", CASES)
def test_rules_hold_where_they_should(name):
    obeying, breaking = CASES[name]
    assert all(RULES[name].predicate(network(*stages)) for stages in obeying)
    assert not any(RULES[name].predicate(network(*stages)) for stages in breaking)


@pytest.mark.parametrize("name", RULES)
def test_rules_say_what_they_claim_and_who_says_so(name):
    rule = RULES[name]
    assert rule.name == name
    assert rule.claim
    assert re.search(r"\b(19|20)\d\d\b", rule.citation)


@pytest.mark.parametrize("name", [name for name in ZOO if name.startswith("regnet") and name != "regnetx32"])
def test_published_regnets_are_on_a_line(name):
    assert RULES["quantised_widths"].predicate(ZOO[name])


def test_the_d2l_network_is_on_a_line_too():
    assert RULES["quantised_widths"].predicate(ZOO["regnetx32"])
