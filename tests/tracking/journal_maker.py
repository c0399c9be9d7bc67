"""Journals as a sweep would write them, without a sweep: spaces, curves and outcomes are made up and repeatable."""

import math
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from sweep.records.journal import EpochRow, Journal, TrialRow
from sweep.spaces import Architecture, Stage, complexity
from sweep.studies import study_from_dict

SPACES = ("anynet_c", "anynet_d", "anynet_e", "regnet_x")
STUDY = {
    "name": "quickstart",
    "question": "Do networks get better when widths rise?",
    "seed": 1,
    "spaces": list(SPACES),
    "trials_per_space": 20,
    "data": {"name": "fashion_mnist", "path": "/secret/canary", "num_train": 5000, "num_validation": 2500},
    "scale": [{"name": "small", "resolution": 28, "flops_min": 4e5, "flops_max": 8e5}],
    "recipe": {"batch_size": 128, "learning_rate": 0.1},
    "stopping": {"method": "asha", "max_epochs": 4, "grace_epochs": 1, "reduction_factor": 2, "audit_fraction": 0.2},
    "judging": {"margin_pct": 0.5, "confidence": 0.95},
    "tracking": {"uri": "http://canary:canary@host"},
}


# Draw -> the epoch in which its network diverges, and the draw whose code fails after its first epoch, each time.
DIVERGES_IN, FAILS = {1: 3, 4: 1, 5: 2}, 2
FAILURE = "RuntimeError: the disk is 'full'\n" + "at its end\n" * 500


def make_journal(
    run_dir: Path,
    *,
    spaces: tuple[str, ...] = ("regnet_x",),
    num: int = 3,
    more_scales: tuple[dict[str, Any], ...] = (),
    **stopping: Any,
) -> Journal:
    """A journal of pending trials, `num` of each space at each scale, named like `regnet_x-small-0000`; `stopping`:
    settings of the study that are to be others."""
    run_dir.mkdir(parents=True, exist_ok=True)
    study = STUDY | {"scale": [*STUDY["scale"], *more_scales], "stopping": STUDY["stopping"] | stopping}
    meta = {"study": study, "study_hash": "0123456789ab", "git_commit": "f" * 40}
    return Journal.create(run_dir, meta, _trials(spaces, num, tuple(scale["name"] for scale in study["scale"])))


def extend(journal: Journal, num: int, *, spaces: tuple[str, ...] = ("regnet_x",)) -> None:
    """`num` more trials of each space, in cohorts of their own where a rung waits for all its trials."""
    known = journal.trials()
    first = 1 + max(row["draw"] for row in known)
    is_awaited = journal.get("study")["stopping"]["method"] == "synchronous"
    new = [
        replace(row, launch_order=len(known) + order, cohort=f"{row.cohort}/+1" if is_awaited else row.cohort)
        for order, row in enumerate(row for row in _trials(spaces, first + num) if row.draw >= first)
    ]
    journal.add_trials(new, extensions=[{"spaces": list(spaces), "trials": num}])


