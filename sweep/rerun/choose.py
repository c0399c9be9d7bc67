"""Which networks of a sweep are worth training again: the best by validation error, each network once.

In: the tables of a sweep. Out: `Candidate`s. Only trials that trained to the end compete, for an error after fewer
epochs is no estimate of what the network can do. The test set has no say in it.
"""

from dataclasses import dataclass

import numpy as np

from sweep.records import Tables
from sweep.statistics import study_of


@dataclass(frozen=True)
class Candidate:
    """A network of the sweep; `confirmed_error_pct` holds its validation errors under fresh seeds, if any.

    One that a user named in place of the choice is of no space and has no error in the sweep (sweep/rerun/named.py).
    """

    trial_id: str
    space: str
    scale: str
    architecture_id: str
    architecture: str
    sweep_error_pct: float | None
    confirmed_error_pct: tuple[float, ...] = ()

    @property
    def validation_error_pct(self) -> float | None:
        """What it is chosen by: the mean of the confirmed errors, else the sweep's; None if it was not chosen."""
        return float(np.mean(self.confirmed_error_pct)) if self.confirmed_error_pct else self.sweep_error_pct


def choose(tables: Tables, k: int) -> list[Candidate]:
    """The `k` best trials by validation error among those that trained to the end; each network once. Those of a scale
    that repeats another do not compete: they would give its networks a second chance."""
    competing = {scale.name for scale in study_of(tables).judged_scales}
    rows = [row for row in tables.trials.to_pylist() if row["outcome"] == "completed" and row["scale"] in competing]
    if not rows:
        raise ValueError(
            "run: no trial of this sweep has trained to the end; let it finish (`sweep launch … --resume`)"
        )
    architectures = dict(
        zip(tables.architectures["trial_id"].to_pylist(), tables.architectures["architecture"].to_pylist())
    )
    rows.sort(key=lambda row: (row["last_val_error_pct"], row["trial_id"]))
    distinct: dict[str, dict] = {}
    for row in rows:
        distinct.setdefault(row["architecture_id"], row)
    return [
        Candidate(
            trial_id=row["trial_id"],
            space=row["space"],
            scale=row["scale"],
            architecture_id=row["architecture_id"],
            architecture=architectures[row["trial_id"]],
            sweep_error_pct=row["last_val_error_pct"],
        )
        for row in list(distinct.values())[:k]
    ]
