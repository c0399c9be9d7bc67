"""Choosing a design by a pilot: by hand from what was measured, and the whole way on small made-up curves."""

import json
import math
import tomllib

import pytest
from click.testing import CliRunner
from scaled import AGAIN, LARGE, scaled_study
from scheduling.curves import cohorts, write_curves

from sweep.cli import cli
from sweep.scheduling.simulation import design as module
from sweep.scheduling.simulation.design import Choice, Wishes, num_sweeps, plan_design, study_design, toml_of
from sweep.scheduling.simulation.peers import Design
from sweep.scheduling.simulation.pools import pool_of
from sweep.studies import load_study

MEANS = {"anynet_c": 24.0, "anynet_d": 20.0}
OWN = Design("asha", 9, 1, 3, 0.2, num_trials=40, num_workers=8)


@pytest.fixture
def coarse(monkeypatch):
    """Four designs beside the study's and none, few sweeps of each."""
    monkeypatch.setattr(module, "REDUCTION_FACTORS", (3,))
    monkeypatch.setattr(module, "GRACE_EPOCHS", (1, 2))
    monkeypatch.setattr(module, "AUDIT_FRACTIONS", (0.0, 0.4))
    monkeypatch.setattr(module, "NUM_REPETITIONS", 6)


def study_of(*overrides):
    return load_study("quickstart", [
        "trials_per_space=40", "stopping.max_epochs=9", "stopping.reduction_factor=3", "stopping.grace_epochs=1",
        "stopping.audit_fraction=0.2", *overrides,
    ])  # fmt: skip


# -- by hand ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wished", "by_square_root", "expected"),
    [
        (None, True, 0),
        (2.0, True, 40),  # as measured
        (math.sqrt(2 * 4), True, 29),  # halfway between 20 and 40 on a logarithmic scale: 28.3
        (5.0, True, 20),  # more than was measured with the fewest
        (0.5, True, 640),  # a quarter of what 40 reach
        (0.5, False, None),
    ],
)
def test_the_fewest_trials_by_hand(wished, by_square_root, expected):
    assert module._fewest({20: 4.0, 40: 2.0}, wished, by_square_root=by_square_root) == expected


def test_the_fewest_trials_of_nothing():
    assert module._fewest({}, 1.0, by_square_root=True) is None
    assert module._fewest({20: 1.0, 40: 0.0}, 0.0, by_square_root=False) == 40


def test_what_to_expect_by_hand():
    measured = {20: 4.0, 40: 2.0}
    assert module._expected(measured, 20, by_square_root=False) == pytest.approx(4)
    assert module._expected(measured, 160, by_square_root=True) == pytest.approx(1)
    assert module._expected(measured, 160, by_square_root=False) is None
    assert module._expected(measured, 10, by_square_root=True) is None
    assert module._expected({}, 10, by_square_root=True) is None


def test_the_lottery_must_exempt_some():
    """Four trials would do for the width, but a lottery of 0.05 needs a hundred to exempt five."""
    rare = Design("asha", 9, 1, 3, 0.05, num_trials=40, num_workers=8)
    measured = module.Measured(rare, 3.0, {40: 1.0}, {40: 1.5}, {40: 0.5})
    found = module._least("", measured, Wishes(width=5.0), 2)
    assert found.num_trials == 100
    assert found.epochs == 100 * 2 * 3
    assert module._least("", measured, Wishes(regret=0.5), 2).num_trials == 40
    assert module._least("", measured, Wishes(width=5.0, regret=0.4), 2) is None


def test_the_study_is_what_it_says():
    assert study_design(study_of()) == OWN
    assert study_design(study_of("stopping.method=synchronous")).scheduler == "successive_halving"
    assert study_design(study_of("stopping.method=none")).scheduler == "asha"
    assert study_design(study_of("scale.max_epochs=5")).max_epochs == 5


