"""More networks for a sweep that there is: running, interrupted or finished; what it holds stays as it is.

In: a run directory, how many more networks of which spaces. Out: new rows in its journal, all or none, and an
`Extended` that says so. Each space goes on where it stands, under the study's seeds: the sweep then has the very trials
of a study that had asked for more at once, launched after those that it had, and shuffled among themselves. In
synchronous mode they are judged among themselves too (population.py).

A scale with `of` grows by the same networks as its original. Where it has but some of them (its `trials_per_space`), it
keeps those that it has, and gets more only up to that number: a larger study might have chosen others.

Whoever trains the sweep meanwhile is not asked: it finds the new rows by itself. Two extensions at the same time would
give the same numbers twice, which the journal refuses; the later one then looks again.
"""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sweep.records import Journal, TrialRow
from sweep.records.lease import owner_of
from sweep.scheduling.forecast import forecast
from sweep.scheduling.population import Draws, SpaceAtScale, draw_members, next_members
from sweep.studies import MAX_TRIALS, Study, study_from_dict

_TRIES = 20


@dataclass(frozen=True)
class Extended:
    """`by_cohort` counts what was added, `total` all trials of the sweep.

    `state`: "running", then its driver takes the new trials up by itself; "interrupted" or "finished", then
    `sweep launch STUDY --run-dir RUN_DIR --resume` trains them, and opens the run of a finished sweep in MLflow again.
    """

    run_dir: str
    added: int
    by_cohort: dict[str, int]
    total: int
    state: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def extend(run_dir: str | Path, *, trials: int | None = None, spaces: tuple[str, ...] | None = None) -> Extended:
    """Add the next `trials` networks of each space, at each scale; of all spaces that the sweep has unless named, as
    many as its study has of each unless told.

    Raises `ValueError`, with nothing changed, where there is no sweep or nothing of the kind can be added to it.
    """
    folder = Path(run_dir)
    with Journal.open(folder) as journal:
        study = _study_of(journal)
        trials = study.trials_per_space if trials is None else trials
        for _ in range(_TRIES):
            # The trials first: an extension that comes between this and the next line has then taken our numbers.
            known = [_row(trial) for trial in journal.trials()]
            extensions = journal.get("extensions", [])
            rows, draws = plan_extension(
                study, numbers_of(known), trials=trials, spaces=spaces, wave=len(extensions) + 1
            )
            state = _state(journal)
            named = list(dict.fromkeys(draw.space for draw in draws))
            try:
                journal.add_trials(
                    rows,
                    extensions=[*extensions, {"spaces": named, "trials": trials}],
                    draws=_with(journal.get("draws", []), draws),
                    forecast=forecast(study, [*known, *rows], keep_best=_keep_best(journal)).to_dict(),
                )
            except sqlite3.IntegrityError:
                continue  # another extension was quicker
            by_cohort = dict(sorted(Counter(row.cohort for row in rows).items()))
            return Extended(str(folder), len(rows), by_cohort, len(known) + len(rows), state)
    raise RuntimeError(
        f"extend: {str(folder)!r} could not be extended in {_TRIES} tries, its numbers being taken each time; nothing "
        "was changed. If no other extension is at work, `sweep verify` says what is wrong with the journal"
    )


def plan_extension(
    study: Study,
    existing: Mapping[SpaceAtScale, Collection[int]],
    *,
    trials: int,
    spaces: tuple[str, ...] | None = None,
    wave: int,
) -> tuple[list[TrialRow], list[Draws]]:
    """The trials to add, and how all networks of their spaces were found, those that there are included.

    `existing`: the numbers of the trials of each space at each scale. `wave`: 1 for the first extension of a sweep, 2
    for the next. Raises `ValueError` naming what cannot be.
    """
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
        raise ValueError(f"trials = {trials!r} is not a whole number of 1 or more; use for example 10")
    named = _checked_spaces(study, spaces) if spaces is not None else _spaces_of(study, existing)
    num_known = sum(map(len, existing.values()))
    drawn = trials * len(named) * sum(not scale.of for scale in study.scale)
    wanted = next_members(study, named, trials, existing) if drawn <= MAX_TRIALS else []
    total = num_known + max(drawn, sum(len(members.draws) for members in wanted))
    if total > MAX_TRIALS:
        raise ValueError(
            f"trials = {trials} would make {total:,} trials of the sweep, more than {MAX_TRIALS:,}; ask for fewer"
        )
    try:
        return draw_members(study, wanted, wave=wave, launch_from=num_known)
    except ValueError as error:
        raise ValueError(f"trials = {trials} more cannot be drawn: {error}") from error


def numbers_of(trials: Iterable[TrialRow]) -> dict[SpaceAtScale, set[int]]:
    found: dict[SpaceAtScale, set[int]] = defaultdict(set)
    for trial in trials:
        found[trial.space, trial.scale].add(trial.draw)
    return found


def _spaces_of(study: Study, existing: Iterable[SpaceAtScale]) -> tuple[str, ...]:
    """The study's, and those that earlier extensions added."""
    return tuple(dict.fromkeys([*study.spaces, *(space for space, _ in existing)]))


def _checked_spaces(study: Study, spaces: tuple[str, ...]) -> tuple[str, ...]:
    if not spaces:
        raise ValueError("spaces = () names none; name at least one, or leave it out for all of the sweep")
    for space in spaces:
        try:
            study.get_space(space)
        except ValueError as error:
            raise ValueError(f"spaces: {error}") from None
        if spaces.count(space) > 1:
            raise ValueError(f"spaces: {space!r} is named twice; name each once")
    return spaces


def _study_of(journal: Journal) -> Study:
    table = journal.get("study")
    if table is None:
        raise ValueError(
            f"run: {str(journal.path.parent)!r} is the directory of no sweep; name one that `sweep launch` printed"
        )
    return study_from_dict(table)


def _row(trial: sqlite3.Row) -> TrialRow:
    values = {field.name: trial[field.name] for field in fields(TrialRow)}
    return TrialRow(**values | {name: bool(values[name]) for name in ("audited", "audited_if_worst")})


def _state(journal: Journal) -> str:
    if owner_of(journal):
        return "running"
    return "finished" if journal.is_finished() else "interrupted"


def _with(known: list[dict[str, Any]], found: list[Draws]) -> list[dict[str, Any]]:
    """The draws of the sweep, with those of the extended spaces up to their last new member."""
    by_name = {(draw["space"], draw["scale"]): draw for draw in known}
    return list((by_name | {(draw.space, draw.scale): vars(draw) for draw in found}).values())


def _keep_best(journal: Journal) -> int:
    return journal.get("profile", {}).get("storage", {}).get("keep_best", 3)
