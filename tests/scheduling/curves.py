"""Made-up learning curves (import as `scheduling.curves`): as arrays for a replay, as cohorts, as Parquet."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sweep.scheduling.simulation.replay import Trials
from sweep.statistics.cohorts import Cohort
from sweep.statistics.reading import cohorts_of_curves


def of_curves(curves: np.ndarray, *, rungs: dict[str, tuple[int, ...]], **told: Any) -> Trials:
    """A curve is NaN from the epoch on in which it diverged."""
    lost = np.isnan(curves)
    told.setdefault("audited_if_worst", told["audited"])
    return Trials(
        max_epochs=curves.shape[1],
        rungs=rungs,
        errors_pct={rung: curves[:, rung - 1] for own in rungs.values() for rung in own},
        diverged_at=np.where(lost.any(axis=1), lost.argmax(axis=1) + 1, 0),
        **told,
    )


def table_of(
    means_pct: dict[str, float], *, num: int = 60, num_epochs: int = 9, num_diverged: int = 0, seed: int = 0
) -> pa.Table:
    """Curves of spaces with these mean errors. Good networks are not the fastest: early errors mislead a little."""
    rng = np.random.default_rng(seed)
    epochs = np.arange(1, num_epochs + 1)
    rows: dict[str, list[Any]] = {name: [] for name in ("trial_id", "space", "epoch", "val_error_pct", "flops")}
    for space, mean_pct in means_pct.items():
        ends = mean_pct + 4 * (rng.gamma(4.0, size=num) - 4) / 2
        rate, flops = rng.uniform(0.5, 1.2, size=num), rng.uniform(2e5, 4e5, size=num)
        excess = 25 * (epochs[np.newaxis] ** -rate[:, np.newaxis] - num_epochs ** -rate[:, np.newaxis])
        errors = np.clip(ends[:, np.newaxis] + excess + rng.normal(0, 0.3, size=excess.shape), 0.5, 90)
        for trial in range(num):
            last = 2 if trial < num_diverged else num_epochs
            rows["trial_id"] += [f"{space}-{trial:03d}"] * last
            rows["space"] += [space] * last
            rows["epoch"] += epochs[:last].tolist()
            rows["val_error_pct"] += [*errors[trial, : last - 1].tolist(), np.nan if last == 2 else errors[trial, -1]]
            rows["flops"] += [flops[trial]] * last
    return pa.table(rows)


def write_curves(path: Path, *args: Any, **told: Any) -> Path:
    pq.write_table(table_of(*args, **told), path)
    return path


def cohorts(*args: Any, **told: Any) -> list[Cohort]:
    """One for each space of `table_of`."""
    return list(cohorts_of_curves(table_of(*args, **told)).values())
