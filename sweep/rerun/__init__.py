"""The best configuration of a sweep: chosen by validation, confirmed, trained at full scale, tested once.

The folder and the verb have one name: the module itself can be called, `sweep.rerun("runs/quickstart")`. Its files in
the order of the work: choose, confirm, full_scale, record with card; job and workplace are what a training needs
wherever it runs.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster import Profile
    from sweep.records import Tables
    from sweep.rerun.confirm import Progress
    from sweep.rerun.record import Registration
    from sweep.rerun.result import RerunResult
    from sweep.studies import Study

# Three of each: the fewest that give an interval worth the name, and a fair chance to a runner-up. For the studies that
# ship this costs about a fifth of the full-scale training.
BEST, SEEDS = 3, 3


def rerun(
    run: "str | Path",
    *,
    best: int = BEST,
    seeds: int = SEEDS,
    workers: int = 1,
    profile: "Profile | str" = "laptop",
    progress: "Progress | None" = None,
) -> "tuple[RerunResult, Registration]":
    """Train the best configuration of the sweep in `run` at full scale over `workers`, test it, and register it.

    The `best` networks are confirmed with `seeds` fresh seeds each first, because the best of many is lucky; one
    network and one seed means that the sweep's word is taken for it. Interrupted, a second call goes on; ended, it
    answers what the first one found. Raises `ValueError` for bad input, `RuntimeError` where a training or MLflow
    failed.
    """
    from cluster import Profile, load_profile
    from dashboards.report import write_report
    from sweep.records import Journal, find_run, from_journal
    from sweep.rerun.record import record
    from sweep.rerun.result import read_results
    from sweep.scheduling.driver import owned
    from sweep.statistics import judge_study
    from sweep.studies import TRAIN, study_from_dict

    for name, number in (("--best", best), ("--seeds", seeds), ("--workers", workers)):
        if number < 1:
            raise ValueError(f"{name}: {number} is less than 1; name at least one")
    folder = find_run(run)
    with Journal.open(folder, read_only=True) as journal:
        tables = from_journal(journal)
    study = study_from_dict(tables.metadata["study"])
    if study.objective != TRAIN:
        raise ValueError(
            f"run: the networks of {str(run)!r} were not trained, its study has objective = {study.objective!r}; there "
            "is nothing to train at full scale, and what was best is in its report"
        )
    profile = profile if isinstance(profile, Profile) else load_profile(profile)
    with owned(folder):
        result = _chosen_and_trained(tables, study, folder, profile, best, seeds, workers, progress)
        report = folder / "report.html"
        write_report(tables, judge_study(tables), report, reruns=read_results(folder))
        return result, record(result, tables.metadata, report)


def _chosen_and_trained(
    tables: "Tables",
    study: "Study",
    folder: Path,
    profile: "Profile",
    best: int,
    seeds: int,
    workers: int,
    progress: "Progress | None",
) -> "RerunResult":
    from dataclasses import replace

    from sweep.rerun.choose import choose
    from sweep.rerun.confirm import confirm, confirmed
    from sweep.rerun.full_scale import check_workers, train_at_full_scale
    from sweep.rerun.result import FOLDER, keep, read
    from sweep.rerun.workplace import open_workplace
    from sweep.scheduling.engine import sweep_id

    progress = progress or (lambda stage, result: None)
    candidates = choose(tables, best)
    confirms = best > 1 or seeds > 1
    known = confirmed(candidates, folder, seeds=seeds) if confirms else candidates
    done = read(folder / FOLDER / known[0].architecture_id) if known else None
    if known and done:
        if confirms:  # the test is not opened again, but what was confirmed since belongs to the result
            done = replace(done, candidate=known[0], candidates=tuple(known))
            keep(done)
        return done
    scales = sorted({candidate.scale for candidate in candidates})
    with open_workplace(study, folder, profile, sweep_id=sweep_id(tables.metadata), scales=scales) as place:
        check_workers(workers, place)
        if confirms:
            candidates = confirm(candidates, place, seeds=seeds, progress=progress)
        done = read(folder / FOLDER / candidates[0].architecture_id)
        if done is None:
            num_networks = tables.trials.num_rows
            return train_at_full_scale(candidates, place, num_networks=num_networks, workers=workers, progress=progress)
    done = replace(done, candidate=candidates[0], candidates=tuple(candidates))
    keep(done)
    return done


class _Verb(ModuleType):
    def __call__(self, run: str | Path, **options: object) -> "tuple[RerunResult, Registration]":
        return rerun(run, **options)  # type: ignore[arg-type]


sys.modules[__name__].__class__ = _Verb
