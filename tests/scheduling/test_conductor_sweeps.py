"""Whole sweeps of simulated workers, in random order and under faults: all trials end, and as their rule says."""

import math
from collections import defaultdict

import pytest
from records.rows import ask
from scheduling.simulated import Session, check_rows, draw, error_pct, make_sweep, run_to_the_end, study_of, table

from sweep.records import Journal
from sweep.scheduling.asha import Asha, Promotion

METHODS = ("asha", "asha_promotion", "synchronous", "none")
NUM = 12  # of each of two spaces


def outcomes(run_dir) -> dict[str, int]:
    return dict(ask(run_dir, "SELECT outcome, count(*) FROM trials GROUP BY 1"))


def arrivals(run_dir) -> list[tuple]:
    return ask(run_dir, "SELECT cohort, rung_epochs, trial_id, error_pct, would_stop, cutoff_pct, audited, decision"
                        " FROM decisions ORDER BY arrival")  # fmt: skip


def check_decisions(run_dir, study) -> None:
    """Each decision is what the rule gives on the arrivals of the journal, in their order."""
    method, eta = study.stopping.method, study.stopping.reduction_factor
    if method == "asha":
        rule = Asha(eta)
        for *arrival, would_stop, cutoff, audited, decision in arrivals(run_dir):
            judgement = rule.arrive(*arrival)
            assert bool(would_stop) == judgement.would_stop
            assert cutoff == (judgement.cutoff_pct if judgement.cutoff_pct != math.inf else None)
            assert decision == ("stop" if would_stop and not audited else "continue")
    elif method == "asha_promotion":
        check_promotions(run_dir, Promotion(eta))
    elif method == "synchronous":
        check_halving(run_dir, eta)


def check_promotions(run_dir, rule: Promotion) -> None:
    closings = {after for (after,) in ask(run_dir, "SELECT after_arrival FROM closings")}
    places, judged = [], {}
    for number, (*arrival, would_stop, _, audited, decision) in enumerate(arrivals(run_dir), start=1):
        judgement = rule.arrive(*arrival)
        places += [(trial_id, rung, number) for rung, trial_id in judgement.earned]
        judged[arrival[2], arrival[1]] = would_stop
        said = {None: "pause", True: "stop", False: "continue"}[judgement.would_stop]
        assert decision == ("continue" if audited else said)
        if number in closings:
            rule.close()
    assert sorted(ask(run_dir, "SELECT trial_id, rung_epochs, after_arrival FROM promotions")) == sorted(places)
    earned = {place[:2] for place in places}
    assert judged == {place: int(place not in earned) for place in judged}


