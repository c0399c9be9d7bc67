"""A user's own spaces: a condition, a rule in Python, other ranges; and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from spaces.strategies import SMALL, SMALL_BAND, SMALL_IMAGE, SMALL_MLP

from sweep.spaces import SPACES, ZOO, Mlp, columns_of, rule_pairs, sample_population
from sweep.spaces.condition import Condition
from sweep.spaces.own import own_space

RULES = '''
class StartsWide:
    """A class whose instances answer for a network."""

    def __call__(self, network):
        return network.widths[0] >= 24


def shallow(network):
    return network.depth <= 6


def doubtful(network):
    return "perhaps"


number = 3
'''


@pytest.fixture
def own_rules(tmp_path, monkeypatch):
    (tmp_path / "own_rules.py").write_text(RULES, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))


def members(space, ranges=SMALL):
    return sample_population(space, ranges, num=40, seed=0, **SMALL_BAND, **SMALL_IMAGE).members


def test_a_condition_narrows_a_space():
    space = own_space("wide_start", SPACES["anynet_e"], where="widths[0] >= 24 and depth <= 8")
    networks = members(space)
    assert all(network.widths[0] >= 24 and network.depth <= 8 for network in networks)
    assert all(space.contains(network, SMALL) and SPACES["anynet_e"].contains(network, SMALL) for network in networks)
    outside = next(n for n in members(SPACES["anynet_e"]) if n.widths[0] < 24)
    assert not space.contains(outside, SMALL)
    (pair,) = rule_pairs([SPACES["anynet_e"], space])
    assert (pair.rule, pair.space_without, pair.space_with) == ("wide_start", "anynet_e", "wide_start")
    assert pair.claim == "widths[0] >= 24 and depth <= 8"
    with pytest.raises(ValueError, match=r"^wide_start: .* is not counted; anynet_e, which it narrows, has [\d,]+$"):
        space.size(SMALL)


def test_rejected_draws_are_counted_by_the_rule():
    space = own_space("wide_start", SPACES["anynet_e"], where="widths[0] >= 24")
    rejected = sample_population(space, SMALL, num=40, seed=0, **SMALL_BAND, **SMALL_IMAGE).rejected
    assert rejected["breaks the rule wide_start"] > 0


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ("own_rules:StartsWide", lambda network: network.widths[0] >= 24),
        ("own_rules:shallow", lambda network: network.depth <= 6),
    ],
)
def test_a_rule_in_python_narrows_a_space(own_rules, rule, holds):
    space = own_space("mine", SPACES["anynet_c"], rule=rule, claim="such networks are better", citation="me")
    assert all(map(holds, members(space)))
    assert space.claim == "such networks are better"
    assert space.title == "mine"


def test_other_ranges_alter_a_space():
    space = own_space("group_norm", SPACES["anynet_e"], ranges={"norm": "group"})
    assert {network.norm for network in members(space)} == {"group"}
    assert space.size(SMALL) == SPACES["anynet_e"].size(SMALL)
    shallow = own_space("two_layers", SPACES["mlp_a"], ranges={"depth_max": 2})
    assert max(network.depth for network in members(shallow, SMALL_MLP)) == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "space = 'mine' is anynet_e again; give it a condition"),
        ({"where": "depth > 3", "rule": "a:b"}, "where = 'depth > 3' stands beside rule = 'a:b'; give one of the two"),
        ({"rule": "no_colon"}, "rule = 'no_colon' is not module:name; write for example my_rules:wide_start"),
        ({"ranges": {"patch": 4}}, "ranges: unknown key 'patch'; "),
        ({"where": "depht > 3"}, "where = 'depht > 3' speaks of 'depht'; did you mean 'depth'?"),
        ({"where": "depth >"}, "where = 'depth >' is no condition"),
        ({"where": "().__class__"}, r"where = '\(\).__class__' holds Attribute, which is not understood"),
        ({"where": "[d for d in depths]"}, ".* holds ListComp, which is not understood"),
        ({"where": "depth ** 9"}, ".* holds BinOp|.* holds Pow"),
        ({"where": "print(depth)"}, ".* speaks of 'print'|.* holds Call"),
    ],
)
def test_what_makes_no_space_is_refused(fields, message):
    with pytest.raises(ValueError, match=f"^(?:{message})"):
        own_space("mine", SPACES["anynet_e"], **fields)


def test_ranges_are_judged_beside_those_of_the_scale():
    impossible = own_space("mine", SPACES["anynet_e"], ranges={"depth_min": 0})
    with pytest.raises(ValueError, match=r"^depth_min = 0 is not a positive whole number"):
        impossible.within(SMALL)
    deep = own_space("deep", SPACES["anynet_e"], ranges={"depth_min": 20})  # more than the paper's 16
    assert deep.within(replace(SMALL, depth_max=30)).depths == range(20, 31)


def test_a_condition_is_understood_where_no_network_was_ever_drawn():
    space = own_space("mine", SPACES["regnet_x"], where="depth > 3", ranges={"num_stages": 5, "width_max": 32})
    assert space.rule.predicate(ZOO["regnetx_400mf"])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("own_rules:nothing", "rule = 'own_rules:nothing': own_rules has no 'nothing'"),
        ("own_rules:number", "rule = 'own_rules:number': is a int and cannot be called"),
        ("my_rulez:shallow", "rule = 'my_rulez:shallow': there is no module 'my_rulez'"),
        ("own_rules:doubtful", "rule = 'own_rules:doubtful' answered 'perhaps'; answer True or False"),
    ],
)
def test_a_rule_that_cannot_be_asked_is_named(own_rules, rule, message):
    space = own_space("mine", SPACES["anynet_e"], rule=rule)  # not imported yet: reports do not need it
    with pytest.raises(ValueError, match=f"^{message}"):
        space.draw(SMALL, np.random.default_rng(0), 10)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("depth == 22", True),
        ("1 < depths[0] + depths[1] <= 3", True),
        ("max(widths) / min(widths) > 20 or not se_ratio", True),
        ("norm in ('layer', 'group')", False),
        ("sum(depths) - depth or -1 == abs(-1)", False),
        ("len(widths) * 2 // 3 % 2 == 0 and sorted(widths)[0] == widths[0]", True),
        ("norm not in ['layer'] and depths[1] != 3", True),
    ],
)
def test_conditions_are_worked_out(text, answer):
    network = ZOO["regnetx_400mf"]
    assert Condition(text, columns_of(network) | {"depth": 0})(network) is answer


def test_a_condition_that_does_not_suit_a_network_is_named():
    condition = Condition("widths[3] > 8", {"widths": ()})
    with pytest.raises(ValueError, match=r"^where = 'widths\[3\] > 8' cannot be worked out for a network \(.*\); mend"):
        condition(Mlp((16, 16)))
