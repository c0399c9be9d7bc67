"""Journals as sweeps of each mode leave them, without Ray: made-up networks and errors, the real rule and journal.

In: a run directory, the study's stopping, a `random.Random` that decides what happens when. Out: a journal. Failures,
divergences, cancellations, interruptions and extensions happen as often as asked. The clock is made up as well, and
stands still between some commits, so that the order of two cannot always be read from it.
"""

import math
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sweep.records import DecisionRow, EpochRow, Journal, TrialRow
from sweep.scheduling.asha import Cohort, Judgement, next_rung, replay, rule_of
from sweep.spaces import Architecture, Stage
from sweep.studies import load_study

BEGUN_MS = 1_700_000_000_000
# A folder of memory where there is one: SQLite waits for the disk some dozen times when it makes a journal.
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_OWN = ("max_epochs", "grace_epochs")  # what a scale may have of its own
STOPPING = {"max_epochs": 5, "grace_epochs": 1, "reduction_factor": 2, "audit_fraction": 0.2, "flops_strata": 1}


@contextmanager
def made_up_clock(seed: int = 0) -> Iterator[None]:
    """Every other commit comes some milliseconds after the one before, the others at the same moment."""
    chance, now = random.Random(seed), BEGUN_MS

    def tick() -> int:
        nonlocal now
        now += chance.choice((0, 1, 7))
        return now

    with patch("sweep.records.journal_file.now_ms", tick):
        yield


def study(**stopping: Any) -> dict[str, Any]:
    """The quickstart's, of two spaces with few trials; `stopping`: settings of it, and `trials_per_space`."""
    known = load_study("quickstart").to_dict()
    num = stopping.pop("trials_per_space", 4)
    return known | {
        "spaces": ["anynet_c", "regnet_x"],
        "trials_per_space": num,
        "stopping": known["stopping"] | STOPPING | stopping,
    }