def check_halving(run_dir, eta: int) -> None:
    rungs = defaultdict(dict)
    for cohort, rung, trial_id, error, would_stop, *_ in arrivals(run_dir):
        rungs[cohort, rung][trial_id] = (math.inf if error is None else error, trial_id, would_stop)
    assert len(rungs) >= 4
    earned: dict[str, set[str]] = {}
    for (cohort, _), arrived in sorted(rungs.items()):
        able = {trial_id: entry for trial_id, entry in arrived.items() if trial_id in earned.get(cohort, arrived)}
        ranked = sorted(entry for entry in able.values() if entry[0] < math.inf)
        best = earned[cohort] = {trial_id for _, trial_id, _ in ranked[: max(1, len(able) // eta)]}
        assert {trial_id for trial_id, (_, _, stops) in arrived.items() if not stops} == best


def check(run_dir, study, num_trials: int = 2 * NUM) -> None:
    check_rows(run_dir, study, num_trials)
    check_decisions(run_dir, study)
    assert not {"pending", "running", "paused"} & outcomes(run_dir).keys()
    with Journal.open(run_dir) as journal:
        journal.check_whole()
        assert journal.is_finished()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("method", METHODS)
def test_all_trials_end_as_their_rule_says(memory_path, method, seed):
    study = study_of(method)
    run_dir = make_sweep(memory_path, study, NUM)
    session = Session(run_dir, seed=seed, num_workers=1 + 3 * (seed % 3))
    assert session.run()
    check(run_dir, study)
    found = outcomes(run_dir)
    assert found["completed"] >= 3
    assert found["failed"] >= 3  # both spaces have one that raises, and one that finds no memory
    assert found["diverged"] >= 1
    assert ("stopped" in found) == (method != "none")
    # Each end was told, once; waiting is no end.
    told = [trial_id for trial_id, outcome in session.ended if outcome != "paused"]
    assert sorted(told) == sorted(trial_id for (trial_id,) in ask(run_dir, "SELECT trial_id FROM trials"))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_lost_or_doubled_by_kills_and_faults(memory_path, method, seed):
    study = study_of(method, settings={"out_of_memory": "smaller_batch", "max_machine_failures": 1000})
    run_dir = make_sweep(memory_path, study, NUM)
    run_to_the_end(run_dir, seed=1000 * seed, kills=8, faults=0.05)
    check(run_dir, study)
    assert ask(run_dir, "SELECT DISTINCT batch_size FROM trials WHERE trial_id LIKE '%09' AND attempts") == [(64,)]
    with Journal.open(run_dir) as journal:
        assert journal.num_events()["retried"] >= 3


@pytest.mark.parametrize("out_of_memory", ["fail", "smaller_batch"])
def test_synchronous_halving_gives_the_same_table_whatever_happens(memory_path, out_of_memory):
    study = study_of("synchronous", settings={"out_of_memory": out_of_memory, "max_machine_failures": 1000})
    tables = []
    for seed in range(10):
        run_dir = make_sweep(memory_path / str(seed), study, NUM)
        kills, faults = (0, 0.0) if seed == 0 else (seed % 10, 0.06)
        run_to_the_end(run_dir, seed=1000 * seed, kills=kills, num_workers=1 + seed % 7, faults=faults)
        check(run_dir, study)
        tables.append(table(run_dir))
    assert all(other == tables[0] for other in tables)
    assert {outcome for _, outcome, *_ in tables[0]["trials"]} == {"completed", "stopped", "diverged", "failed"}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("method", METHODS)
def test_a_sweep_can_be_extended_while_it_runs_and_after_its_end(memory_path, method, seed):
    study = study_of(method, settings={"max_machine_failures": 1000})
    run_dir = make_sweep(memory_path, study, NUM)
    session = Session(run_dir, seed=seed, faults=0.03)
    for _ in range(60 * (seed % 3)):
        session.step()
    extend(run_dir, study, NUM, 4, method)
    assert session.run()
    before = outcomes(run_dir)
    assert sum(before.values()) == 2 * (NUM + 4)
    check(run_dir, study, 2 * (NUM + 4))
    kept = {key: set(rows) for key, rows in table(run_dir).items()}
    extend(run_dir, study, NUM + 4, 8, method)
    run_to_the_end(run_dir, seed=seed, kills=2)
    check(run_dir, study, 2 * (NUM + 12))
    assert all(kept[key] <= set(rows) for key, rows in table(run_dir).items()), "what was there has changed"


def extend(run_dir, study, first: int, num: int, method: str) -> None:
    """As `sweep extend` does, from another process."""
    with Journal.open(run_dir) as journal:
        extensions = [*journal.get("extensions", []), {"spaces": list(study.spaces), "trials": num}]
        cohort = f"{{space}}/{{scale}}/+{len(extensions)}" if method == "synchronous" else "{space}/{scale}"
        journal.add_trials(draw(study, first, num, cohort=cohort), extensions=extensions)


def test_the_order_of_a_synchronous_extension_does_not_matter_either(memory_path):
    study = study_of("synchronous", settings={"max_machine_failures": 1000})
    tables = []
    for seed in range(5):
        run_dir = make_sweep(memory_path / str(seed), study, NUM)
        session = Session(run_dir, seed=seed, faults=0.03)
        for _ in range(50 * seed):
            session.step()
        extend(run_dir, study, NUM, 6, "synchronous")
        assert session.run()
        tables.append(table(run_dir))
    assert all(other == tables[0] for other in tables)


@pytest.mark.parametrize("method", METHODS)
def test_a_sweep_that_is_drained_again_and_again_comes_to_the_same_end(memory_path, method):
    study = study_of(method, settings={"max_machine_failures": 1000})
    run_dir = make_sweep(memory_path, study, NUM)
    for seed in range(10):
        session = Session(run_dir, seed=seed)
        for _ in range(25):
            session.step()
        session.conductor.draining = True
        assert session.run()
    run_to_the_end(run_dir, seed=99)
    check(run_dir, study)
    assert ask(run_dir, "SELECT sum(machine_failures) FROM trials") == [(0,)]


SCALES = [
    {"name": "small", "flops_min": 4e5, "flops_max": 8e5},
    {"name": "large", "of": "small", "width_factor": 2.0, "max_epochs": 20, "grace_epochs": 2},
    {"name": "again", "of": "small", "trials_per_space": 4},
]


@pytest.mark.parametrize("method", METHODS)
def test_each_scale_has_rungs_and_a_budget_of_its_own(memory_path, method):
    """Rungs 1 and 3 of 9, or 2, 6 and 18 of 20; of a repeat nothing is stopped."""
    study = study_of(method, settings={"scale": SCALES, "max_machine_failures": 1000})
    tables = []
    for seed in range(3):
        run_dir = make_sweep(memory_path / str(seed), study, NUM)
        run_to_the_end(run_dir, seed=seed, kills=3 * seed, faults=0.03)
        check(run_dir, study, 6 * NUM)
        tables.append(table(run_dir))
    assert method in ("asha", "asha_promotion") or all(other == tables[0] for other in tables)
    longest = dict(ask(run_dir, "SELECT scale, max(epoch) FROM epochs JOIN trials USING (trial_id) GROUP BY 1"))
    assert longest == {"small": 9, "large": 20, "again": 9}
    rungs = ask(run_dir, "SELECT DISTINCT scale, rung_epochs FROM decisions JOIN trials USING (trial_id) ORDER BY 1, 2")
    expected = {"again": (1, 3), "large": (2, 6, 18), "small": (1, 3)}
    assert rungs == [] if method == "none" else rungs == [(s, r) for s, all_ in expected.items() for r in all_]
    ends = ask(run_dir, "SELECT DISTINCT scale FROM trials WHERE outcome = 'stopped' ORDER BY 1")
    assert ends == ([] if method == "none" else [("large",), ("small",)])


def test_an_extension_has_the_rungs_of_its_scale(memory_path):
    study = study_of("synchronous", settings={"scale": SCALES})
    run_dir = make_sweep(memory_path, study, 6)
    session = Session(run_dir, seed=1)
    for _ in range(40):
        session.step()
    extend(run_dir, study, 6, 6, "synchronous")
    assert session.run()
    check(run_dir, study, 6 * 12)


def test_the_curves_have_what_these_tests_are_about():
    names = [row.trial_id for row in draw(study_of("asha"), 0, NUM)]
    first = {name: error_pct(name, 1) for name in names}
    assert len(set(first.values())) < len(first)  # ties
    assert any(math.isnan(error) for error in first.values())
    assert any(math.isnan(error_pct(name, 3)) and not math.isnan(error_pct(name, 2)) for name in names)
