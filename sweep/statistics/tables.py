"""What the tables of a sweep say of its cohorts (space × scale) as a whole.

In: the tables of a sweep. Out: the rows of a cohort, its study, the budget that comparisons at a rung are made at.

Early stopping must not bend the conclusion (DESIGN, section 4.1): what was stopped at a rung is missing above it,
and not at random. So those comparisons are made at the *shared rung*, the highest budget that no network was kept from.
"""

import pyarrow as pa
import pyarrow.compute as pc

from sweep.records import Tables
from sweep.studies import Study, study_from_dict


def cohort(table: pa.Table, *, scale: str, space: str | None = None) -> pa.Table:
    """The rows of a table that belong to a scale, and to one space of it if named."""
    chosen = pc.field("scale") == scale
    return table.filter(chosen if space is None else chosen & (pc.field("space") == space))


def shared_rung(tables: Tables, scale: str) -> int:
    """The highest number of epochs that early stopping kept no network of this scale from.

    That is the fewest epochs of the trials that completed or were stopped; while trials are still to come, never
    more than the first rung, because the rule may yet stop some there.
    """
    trials = cohort(tables.trials, scale=scale)
    outcome = pc.field("outcome")
    trained = trials.filter(outcome.isin(["completed", "stopped"]))["epochs_trained"].to_pylist()
    unfinished = trials.filter(outcome.isin(["pending", "running", "paused"])).num_rows
    return min(trained + ([first_rungs(study_of(tables))[scale]] if unfinished or not trained else []))


def first_rungs(study: Study) -> dict[str, int]:
    """By scale: the fewest epochs after which a trial may be stopped, or the full budget."""
    known = {scale.name: study.stopping_at(scale.name) for scale in study.scale}
    return {name: min((*stopping.rungs, stopping.max_epochs)) for name, stopping in known.items()}


def chance_error_pct(study: Study) -> float:
    """The error of a guess, in percent: 90 for ten classes."""
    return 100 * (1 - 1 / study.data.num_classes)


def study_of(tables: Tables) -> Study:
    """The study that the tables carry. Raises `ValueError` if they carry none, or one that is not valid."""
    if "study" not in tables.metadata:
        raise ValueError("tables: their metadata hold no 'study'; read them with sweep.records.read_tables")
    return study_from_dict(tables.metadata["study"])
