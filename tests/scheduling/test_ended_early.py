"""Sweeps that are looked at while they run: whole ones of simulated workers, and a conductor that learns of it."""

import random
from pathlib import Path
from typing import Any

import pytest
from records.rows import T0, T1, T2, T3, ask
from scheduling import simulated
from scheduling.by_hand import Driver
from scheduling.simulated import Clock, Session, check_rows, draw, make_sweep, study_of, table

from sweep.records import Journal, from_journal
from sweep.scheduling.conductor import Nothing
from sweep.scheduling.looks import Looks
from sweep.scheduling.standing import standing, told
from sweep.statistics import judge_study

METHODS = ("asha", "asha_promotion", "synchronous", "none")
NUM = 12  # of each of two spaces: looks after 8 and after 16 of 24 trials, and at the end
JUDGING = {"stop_when": "decided", "looks": 3, "num_bootstrap": 1000}


def looked_at(method: str, **settings: Any) -> Any:
    fixed = {"trials_per_space": NUM, "max_machine_failures": 1000, "judging": JUDGING}
    return study_of(method, settings=fixed | settings)


@pytest.fixture
def clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """One space is far better than the other, and no network diverges."""

    def error_pct(trial_id: str, epoch: int) -> float:
        worst = 10 if trial_id.startswith("anynet_d") else 60
        return worst + random.Random(trial_id).random() * 8 + 4 / epoch

    monkeypatch.setattr(simulated, "error_pct", error_pct)