def _network(draw: int) -> Architecture:
    wide = 16 + 8 * (draw % 7)
    stages = Stage(1 + draw % 3, 16, 8), Stage(1 + draw // 3 % 4, wide, 8), Stage(2, 2 * wide, 8)
    return Architecture(stages, stem_width=16)


def _trials(spaces: tuple[str, ...], num: int, scales: tuple[str, ...] = ("small",)) -> list[TrialRow]:
    rows: list[TrialRow] = []
    for draw in range(num):
        network = _network(draw)
        cost = complexity(network, resolution=28, channels=1, classes=10)
        for space, scale in product(spaces, scales):
            rows.append(
                TrialRow(
                    trial_id=f"{space}-{scale}-{draw:04d}", launch_order=len(rows), space=space, scale=scale,
                    cohort=f"{space}/{scale}", draw=draw, architecture_id=network.id, architecture=network.to_json(),
                    flops=cost.flops, params=cost.params, activations=cost.activations, seed=draw,
                    audited=draw % 5 == 0, audited_if_worst=draw % 5 == 0,
                )
            )  # fmt: skip
    return rows


def train(journal: Journal, trial_id: str, errors_pct: list[float], outcome: str) -> None:
    """Start the trial unless it has started, add one epoch for each error, and leave it at `outcome`."""
    begun = journal.last_epoch(trial_id)
    if begun == 0:
        journal.start_attempt(trial_id, 1)
    for epoch, error_pct in enumerate(errors_pct, start=begun + 1):
        row = EpochRow(
            trial_id=trial_id, epoch=epoch, train_loss=error_pct / 30, val_loss=error_pct / 25, val_error_pct=error_pct,
            learning_rate=0.1 / epoch, train_time_s=2.0, eval_time_s=0.5, host="local", attempt=1,
        )  # fmt: skip
        journal.record(row, None, outcome if epoch == begun + len(errors_pct) else "running")


def result(trial_id: str, epoch: int, *, shift_pct: float = 0.0) -> dict[str, Any]:
    """What a worker reports of an epoch: the error falls with the epochs; some trials diverge."""
    draw = int(trial_id[-4:])
    diverged = DIVERGES_IN.get(draw) == epoch
    error_pct = random.Random(f"{trial_id} {epoch}").uniform(20, 90) / epoch + shift_pct
    return {
        "epoch": epoch, "train_loss": math.inf if diverged else error_pct / 30,
        "val_loss": math.nan if diverged else error_pct / 25, "val_error_pct": math.nan if diverged else error_pct,
        "learning_rate": 0.1 / epoch, "train_time_s": 2.0 + draw, "eval_time_s": 0.5, "diverged": diverged,
        "host": f"host-{draw % 3}",
    }  # fmt: skip


class MadeUpSweep:
    """A driver without workers: made-up results of three trials at a time, in random order, through the real
    conductor. As long-lived as a process: another one on the same journal is the sweep resumed."""

    def __init__(self, journal: Journal, *, seed: int, shift_pct: float = 0.0):
        from sweep.scheduling.conductor import Conductor

        self._shift_pct = shift_pct
        self._random = random.Random(seed)
        self._clock_s = 0.0  # each event takes a second
        study = study_from_dict(journal.get("study"))
        self._conductor = Conductor(journal, study, stall_after_s=math.inf, clock=lambda: self._clock_s)
        self._at_work: dict[str, tuple[int, int]] = {}  # its attempt and last epoch

    def go_on(self, num_events: int = 100_000) -> None:
        """So many starts and epochs, or all that are left."""
        for _ in range(num_events):
            self._clock_s += 1
            if not (len(self._at_work) < 3 and self._start()):
                if not self._at_work:
                    return
                self._train(self._random.choice(sorted(self._at_work)))

    def _start(self) -> bool:
        from sweep.scheduling.conductor import Stretch

        stretch = self._conductor.next_stretch()
        if not isinstance(stretch, Stretch):
            return False
        self._at_work[stretch.trial_id] = stretch.attempt, stretch.last_epoch
        self._conductor.started(stretch.trial_id)
        self._report(
            stretch.trial_id, "begun", host=f"host-{int(stretch.trial_id[-4:]) % 3}", pid=1, node_id="", notes=[],
            resumed_epoch=stretch.last_epoch, resumed_step=0,
        )  # fmt: skip
        return True

    def _train(self, trial_id: str) -> None:
        attempt, last_epoch = self._at_work[trial_id]
        if int(trial_id[-4:]) == FAILS and last_epoch == 1:
            self._conductor.failed(trial_id, "user", FAILURE)
            del self._at_work[trial_id]
            return
        self._at_work[trial_id] = attempt, last_epoch + 1
        told = result(trial_id, last_epoch + 1, shift_pct=self._shift_pct)
        if not self._report(trial_id, "epoch", **told, checkpoint=f"{trial_id} after {last_epoch + 1}"):
            del self._at_work[trial_id]

    def fail(self, trial_id: str) -> None:
        """For good: as often as the study lets it."""
        for _ in range(3):
            while trial_id not in self._at_work:
                self.go_on(1)
            self._conductor.failed(trial_id, "user", FAILURE)
            del self._at_work[trial_id]

    def _report(self, trial_id: str, kind: str, **told: Any) -> bool:
        return self._conductor.report(trial_id, {"kind": kind, "attempt": self._at_work[trial_id][0], **told})


def asking(database: Path) -> Callable[..., list[tuple[Any, ...]]]:
    """`ask(query, *values)` asks the database itself, not MLflow and not our code; what it changes stays changed."""

    def ask(query: str, *values: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(database, isolation_level=None)) as db:
            return db.execute(query, values).fetchall()

    return ask
