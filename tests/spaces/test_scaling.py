"""Scaled networks: golden ones by hand, what a rule says of them survives, and what cannot be scaled is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spaces.strategies import CONVOLUTIONAL, PAPER, SMALL, architectures, mlps, small, vits

from sweep.spaces import SPACES, Architecture, Mlp, MlpRanges, Ranges, Stage, Vit, VitRanges, resolve, scaled
from sweep.spaces.own import listed_space, own_space
from sweep.spaces.regnet import follows_line
from sweep.spaces.space import MEMBER

FACTORS = st.sampled_from([0.3, 0.5, 0.75, 1, 1.1, 1.5, 2, 3.7])
UPWARD = st.sampled_from([1, 1.1, 1.25, 1.5, 2, 3.7])


def times(network, space, ranges, width_factor=1.0, depth_factor=1.0):
    return scaled(network, SPACES[space], ranges, width_factor=width_factor, depth_factor=depth_factor)


def test_anynet_by_hand():
    """b = 2, g = 8: widths are multiples of 16. 24 × 1.5 would be 36; halves go up, of widths and of depths."""
    stages = (Stage(1, 16, 8, 2), Stage(3, 32, 8, 2), Stage(5, 48, 8, 2))
    network = Architecture(stages, stem_width=8, stem_stride=1, norm="group")
    large = times(network, "anynet_e", Ranges(num_stages=3), 1.5, 1.5)
    assert large == replace(network, stages=(Stage(2, 32, 8, 2), Stage(5, 48, 8, 2), Stage(8, 80, 8, 2)))
    assert times(network, "anynet_e", Ranges(num_stages=3), 0.1, 0.1) == replace(
        network, stages=(Stage(1, 16, 8, 2),) * 3
    )


def test_widths_keep_their_order_whatever_the_groups():
    """Groups of 16 allow other widths than those of 8: a wider stage, left alone, would end up narrower. Two stages of
    one width go together, to what the wider groups want."""
    stages = (Stage(1, 48, 16), Stage(1, 56, 8), Stage(1, 64, 16), Stage(1, 64, 4, 2))
    network = Architecture(stages)
    assert times(network, "anynet_a", PAPER, 1.17).widths == (64, 64, 80, 80)  # 56.2, 65.5, 74.9
    assert times(network, "anynet_a", PAPER, 1.3).widths == (64, 72, 80, 80)  # 62.4, 72.8, 83.2


def test_a_basic_block_and_a_plain_convolution_keep_one_group():
    basic = Architecture((Stage(1, 16, 16), Stage(2, 24, 24)), block="basic")
    assert times(basic, "resnet_basic", Ranges(num_stages=2), 1.5).group_widths == (24, 40)
    plain = Architecture((Stage(1, 16, 8, 2), Stage(2, 32, 16, 2)))
    assert times(plain, "resnet_bottleneck", Ranges(num_stages=2), 2).stages == (
        Stage(1, 32, 16, 2),
        Stage(2, 64, 32, 2),
    )


@pytest.mark.parametrize(
    ("widths", "depth_factor", "expected"),
    [
        ((64, 32), 1.5, (64, 32, 32)),
        ((64, 32, 16), 2, (64, 64, 32, 32, 16, 16)),
        ((64, 32, 16), 0.5, (64, 16)),
        ((96, 64, 32, 16), 0.5, (64, 16)),
        ((96, 64, 32, 16), 0.1, (32,)),
        ((64,), 3, (64, 64, 64)),
    ],
)
def test_layers_of_a_perceptron_are_stretched(widths, depth_factor, expected):
    network = Mlp(widths, skip=True, norm="batch", dropout=0.1)
    assert times(network, "mlp_a", MlpRanges(), 1, depth_factor) == replace(network, widths=expected)


def test_widths_of_a_perceptron_are_on_the_step_of_its_ranges():
    assert times(Mlp((100, 20, 3)), "mlp_a", MlpRanges(width_step=8, width_min=8), 1.3).widths == (128, 24, 8)


def test_a_transformer_gets_more_heads_of_the_same_width():
    tiny, wide = resolve("vit_tiny"), resolve("vit_small")
    assert times(tiny, "vit", VitRanges(), 2, 1) == wide  # DeiT-Ti and DeiT-S
    assert times(Vit(4, 48, 3, 3), "vit", VitRanges(), 1.5, 1.5) == Vit(4, 80, 5, 5)
    assert times(Vit(4, 16, 1, 1), "vit", VitRanges(), 0.1, 0.1) == Vit(4, 16, 1, 1)


@pytest.mark.parametrize("space", ["anynet_a", "anynet_c", "anynet_e", "regnet_x", "resnet_basic", "mlp_d", "vit"])
def test_factors_of_one_change_nothing(space):
    draws = SPACES[space].draw(small(SPACES[space]), np.random.default_rng(3), 4000)
    for row in np.flatnonzero(draws.reasons == MEMBER)[:30]:
        assert times(draws.network(row), space, small(SPACES[space])) == draws.network(row)


def test_a_listed_network_that_is_on_no_grid_is_repeated_as_it_is():
    space = listed_space("mine", ["regnetx:d=5,w0=8,wa=9.7,wm=2.1,g=5", "mlp:widths=13-7"])
    for network in space.networks:
        assert scaled(network, space, Ranges(), width_factor=1, depth_factor=1) == network


def wide(ranges: Ranges) -> Ranges:
    """What the scaled networks of these ranges may have."""
    return replace(ranges, depth_max=1000, width_min=1, width_max=100_000)


@pytest.mark.parametrize("space", [name for name in CONVOLUTIONAL if name != "vionet_unquantised"])  # drawn as AnyNet E
@given(width_factor=UPWARD, depth_factor=UPWARD, seed=st.integers(0, 1000))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_what_is_larger_is_a_member_as_before_but_for_the_line(space, width_factor, depth_factor, seed):
    """Widths, depths, what stages share and what they must not, groups and parts; in the ranges with wider bounds."""
    found = SPACES[space]
    draws = found.draw(SMALL, np.random.default_rng(seed), 3000)
    for row in np.flatnonzero(draws.reasons == MEMBER)[:20]:
        network = draws.network(row)
        large = scaled(network, found, SMALL, width_factor=width_factor, depth_factor=depth_factor)
        assert replace(found, line="free").contains(large, wide(SMALL))
        assert large.parts() == network.parts()
        for before, after in zip(network.stages, large.stages):
            assert abs(after.depth - depth_factor * before.depth) <= 0.5
            assert after.width >= before.width


@given(network=architectures(), width_factor=FACTORS, depth_factor=FACTORS)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_network_keeps_its_order(network, width_factor, depth_factor):
    ranges = Ranges(num_stages=len(network.stages))
    large = times(network, "anynet_a", ranges, width_factor, depth_factor)
    for mine, its in ((large.widths, network.widths), (large.depths, network.depths)):
        for i in range(len(its)):
            for j in range(len(its)):
                assert its[i] != its[j] or mine[i] == mine[j]
                assert its[i] > its[j] or mine[i] <= mine[j]
    assert large.bottleneck_ratios == network.bottleneck_ratios
    assert network.block == "basic" or large.group_widths == network.group_widths


@given(network=st.one_of(mlps(), vits()), width_factor=FACTORS, depth_factor=FACTORS)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_other_families_keep_theirs(network, width_factor, depth_factor):
    space = "mlp_a" if isinstance(network, Mlp) else "vit"
    large = times(network, space, SPACES[space].RANGES(), width_factor, depth_factor)
    assert large.depth == max(1, int(network.depth * depth_factor + 0.5))
    if isinstance(network, Mlp):
        falls = list(network.widths) == sorted(network.widths, reverse=True)
        assert not falls or list(large.widths) == sorted(large.widths, reverse=True)
        assert {**vars_of(large), "widths": 0} == {**vars_of(network), "widths": 0}
    else:
        assert large.width * network.num_heads == network.width * large.num_heads
        assert (large.patch, large.mlp_ratio, large.dropout) == (network.patch, network.mlp_ratio, network.dropout)


def vars_of(network: Mlp) -> dict:
    return {name: getattr(network, name) for name in network.__dataclass_fields__}


def test_how_near_a_line_a_regnet_stays():
    """Widths that are doubled are the line's, doubled: exactly, and so each within a rounding of it. On a line of the
    grid are fewer."""
    draws = SPACES["regnet_x"].draw(PAPER, np.random.default_rng(0), 6000)
    networks = [draws.network(row) for row in np.flatnonzero(draws.reasons == MEMBER)[:100]]
    assert len(networks) == 100
    doubled = [times(network, "regnet_x", PAPER, 2) for network in networks]
    assert all(a.widths == tuple(2 * width for width in b.widths) for a, b in zip(doubled, networks))
    assert 0.25 < np.mean([follows_line(network) for network in doubled]) < 0.6
    deeper = [times(network, "regnet_x", PAPER, 2, 1.5) for network in networks]
    assert 0.01 < np.mean([follows_line(network) for network in deeper]) < 0.2


def test_a_difference_that_a_rule_of_breaking_needs_may_not_vanish():
    falling = Architecture((Stage(2, 16, 8), Stage(1, 16, 8)))
    with pytest.raises(
        ValueError, match=r"depth_factor = 0\.5 leave no difference where vionet_depths_down demands one"
    ):
        times(falling, "vionet_depths_down", Ranges(num_stages=2), 1, 0.5)
    assert times(falling, "vionet_depths_down", Ranges(num_stages=2), 1, 1.5).depths == (3, 2)
    with pytest.raises(ValueError, match="leave no difference"):
        times(replace(falling, stages=falling.stages[::-1]), "vionet_widths_down", Ranges(num_stages=2), 0.5)


def test_a_user_s_space_keeps_the_order_of_its_base_and_asks_its_condition_no_more():
    space = own_space("slim", SPACES["anynet_d"], where="widths[0] < 24")
    network = Architecture((Stage(1, 16, 8), Stage(1, 24, 8)))
    assert scaled(network, space, Ranges(num_stages=2), width_factor=2, depth_factor=1).widths == (32, 48)


@pytest.mark.parametrize("factor", [0, -1, float("inf"), float("nan"), "2"])
def test_a_factor_that_is_none_is_named(factor):
    with pytest.raises(ValueError, match="width_factor = "):
        times(Mlp((8,)), "mlp_a", MlpRanges(), factor)
    with pytest.raises(ValueError, match="depth_factor = "):
        times(Mlp((8,)), "mlp_a", MlpRanges(), 1, factor)


def test_what_is_too_narrow_for_its_parts_is_refused():
    network = Architecture((Stage(1, 32, 8),), se_ratio=0.03)
    with pytest.raises(ValueError, match=r"se_ratio = .* leaves no channel"):
        times(network, "anynet_a", Ranges(num_stages=1), 0.5)
