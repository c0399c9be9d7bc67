"""The MLflow run of a rerun, below the sweep's.

In: a finished rerun's numbers and files. Out: one run, however often it is recorded.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweep.tracking import content
from sweep.tracking.artifacts import publish
from sweep.tracking.client import TrackingError, connect, log_batch, patiently
from sweep.tracking.preflight import strip_credentials


def record_run(
    tracking_uri: str,
    *,
    experiment_id: str,
    parent_run_id: str,
    rerun_id: str,
    name: str,
    params: Mapping[str, Any],
    epochs: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, float],
    artifacts: Mapping[str, Path],
    tags: Mapping[str, str] = {},
    status: str = "FINISHED",
) -> str:
    """Record a finished rerun as one run below the sweep's; answers its run id. Called again, it is the same run.

    `rerun_id` tells reruns of one sweep apart. `epochs`: rows with the journal's column names (`val_error_pct`, …),
    in order and at least one; `metrics`: the final numbers, such as `test/error_pct`; `artifacts`: path in the run ->
    file; `status`: FINISHED or FAILED. Raises `TrackingError` if MLflow cannot be told.
    """

    def record() -> str:
        client = connect(tracking_uri)
        sought = f"{content.trials_filter(parent_run_id)} AND tags.`{content.RERUN_ID_TAG}` = '{rerun_id}'"
        run = next(iter(client.search_runs([experiment_id], sought, max_results=1)), None) or client.create_run(
            experiment_id,
            start_time=epochs[0]["recorded_at_ms"] - int(1000 * epochs[0]["train_time_s"]),
            tags={**content.rerun_tags(parent_run_id, rerun_id), **tags},
            run_name=name,
        )
        run_id = run.info.run_id
        ended_at_ms = epochs[-1]["recorded_at_ms"]
        final = [(key, value, ended_at_ms, 0) for key, value in metrics.items() if content.is_finite(value)]
        shown = {key: content.shown(value) for key, value in params.items()}
        log_batch(client, run_id, shown, [*content.epoch_points(epochs), *final], tags)
        publish(client, run_id, artifacts)
        client.set_terminated(run_id, status, ended_at_ms)
        return run_id

    try:
        return patiently(record)
    except Exception as error:
        raise TrackingError(
            f"tracking: the rerun {rerun_id!r} is not recorded in {strip_credentials(tracking_uri)} "
            f"({strip_credentials(str(error))}); its results are in the run directory"
        ) from error
