"""Journals as a sweep would write them, without a sweep: spaces, curves and outcomes are made up and repeatable."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from sweep.records.journal import EpochRow, Journal, TrialRow
from sweep.spaces import Architecture, Stage, complexity

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


def make_journal(run_dir: Path, *, spaces: tuple[str, ...] = ("regnet_x",), num: int = 3) -> Journal:
    """A journal of pending trials, `num` of each space, named like `regnet_x-small-0000`."""
    run_dir.mkdir(parents=True, exist_ok=True)
    meta = {"study": STUDY, "study_hash": "0123456789ab", "git_commit": "f" * 40}
    return Journal.create(run_dir, meta, _trials(spaces, num))


def _network(draw: int) -> Architecture:
    wide = 16 + 8 * (draw % 7)
    stages = Stage(1 + draw % 3, 16, 8), Stage(1 + draw // 3 % 4, wide, 8), Stage(2, 2 * wide, 8)
    return Architecture(stages, stem_width=16)


def _trials(spaces: tuple[str, ...], num: int) -> list[TrialRow]:
    rows = []
    for draw in range(num):
        network = _network(draw)
        cost = complexity(network, resolution=28, channels=1, classes=10)
        for space in spaces:
            rows.append(
                TrialRow(
                    trial_id=f"{space}-small-{draw:04d}", launch_order=len(rows), space=space, scale="small",
                    cohort=f"{space}/small", draw=draw, architecture_id=network.id, architecture=network.to_json(),
                    flops=cost.flops, params=cost.params, activations=cost.activations, seed=draw,
                    audited=draw % 5 == 0,
                )
            )  # fmt: skip
    return rows


def train(journal: Journal, trial_id: str, errors_pct: list[float], outcome: str) -> None:
    """Start the trial unless it has started, add one epoch for each error, and leave it at `outcome`."""
    begun = journal.last_epoch(trial_id)
    if begun == 0:
        journal.start_attempt(trial_id)
    for epoch, error_pct in enumerate(errors_pct, start=begun + 1):
        row = EpochRow(
            trial_id=trial_id, epoch=epoch, train_loss=error_pct / 30, val_loss=error_pct / 25, val_error_pct=error_pct,
            learning_rate=0.1 / epoch, train_time_s=2.0, eval_time_s=0.5, host="local", attempt=1,
        )  # fmt: skip
        journal.record(row, None, outcome if epoch == begun + len(errors_pct) else "running")


def asking(database: Path) -> Callable[..., list[tuple[Any, ...]]]:
    """`ask(query, *values)` asks the database itself, not MLflow and not our code."""

    def ask(query: str, *values: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(database)) as db:
            return db.execute(query, values).fetchall()

    return ask
