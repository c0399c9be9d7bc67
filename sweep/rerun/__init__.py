"""The best configuration of a sweep: chosen by validation, confirmed, trained at full scale, tested once.

The folder and the verb have one name: the module itself can be called, `sweep.rerun("runs/quickstart")`. Its files in
the order of the work, which work.py holds together: choose (or named, with warm_start), confirm, full_scale, testing,
record with card, export; job and workplace are what a training needs wherever it runs, trained and result what is kept.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster import Profile
    from sweep.rerun.confirm import Progress
    from sweep.rerun.record import Registration
    from sweep.rerun.result import RerunResult

# Three of each: the fewest that give an interval worth the name, and a fair chance to a runner-up. For the studies that
# ship this costs about a fifth of the full-scale training.
BEST, SEEDS = 3, 3


def rerun(
    run: "str | Path",
    *,
    best: int = BEST,
    seeds: int = SEEDS,
    workers: int = 1,
    ensemble: int | None = None,
    network: str = "",
    warm_start: str = "",
    profile: "Profile | str" = "laptop",
    progress: "Progress | None" = None,
) -> "tuple[RerunResult, Registration]":
    """Train the best configuration of the sweep in `run` at full scale over `workers`, test it, and register it.

    The `best` networks are confirmed with `seeds` fresh seeds each first, because the best of many is lucky; one
    network and one seed means that the sweep's word is taken for it. With `ensemble` (the study's, unless given) that
    many of them are trained, and tested alone and together; as many are confirmed at least. `network` (a name, a YAML
    file or parameters, as `sweep.spaces.resolve` takes them) is trained in place of the choice, by the same recipe; it
    may begin from the weights of a smaller one, `warm_start`: the directory of an earlier rerun, or
    `torchvision:regnet_x_400mf=weights.pth`.

    Interrupted, a second call goes on; ended, it answers what the first one found. Raises `ValueError` for bad input,
    `RuntimeError` where a training or MLflow failed.
    """
    from cluster import Profile, load_profile
    from dashboards.report import write_report
    from sweep.records import Journal, find_run, from_journal
    from sweep.rerun.record import record
    from sweep.rerun.result import read_results
    from sweep.rerun.work import Work
    from sweep.scheduling.driver import owned
    from sweep.statistics import find_in_tables
    from sweep.studies import TRAIN, study_from_dict

    for name, number in (("--best", best), ("--seeds", seeds), ("--workers", workers), ("--ensemble", ensemble)):
        if number is not None and number < 1:
            raise ValueError(f"{name}: {number} is less than 1; name at least one")
    if network and ensemble not in (None, 1):
        raise ValueError("--ensemble: a network that you name is one; leave out --network or --ensemble")
    if warm_start and not network:
        raise ValueError("--warm-start: which network begins from it? name it too: --network NAME")
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
    work = Work(tables, study, folder, profile, workers, progress or (lambda stage, result: None))
    with owned(folder):
        if network:
            result = work.named(network, warm_start)
        else:
            result = work.chosen(best, seeds, ensemble or study.rerun.ensemble)
        report = folder / "report.html"
        write_report(tables, find_in_tables(tables), report, reruns=read_results(folder))
        return result, record(result, tables.metadata, report)


class _Verb(ModuleType):
    def __call__(self, run: str | Path, **options: object) -> "tuple[RerunResult, Registration]":
        return rerun(run, **options)  # type: ignore[arg-type]


sys.modules[__name__].__class__ = _Verb
