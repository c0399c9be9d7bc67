"""The population: the same for the same study, a prefix of a larger one, in shuffled order, with its lottery."""

import hashlib
from dataclasses import astuple

import pytest
from scaled import AGAIN, LARGE, LARGER, scaled_study

from sweep.records import TrialRow
from sweep.scheduling.population import Members, draw_members, draw_population
from sweep.spaces import Architecture, Ranges, complexity, get_space, network_from_json, scaled
from sweep.studies import load_study, study_from_dict

SMALL = ["trials_per_space=6"]


def quickstart(*overrides: str):
    return load_study("quickstart", [*SMALL, *overrides])


def test_same_study_same_population():
    assert draw_population(quickstart()) == draw_population(quickstart())
    assert draw_population(quickstart())[0] != draw_population(quickstart("seed=2"))[0]


# The first trials to be launched, their networks, and a digest of every field of all rows: what a study draws must
# outlive a change of this code.
PINNED = {
    "quickstart": (
        {"anynet_c-small-0007": "ec3f3d0b9e30", "anynet_c-small-0018": "c83851c94d12",
         "regnet_x-small-0015": "25d68b52d28f", "anynet_d-small-0011": "4a72b187b756"},
        "7a58571b4f940bbe",
    ),
    "rules_small": (
        {"anynet_c-small-0009": "0d3bad214808", "anynet_d-small-0013": "55464583cc93",
         "anynet_e-small-0014": "b85896940c7e", "regnet_x-small-0007": "ca308c55d760"},
        "589175bbb6276421",
    ),
}  # fmt: skip


@pytest.mark.parametrize("study", PINNED)
def test_populations_are_pinned(study):
    first, digest = PINNED[study]
    rows, _ = draw_population(load_study(study))
    assert {row.trial_id: row.architecture_id for row in rows[:4]} == first
    told = [astuple(row)[:-1] for row in rows]  # without audited_if_worst, which is younger
    assert hashlib.sha256(repr(told).encode()).hexdigest()[:16] == digest


def test_a_row_holds_what_its_network_costs_and_is():
    study = quickstart()
    for row in draw_population(study)[0]:
        architecture = Architecture.from_json(row.architecture)
        assert row.architecture_id == architecture.id
        cost = complexity(architecture, resolution=study.scale[0].resolution, channels=1, classes=10)
        assert (row.flops, row.params, row.activations) == (cost.flops, cost.params, cost.activations)


def test_more_trials_keep_the_first_ones():
    few = {row.trial_id: (row.architecture, row.seed, row.audited) for row in draw_population(quickstart())[0]}
    many = {
        row.trial_id: (row.architecture, row.seed, row.audited)
        for row in draw_population(quickstart("trials_per_space=9"))[0]
    }
    assert few.items() <= many.items()


def test_members_lie_in_space_and_band():
    study = quickstart()
    scale = study.scale[0]
    for row in draw_population(study)[0]:
        architecture = Architecture.from_json(row.architecture)
        assert get_space(row.space).contains(architecture, scale.ranges_of(get_space(row.space)))
        assert scale.flops_min <= row.flops <= scale.flops_max


def test_launch_order_is_a_shuffle_over_all_spaces():
    rows, _ = draw_population(quickstart())
    assert [row.launch_order for row in rows] == list(range(len(rows)))
    assert len({row.space for row in rows[:8]}) > 1


def test_members_from_the_middle_are_those_of_the_whole():
    study = quickstart()
    whole = {row.trial_id: row for row in draw_population(study)[0] if row.space == "anynet_d"}
    part, [draws] = draw_members(study, [Members("anynet_d", study.scale[0], range(4, 6))], launch_from=40)
    assert sorted(row.draw for row in part) == [4, 5]
    assert [row.launch_order for row in part] == [40, 41]
    for row in part:
        same = whole[row.trial_id]
        assert (row.architecture, row.seed, row.audited) == (same.architecture, same.seed, same.audited)
    assert draws.num_draws == 6 + sum(draws.rejected.values())  # counted from the first member


