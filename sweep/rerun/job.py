"""One training that any worker can begin, and any other go on with.

In: a `Job`, which says what to train, on which images, and in which store its state lies. Out: a row for each epoch,
named as in the journal. Beside the checkpoints the store holds the rows of all epochs so far, which name the states
that count: whoever goes on reports them once more, for the driver may have been away while they were made.
"""

import json
import logging
import math
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sweep.records.journal import now_ms
from sweep.studies import Recipe
from sweep.training.store import Store

_HISTORY = "history.json"
Row = dict[str, Any]
Report = Callable[[Row], None]


@dataclass(frozen=True)
class Job:
    """`data.files(data_name)` are the images on the node that asks; `recipe.batch_size` is that of all workers."""

    architecture: str
    recipe: Recipe
    num_epochs: int
    seed: int
    num_train: int
    num_validation: int
    num_classes: int
    split_seed: int
    data: Any
    data_name: str
    store: Store


def start_trial(job: Job, **options: Any) -> Any:
    """The trial at its beginning; `options` are those of `Trial`: device and share."""
    from sweep.spaces import network_from_json
    from sweep.training.data import open_split
    from sweep.training.trial import Trial

    split = open_split(
        job.data.files(job.data_name),
        num_train=job.num_train,
        num_validation=job.num_validation,
        seed=job.split_seed,
    )
    return Trial(
        network_from_json(job.architecture),
        job.recipe,
        split,
        num_epochs=job.num_epochs,
        seed=job.seed,
        num_classes=job.num_classes,
        **options,
    )


def train(job: Job, report: Report, **options: Any) -> list[Row]:
    """Train to the end from wherever the store says; answers all rows. A divergence is the last row.

    One of several workers (`share`) computes like the others; the first of them writes and reports.
    """
    from sweep.training import checkpoint

    trial = start_trial(job, **options)
    speaks = trial.share.rank == 0
    rows = resume(job, trial)
    trial.share.agree(trial.epoch, "the epoch to go on from")
    for row in rows if speaks else []:
        report(row)
    for result in trial.run():
        if not speaks:
            continue
        rows.append(_row(result))
        if not result.diverged:
            rows[-1]["checkpoint"] = checkpoint.save(job.store, trial, result, attempt=1)
            job.store.write(_HISTORY, json.dumps(rows).encode())
        report(rows[-1])
    return rows


def resume(job: Job, trial: Any) -> list[Row]:
    """Restore the last state whose row was written, and that is intact; answers the rows up to it."""
    from sweep.training import checkpoint

    rows = read_rows(job.store)
    known = {row["epoch"]: row["checkpoint"] for row in rows if "checkpoint" in row}
    resumed = checkpoint.load(job.store, trial, last_epoch=len(rows), known=known)
    for sentence in resumed.refused:
        logging.getLogger(__name__).warning(sentence)
    return rows[: trial.epoch]


def read_rows(store: Store) -> list[Row]:
    return json.loads(store.read(_HISTORY)) if _HISTORY in store.names() else []


def _row(result: Any) -> Row:
    """As the journal names it; NaN, which stands for what was not measured, becomes null."""
    values = result.to_dict() | {"recorded_at_ms": now_ms(), "host": socket.gethostname()}
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in values.items()}


def epoch_result(row: Row) -> Any:
    """The `EpochResult` behind a row."""
    from sweep.training.trial import EpochResult

    values: dict[str, Any] = {key: row[key] for key in EpochResult.__dataclass_fields__}
    values |= {key: math.nan for key, value in values.items() if value is None}
    return EpochResult(**values)


class Reports:
    """The way of rows from the workers to the driver while they train. `put` in a worker, `drain` in the driver."""

    def __init__(self) -> None:
        from ray.util.queue import Queue

        self._queue = Queue(actor_options={"num_cpus": 0})
        self._seen: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_queue": self._queue, "_seen": {}}

    def put(self, key: str, row: Row) -> None:
        self._queue.put((key, row))

    def skip(self, key: str, epoch: int) -> None:
        """The driver knows the epochs of `key` up to `epoch` already."""
        self._seen[key] = epoch

    def drain(self, *, wait_s: float = 0.0) -> Iterator[tuple[str, Row]]:
        """What came in since, each epoch of a key once; waits for the first one up to `wait_s` seconds."""
        from ray.util.queue import Empty

        while True:
            try:
                key, row = self._queue.get(timeout=wait_s) if wait_s else self._queue.get_nowait()
            except Empty:
                return
            wait_s = 0.0
            if row["epoch"] > self._seen.get(key, 0):
                self._seen[key] = row["epoch"]
                yield key, row
