"""The MLflow run of a rerun: linked to its sweep, with the curve, the test error, the weights.

In: a `RerunResult` and the sweep's metadata. Out: the run's id, kept beside the result so that it is made once.
"""

import os
from pathlib import Path
from typing import Any

from sweep.rerun.full_scale import RerunResult
from sweep.tracking import record_run


def record(result: RerunResult, metadata: dict[str, Any]) -> str:
    """Raises `TrackingError` where MLflow cannot be told; the result itself is on disk already.

    The recorded URI has no credentials: a server that wants some gets them from MLFLOW_TRACKING_USERNAME and
    MLFLOW_TRACKING_PASSWORD.
    """
    kept = Path(result.directory) / "run_id"
    if kept.is_file():
        return kept.read_text()
    if "parent_run_id" not in metadata:
        raise RuntimeError(
            "rerun: the sweep has no run in MLflow yet to link this one to; launch it with --resume, which delivers "
            f"it, then call this again: the result is kept in {result.directory}"
        )
    candidate = result.candidate
    run_id = record_run(
        tracking_uri=metadata["tracking_uri"],
        experiment_id=metadata["experiment_id"],
        parent_run_id=metadata["parent_run_id"],
        rerun_id=candidate.architecture_id,
        name=f"rerun {candidate.architecture_id}",
        tags={
            "space": candidate.space,
            "scale": candidate.scale,
            "architecture_id": candidate.architecture_id,
            "sweep.trial_id": candidate.trial_id,
        },
        params={
            "epochs": result.epochs,
            "num_test": result.num_test,
            "num_train": result.num_train,
            "resolution": result.resolution,
            "seed": result.seed,
        },
        epochs=result.history,
        metrics={
            "test/error_pct": result.test_error_pct,
            "test/loss": result.test_loss,
            "sweep/error_pct": candidate.sweep_error_pct,
        },
        artifacts={name: Path(result.directory) / name for name in ("result.json", "weights.pt")},
    )
    draft = kept.with_suffix(f".{os.getpid()}")
    draft.write_text(run_id)
    os.replace(draft, kept)
    return run_id
