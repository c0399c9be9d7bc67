"""The errors of a cohort (space × scale) at one training budget: what every comparison starts from.

In: the tables of a sweep. Out: one error for each network, all after the same number of epochs.

Early stopping must not bend the conclusion (DESIGN, section 4.1): what was stopped at a rung is missing above it,
and not at random. So comparisons are made at the *shared rung*, the highest budget that no network was kept from. A
network that diverged counts with chance-level error at every budget it did not reach (section 4.2); a trial that
failed for a reason of the machine says nothing of its network and is left out.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sweep.records import Tables
from sweep.statistics.bootstrap import Floats
from sweep.studies import Study, study_from_dict


def errors_at(tables: Tables, *, scale: str, space: str, epoch: int, chance_error_pct: float) -> Floats:
    """Validation errors in percent after `epoch` epochs, one a network, in the order of the trials table.

    Holds the trials that reached `epoch`, whether they have ended or not (or were cancelled later), and those that
    diverged before it at `chance_error_pct`; failed ones never. Above the shared rung these are survivors: see
    `shared_rung`.
    """
    errors = errors_by_trial(tables, scale=scale, space=space, epoch=epoch, chance_error_pct=chance_error_pct)
    return np.array(list(errors.values()), dtype=np.float64)


def errors_by_trial(tables: Tables, *, scale: str, space: str, epoch: int, chance_error_pct: float) -> dict[str, float]:
    """The errors of `errors_at`, by trial id."""
    trials = cohort(tables.trials, scale=scale, space=space)
    outcomes = dict(zip(trials["trial_id"].to_pylist(), trials["outcome"].to_pylist()))
    at_epoch = cohort(tables.epochs, scale=scale, space=space).filter(pc.field("epoch") == epoch)
    reached = dict(zip(at_epoch["trial_id"].to_pylist(), at_epoch["val_error_pct"].to_pylist()))
    return {
        trial_id: chance_error_pct if reached.get(trial_id) is None else reached[trial_id]
        for trial_id, outcome in outcomes.items()
        if outcome != "failed" and (trial_id in reached or outcome == "diverged")
    }


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