def trial_row(space: str, draw: int, order: int, *, audited: bool, scale: str = "small", part: str = "") -> TrialRow:
    network = Architecture(
        (Stage(1 + draw % 3, 16, 8), Stage(1 + draw // 3 % 4, 16 + 8 * (draw % 5), 8)), stem_width=16
    )
    trial_id = f"{space}-{scale}-{draw:04d}"
    return TrialRow(
        trial_id=trial_id, launch_order=order, space=space, scale=scale, cohort=f"{space}/{scale}{part}", draw=draw,
        architecture_id=network.id, architecture=network.to_json(), flops=500_000 + draw, params=9_000 + draw,
        activations=1_000 + draw, seed=random.Random(trial_id).getrandbits(48), audited=audited,
        audited_if_worst=audited or random.Random(trial_id).random() < 0.4,
    )  # fmt: skip


def make_journal(run_dir: Path, table: dict[str, Any], *, audit: int = 4) -> Journal:
    """Pending trials of a study; every `audit`th is exempt from stopping, none for 0."""
    run_dir.mkdir(parents=True, exist_ok=True)
    scale = table["scale"][0]["name"]
    draws = [(space, draw) for draw in range(table["trials_per_space"]) for space in table["spaces"]]
    rows = [
        trial_row(space, draw, order, audited=audit > 0 and order % audit == 1, scale=scale)
        for order, (space, draw) in enumerate(draws)
    ]
    meta = {"study": table, "study_hash": "0123456789ab", "git_commit": "f" * 40}
    return quick(Journal.create(run_dir, meta, rows))


def quick(journal: Journal) -> Journal:
    """The same, not waiting for the disk."""
    journal._db.execute("PRAGMA synchronous = OFF")
    return journal


def extend(journal: Journal, num: int, *, audit: int = 3) -> None:
    """`num` more networks of each space, as `sweep extend` adds them."""
    known, table = journal.trials(), journal.get("study")
    extensions = journal.get("extensions", [])
    part = f"/+{len(extensions) + 1}" if table["stopping"]["method"] == "synchronous" else ""
    first = max(row["draw"] for row in known) + 1
    draws = [(space, draw) for draw in range(first, first + num) for space in table["spaces"]]
    rows = [
        trial_row(space, draw, order, audited=audit > 0 and order % audit == 0, scale=known[0]["scale"], part=part)
        for order, (space, draw) in enumerate(draws, start=len(known))
    ]
    journal.add_trials(rows, extensions=[*extensions, {"spaces": table["spaces"], "trials": num}])


@dataclass(frozen=True)
class Events:
    """Chances of what happens at each step of the sweep; `levels`: how many errors there are, few make ties."""

    diverges: float = 0.0
    fails: float = 0.0
    retries: float = 0.0
    cancels: float = 0.0
    levels: int = 10_000


@dataclass
class MadeUpSweep:
    """One session on a journal; another one on the same journal is the sweep resumed."""

    journal: Journal
    chance: random.Random
    events: Events = field(default_factory=Events)
    slots: int = 3

    def __post_init__(self) -> None:
        study = self.journal.get("study")
        stopping = study["stopping"]
        own = {scale["name"]: {key: scale[key] for key in _OWN if scale.get(key)} for scale in study["scale"]}
        self._stopping = {name: stopping | theirs for name, theirs in own.items()}
        trials = self.journal.trials()
        cohorts: dict[str, Cohort] = {}
        for row in trials:
            cohort = cohorts.setdefault(row["cohort"], Cohort(_rungs(self._stopping[row["scale"]]), set()))
            cohort.members.add(row["trial_id"])
        self._audited = {row["trial_id"] for row in self.journal.decisions() if row["audited"]}
        self._rule = rule_of(stopping["method"], stopping["reduction_factor"], cohorts)
        replay(
            self._rule,
            [
                (row["cohort"], row["rung_epochs"], row["trial_id"], row["error_pct"])
                for row in self.journal.decisions()
            ],
            self.journal.closings(),
            [
                (row["cohort"], row["trial_id"])
                for row in trials
                if row["outcome"] in ("failed", "cancelled", "diverged")
            ],
        )
        self._live: list[str] = []

    def run(self, num_steps: int = 10_000) -> bool:
        """So many steps, or all that are left; answers whether nothing is left."""
        return all(self._step() for _ in range(num_steps)) is False

    def _step(self) -> bool:
        waiting = [
            row["trial_id"] for row in self.journal.trials("outcome IN ('pending', 'running')")
            if row["trial_id"] not in self._live
        ]  # fmt: skip
        if not waiting and not self._live:
            if lost := self._rule.close():
                self.journal.close_waiting(lost)
            return False
        if self.chance.random() < self.events.cancels:
            self._cancel()
        elif waiting and (not self._live or (len(self._live) < self.slots and self.chance.random() < 0.5)):
            trial_id = self.chance.choice(waiting)
            self.journal.start_attempt(trial_id, self._row(trial_id)["attempts"] + 1)
            self._live.append(trial_id)
        else:
            self._go_on(self.chance.choice(self._live))
        return True

    def _row(self, trial_id: str) -> Any:
        return self.journal.trial(trial_id)

    def _go_on(self, trial_id: str) -> None:
        if self.chance.random() < self.events.fails:
            self._fail(trial_id, again=False)
        elif self.chance.random() < self.events.retries:
            self._fail(trial_id, again=True)
        else:
            self._train(trial_id)

    def _fail(self, trial_id: str, *, again: bool) -> None:
        left = Judgement(None) if again else self._rule.leave(self._row(trial_id)["cohort"], trial_id)
        self.journal.fail(
            trial_id, "user", "RuntimeError: made up", by_user=True, again=again, earned=left.earned, lost=left.lost
        )
        self._live.remove(trial_id)

    def _cancel(self) -> None:
        row = self.chance.choice(self.journal.trials("outcome IN ('pending', 'running', 'paused')"))
        left = self._rule.leave(row["cohort"], row["trial_id"])
        self.journal.leave(row["trial_id"], "cancelled", earned=left.earned, lost=left.lost)
        if row["trial_id"] in self._live:
            self._live.remove(row["trial_id"])

    def _train(self, trial_id: str) -> None:
        row, epoch = self._row(trial_id), self.journal.last_epoch(trial_id) + 1
        error_pct = self._error(trial_id, epoch)
        diverged = error_pct is None or not math.isfinite(error_pct)
        stopping = self._stopping[row["scale"]]
        rungs = _rungs(stopping)
        rung = next_rung(rungs, epoch) if diverged else epoch if epoch in rungs else None
        decision, action, judgement = None, "continue", Judgement(None)
        if rung is not None:
            judgement = self._rule.arrive(row["cohort"], rung, trial_id, error_pct)
            would_stop = judgement.would_stop
            if judgement.among_worst and row["audited_if_worst"]:
                self._audited.add(trial_id)
            is_audited = bool(row["audited"]) or trial_id in self._audited
            if not is_audited:
                action = "pause" if would_stop is None else "stop" if would_stop else "continue"
            decision = DecisionRow(
                trial_id, row["cohort"], rung, error_pct, judgement.cutoff_pct, would_stop, judgement.among_worst,
                is_audited, action,
            )  # fmt: skip
        left = self._rule.leave(row["cohort"], trial_id) if diverged else Judgement(None)
        outcome = {"continue": "running", "pause": "paused", "stop": "stopped"}[action]
        outcome = "diverged" if diverged else "completed" if epoch == stopping["max_epochs"] else outcome
        self.journal.record(
            _epoch_row(trial_id, epoch, error_pct, row["attempts"]), decision, outcome,
            earned=judgement.earned + left.earned, lost=judgement.lost + left.lost,
        )  # fmt: skip
        if outcome != "running":
            self._live.remove(trial_id)

    def _error(self, trial_id: str, epoch: int) -> float | None:
        """Of the trial and the epoch alone, as that of a real network is, whatever comes between."""
        own = random.Random(f"{trial_id} {epoch} {self.events.diverges} {self.events.levels}")
        if own.random() < self.events.diverges:
            return own.choice((None, math.nan, math.inf))
        return 90 / self.events.levels * own.randrange(self.events.levels) / epoch + 1


def _rungs(stopping: dict[str, Any]) -> tuple[int, ...]:
    rungs, rung = [], stopping["grace_epochs"]
    while stopping["method"] != "none" and rung < stopping["max_epochs"]:
        rungs.append(rung)
        rung *= stopping["reduction_factor"]
    return tuple(rungs)


def _epoch_row(trial_id: str, epoch: int, error_pct: float | None, attempt: int) -> EpochRow:
    known = math.nan if error_pct is None else error_pct
    return EpochRow(
        trial_id=trial_id, epoch=epoch, train_loss=known / 30, val_loss=known / 25, val_error_pct=known,
        learning_rate=0.1 / epoch, train_time_s=2.0 + epoch / 8, eval_time_s=0.5, host="here", attempt=attempt,
    )  # fmt: skip
