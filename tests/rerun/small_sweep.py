"""A finished sweep of three networks without its hours: the networks are real, their errors made up, MLflow is real."""

from pathlib import Path

from sweep.records.journal import EpochRow, Journal, TrialRow
from sweep.scheduling.driver import provenance
from sweep.spaces import Architecture, Stage, complexity
from sweep.studies import Study, study_from_dict
from sweep.tracking import default_tracking_uri, deliver

# Errors after the last epoch, by draw. The fourth network is the third one drawn again, the fifth was stopped.
ERRORS_PCT = (30.0, 20.0, 40.0, 41.0, 10.0)
BEST, SECOND = "anynet_d-small-0001", "anynet_d-small-0000"
NUM_TRAIN_AT_FULL_SCALE = 640


def study(**changes) -> Study:
    return study_from_dict(
        {
            "name": "small sweep",
            "question": "Can it be done again?",
            "seed": 3,
            "spaces": ["anynet_d"],
            "trials_per_space": len(ERRORS_PCT),
            "scale": [{"name": "small", "resolution": 12, "flops_min": 1e4, "flops_max": 1e7}],
            "data": {"num_train": 192, "num_validation": 250},
            "recipe": {"batch_size": 64, "learning_rate": 0.05, "warmup_steps": 5},
            "stopping": {"max_epochs": 3, "grace_epochs": 1, "reduction_factor": 2},
            "rerun": {"epochs": 4},
            **changes,
        }
    )


def network(draw: int) -> Architecture:
    return Architecture((Stage(1, 8, 8), Stage(1, 16 + 8 * min(draw, 2), 8)), stem_width=8)


def make_sweep(run_dir: Path, *, tracking_uri: str = "", **changes) -> Path:
    """A run directory whose journal has ended and whose runs MLflow has."""
    make_journal(run_dir, **changes)
    deliver(run_dir, tracking_uri or default_tracking_uri(run_dir))
    return run_dir


def make_journal(run_dir: Path, **changes) -> Path:
    """The same before MLflow is told of it, which takes seconds."""
    run_dir.mkdir(parents=True, exist_ok=True)
    settings = study(**changes)
    meta = {"study": settings.to_dict(), "study_hash": settings.hash, "data": {}, **provenance()}
    rows = [_row(draw) for draw in range(len(ERRORS_PCT))]
    with Journal.create(run_dir, meta, rows) as journal:
        for row, error_pct in zip(rows, ERRORS_PCT):
            journal.start_attempt(row.trial_id, 1)
            is_stopped = row.draw == 4
            for epoch in range(1, 2 if is_stopped else 4):
                ends = "stopped" if is_stopped else "completed" if epoch == 3 else "running"
                journal.record(_epoch(row.trial_id, epoch, error_pct + 3 - epoch), None, ends)
    return run_dir


def _row(draw: int) -> TrialRow:
    drawn = network(draw)
    cost = complexity(drawn, resolution=12, channels=1, classes=10)
    return TrialRow(
        trial_id=f"anynet_d-small-{draw:04d}", launch_order=draw, space="anynet_d", scale="small",
        cohort="anynet_d/small", draw=draw, architecture_id=drawn.id, architecture=drawn.to_json(), flops=cost.flops,
        params=cost.params, activations=cost.activations, seed=draw, audited=False, audited_if_worst=False,
    )  # fmt: skip


def _epoch(trial_id: str, epoch: int, error_pct: float) -> EpochRow:
    return EpochRow(
        trial_id=trial_id, epoch=epoch, train_loss=1.0, val_loss=1.0, val_error_pct=error_pct, learning_rate=0.1,
        train_time_s=1.0, eval_time_s=0.1, host="local", attempt=1,
    )  # fmt: skip
