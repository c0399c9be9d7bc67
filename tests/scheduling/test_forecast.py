"""The forecast: exact where it can be, bounded work whatever the size, and disk that real states stay within."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scaled import AGAIN, LARGE, scaled_study

from cluster.profile import Storage
from sweep.scheduling.asha import Cohort, Synchronous
from sweep.scheduling.forecast import forecast, play_halving, state_bytes
from sweep.scheduling.population import draw_population
from sweep.scheduling.simulation.replay import Trials, names, play
from sweep.spaces import Architecture
from sweep.studies import Recipe, Stopping, load_study
from sweep.training.data import Split
from sweep.training.trial import Trial

PAUSING = ("asha_promotion", "synchronous")
METHODS = ("asha", *PAUSING, "none")
NO_LOTTERY = "stopping.audit_fraction=0.0"


def study_of(method: str, *overrides: str, name: str = "quickstart"):
    return load_study(name, ["trials_per_space=6", f'stopping.method="{method}"', *overrides])


def forecast_of(study):
    return forecast(study, draw_population(study)[0])


def test_without_stopping_it_is_exact():
    study = study_of("none")
    cost = forecast_of(study)
    assert cost.epochs_low == cost.epochs_high == cost.epochs_if_all_completed == 24 * study.stopping.max_epochs
    assert (cost.rung_epochs, cost.max_epochs) == ({"small": ()}, {"small": 6})


@pytest.mark.parametrize("method", ["asha", *PAUSING])
def test_it_lies_between_grace_and_full_budget(method):
    study = study_of(method)
    cost = forecast_of(study)
    assert 24 * study.stopping.grace_epochs < cost.epochs_low <= cost.epochs_mean <= cost.epochs_high
    assert cost.epochs_high < cost.epochs_if_all_completed
    assert 0 < cost.device_hours_low < cost.device_hours_high
    assert cost.trials_by_cohort == dict.fromkeys(sorted(f"{space}/small" for space in study.spaces), 6)


def test_synchronous_halving_without_a_lottery_is_exact():
    """20 trials of each of four spaces: five go on from epoch 1 and one from epoch 4, to 6."""
    cost = forecast_of(study_of("synchronous", NO_LOTTERY, "trials_per_space=20"))
    assert cost.epochs_low == cost.epochs_mean == cost.epochs_high == 4 * (15 * 1 + 4 * 4 + 1 * 6)
    spread = forecast_of(study_of("synchronous", "trials_per_space=20"))
    assert spread.epochs_low < spread.epochs_high


def test_a_lottery_that_exempts_all_trains_all():
    for method in METHODS:
        cost = forecast_of(study_of(method, "stopping.audit_fraction=1.0"))
        assert cost.epochs_low == cost.epochs_high == cost.epochs_if_all_completed


def test_the_modes_cost_what_their_rules_say():
    """Asynchronous stopping lets the early ones through; promotion waits; halving wastes least."""
    means = {method: forecast_of(study_of(method, NO_LOTTERY, "trials_per_space=40")).epochs_mean for method in METHODS}
    assert means["synchronous"] <= means["asha_promotion"] < means["asha"] < means["none"]


# -- scales of different budgets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_each_scale_costs_what_it_costs_alone(method):
    """Small, large with twice the epochs and images, and a repeat that is trained to the end."""
    scales = [LARGE | {"max_epochs": 12, "grace_epochs": 1}, AGAIN | {"trials_per_space": 6}]
    study = scaled_study(*scales, num=12, method=method, audit_fraction=0.0)
    cost = forecast_of(study)
    assert cost.max_epochs == {"small": 6, "large": 12, "again": 6}
    assert cost.rung_epochs == dict.fromkeys(cost.max_epochs, () if method == "none" else (1, 4))
    assert cost.epochs_if_all_completed == 2 * (12 * 6 + 12 * 12 + 6 * 6)
    if method == "synchronous":  # of twelve, three go on from epoch 1 and one from epoch 4
        small, large = 9 * 1 + 2 * 4 + 6, 9 * 1 + 2 * 4 + 12
        assert cost.epochs_low == cost.epochs_high == 2 * (small + large + 6 * 6)
    assert (method == "none") == (cost.epochs_high == cost.epochs_if_all_completed)
    trials = draw_population(study)[0]
    alone = [forecast(study, [t for t in trials if t.scale == scale]) for scale in cost.max_epochs]
    assert cost.epochs_mean == pytest.approx(sum(part.epochs_mean for part in alone), rel=0.03)
    assert cost.device_hours_high == pytest.approx(sum(part.device_hours_high for part in alone), rel=0.1)
    if method in PAUSING:
        assert cost.disk.waiting_bytes == sum(part.disk.waiting_bytes for part in alone) > 0


def test_hours_count_the_images_of_each_scale():
    images = {"num_train": 3000}
    few, many = (forecast_of(scaled_study(LARGE | more, method="none")) for more in (images, {}))
    trials = [trial for trial in draw_population(scaled_study(LARGE))[0] if trial.scale == "large"]
    more = 12 * 3 * 6000 * sum(trial.flops for trial in trials) / 2.5e9 / 3600
    assert many.device_hours_high - few.device_hours_high == pytest.approx(more)


def test_only_scales_with_rungs_wait_at_them():
    study = scaled_study(LARGE | {"grace_epochs": 12}, method="synchronous")
    trials = draw_population(study)[0]
    states = [state_bytes(t.params, t.architecture, Recipe()) for t in trials if t.scale == "small"]
    assert forecast(study, trials).disk.waiting_bytes == sum(states)


# -- the simulation against the rules --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("eta", [2, 4])
def test_halving_at_once_is_the_rule_played_arrival_by_arrival(seed, eta):
    rng = np.random.default_rng(seed)
    stopping = Stopping(method="synchronous", max_epochs=20, reduction_factor=eta)
    cohorts, audited, merits = rng.integers(3, size=40), rng.random(40) < 0.2, rng.random(40)
    members = {str(cohort): [names(40)[i] for i in np.flatnonzero(cohorts == cohort)] for cohort in range(3)}
    trials = Trials(
        max_epochs=20,
        cohorts=list(map(str, cohorts.tolist())),
        rungs=dict.fromkeys(members, stopping.rungs),
        errors_pct=dict.fromkeys(stopping.rungs, merits),
        diverged_at=np.zeros(40, dtype=np.int64),
        audited=audited.tolist(),
        audited_if_worst=audited.tolist(),
        epoch_s=np.ones(40),
    )
    rule = Synchronous(eta, {name: Cohort(stopping.rungs, known) for name, known in members.items()})
    played = play(rule, trials, rng.permutation(40).tolist(), num_workers=3)
    np.testing.assert_array_equal(play_halving(stopping, cohorts, audited, merits), played.epochs)


# -- large studies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_part_stands_for_a_large_study(method, monkeypatch):
    """Near what all of it gives; nearer than here where a cohort has thousands of trials and not 150."""
    study = study_of(method, "trials_per_space=150")
    trials = draw_population(study)[0]
    monkeypatch.setattr("sweep.scheduling.forecast._MAX_SIMULATIONS", 60)
    whole = forecast(study, trials)
    monkeypatch.setattr("sweep.scheduling.forecast._TRIALS_AT_ONCE", 1)
    monkeypatch.setattr("sweep.scheduling.forecast._LEAST_OF_COHORT", 75)
    part = forecast(study, trials)
    assert part.epochs_mean == pytest.approx(whole.epochs_mean, rel=0.05)
    assert part.device_hours_high == pytest.approx(whole.device_hours_high, rel=0.1)
    if method in ("synchronous", "none"):  # known without playing
        assert part == whole
    assert part.num_trials == whole.num_trials == 600


def test_the_work_of_a_large_study_is_bounded(monkeypatch):
    """A quarter of a million trials, as their cohorts stand for them: so many arrivals are played, and no more."""
    study = study_of("asha")
    [trial, *_] = draw_population(study)[0]
    played = []
    monkeypatch.setattr(
        "sweep.scheduling.forecast.play",
        lambda rule, trials, order: played.append(len(order)) or SimpleNamespace(epochs=np.ones(len(order))),
    )
    cost = forecast(study, [trial] * 250_000)
    assert cost.epochs_mean == pytest.approx(250_000)  # each that played stands for its share
    assert sum(played) <= 8 * 30_000


def test_sums_of_a_large_study_do_not_overflow():
    """100,000 trials of 4e11 multiply-adds: beyond 2**63 together with their images."""
    study = study_of("none", name="rules_small")
    [trial, *_] = draw_population(study)[0]
    huge = [SimpleNamespace(**vars(trial) | {"flops": 400_000_000_000})] * 100_000
    expected = 100_000 * 16 * 4e11 * (3 * 20_000 + 5_000)
    assert expected > 2**63
    assert forecast(study, huge).device_hours_high == pytest.approx(expected / 2.5e9 / 3600)


# -- disk ------------------------------------------------------------------------------------------------------------


def test_disk_by_hand():
    study = study_of("synchronous")
    trials = draw_population(study)[0]
    states = sorted((state_bytes(trial.params, trial.architecture, Recipe()) for trial in trials), reverse=True)
    cost = forecast(study, trials, keep_best=2)
    assert cost.disk.per_training_trial_bytes == 4 * states[0]
    assert cost.disk.kept_best_bytes == states[0] + states[1]
    assert cost.disk.waiting_bytes == sum(states)
    assert cost.disk.checkpoints_bytes(3) == 12 * states[0] + states[0] + states[1] + sum(states)
    assert forecast(study, trials, keep_best=0).disk.kept_best_bytes == 0
    assert cost.to_dict()["disk"]["num_kept"] == 2


@pytest.mark.parametrize("method", METHODS)
def test_only_where_trials_pause_do_they_take_disk_while_they_wait(method):
    assert (forecast_of(study_of(method)).disk.waiting_bytes > 0) == (method in PAUSING)


def test_what_is_kept_unless_the_profile_says_otherwise():
    assert forecast_of(study_of("none")).disk.num_kept == Storage().keep_best


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("scale.ranges.num_stages=1", "scale.flops_min=1e4", "scale.flops_max=4e5"),
        ("scale.ranges={}", "scale.resolution=32", "scale.flops_min=4e6", "scale.flops_max=8e6"),
        ("recipe.optimizer=adam",),
    ],
)
def test_real_states_stay_within_the_bound(overrides):
    """In the middle of an epoch, where a state holds the most; and the bound is not idle."""
    study = load_study("quickstart", ["trials_per_space=1", *overrides])
    images = np.zeros((16, 28, 28), np.uint8)
    labels, none = np.zeros(16, np.int64), np.arange(0)
    split = Split(images, labels, train=np.arange(16), validation=none, mean=0.5, std=0.5)
    recipe = study.recipe.model_copy(update={"batch_size": 8})
    for row in draw_population(study)[0]:
        trial = Trial(Architecture.from_json(row.architecture), recipe, split, num_epochs=2, seed=1)
        training = trial.run(pause_s=0)
        next(training)
        content = io.BytesIO()
        torch.save({"state": trial.state_dict(), "parent": "0" * 16}, content)
        training.close()
        assert 0.5 < len(content.getvalue()) / state_bytes(row.params, row.architecture, recipe) < 1
