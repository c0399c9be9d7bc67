"""Sweeps that were judged while they ran: what is whole passes, and a look that is not what it says is found."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from scaled import AGAIN, LARGE, scaled_study
from verify import mlflow_maker
from verify.sweep_maker import Events, MadeUpSweep, made_up_clock, make_journal, quick, study

from sweep.records import Journal
from sweep.scheduling.extend import extend
from sweep.scheduling.looks import Looks
from sweep.scheduling.population import draw_population
from sweep.studies import study_from_dict
from sweep.verify import verify

NUM = 8  # of each of two spaces; a look after 8 of 16 trials, and one at the end
METHODS = ("asha", "asha_promotion", "synchronous", "none")


class LookedAt(MadeUpSweep):
    """Trials begin in their order. `clear`: one space is far better than the other."""

    clear = False

    def run(self, num_steps: int = 10_000) -> bool:
        looks = Looks(self.journal, lambda _: None)
        self.chance = InOrder(self.chance.random())
        for _ in range(num_steps):
            if looks._is_next_complete():
                looks.take_due()
                self._heed()
            if not self._step():
                looks.take_due()
                return True
        return False

    def _heed(self) -> None:
        if self.journal.get("decided"):
            rows = [row for row in self.journal.trials("outcome = 'pending'") if row["trial_id"] not in self._live]
            left = [self._rule.leave(row["cohort"], row["trial_id"]) for row in rows]
            earned, lost = ([place for one in left for place in getattr(one, kind)] for kind in ("earned", "lost"))
            self.journal.cancel_pending([row["trial_id"] for row in rows], "not needed", earned=earned, lost=lost)

    def _error(self, trial_id: str, epoch: int) -> float | None:
        error_pct = super()._error(trial_id, epoch)
        if not self.clear or error_pct is None:
            return error_pct
        return error_pct / 20 + (60 if trial_id.startswith("anynet_c") else 10)


class InOrder(random.Random):
    """Chooses the first of several."""

    def choice(self, some: Any) -> Any:
        return some[0]


@pytest.fixture
def looked_at(folder: Path, empty_database: Path) -> Any:
    """`looked_at(method, clear=…)`: the run directory of a sweep that MLflow knows all of."""

    def make(method: str = "asha", *, clear: bool = False, steps: int = 10_000, **settings: Any) -> Path:
        run_dir = folder / f"{method} {clear} {steps}"
        table = study(method=method, trials_per_space=NUM)
        table["judging"] = table["judging"] | {"stop_when": "decided", "looks": 2, "num_bootstrap": 1000} | settings
        with made_up_clock(), make_journal(run_dir, table) as journal:
            sweep = LookedAt(journal, random.Random(1), Events() if clear else Events(diverges=0.05, fails=0.02))
            sweep.clear = clear
            sweep.run(steps)
        shutil.copy(empty_database, run_dir / "mlflow.db")
        mlflow_maker.deliver(run_dir)
        return run_dir

    return make


def set_look(change: Any, run_dir: Path, path: str, value: Any) -> None:
    query = "UPDATE meta SET value = json_set(value, ?, json(?)) WHERE key = 'looks'"
    change(run_dir / "journal.sqlite", query, path, json.dumps(value))


@pytest.mark.parametrize("clear", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_sweep_that_was_looked_at_holds(looked_at, method, clear):
    run_dir = looked_at(method, clear=clear)
    findings = verify(run_dir)
    assert findings.holds, findings
    with Journal.open(run_dir, read_only=True) as journal:
        assert (journal.counts()["cancelled"] > 0) == clear
        num_looks, num_decisions = len(journal.get("looks")), len(journal.decisions())
    assert num_looks == (1 if clear else 2)
    assert findings.checked["I6"] >= num_looks + num_decisions


@pytest.mark.parametrize("method", ["asha", "synchronous"])
def test_looks_at_several_scales_hold_also_when_it_was_extended(folder, empty_database, method):
    """The look before the end is after half of the 2 × (8 + 8 + 2) trials of the study, whatever was added."""
    judging = {"stop_when": "decided", "looks": 2, "num_bootstrap": 1000}
    told = scaled_study(LARGE, AGAIN, num=NUM, method=method).to_dict()
    known = study_from_dict(told | {"judging": told["judging"] | judging})
    trials, _ = draw_population(known)
    with (
        made_up_clock(),
        Journal.create(folder, {"study": known.to_dict(), "study_hash": known.hash}, trials) as journal,
    ):
        LookedAt(quick(journal), random.Random(1), Events(diverges=0.05)).run(20)
    extend(folder, trials=2)
    with made_up_clock(1), quick(Journal.open(folder)) as journal:
        LookedAt(journal, random.Random(2), Events(diverges=0.05)).run()
        assert [look["num_trials"] for look in journal.get("looks")] == [18, 44]
        assert journal.get("looks")[0]["rung_epochs"] == {"small": 1, "large": 2, "again": 1}
    shutil.copy(empty_database, folder / "mlflow.db")
    mlflow_maker.deliver(folder)
    findings = verify(folder)
    assert findings.holds, findings


def test_a_sweep_matched_on_complexity_holds_too(looked_at):
    assert verify(looked_at(match="params")).holds


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("$[0].number", 2, "look 2: it is the 1th that was recorded"),
        ("$[0].num_trials", 7, "it is of 7 trials, and the study wants it after 8"),
        ("$[1].num_trials", 15, "it is of 15 trials, and the study wants it after 16"),
        ("$[0].num_begun", 5, "5 of its trials had begun, and by the journal 8"),
        ("$[0].rung_epochs.small", 2, "it is after 2 (small) epochs, and the first rung is after 1 (small)"),
        ("$[0].taken_at_ms", 1_700_000_000_001, "had come to the first rung or ended"),
        ("$[0].num_decided", 1, "1 rules are said to be decided, and the p-values can have decided 0 at most"),
        ("$[0].compared[0].n_without", 1, "at the rung there are"),
        ("$[0].compared[0].effect_pct", 0.25, "the effect is 0.25 points, and by the epochs"),
        ("$[0].compared[0].effect_pct", None, "the effect is None, and by the epochs"),
        ("$[1].compared[0].p_different", 0.0, "p_different is 0.0"),
        ("$[1].compared[0].p_equivalent", 1.5, "p_equivalent is 1.5"),
    ],
)
def test_a_look_that_is_not_what_it_says_is_found(looked_at, change, path, value, words):
    run_dir = looked_at()
    set_look(change, run_dir, path, value)
    findings = verify(run_dir)
    assert set(findings.violations) == {"I6"}
    assert words in " ".join(findings.violations["I6"])


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("DELETE FROM meta WHERE key = 'decided'", "look 1 has decided all, and nothing followed"),
        (
            "UPDATE meta SET value = json_set(value, '$.look', 2) WHERE key = 'decided'",
            "look 2 is said to have decided all",
        ),
        (
            "UPDATE meta SET value = json_set(value, '$.num_trials', 99) WHERE key = 'decided'",
            "the decision is of 99 trials, and its look knew of 16",
        ),
        (
            "UPDATE meta SET value = json_set(value, '$.judging.stop_when', 'end') WHERE key = 'study'",
            "its study does not want that",
        ),
        (
            "UPDATE meta SET value = json_set(value, '$[0].compared[0].p_different', 0.02) WHERE key = 'looks'",
            "can have decided 0 at most",
        ),
    ],
)
def test_an_end_that_no_look_decided_is_found(looked_at, change, query, words):
    run_dir = looked_at(clear=True)
    if "p_different" in query:
        set_look(change, run_dir, "$[0].compared[0].p_equivalent", 1.0)
    change(run_dir / "journal.sqlite", query)
    findings = verify(run_dir)
    assert set(findings.violations) == {"I6"}
    assert words in " ".join(findings.violations["I6"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("looks", [{"number": 1}]),
        ("looks", "soon"),
        ("decided", {"look": "all"}),
    ],
)
def test_looks_that_no_journal_can_hold_are_damage(looked_at, change, key, value):
    run_dir = looked_at(clear=True)
    change(run_dir / "journal.sqlite", "UPDATE meta SET value = ? WHERE key = ?", json.dumps(value), key)
    assert f"meta {key}" in " ".join(verify(run_dir).violations["journal"])


def test_a_comparison_without_its_p_value_is_damage(looked_at, change):
    run_dir = looked_at()
    set_look(change, run_dir, "$[0].compared[0].p_different", None)
    assert "holds the comparisons" in " ".join(verify(run_dir).violations["journal"])


def test_synchronous_sweeps_are_looked_at_alike(looked_at, change, tmp_path):
    run_dir = looked_at("synchronous", clear=True)
    other = tmp_path / "other"
    shutil.copytree(run_dir, other)
    set_look(change, other, "$[0].taken_at_ms", 1_800_000_000_000)
    assert verify(run_dir, against=other).holds
    set_look(change, other, "$[0].compared[0].p_different", 0.001)
    assert "its looks have shown something else" in " ".join(verify(run_dir, against=other).violations["I6"])


def test_an_interrupted_sweep_holds_between_its_looks(looked_at):
    for steps in (5, 30, 45):
        assert verify(looked_at(steps=steps)).holds
