"""Extensions: the trials of a larger study, numbered on, none twice whoever extends at the same time."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from scaled import AGAIN, LARGE, LARGER, scaled_study

from sweep.records import Journal
from sweep.records.lease import held
from sweep.scheduling import extend as module
from sweep.scheduling.extend import extend, plan_extension
from sweep.scheduling.forecast import forecast
from sweep.scheduling.population import draw_population
from sweep.studies import load_study

SPACES = ("anynet_d", "anynet_e")


def study_of(*overrides: str):
    return load_study("quickstart", [f"spaces={list(SPACES)}", "trials_per_space=4", *overrides])


def launch(folder: Path, study=None) -> Path:
    """What a launch leaves before anything is trained."""
    study = study or study_of()
    trials, draws = draw_population(study)
    meta = {"study": study.to_dict(), "draws": [vars(draw) for draw in draws]}
    Journal.create(folder, meta, trials).close()
    return folder


def rows_of(folder: Path) -> dict[str, dict]:
    with Journal.open(folder, read_only=True) as journal:
        return {row["trial_id"]: dict(row) for row in journal.trials()}


def meta_of(folder: Path) -> dict:
    with Journal.open(folder, read_only=True) as journal:
        return journal.meta()


def drawn(rows: dict[str, dict]) -> dict[str, dict]:
    """All but the order in which they are launched."""
    fields = set(next(iter(rows.values()))) - {"launch_order"}
    return {trial_id: {field: row[field] for field in fields} for trial_id, row in rows.items()}


def finish(folder: Path) -> None:
    with Journal.open(folder) as journal:
        for trial_id in rows_of(folder):
            journal.leave(trial_id, "cancelled")


# -- what is added ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["asha", "asha_promotion", "none"])
def test_an_extended_sweep_has_the_trials_of_a_larger_study(tmp_path, method):
    study = study_of(f'stopping.method="{method}"', "stopping.flops_strata=2")
    (tmp_path / "small").mkdir()
    (tmp_path / "large").mkdir()
    small = launch(tmp_path / "small", study)
    large = launch(tmp_path / "large", study.model_copy(update={"trials_per_space": 9}))
    extend(small, trials=3)
    extended = extend(small, trials=2)
    assert (extended.added, extended.total) == (4, 18)
    assert drawn(rows_of(small)) == drawn(rows_of(large))


def test_what_is_there_stays_and_what_is_new_comes_after_it_in_another_order(tmp_path):
    before = rows_of(launch(tmp_path))
    extend(tmp_path, trials=20)
    after = rows_of(tmp_path)
    assert before.items() <= after.items()
    added = sorted((row for id_, row in after.items() if id_ not in before), key=lambda row: row["launch_order"])
    assert [row["launch_order"] for row in added] == list(range(8, 48))
    assert [row["draw"] for row in added] != sorted(row["draw"] for row in added)
    assert len({row["space"] for row in added[:8]}) > 1


def test_each_wave_is_shuffled_on_its_own():
    study = study_of()
    waves = [plan_extension(study, {}, trials=20, wave=wave)[0] for wave in (1, 1, 2)]
    orders = [[trial.trial_id for trial in wave] for wave in waves]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


def test_a_new_space_begins_at_its_first_network(tmp_path):
    launch(tmp_path)
    extended = extend(tmp_path, trials=3, spaces=("anynet_e", "anynet_c"))
    assert extended.by_cohort == {"anynet_c/small": 3, "anynet_e/small": 3}
    draws = {space: sorted(row["draw"] for row in rows_of(tmp_path).values() if row["space"] == space) for space in
             ("anynet_c", "anynet_d", "anynet_e")}  # fmt: skip
    assert draws == {"anynet_c": [0, 1, 2], "anynet_d": [0, 1, 2, 3], "anynet_e": list(range(7))}
    # From now on it is one of the sweep's.
    assert extend(tmp_path, trials=1).by_cohort == dict.fromkeys(
        ["anynet_c/small", "anynet_d/small", "anynet_e/small"], 1
    )
    again = load_study("quickstart", ['spaces=["anynet_c"]', "trials_per_space=4"])
    expected = {row.trial_id: row.architecture for row in draw_population(again)[0]}
    assert expected.items() <= {id_: row["architecture"] for id_, row in rows_of(tmp_path).items()}.items()


def test_a_space_alone_gets_as_many_as_the_others_have(tmp_path):
    launch(tmp_path)
    assert extend(tmp_path, spaces=("regnet_x",)).by_cohort == {"regnet_x/small": 4}


def test_each_scale_is_extended(tmp_path):
    study = study_of()
    [scale] = study.scale
    other = scale.model_copy(update={"name": "large", "flops_max": 2 * scale.flops_max})
    launch(tmp_path, study.model_copy(update={"scale": (scale, other)}))
    assert extend(tmp_path, trials=2, spaces=("anynet_d",)).by_cohort == {"anynet_d/large": 2, "anynet_d/small": 2}


def test_synchronous_extensions_are_cohorts_of_their_own(tmp_path):
    launch(tmp_path, study_of('stopping.method="synchronous"'))
    assert extend(tmp_path, trials=2).by_cohort == {"anynet_d/small/+1": 2, "anynet_e/small/+1": 2}
    assert extend(tmp_path, trials=1, spaces=("anynet_d",)).by_cohort == {"anynet_d/small/+2": 1}
    assert {row["cohort"] for row in rows_of(tmp_path).values() if row["draw"] < 4} == {
        "anynet_d/small", "anynet_e/small"
    }  # fmt: skip


def test_the_extension_is_on_record(tmp_path):
    launch(tmp_path)
    extend(tmp_path, trials=3, spaces=("anynet_d",))
    extend(tmp_path, trials=2)
    meta, study = meta_of(tmp_path), study_of()
    assert meta["extensions"] == [{"spaces": ["anynet_d"], "trials": 3}, {"spaces": list(SPACES), "trials": 2}]
    with Journal.open(tmp_path, read_only=True) as journal:
        told = [(row["kind"], row["message"]) for row in journal.events()]
    assert told == [("extended", "added 3 of anynet_d"), ("extended", "added 2 of anynet_d, 2 of anynet_e")]
    assert {draw["space"]: draw["num_draws"] - sum(draw["rejected"].values()) for draw in meta["draws"]} == {
        "anynet_d": 9, "anynet_e": 6
    }  # fmt: skip
    assert meta["forecast"]["num_trials"] == 15
    assert meta["forecast"]["epochs_if_all_completed"] == 15 * study.stopping.max_epochs
    assert meta["study"] == study.to_dict()


def test_the_forecast_is_that_of_all_trials_however_they_came(tmp_path):
    launch(tmp_path, study := study_of('stopping.method="none"'))
    extend(tmp_path, trials=2)
    larger = study.model_copy(update={"trials_per_space": 6})
    assert meta_of(tmp_path)["forecast"]["epochs_high"] == forecast(larger, draw_population(larger)[0]).epochs_high


def numbers(folder: Path, space: str = "anynet_d") -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row in rows_of(folder).values():
        if row["space"] == space:
            found[row["scale"]] = sorted([*found.get(row["scale"], []), row["draw"]])
    return found


@pytest.mark.parametrize("method", ["asha", "synchronous"])
def test_scaled_scales_grow_with_their_original(tmp_path, method):
    """All that is not a part: the trials of a larger study, whichever way they came."""
    other = {"name": "deep", "of": "large", "depth_factor": 2}
    small, large = tmp_path / "small", tmp_path / "large"
    for folder, num in ((small, 4), (large, 7)):
        folder.mkdir()
        launch(folder, scaled_study(LARGE, other, num=num, method=method))
    assert extend(small, trials=1).added == 6
    assert extend(small, trials=2, spaces=("anynet_d",)).added == 6
    assert extend(small, trials=2, spaces=("anynet_c",)).total == 2 * 3 * 7
    if method == "asha":
        assert drawn(rows_of(small)) == drawn(rows_of(large))
    assert {trial_id: row["architecture"] for trial_id, row in rows_of(small).items()} == {
        trial_id: row["architecture"] for trial_id, row in rows_of(large).items()
    }
    assert numbers(small) == {scale: list(range(7)) for scale in ("small", "large", "deep")}


def test_a_part_stays_and_is_filled_up_where_it_was_short(tmp_path):
    parts = [LARGER | {"trials_per_space": 9}, AGAIN]
    launch(tmp_path, scaled_study(LARGE, *parts, num=4))
    before = rows_of(tmp_path)
    assert numbers(tmp_path)["larger"] == [0, 1, 2, 3]  # all that there were
    extend(tmp_path, trials=3)
    assert numbers(tmp_path)["larger"] == list(range(7))
    extend(tmp_path, trials=6)
    found = numbers(tmp_path)
    rows = rows_of(tmp_path)
    later = sorted(range(7, 13), key=lambda draw: (not rows[f"anynet_d-large-{draw:04d}"]["audited"], draw))[:2]
    assert found["larger"] == sorted([*range(7), *later])
    assert found["again"] == sorted(
        row["draw"] for row in before.values() if (row["scale"], row["space"]) == ("again", "anynet_d")
    )
    assert before.items() <= rows_of(tmp_path).items()


def test_a_new_space_has_its_scaled_networks_too(tmp_path):
    launch(tmp_path, scaled_study(LARGE, LARGER, AGAIN, num=4))
    extend(tmp_path, trials=2, spaces=("anynet_e",))
    assert {scale: len(draws) for scale, draws in numbers(tmp_path, "anynet_e").items()} == {
        "small": 2, "large": 2, "larger": 2, "again": 2
    }  # fmt: skip
    extend(tmp_path, trials=3, spaces=("anynet_e",))
    assert {scale: len(draws) for scale, draws in numbers(tmp_path, "anynet_e").items()} == {
        "small": 5, "large": 5, "larger": 3, "again": 2
    }  # fmt: skip
    told = {(draw["space"], draw["scale"]): draw["scaled_from"] for draw in meta_of(tmp_path)["draws"]}
    assert told["anynet_e", "larger"] == "large"


# -- in which state ------------------------------------------------------------------------------------------------


def test_running_interrupted_and_finished_sweeps_are_extended(tmp_path):
    launch(tmp_path)
    assert extend(tmp_path, trials=1).state == "interrupted"
    with Journal.open(tmp_path) as journal, held(journal, print):
        extended = extend(tmp_path, trials=1)
        assert extended.state == "running"
        assert journal.counts()["pending"] == extended.total  # its driver sees them
        journal.set_meta(still_its_own=True)
    finish(tmp_path)
    extended = extend(tmp_path, trials=1)
    assert extended.state == "finished"
    assert extended.to_dict() == {
        "run_dir": str(tmp_path), "added": 2, "by_cohort": {"anynet_d/small": 1, "anynet_e/small": 1}, "total": 14,
        "state": "finished",
    }  # fmt: skip
    with Journal.open(tmp_path) as journal:
        assert journal.counts() | {"pending": 2, "cancelled": 12} == journal.counts()
        assert not journal.is_finished()


# -- two at once -----------------------------------------------------------------------------------------------------


def test_an_extension_that_comes_between_is_seen(tmp_path, monkeypatch):
    launch(tmp_path)
    others = [lambda: extend(tmp_path, trials=2, spaces=("anynet_d",))]

    def plan(*args, **kwargs):
        planned = plan_extension(*args, **kwargs)
        if others:  # while ours lies on the table
            others.pop()()
        return planned

    monkeypatch.setattr(module, "plan_extension", plan)
    assert extend(tmp_path, trials=3).total == 8 + 2 + 6
    assert [entry["trials"] for entry in meta_of(tmp_path)["extensions"]] == [2, 3]
    assert sorted(row["draw"] for row in rows_of(tmp_path).values() if row["space"] == "anynet_d") == list(range(9))


def test_two_processes_at_once_double_nothing(tmp_path):
    launch(tmp_path)
    script = f"""
