"""Which trials go together across scales: one network small and large, one network under several seeds.

In: the tables of a sweep. Out: trial ids. What became of those trials is not asked: errors.py says which errors there
are, and at which budget.
"""

from sweep.records import Tables
from sweep.statistics.tables import cohort, study_of
from sweep.studies import Study


def scale_pairs(tables: Tables, small: str, large: str, *, space: str | None = None) -> list[tuple[str, str]]:
    """The trials of two scales, as (at `small`, at `large`), whose networks are one and the same before scaling; of all
    spaces or of one, in the order of the trials table.

    Where a scale has but a part of its original's networks, only pairs that are whole. Raises ValueError where the two
    scales draw their networks apart, so that equal numbers mean nothing, or where the study has no such scale.
    """
    study = study_of(tables)
    known = [scale.name for scale in study.scale]
    for name in (small, large):
        if name not in known:
            raise ValueError(f"scale: {name!r} is none of the study's; name one of {', '.join(known)}")
    if small == large or study.lineage(small)[0] != study.lineage(large)[0]:
        raise ValueError(
            f"scale: {small!r} and {large!r} make no pairs, for neither has the other's networks, nor both those of a "
            "third; give one of them `of`"
        )
    at_large = _trials_by_number(tables, large, space)
    return [
        (trial_id, at_large[number])
        for number, trial_id in _trials_by_number(tables, small, space).items()
        if number in at_large
    ]


def repeats_of(tables: Tables, scale: str, *, space: str | None = None) -> dict[str, list[str]]:
    """Of each trial of a scale that was trained again under other seeds: the trials that did so, at its repeats.

    Empty where the study repeats nothing of that scale.
    """
    study = study_of(tables)
    repeats = [one.name for one in study.scale if study.is_repeat(one.name) and _repeated(study, one.name) == scale]
    found: dict[str, list[str]] = {}
    for repeat in repeats:
        for trial_id, again in scale_pairs(tables, scale, repeat, space=space):
            found.setdefault(trial_id, []).append(again)
    return found


def _repeated(study: Study, name: str) -> str:
    """The scale that a repeat, or a repeat of a repeat, trains once more."""
    return _repeated(study, study.get_scale(name).of) if study.is_repeat(name) else name


def _trials_by_number(tables: Tables, scale: str, space: str | None) -> dict[tuple[str, int], str]:
    rows = cohort(tables.architectures, scale=scale, space=space)
    numbers = zip(rows["space"].to_pylist(), rows["draw"].to_pylist())
    return dict(zip(numbers, rows["trial_id"].to_pylist()))
