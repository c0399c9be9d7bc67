"""Networks as data: derived numbers, exact round trips, and errors that name field, value and remedy."""

import json
import pickle
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from spaces.strategies import architectures

from sweep.spaces import Architecture, Stage

NETWORK = Architecture((Stage(2, 16, 4, 2), Stage(3, 32, 8)), stem_width=8, se_ratio=0.25)


def test_a_stage_tells_bottleneck_width_and_number_of_groups():
    assert (Stage(1, 64, 8, 4).bottleneck_width, Stage(1, 64, 8, 4).num_groups) == (16, 2)
    assert (Stage(1, 64, 8, 0.25).bottleneck_width, Stage(1, 64, 8, 0.25).num_groups) == (256, 32)
    assert (Stage(1, 24, 1).bottleneck_width, Stage(1, 24, 1).num_groups) == (24, 24)


def test_an_architecture_tells_its_columns():
    assert (NETWORK.depth, NETWORK.depths, NETWORK.widths) == (5, (2, 3), (16, 32))
    assert (NETWORK.group_widths, NETWORK.bottleneck_ratios) == ((4, 8), (2, 1))


def test_the_id_is_pinned_and_follows_the_content():
    assert NETWORK.to_json() == (
        '{"conv_bias":false,"se_ratio":0.25,"stages":['
        '{"bottleneck_ratio":2,"depth":2,"group_width":4,"width":16},'
        '{"bottleneck_ratio":1,"depth":3,"group_width":8,"width":32}],"stem_stride":2,"stem_width":8}'
    )
    assert NETWORK.id == "274bed980ced"
    assert replace(NETWORK, stem_width=16).id != NETWORK.id


def test_equal_numbers_of_other_types_are_the_same_network():
    stage = Stage(np.int64(2), np.int32(16), np.int64(4), np.float64(2.0))
    same = Architecture([stage, Stage(3, 32, 8, 1.0)], stem_width=8, se_ratio=np.float32(0.25))
    assert same == NETWORK
    assert same.id == NETWORK.id
    assert hash(same) == hash(NETWORK)
    assert json.loads(same.to_json()) == NETWORK.to_dict()


@given(architectures())
def test_every_way_out_leads_back(network):
    assert Architecture.from_yaml(network.to_yaml()) == network
    assert Architecture.from_json(network.to_json()) == network
    assert Architecture.from_dict(network.to_dict()) == network
    assert Architecture.from_yaml(network.to_yaml()).id == network.id
    assert pickle.loads(pickle.dumps(network)) == network  # noqa: S301 our own bytes: networks go to worker processes


def test_networks_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        NETWORK.stem_width = 3
    with pytest.raises(FrozenInstanceError):
        NETWORK.stages[0].depth = 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"depth": 0}, "depth = 0 is not a positive whole number; use 1, 2, 3 …"),
        ({"depth": True}, "depth = True is not a positive whole number"),
        ({"width": 8.0}, "width = 8.0 is not a positive whole number"),
        ({"group_width": -1}, "group_width = -1 is not a positive whole number"),
        ({"bottleneck_ratio": 0}, "bottleneck_ratio = 0 is not a positive, finite number; give a number above 0"),
        ({"bottleneck_ratio": float("nan")}, "bottleneck_ratio = nan is not a positive, finite number"),
        ({"bottleneck_ratio": "2"}, "bottleneck_ratio = '2' is not a number"),
        ({"bottleneck_ratio": 3}, "bottleneck_ratio = 3 does not divide the width 8 into whole channels; take a width"),
        ({"group_width": 3}, "group_width = 3 does not divide the bottleneck width 8 .* take a divisor of it"),
        ({"bottleneck_ratio": 4, "group_width": 4}, "group_width = 4 does not divide the bottleneck width 2 "),
    ],
)
def test_impossible_stages_are_refused(values, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Stage(**{"depth": 1, "width": 8, "group_width": 8, **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stages": ()}, r"stages = \(\) is empty; give at least one stage"),
        ({"stages": "ab"}, "stages = 'ab' is not a sequence of Stage"),
        ({"stem_width": 0}, "stem_width = 0 is not a positive whole number"),
        ({"stem_stride": 3}, "stem_stride = 3 is neither 1 nor 2; use 2"),
        ({"se_ratio": 1.5}, "se_ratio = 1.5 is not between 0 and 1; use 0 for none, 0.25 for RegNetY"),
        ({"se_ratio": float("nan")}, "se_ratio = nan is not between 0 and 1"),
        ({"se_ratio": 0.01}, "se_ratio = 0.01 leaves no channel of a width of 8; raise it or widen that part"),
        ({"conv_bias": "no"}, "conv_bias = 'no' is neither true nor false"),
    ],
)
def test_impossible_architectures_are_refused(values, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Architecture(**{"stages": (Stage(1, 8, 8),), **values})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stem_widht: 32\nstages: []", "architecture: unknown key 'stem_widht'; did you mean 'stem_width'?"),
        ("xyz: 32\nstages: []", "architecture: unknown key 'xyz'; known are stages, stem_width, "),
        ("stem_width: 32", "architecture: stages is missing; give at least stages"),
        ("stages: 3", "stages = 3 is not a list; give one entry per stage"),
        ("stages: [3]", r"stages\[0\]: 3 is not a mapping; give the keys depth, width, "),
        ("stages: [{depth: 1, width: 8}]", r"stages\[0\]: group_width is missing; give at least depth, width, group_"),
        (
            "stages: [{depth: 1, width: 8, groups: 8}]",
            r"stages\[0\]: unknown key 'groups'; did you mean 'group_width'?",
        ),
        ("stages: [{depth: 1, width: 8, group_width: 3}]", r"stages\[0\]: group_width = 3 does not divide"),
        ("- 1", r"architecture: \[1\] is not a mapping"),
        ("", "architecture: None is not a mapping"),
        ("stages: [", "architecture: not valid YAML"),
        ("!!python/object/apply:os.getcwd []", "architecture: not valid YAML"),
    ],
)
def test_faulty_yaml_is_refused(text, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Architecture.from_yaml(text)


def test_faulty_json_is_refused():
    with pytest.raises(ValueError, match=r"^architecture: not valid JSON"):
        Architecture.from_json("{")