import pathlib, sys, time
from sweep.scheduling.extend import extend
print("ready", flush=True)
sys.stdin.readline()
for _ in range(3):
    extend({str(tmp_path)!r}, trials=2)
"""
    command = [sys.executable, "-c", script]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=100)
        assert process.returncode == 0
    rows = rows_of(tmp_path)
    assert sorted(row["launch_order"] for row in rows.values()) == list(range(8 + 24))
    larger = study_of("trials_per_space=16")
    assert {row.trial_id: row.seed for row in draw_population(larger)[0]} == {
        trial_id: row["seed"] for trial_id, row in rows.items()
    }
    assert [entry["trials"] for entry in meta_of(tmp_path)["extensions"]] == [2] * 6


def test_numbers_that_are_taken_for_good_are_said_to_be(tmp_path, monkeypatch):
    """A journal whose launch orders have a gap: no look at it helps."""
    study = study_of()
    trials = draw_population(study)[0]
    Journal.create(tmp_path, {"study": study.to_dict()}, [*trials[:7], replace(trials[7], launch_order=8)]).close()
    monkeypatch.setattr(module, "_TRIES", 2)
    with pytest.raises(RuntimeError, match=r"nothing was changed.*sweep verify"):
        extend(tmp_path, trials=1)


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"trials": 0}, r"trials = 0 is not a whole number of 1 or more; use"),
        ({"trials": -3}, r"trials = -3 is not"),
        ({"trials": 2.5}, r"trials = 2\.5 is not"),
        ({"trials": True}, r"trials = True is not"),
        ({"trials": 1, "spaces": ()}, r"spaces = \(\) names none; name at least one"),
        ({"trials": 1, "spaces": ("anynet_x",)}, r"spaces: space = 'anynet_x' is not known; did you mean 'anynet_.'"),
        ({"trials": 1, "spaces": ("anynet_d", "anynet_d")}, r"spaces: 'anynet_d' is named twice"),
        ({"trials": 600_000}, r"trials = 600000 would make 1,200,008 trials of the sweep, more than 1,000,000; ask"),
        (
            {"trials": 600, "spaces": ("regnet_x",)},
            r"trials = 600 more cannot be drawn: regnet_x at scale 'small': flops_min = \S+ flops_max = \S+ only "
            r"\d+ of 600 distinct networks .* ask for fewer",
        ),
    ],
)
def test_what_cannot_be_added_is_refused_and_changes_nothing(tmp_path, wish, message):
    launch(tmp_path)
    before = rows_of(tmp_path), meta_of(tmp_path)
    with pytest.raises(ValueError, match=message):
        extend(tmp_path, **wish)
    assert (rows_of(tmp_path), meta_of(tmp_path)) == before


def test_a_directory_of_no_sweep_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no journal\.sqlite"):
        extend(tmp_path, trials=1)
    Journal.create(tmp_path, {}, []).close()
    with pytest.raises(ValueError, match="the directory of no sweep; name one"):
        extend(tmp_path, trials=1)
    assert "extensions" not in meta_of(tmp_path)
