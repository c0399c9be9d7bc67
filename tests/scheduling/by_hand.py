"""A conductor that a test drives word by word (import as `scheduling.by_hand`; the fixture `begin` makes one)."""

from pathlib import Path
from typing import Any

from records.rows import T0, T1, T2, T3, ask
from scheduling.simulated import STALL_AFTER_S, Clock, begun_report, epoch_report

from sweep.records import Journal
from sweep.scheduling.conductor import MACHINE, Conductor, Nothing, Stretch
from sweep.studies import study_from_dict


class Driver:
    """A conductor on the journal of a run directory. T0 is audited; the rungs are 1, 2 and 4 of 8 epochs."""

    def __init__(self, run_dir: Path):
        self.run_dir = run_dir
        self.journal = Journal.open(run_dir)
        self.clock = Clock()
        self.ended: list[tuple[str, str]] = []
        self.said: list[str] = []
        self.stretches: dict[str, Stretch] = {}
        self.conductor = Conductor(
            self.journal,
            study_from_dict(self.journal.get("study")),
            stall_after_s=STALL_AFTER_S,
            ended=lambda trial_id, outcome, error: self.ended.append((trial_id, outcome)),
            log=lambda trial_id, text: self.said.append(text),
            clock=self.clock,
        )

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """The journal, in SQL."""
        return ask(self.run_dir, query, *values)

    def next(self) -> str | Nothing:
        """The trial of the next stretch, which begins at once."""
        stretch = self.conductor.next_stretch()
        if isinstance(stretch, Nothing):
            return stretch
        self.conductor.started(stretch.trial_id)
        self.stretches[stretch.trial_id] = stretch
        assert self.report(stretch.trial_id, begun_report(stretch, stretch.last_epoch))
        return stretch.trial_id

    def report(self, trial_id: str, report: dict[str, Any]) -> bool:
        return self.conductor.report(trial_id, report)

    def epoch(self, trial_id: str, epoch: int, error_pct: float, **values: Any) -> bool:
        report = epoch_report(self.stretches[trial_id], epoch)
        return self.report(trial_id, report | {"val_error_pct": error_pct, "diverged": False} | values)

    def diverge(self, trial_id: str, epoch: int) -> bool:
        return self.epoch(trial_id, epoch, float("nan"), diverged=True)

    def fail(self, trial_id: str, kind: str, text: str = "Traceback\nError: why") -> None:
        """The worker says what was wrong, and ends of it."""
        attempt = self.stretches[trial_id].attempt
        assert self.report(trial_id, {"kind": "failed", "attempt": attempt, "failure_kind": kind, "traceback": text})
        self.conductor.failed(trial_id, MACHINE, "the worker died")

    def tick(self, trial_id: str) -> bool:
        attempt = self.stretches[trial_id].attempt
        return self.report(trial_id, {"kind": "tick", "attempt": attempt, "epoch": 1, "step": 1})


def all_at_work(driver: Driver, num: int = 4) -> Driver:
    assert [driver.next() for _ in range(num)] == [T0, T1, T2, T3][:num]
    return driver


def decided(driver: Driver) -> list[tuple]:
    rows = driver.journal.decisions()
    return [(row["arrival"], row["trial_id"], row["rung_epochs"], row["error_pct"], row["decision"]) for row in rows]


def epochs(driver: Driver) -> list[tuple]:
    return [(row["trial_id"], row["epoch"], row["val_error_pct"]) for row in driver.journal.epochs()]


def outcome(driver: Driver, trial_id: str) -> str:
    return driver.journal.trial(trial_id)["outcome"]


def lose_epochs(driver: Driver, trial_id: str) -> None:
    """As a recovered journal has it: what the decisions were is known, the curve is not."""
    driver.ask("DELETE FROM epochs WHERE trial_id = ?", trial_id)
    driver.ask("UPDATE trials SET outcome = 'running', ended_at_ms = NULL WHERE trial_id = ?", trial_id)
