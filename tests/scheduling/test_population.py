"""The population: the same for the same study, a prefix of a larger one, in shuffled order, with its lottery."""

import pytest

from sweep.scheduling.forecast import forecast
from sweep.scheduling.population import draw_population
from sweep.spaces import Architecture, Ranges, get_space
from sweep.studies import load_study

SMALL = ["trials_per_space=6"]


def quickstart(*overrides: str):
    return load_study("quickstart", [*SMALL, *overrides])


def test_same_study_same_population():
    assert draw_population(quickstart()) == draw_population(quickstart())
    assert draw_population(quickstart())[0] != draw_population(quickstart("seed=2"))[0]


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
        assert get_space(row.space).contains(architecture, scale.to_ranges())
        assert scale.flops_min <= row.flops <= scale.flops_max


def test_launch_order_is_a_shuffle_over_all_spaces():
    rows, _ = draw_population(quickstart())
    assert [row.launch_order for row in rows] == list(range(len(rows)))
    assert len({row.space for row in rows[:8]}) > 1


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
    with pytest.raises(ValueError, match="flops_m"):
        draw_population(quickstart("scale.flops_min=1e12", "scale.flops_max=2e12"))


def test_forecast_without_stopping_is_exact():
    study = quickstart('stopping.method="none"')
    cost = forecast(study, draw_population(study)[0])
    assert cost.epochs_low == cost.epochs_high == cost.epochs_if_all_completed == 24 * study.stopping.max_epochs


def test_forecast_lies_between_grace_and_full_budget():
    study = quickstart()
    cost = forecast(study, draw_population(study)[0])
    assert 24 * study.stopping.grace_epochs < cost.epochs_low <= cost.epochs_mean <= cost.epochs_high
    assert cost.epochs_high < cost.epochs_if_all_completed
    assert 0 < cost.device_hours_low < cost.device_hours_high


def test_ranges_of_the_study_reach_the_networks():
    study = quickstart("scale.ranges.num_stages=2", "scale.ranges.stem_width=24")
    assert study.scale[0].to_ranges() != Ranges()
    architecture = Architecture.from_json(draw_population(study)[0][0].architecture)
    assert len(architecture.stages) == 2
    assert architecture.stem_width == 24