def test_a_study_whose_scales_have_budgets_of_their_own_is_refused():
    assert study_design(scaled_study(AGAIN)).max_epochs == 6
    with pytest.raises(ValueError, match=r"scale: small, large have epochs of their own.*; plan a study of one scale"):
        study_design(scaled_study(LARGE, AGAIN))


def test_the_lines_of_toml_make_the_design():
    choice = Choice("", OWN, 55, 100, 0.4, 1.0, None, None, False)
    told = tomllib.loads(toml_of(choice))
    overrides = [f"stopping.{key}={json.dumps(value)}" for key, value in told.pop("stopping").items()]
    study = load_study("quickstart", [f"{key}={value}" for key, value in told.items()] + overrides)
    assert study.trials_per_space == 55
    assert study_design(study).rungs == OWN.rungs
    assert study.stopping.audit_fraction == 0.2


# -- the whole way ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("coarse")
def test_each_wish_has_the_cheapest_design_and_its_rival():
    pools = [pool_of(cohort) for cohort in cohorts(MEANS, num=60)]
    told: list[int] = []
    study = study_of()
    plan = plan_design(pools, study, Wishes(width=2.0, regret=1.0), pilot="x", num_repetitions=12, progress=told.append)
    wishes = [(choice.wish, choice.design.scheduler) for choice in plan.choices]
    assert wishes == [
        ("as the study says", "asha"),
        ("2 points wide, of a mean", "asha"), ("2 points wide, of a mean", "none"),
        ("1 points from the best", "asha"), ("1 points from the best", "none"),
        ("all of these", "asha"), ("all of these", "none"),
    ]  # fmt: skip
    own, width, fully, regret, _, both, _ = plan.choices
    assert own.num_trials == 40
    assert width.width_pct == pytest.approx(2, rel=0.05)
    assert width.design.audit_fraction > 0
    assert (regret.design.audit_fraction, regret.width_pct) == (0.0, None)  # the lottery finds nothing
    assert regret.epochs < width.epochs
    assert both.epochs >= max(width.epochs, regret.epochs)
    assert fully.share == pytest.approx(1)
    assert plan.chosen == [width, regret, both]
    assert told[-1] == num_sweeps(study, 12) == 6 * 4 * 12
    assert told == sorted(told)


@pytest.mark.usefixtures("coarse")
def test_a_wish_beyond_reach_is_told():
    pools = [pool_of(cohort) for cohort in cohorts(MEANS, num=30)]
    plan = plan_design(pools, study_of(), Wishes(regret=-1.0), pilot="x", num_repetitions=4)
    assert plan.unreachable == ["-1 points from the best"]
    assert plan.chosen == []


@pytest.mark.usefixtures("coarse")
def test_the_verb(tmp_path):
    path = write_curves(tmp_path / "pilot.parquet", MEANS, num=40)
    settings = ["trials_per_space=20", "stopping.max_epochs=9", "stopping.reduction_factor=3"]
    words = ["plan", "quickstart", *(word for text in settings for word in ("--set", text)), "--pilot", str(path)]
    done = CliRunner().invoke(cli, [*words, "--effect-width", "6"])
    assert done.exit_code == 0, done.output
    assert "as the study says" in done.stdout
    assert "# 6 points wide, of an effect\ntrials_per_space = " in done.stdout
    assert 'method = "asha"' in done.stdout


def test_wishes_need_a_pilot():
    done = CliRunner().invoke(cli, ["plan", "quickstart", "--width", "2"])
    assert "wishes need curves to replay; give --pilot" in str(done.exception)


def test_a_pilot_that_is_too_short(tmp_path):
    path = write_curves(tmp_path / "pilot.parquet", MEANS, num=20, num_epochs=4)
    done = CliRunner().invoke(cli, ["plan", "quickstart", "--pilot", str(path)])
    assert "max_epochs: the curves of anynet_c hold no error after 6 epochs" in str(done.exception)
