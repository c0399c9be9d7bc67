"""Ranges: the values that they allow, and errors that name field, value and remedy."""

import pytest

from sweep.spaces import Architecture, Ranges, Stage


def test_the_defaults_are_the_papers():
    ranges = Ranges()
    assert len(ranges.depths) == 16
    assert len(ranges.widths) == 128
    assert len(ranges.pairs) == 18
    assert (ranges.regnet_depths[0], ranges.regnet_depths[-1]) == (4, 64)
    assert (ranges.regnet_first_widths[0], ranges.regnet_first_widths[-1]) == (8, 256)
    assert (ranges.regnet_slopes[0], ranges.regnet_slopes[-1]) == (10, 2560)
    assert (ranges.regnet_multipliers[0], ranges.regnet_multipliers[-1]) == (1500, 3000)


def test_widths_fit_their_groups():
    ranges = Ranges(width_max=64)
    assert ranges.widths_for(1, 8) == (8, 16, 24, 32, 40, 48, 56, 64)
    assert ranges.widths_for(4, 8) == (32, 64)
    assert ranges.widths_for(4, 32) == ()
    assert (4, 32) not in ranges.pairs
    assert Ranges(bottleneck_ratios=(0.5,), group_widths=(32,), width_max=64).widths_for(0.5, 32) == (16, 32, 48, 64)


def test_bounds_need_not_be_multiples_of_the_step():
    assert list(Ranges(width_min=12, width_max=30).widths) == [16, 24]


def test_decimal_bounds_survive_binary_floating_point():
    ranges = Ranges(regnet_slope_min=0.3, regnet_multiplier_min=1.501, regnet_multiplier_max=2.003)
    assert ranges.regnet_slopes[0] == 3
    assert (ranges.regnet_multipliers[0], ranges.regnet_multipliers[-1]) == (1501, 2003)


def test_total_depth_is_bounded_by_the_stages_too():
    assert Ranges(num_stages=2, depth_min=2, depth_max=5).regnet_depths == range(4, 11)


def test_has_parts_of_looks_at_every_part():
    ranges = Ranges(num_stages=1, depth_max=4, width_max=64)
    inside = Architecture((Stage(4, 64, 32),))
    assert ranges.has_parts_of(inside)
    outside = [
        Architecture((Stage(4, 64, 32), Stage(4, 64, 32))),
        Architecture((Stage(5, 64, 32),)),
        Architecture((Stage(4, 72, 8),)),
        Architecture((Stage(4, 60, 4),)),
        Architecture((Stage(4, 64, 64),)),
        Architecture((Stage(4, 64, 32, 0.5),)),
        Architecture((Stage(4, 64, 32),), stem_width=16),
        Architecture((Stage(4, 64, 32),), stem_stride=1),
        Architecture((Stage(4, 64, 32),), se_ratio=0.25),
        Architecture((Stage(4, 64, 32),), conv_bias=True),
    ]
    assert not any(ranges.has_parts_of(network) for network in outside)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_stages": 0}, "num_stages = 0 is not a positive whole number; use 1"),
        ({"depth_min": 9, "depth_max": 8}, "depth_min = 9 is above depth_max = 8; lower it or raise the other"),
        ({"width_min": 64, "width_max": 32}, "width_min = 64 is above width_max = 32"),
        ({"width_min": 9, "width_max": 15}, "width_step = 8 has no multiple between width_min = 9 and width_max = 15"),
        ({"group_widths": (7,), "width_max": 48}, r"group_widths = \(7,\) divide no bottleneck .* add a smaller"),
        ({"group_widths": ()}, r"group_widths = \(\) is empty; give at least one value"),
        ({"group_widths": (8, 8)}, r"group_widths = \(8, 8\) names a value twice; name each once"),
        ({"group_widths": (8, 0)}, "group_widths = 0 is not a positive whole number"),
        ({"group_widths": 8}, "group_widths = 8 is not a list; give a list of numbers"),
        ({"bottleneck_ratios": (1, -2)}, "bottleneck_ratios = -2 is not a positive, finite number"),
        ({"bottleneck_ratios": (1.5,)}, "bottleneck_ratios = 1.5 is neither whole nor one over a whole number; use 1"),
        ({"stem_width": 0}, "stem_width = 0 is not"),
        ({"stem_stride": 4}, "stem_stride = 4 is neither 1 nor 2"),
        ({"se_ratio": -1}, "se_ratio = -1 is not between 0 and 1"),
        ({"se_ratio": 0.05}, "se_ratio = 0.05 leaves no channel of a width of 8"),
        ({"conv_bias": 1}, "conv_bias = 1 is neither true nor false"),
        ({"regnet_depth_max": 3}, "regnet_depth_max = 3 is below num_stages × depth_min = 4; raise it"),
        ({"regnet_width_max": 4}, "regnet_width_max = 4 is below the first width 8; raise it"),
        ({"regnet_slope_min": 300}, "regnet_slope_min = 300 leaves no tenth up to regnet_width_max = 256"),
        ({"regnet_multiplier_min": 4}, "regnet_multiplier_min = 4 is above regnet_multiplier_max = 3"),
        ({"regnet_multiplier_min": 1}, "regnet_multiplier_min = 1 does not make stages wider; use more than 1"),
        (
            {"regnet_multiplier_min": 2.0002, "regnet_multiplier_max": 2.0004},
            "regnet_multiplier_max = 2.0004 leaves no thousandth from regnet_multiplier_min = 2.0002; raise it",
        ),
    ],
)
def test_impossible_ranges_are_refused(values, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Ranges(**values)
