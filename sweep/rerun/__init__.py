"""The best configuration of a sweep, trained at full scale and tested once.

The folder and the verb have one name: the module itself can be called, `sweep.rerun("runs/quickstart")`.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweep.rerun.full_scale import Progress, RerunResult


def rerun(
    run: str | Path, *, best: int = 1, seeds: int = 1, progress: "Progress | None" = None
) -> "tuple[RerunResult, str]":
    """Train the best configuration of the sweep in `run` at full scale and test it; see sweep/rerun/full_scale.py.

    Answers the result and the id of its MLflow run, which is linked to the sweep's. Raises `ValueError` where no
    trial has trained to the end.
    """
    from sweep.records import Journal, find_run, from_journal
    from sweep.rerun.full_scale import rerun_best
    from sweep.rerun.record import record
    from sweep.studies import study_from_dict

    folder = find_run(run)
    with Journal.open(folder, read_only=True) as journal:
        tables = from_journal(journal)
    study = study_from_dict(tables.metadata["study"])
    result = rerun_best(tables, study, folder, best=best, seeds=seeds, progress=progress)
    return result, record(result, tables.metadata)


class _Verb(ModuleType):
    def __call__(self, run: str | Path, **options: object) -> "tuple[RerunResult, str]":
        return rerun(run, **options)  # type: ignore[arg-type]


sys.modules[__name__].__class__ = _Verb