def test_numbers_beyond_four_digits_are_written_out():
    study = load_study("rules_small", ["trials_per_space=1", "scale.flops_max=8e6"])
    [row], _ = draw_members(study, [Members("anynet_c", study.scale[0], [10_000])])
    assert row.trial_id == "anynet_c-small-10000"


def test_rejected_draws_are_counted():
    for draw in draw_population(quickstart())[1]:
        assert draw.num_draws == 6 + sum(draw.rejected.values())


def test_flops_strata_split_a_cohort():
    study = quickstart("stopping.flops_strata=2", "trials_per_space=12")
    middle = (study.scale[0].flops_min * study.scale[0].flops_max) ** 0.5
    for row in draw_population(study)[0]:
        assert row.cohort == f"{row.space}/small/{int(row.flops >= middle)}"


def test_lottery_takes_about_its_fraction():
    rows, _ = draw_population(quickstart("trials_per_space=150", "stopping.audit_fraction=0.3"))
    share = sum(row.audited for row in rows) / len(rows)
    assert 0.22 < share < 0.38  # four standard deviations of 600 draws
    assert not any(row.audited for row in draw_population(quickstart("stopping.audit_fraction=0.0"))[0])


def test_a_band_without_members_is_refused():
    with pytest.raises(ValueError, match="anynet_c at scale 'small': flops_min = 1e\\+12"):
        draw_population(quickstart("scale.flops_min=1e12", "scale.flops_max=2e12"))


def test_ranges_of_the_study_reach_the_networks():
    study = quickstart("scale.ranges.num_stages=2", "scale.ranges.stem_width=24")
    assert study.scale[0].ranges_of(get_space("anynet_c")) != Ranges()
    architecture = Architecture.from_json(draw_population(study)[0][0].architecture)
    assert len(architecture.stages) == 2
    assert architecture.stem_width == 24


# -- scales of scales ------------------------------------------------------------------------------------------------


def at(rows, scale: str, space: str = "anynet_d") -> dict[int, TrialRow]:
    return {row.draw: row for row in rows if (row.scale, row.space) == (scale, space)}


def test_a_scaled_scale_has_the_networks_of_its_original():
    study = scaled_study()
    rows, draws = draw_population(study)
    assert len(rows) == study.num_trials == 2 * (5 + 5 + 3 + 2 + 2)
    assert [row.launch_order for row in rows] == list(range(len(rows)))
    assert len({row.seed for row in rows}) == len(rows)
    ranges = study.scale[0].ranges_of(get_space("anynet_d"))
    for draw, row in at(rows, "large").items():
        small = Architecture.from_json(at(rows, "small")[draw].architecture)
        large = scaled(small, get_space("anynet_d"), ranges, width_factor=2, depth_factor=1.5)
        assert (row.trial_id, row.architecture) == (f"anynet_d-large-{draw:04d}", large.to_json())
        assert large.widths == tuple(2 * width for width in small.widths)
        cost = complexity(large, resolution=28, channels=1, classes=10)
        assert (row.flops, row.params, row.activations) == (cost.flops, cost.params, cost.activations)
    told = {(draw.space, draw.scale): (draw.scaled_from, draw.num_draws > 0) for draw in draws}
    assert told["anynet_c", "large"] == ("small", False)
    assert told["anynet_c", "larger"] == ("large", False)
    assert told["anynet_c", "small"] == (None, True)


def test_what_scales_add_changes_nothing_of_the_scale_that_draws():
    alone, beside = (draw_population(scaled_study(*scales))[0] for scales in ([AGAIN | {"name": "other"}], []))
    assert {draw: (row.architecture, row.seed, row.audited) for draw, row in at(alone, "small").items()} == {
        draw: (row.architecture, row.seed, row.audited) for draw, row in at(beside, "small").items()
    }


