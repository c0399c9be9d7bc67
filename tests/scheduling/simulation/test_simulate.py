"""`sweep simulate`: what it prints, its document, its picture, and what it refuses."""

import json
from dataclasses import replace

import matplotlib.image
import pytest
from click.testing import CliRunner
from scheduling.curves import cohorts, write_curves

from sweep.cli import cli
from sweep.scheduling.simulation.peers import Design
from sweep.scheduling.simulation.pools import pool_of
from sweep.scheduling.simulation.simulate import known_pairs, simulate

MEANS = {"anynet_c": 24.0, "anynet_d": 20.0}


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    return write_curves(tmp_path_factory.mktemp("with space ’") / "curves.parquet", MEANS, num=40)


def run(*words: object):
    return CliRunner().invoke(cli, ["simulate", *map(str, words)])


def test_the_document_and_the_picture(curves, tmp_path):
    picture = tmp_path / "figure.png"
    done = run(
        curves, "--scheduler", "asha,hyperband", "--scheduler", "none", "--trials", 20, "--audit", "0.2,0.4",
        "--eta", 3, "--repetitions", 12, "--figure", picture, "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [(row["design"]["scheduler"], row["design"]["audit_fraction"]) for row in told["designs"]] == [
        ("asha", 0.2), ("asha", 0.4), ("hyperband", 0.2), ("hyperband", 0.4), ("none", 0.2)
    ]  # fmt: skip
    assert told["designs"][0]["design"]["max_epochs"] == 9
    costs = [row["cost"]["value"] for row in told["designs"]]
    assert costs[0] < costs[1] < costs[-1] == 1
    assert [space["num_networks"] for space in told["spaces"]] == [40, 40]
    asha = told["designs"][0]
    assert {
        (found["estimator"], found["quantity"]) for found in asha["accuracies"] if found["space"] == "anynet_c"
    } == {
        (estimator, quantity)
        for estimator in ("survivors", "horvitz_thompson", "hajek", "model_assisted", "fewer", "all")
        for quantity in ("mean", "q10", "q25", "q50", "q75")
    }
    assert {(found["without"], found["with"]) for found in asha["agreements"]} == {("anynet_c", "anynet_d")}
    for found in asha["agreements"]:
        assert sum(sum(row.values()) for row in found["counts"].values()) == 12
    height, width, _ = matplotlib.image.imread(picture).shape
    assert (width, height) == (2025, 720)


def test_the_tables(curves):
    done = run(curves, "--scheduler", "asha,none", "--trials", 20, "--repetitions", 6, "--audit", 0.3)
    assert done.exit_code == 0, done.output
    for words in ("anynet_c (40 networks", "model-assisted", "survivors only", "anynet_c → anynet_d", "100.0%"):
        assert words in done.stdout


def test_one_space_has_no_verdicts(curves):
    done = run(curves, "--space", "anynet_d", "--repetitions", 4, "--trials", 10)
    assert done.exit_code == 0, done.output
    assert "same verdict" not in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--scheduler", "ashe"), "did you mean 'asha'"),
        (("--grace", 12), "grace: 12 epochs are more than the full budget of 9"),
        (("--pairs", "anynet_c"), "write WITHOUT:WITH"),
        (("--pairs", "anynet_c:resnet"), "there are no curves of 'resnet'"),
        (("--space", "resnet"), "holds no curves of 'resnet'"),
        (("--cost", 2), "cost: 2.0 is no share"),
        (("--repetitions", 1), "repetitions: 1 say nothing of chance"),
        (("--max-epochs", 30), "hold no error after 30 epochs"),
    ],
)
def test_bad_input_is_refused(curves, words, said):
    done = run(curves, *words)
    assert isinstance(done.exception, ValueError)
    assert said in str(done.exception)


def test_numbers_that_are_none(curves):
    done = run(curves, "--eta", "2,x")
    assert done.exit_code == 2
    assert "give whole numbers, several separated by commas" in done.output


def test_too_few_curves(tmp_path):
    done = run(write_curves(tmp_path / "few.parquet", {"a": 20.0}, num=19))
    assert "19 of 19 of a are complete, and a replay needs 20" in str(done.exception)


def test_rungs_must_have_been_recorded():
    [cohort] = cohorts({"a": 20.0}, num=20)
    sparse = pool_of(replace(cohort, epochs=cohort.epochs[[0, 2, 8]], errors=cohort.errors[:, [0, 2, 8]]))
    told = {"source": "x", "num_repetitions": 2, "seed": 0, "margin_pct": 1.0}
    design = Design("asha", 9, 1, 3, 0.2, num_trials=10, num_workers=2)
    assert simulate([sparse], [design], **told).designs[0].cost.value < 1
    with pytest.raises(ValueError, match=r"'median' .* judges after 2 epochs, where the curves of a hold no error"):
        simulate([sparse], [Design("median", 9, 1, 3, 0.2, num_trials=10, num_workers=2)], **told)


def test_pairs_are_those_that_differ_by_a_rule():
    assert known_pairs(["anynet_a", "anynet_d", "mine", "regnet_x"]) == [
        ("anynet_a", "anynet_d"), ("anynet_d", "regnet_x")
    ]  # fmt: skip
