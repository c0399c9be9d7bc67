"""What a lost journal is rebuilt from (sweep/scheduling/recover.py), delivered to the sweep's run.

In: a journal. Out: its origin (the meta and the population, two artifacts, again whenever the sweep was extended), and
the log of what decides places at the rungs, as metrics.

Each decision depends on what came before it, so the log is always a prefix of what the journal has: arrivals in their
order; the moments at which those that waited were stopped, each before the next arrival; and where a rung waits for all
its trials, which of them left. What is committed before the arrivals are read is in the log once this returns.
"""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from sweep.records.journal import ARRIVALS_DELIVERED, CLOSINGS_DELIVERED, ORIGIN_DELIVERED, Journal
from sweep.records.tables import ARCHITECTURES, architectures_table
from sweep.tracking import content
from sweep.tracking.artifacts import publish
from sweep.tracking.client import log_batch
from sweep.tracking.content import Point

_ROWS_AT_ONCE = 5000


def deliver_origin(client: Any, journal: Journal, run_id: str) -> None:
    """What the sweep is and the networks that were drawn for it. The population first: one that is larger than the meta
    says is an extension of which nothing has been told yet."""
    if is_origin_delivered(journal, run_id):
        return
    num_trials, meta = num_trials_of(journal), journal.meta()
    while num_trials != (num_trials := num_trials_of(journal)):  # it was extended between the two
        meta = journal.meta()
    origin = content.origin(meta, num_trials)
    with tempfile.TemporaryDirectory() as folder:
        population = Path(folder, content.POPULATION_FILE)
        _write_population(journal, num_trials, population)
        files: dict[str, Path | bytes] = {
            content.POPULATION_FILE: population,
            content.ORIGIN_FILE: json.dumps(origin, indent=1).encode(),
        }
        publish(client, run_id, files)
    journal.set_meta(**{ORIGIN_DELIVERED: [run_id, num_trials]})


def is_origin_delivered(journal: Journal, run_id: str) -> bool:
    """Whether the run has the population as it is now; `sweep extend` makes it grow."""
    return journal.get(ORIGIN_DELIVERED) == [run_id, num_trials_of(journal)]


def num_trials_of(journal: Journal) -> int:
    return sum(journal.counts().values())


def _write_population(journal: Journal, num_trials: int, path: Path) -> None:
    """A part at a time: the networks of a hundred thousand trials do not stand in memory together."""
    with pq.ParquetWriter(path, ARCHITECTURES) as writer:
        for first in range(0, num_trials, _ROWS_AT_ONCE):
            rows = journal.trials(f"launch_order >= {first} AND launch_order < {first + _ROWS_AT_ONCE}")
            writer.write_table(architectures_table(map(dict, rows)))


@dataclass(frozen=True)
class Log:
    """What is to be told; `arrivals` and `closings`: how many of them MLflow then knows."""

    points: list[Point]
    arrivals: int
    closings: int


def undelivered_log(journal: Journal) -> Log:
    """All that the journal holds by now and MLflow was not told."""
    known, num_closings = journal.get(ARRIVALS_DELIVERED, 0), journal.get(CLOSINGS_DELIVERED, 0)
    arrivals = journal.decisions_after(known)
    last = arrivals[-1]["arrival"] if arrivals else known
    # Read after the arrivals, so that none is missing that came before one of them; later ones have to wait.
    closings = [dict(row) for row in journal.closings_after(num_closings) if row["after_arrival"] <= last]
    leaves = [dict(row) for row in _leaves(journal) if row["after_arrival"] <= last]
    points = [point for row in arrivals for point in _arrival_points(journal, row)]
    points += map(content.closing_point, closings)
    points.sort(key=lambda point: point[3])  # by the number of the arrival; a closing stands after its own
    # Of a log that is cut short on its way, one leave too many is harmless, and one too few would contradict the rest.
    return Log([*map(content.leave_point, leaves), *points], last, num_closings + len(closings))


def deliver_log(client: Any, journal: Journal, run_id: str, log: Log) -> None:
    """The origin must have been delivered since the log was read. Sent again, they are the same points."""
    if log.points:
        log_batch(client, run_id, points=log.points)
        journal.set_meta(**{ARRIVALS_DELIVERED: log.arrivals, CLOSINGS_DELIVERED: log.closings})


def _arrival_points(journal: Journal, row: Any) -> Iterator[Point]:
    trial = journal.trial(row["trial_id"])
    assert trial is not None
    return content.arrival_points(dict(row) | {"launch_order": trial["launch_order"]})


def _leaves(journal: Journal) -> list[Any]:
    is_awaited = journal.get("study")["stopping"]["method"] == "synchronous"
    return journal.undelivered_leaves() if is_awaited else []