def test_a_scale_of_a_scaled_one_is_scaled_twice():
    study = scaled_study()
    rows = draw_population(study)[0]
    ranges = study.scale[0].ranges_of(get_space("anynet_d"))
    for draw, row in at(rows, "larger").items():
        large = Architecture.from_json(at(rows, "large")[draw].architecture)
        expected = scaled(large, get_space("anynet_d"), ranges, width_factor=1.5, depth_factor=1)
        assert row.architecture == expected.to_json()


def test_a_part_begins_with_those_that_the_lottery_exempts_there():
    study = scaled_study(LARGE, LARGER, num=40)
    rows = draw_population(study)[0]
    for space in study.spaces:
        ordered = sorted((not row.audited, draw) for draw, row in at(rows, "large", space).items())
        assert not ordered[2][0], "of forty, three are exempt"
        assert sorted(at(rows, "larger", space)) == sorted(draw for _, draw in ordered[:3])
    share = sum(row.audited for row in at(rows, "larger").values())
    assert share < 3, "which says nothing of the lottery of that scale"


def test_a_repeat_trains_the_same_networks_to_the_end_with_other_seeds():
    rows = draw_population(scaled_study())[0]
    for repeat, original in (("again", "small"), ("large_again", "large")):
        for draw, row in at(rows, repeat).items():
            assert row.audited
            assert row.architecture_id == at(rows, original)[draw].architecture_id
            assert row.seed != at(rows, original)[draw].seed
    assert not all(row.audited for row in at(rows, "large").values())


def test_a_scaled_network_is_in_the_stratum_of_the_one_that_was_drawn():
    rows = draw_population(scaled_study(num=12, flops_strata=2))[0]
    for scale in ("large", "larger", "again"):
        for draw, row in at(rows, scale).items():
            assert row.cohort == f"anynet_d/{scale}/{at(rows, 'small')[draw].cohort[-1]}"
    assert {row.cohort[-1] for row in rows} == {"0", "1"}


def test_a_band_of_a_scaled_scale_must_hold_its_networks():
    flops = [row.flops for row in draw_population(scaled_study(LARGE))[0] if row.scale == "large"]
    held = scaled_study(LARGE | {"flops_min": min(flops) - 1.0, "flops_max": max(flops) + 1.0})
    assert len(draw_population(held)[0]) == 20
    words = (
        r"scale 'large': flops_min = 1, flops_max = 1e\+06 does not hold \d of 5 networks .* 'small', anynet_c-large"
    )
    with pytest.raises(ValueError, match=words + r"-000\d among them, .*; widen the band"):
        draw_population(scaled_study(LARGE | {"flops_min": 1.0, "flops_max": 1e6}))


def test_a_network_that_cannot_be_scaled_is_named():
    study = scaled_study({"name": "tiny", "of": "small", "depth_factor": 0.1})
    study = study.model_copy(update={"spaces": ("vionet_depths_down",)})
    words = r"scale 'tiny': vionet_depths_down-small-000\d cannot be scaled: .*no difference"
    with pytest.raises(ValueError, match=words):
        draw_population(study)


def test_perceptrons_and_transformers_are_scaled_too():
    table = load_study("perfect_mlp", ["trials_per_space=3"]).to_dict()
    small = {key: value for key, value in table["scale"][0].items() if value}
    small |= {"vit": {"patch": [4, 7], "width_min": 8, "width_max": 64, "head_width": 8}, "flops_max": 3e6}
    larger = {"name": "wide", "of": "small", "width_factor": 2, "depth_factor": 2}
    rows = draw_population(study_from_dict(table | {"spaces": ["mlp_d", "vit"], "scale": [small, larger]}))[0]
    for space in ("mlp_d", "vit"):
        for draw, row in at(rows, "wide", space).items():
            small_one, wide = (network_from_json(one.architecture) for one in (at(rows, "small", space)[draw], row))
            assert wide.depth == 2 * small_one.depth
            widths = (wide.widths[::2], small_one.widths) if space == "mlp_d" else ((wide.width,), (small_one.width,))
            assert widths[0] == tuple(2 * width for width in widths[1])