@pytest.fixture
def alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both spaces have networks of the same errors."""
    monkeypatch.setattr(simulated, "error_pct", lambda trial_id, epoch: 20 + int(trial_id[-4:]) % 8 + 4 / epoch)


class Watched(Session):
    """A session whose supervisor takes looks, in the same process: what kills the one kills the other."""

    def __init__(self, run_dir: Path, **session: Any):
        super().__init__(run_dir, **session)
        self.said: list[str] = []
        self.looks = Looks(self.journal, self.said.append, clock=self.clock)

    def step(self) -> bool:
        self.looks()
        if super().step():
            return True
        if self.journal.is_finished():
            self.looks.take_due()
        return False


def recorded(run_dir: Path) -> list[dict[str, Any]]:
    with Journal.open(run_dir, read_only=True) as journal:
        return [
            {key: value for key, value in look.items() if key != "taken_at_ms"} for look in journal.get("looks", [])
        ]


def outcomes(run_dir: Path) -> dict[str, int]:
    return dict(ask(run_dir, "SELECT outcome, count(*) FROM trials GROUP BY 1"))


def check_ended_early(run_dir: Path, study: Any) -> None:
    """All have ended: those that had begun by their rule, and the others unbegun."""
    check_rows(run_dir, study, 2 * NUM)
    found = outcomes(run_dir)
    assert not {"pending", "running", "paused"} & found.keys()
    assert found["cancelled"] >= 1
    assert ask(run_dir, "SELECT sum(attempts), count(started_at_ms) FROM trials WHERE outcome = 'cancelled'") == [
        (0, 0)
    ]
    assert ask(run_dir, "SELECT count(*) FROM decisions WHERE would_stop IS NULL") == [(0,)]
    looks = recorded(run_dir)
    assert [look["number"] for look in looks] == list(range(1, len(looks) + 1))
    assert [look["num_decided"] for look in looks] == [0] * (len(looks) - 1) + [1]
    begun = ask(run_dir, "SELECT launch_order FROM trials WHERE attempts > 0 ORDER BY 1")
    assert [order for (order,) in begun] == list(range(len(begun)))
    assert len(begun) >= looks[-1]["num_trials"]


@pytest.mark.parametrize("method", METHODS)
def test_a_clear_effect_ends_a_sweep_and_what_had_begun_goes_on_to_its_end(memory_path, clear, method):
    study = looked_at(method)
    run_dir = make_sweep(memory_path, study, NUM)
    session = Watched(run_dir, seed=1)
    assert session.run()
    check_ended_early(run_dir, study)
    assert session.said[-1].endswith("of 24 trials: its one rule is decided")
    with Journal.open(run_dir) as journal:
        events = [row["kind"] for row in journal.events() if row["trial_id"] is None]
        assert events == ["looked"] * (len(recorded(run_dir)) - 1) + ["decided", "cancelled"]
        [verdict] = judge_study(from_journal(journal))
    assert (verdict.verdict, verdict.decided_at_look) == ("helps", len(recorded(run_dir)))


@pytest.mark.parametrize("method", METHODS)
def test_a_look_waits_for_the_first_rung_of_each_scale_and_judges_no_repeat(memory_path, method):
    scales = [
        {"name": "small", "flops_min": 4e5, "flops_max": 8e5},
        {"name": "large", "of": "small", "width_factor": 2.0, "max_epochs": 12, "grace_epochs": 4},
        {"name": "again", "of": "small"},
    ]
    study = looked_at(method, scale=scales)
    run_dir = make_sweep(memory_path, study, NUM)
    assert Watched(run_dir, seed=2).run()
    check_rows(run_dir, study, 6 * NUM)
    looks = recorded(run_dir)
    assert [look["num_trials"] for look in looks] == [24, 48, 72]
    small, large = (9, 12) if method == "none" else (1, 4)
    assert looks[0]["rung_epochs"] == {"small": small, "large": large, "again": small}
    assert [one["scale"] for one in looks[0]["compared"]] == ["small", "large"]
    arrived = ask(
        run_dir, "SELECT count(*) FROM epochs JOIN trials USING (trial_id) WHERE launch_order < 24 AND scale = 'large'"
        " AND epoch = ? AND outcome != 'failed'", large
    )  # fmt: skip
    compared = looks[0]["compared"][1]
    assert compared["n_without"] + compared["n_with"] >= arrived[0][0] > 0


@pytest.mark.parametrize("method", METHODS)
def test_without_an_effect_all_are_trained_and_looked_at(memory_path, alike, method):
    study = looked_at(method)
    run_dir = make_sweep(memory_path, study, NUM)
    assert Watched(run_dir, seed=2).run()
    check_rows(run_dir, study, 2 * NUM)
    assert "cancelled" not in outcomes(run_dir)
    assert [(look["num_trials"], look["num_decided"]) for look in recorded(run_dir)] == [(8, 0), (16, 0), (24, 0)]


@pytest.mark.parametrize("method", ["asha", "synchronous"])
def test_a_driver_that_is_killed_anywhere_leaves_nothing_undone_or_doubled(memory_path, clear, method):
    """Before and after the commit of a look, and of the cancellation that follows from it."""
    study = looked_at(method)
    whole = make_sweep(memory_path / "whole", study, NUM)
    commits = _commits_of_looks(whole)
    assert len(commits) >= 3
    for commit in commits:
        for seed in range(2):  # before, or just after it
            run_dir = make_sweep(memory_path / f"{commit} {seed}", study, NUM)
            assert not Watched(run_dir, seed=_seed_that_kills(just_after=seed == 1), dies_after=commit).run()
            assert Watched(run_dir, seed=9).run()
            check_ended_early(run_dir, study)
            assert [look["number"] for look in recorded(run_dir)] == [*range(1, len(recorded(run_dir)) + 1)]
            with Journal.open(run_dir) as journal:
                assert journal.num_events()["decided"] == 1


def _seed_that_kills(*, just_after: bool) -> int:
    """As `simulated._kill_after` draws it."""
    return next(seed for seed in range(100) if (random.Random(seed).random() < 0.5) == just_after)


def _commits_of_looks(run_dir: Path) -> list[int]:
    """The numbers of the commits of an undisturbed session in which looks or cancellations are."""
    session = Watched(run_dir, seed=_seed_that_kills(just_after=True))
    write, found, count = session.journal._write, [], 0

    def counted(body: Any) -> Any:
        nonlocal count
        count += 1
        if "record_look" in body.__qualname__ or "cancel_pending" in body.__qualname__:
            found.append(count)
        return write(body)

    session.journal._write = counted  # type: ignore[method-assign]
    assert session.run()
    return found


def test_a_synchronous_sweep_ends_early_with_the_same_table_whatever_happens(memory_path, clear):
    """Who has begun by the time of a look would depend on the timing: so none beyond it has."""
    study = looked_at("synchronous")
    tables = []
    for seed in range(6):
        run_dir = make_sweep(memory_path / str(seed), study, NUM)
        for kill in range(seed):
            if Watched(run_dir, seed=100 * seed + kill, faults=0.05, dies_after=15 + 7 * kill).run():
                break
        assert Watched(run_dir, seed=seed, num_workers=1 + seed, faults=0.05).run()
        check_ended_early(run_dir, study)
        looks = recorded(run_dir)
        assert outcomes(run_dir)["cancelled"] == 24 - looks[-1]["num_trials"]
        tables.append((table(run_dir), looks))
    assert all(other == tables[0] for other in tables)


def test_a_journal_without_its_record_takes_the_same_looks_again(memory_path, clear):
    """As one that was rebuilt from MLflow: of which trials, and with what p-values, depends on nothing else."""
    run_dir = make_sweep(memory_path, looked_at("asha"), NUM)
    assert Watched(run_dir, seed=4).run()
    looks = recorded(run_dir)
    ask(run_dir, "DELETE FROM meta WHERE key IN ('looks', 'decided')")
    with Journal.open(run_dir) as journal:
        [verdict] = judge_study(from_journal(journal))
        Looks(journal, lambda _: None).take_due()
        assert judge_study(from_journal(journal)) == [verdict]
    assert recorded(run_dir) == looks


def test_a_sweep_that_ended_early_can_be_extended(memory_path, clear):
    """The new ones are trained, though all was decided: who asks for them wants them. What was cancelled stays so."""
    study = looked_at("asha")
    run_dir = make_sweep(memory_path, study, NUM)
    assert Watched(run_dir, seed=5).run()
    before, looks = outcomes(run_dir), recorded(run_dir)
    with Journal.open(run_dir) as journal:
        journal.add_trials(draw(study, NUM, 4), extensions=[{"spaces": list(study.spaces), "trials": 4}])
    assert Watched(run_dir, seed=6).run()
    after = outcomes(run_dir)
    assert after["cancelled"] == before["cancelled"]
    assert sum(after.values()) == sum(before.values()) + 8
    assert recorded(run_dir)[:-1] == looks
    last = recorded(run_dir)[-1]
    assert (last["num_trials"], last["num_begun"]) == (32, 32 - before["cancelled"])


def test_looks_are_asked_of_the_journal_once_a_second(memory_path, monkeypatch):
    run_dir = make_sweep(memory_path, looked_at("asha"), NUM)
    clock, asked = Clock(), []
    with Journal.open(run_dir) as journal:
        monkeypatch.setattr(journal, "num_on_their_way", lambda *which: asked.append(which) or 1)
        looks = Looks(journal, lambda _: None, clock=clock)
        for _ in range(10):
            looks()
            clock.now_s += 0.25
    assert asked == [(8, {"small": 1})] * 3


# ---- word by word ----------------------------------------------------------------------------------------------------


@pytest.fixture
def begun(begin) -> Any:
    """`begun(method)`: a driver on sixteen trials of two spaces, with a look after eight."""

    def begun(method: str, num: int = 8) -> Driver:
        judging = {"stop_when": "decided", "looks": 2}
        settings = {"spaces": ["anynet_c", "anynet_d"], "trials_per_space": num, "judging": judging}
        return begin(method, num=num, **settings)

    return begun


def decide(driver: Driver, num_known: int = 16) -> None:
    driver.journal.record_look({"number": 1, "num_known": num_known}, "all decided", decides_all=True)


def test_none_begins_after_a_decision_and_who_was_handed_out_goes_on(begun):
    driver = begun("asha")
    assert [driver.next() for _ in range(2)] == [T0, "anynet_d-small-0000"]
    stretch = driver.conductor.next_stretch()  # handed out; its worker has not started yet
    decide(driver)
    assert driver.next() is Nothing.LATER
    driver.conductor.started(stretch.trial_id)
    assert driver.journal.counts() | {"running": 3, "cancelled": 13, "pending": 0} == driver.journal.counts()
    driver.epoch(T0, 1, 20.0)
    driver.conductor.failed(stretch.trial_id, "machine", "died")  # is tried again: it had begun
    driver.clock.now_s += 60
    assert driver.next() == stretch.trial_id


def test_only_those_that_there_were_are_cancelled(begun):
    driver = begun("asha")
    assert driver.next() == T0
    decide(driver, num_known=12)
    driver.clock.now_s += 1
    driver.conductor.poll()
    assert [row["launch_order"] for row in driver.journal.trials("outcome = 'pending'")] == [12, 13, 14, 15]


def test_those_that_wait_for_a_rung_wait_no_longer_for_who_was_cancelled(begun):
    driver = begun("synchronous")
    working = [driver.next() for _ in range(8)]
    assert driver.next() is Nothing.LATER  # the look comes first
    for number, trial_id in enumerate(working):
        driver.epoch(trial_id, 1, 10.0 + number)
    assert driver.next() is Nothing.LATER
    decide(driver)
    driver.clock.now_s += 1
    driver.conductor.poll()
    assert driver.journal.counts()["cancelled"] == 8
    assert driver.journal.counts()["stopped"] >= 2
    assert driver.next() in working


def test_a_look_that_decides_nothing_lets_the_others_begin(begun):
    driver = begun("synchronous")
    working = [driver.next() for _ in range(8)]
    assert working[:6:2] == [T0, T1, T2]
    driver.journal.record_look({"number": 1, "num_known": 16}, "nothing decided", decides_all=False)
    assert driver.next() == "anynet_c-small-0004"


def test_a_study_that_is_judged_at_its_end_heeds_no_looks(begin):
    driver = begin("synchronous")
    assert [driver.next() for _ in range(4)] == [T0, T1, T2, T3]
    assert standing(driver.journal) is None


# ---- what is told ----------------------------------------------------------------------------------------------------


def test_how_the_looks_stand_is_told_in_a_line(memory_path, alike):
    run_dir = make_sweep(memory_path, looked_at("asha"), NUM)
    session = Watched(run_dir, seed=2)
    lines = [told(standing(session.journal))]
    while session.step():
        lines.append(told(standing(session.journal)))
    lines.append(told(standing(session.journal)))
    session.journal.close()
    assert list(dict.fromkeys(lines)) == [
        "next look after 8 of 24 trials",
        "next look after 16 of 24 trials; 0 of 1 rules decided",
        "next look at the end; 0 of 1 rules decided",
        "all 3 looks taken; 0 of 1 rules decided",
    ]


def test_an_early_end_is_told_in_a_line(memory_path, clear):
    run_dir = make_sweep(memory_path, looked_at("asha"), NUM)
    assert Watched(run_dir, seed=1).run()
    with Journal.open(run_dir) as journal:
        look = recorded(run_dir)[-1]
        assert told(standing(journal)) == (
            f"ended early after look {look['number']} of 3 ({look['num_trials']} of 24 trials), as the study wanted: "
            "its one rule is decided"
        )
