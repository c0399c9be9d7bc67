"""Curves from anywhere: a Parquet file of learning curves, whoever trained them, as cohorts.

In: one row a trial and epoch, with the columns `trial_id`, `space`, `epoch`, `val_error_pct` (percent; null or NaN
where the network diverged) and, if known, one value a trial in `scale`, `flops`, `params`, `activations`,
`fully_trained` (it was trained to the full budget), `would_stop_at` (the epochs of the first rung at which early
stopping wanted to end it; 0 or null for none) and `audit_fraction` (the probability of the lottery that kept it all
the same). Out: a `Cohort` for each scale and space. Raises `ValueError` naming the file, the column, the trial and the
remedy.

The full budget is the highest epoch of the file. Without `fully_trained` a network counts as trained in full if its
curve gets there. Without `would_stop_at` nothing is known of a lottery: if any curve ends early, there is no estimate
at the full budget, only bounds.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sweep.statistics.bootstrap import Floats
from sweep.statistics.cohorts import Cohort, Ints, error_matrix

REQUIRED = ("trial_id", "space", "epoch", "val_error_pct")
COMPLEXITIES = ("flops", "params", "activations")
OPTIONAL = ("scale", *COMPLEXITIES, "fully_trained", "would_stop_at", "audit_fraction")
ONLY_SCALE = "all"


def read_curves(path: str | Path, *, num_classes: int = 10) -> dict[tuple[str, str], Cohort]:
    """(scale, space) -> cohort, spaces in the order in which the file names them; a million rows in about a second.

    `num_classes` sets the error that a diverged network counts with, that of a guess.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"curves: there is no file {str(path)!r}; name a Parquet file of learning curves")
    try:
        available = pq.read_schema(path).names
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"curves: {str(path)!r} is not a Parquet file ({error}); write it with pyarrow or pandas"
        ) from None
    for column in REQUIRED:
        if column not in available:
            raise ValueError(
                f"curves: {str(path)!r} has no column {column!r} (it has {', '.join(available) or 'none'}); "
                f"it needs {', '.join(REQUIRED)}"
            )
    table = pq.read_table(path, columns=[name for name in (*REQUIRED, *OPTIONAL) if name in available])
    return cohorts_of_curves(table, num_classes=num_classes)


def cohorts_of_curves(table: pa.Table, *, num_classes: int = 10) -> dict[tuple[str, str], Cohort]:
    """As `read_curves`, from a table in memory."""
    if table.num_rows == 0:
        raise ValueError("curves: the table has no rows; there is nothing to judge")
    chance = 100 * (1 - 1 / num_classes)
    if "scale" not in table.column_names:
        return {(ONLY_SCALE, space): made for space, made in _of_scale(table, ONLY_SCALE, chance).items()}
    scales = pc.unique(_texts(table, "scale")).to_pylist()
    return {
        (scale, space): made
        for scale in scales
        for space, made in _of_scale(table.filter(pc.equal(_texts(table, "scale"), scale)), scale, chance).items()
    }


def _of_scale(table: pa.Table, scale: str, chance_error_pct: float) -> dict[str, Cohort]:
    epoch, error = _epochs(table), _errors(table)
    id_number, ids = _numbered(table, "trial_id")
    space_number, spaces = _numbered(table, "space")
    # The same id in another space is another trial.
    _, first, trial = np.unique(id_number * len(spaces) + space_number, return_index=True, return_inverse=True)
    trial_ids = [ids[number] for number in id_number[first].tolist()]
    _refuse_double_rows(trial, epoch, trial_ids)
    curves = _Curves(table, first, trial, epoch, error)
    found = {}
    for number, space in enumerate(spaces):
        members = np.flatnonzero(space_number[first] == number)
        members = members[np.argsort(first[members], kind="stable")]  # in the order of the file
        found[space] = curves.cohort(space, scale, members, trial_ids, chance_error_pct)
    return found


class _Curves:
    """What the table says of one scale, by row (`trial`, `epoch`, `error`) and by trial (whose first row is
    `first`)."""

    def __init__(self, table: pa.Table, first: Ints, trial: Ints, epoch: Ints, error: Floats):
        self._table, self._first = table, first
        self._trial, self._epoch, self._error = trial, epoch, error
        self._budgets = np.unique(epoch)
        never = np.iinfo(np.int64).max
        self._last, diverged_at = np.zeros(len(first), dtype=np.int64), np.full(len(first), never)
        np.maximum.at(self._last, trial, epoch)
        np.minimum.at(diverged_at, trial[np.isnan(error)], epoch[np.isnan(error)])
        self._diverged_at = np.where(diverged_at == never, 0, diverged_at)
        fully = self._column("fully_trained", np.nan)
        reaches_end = (self._last == self._budgets[-1]) | (self._diverged_at > 0)
        self._is_full = np.where(np.isnan(fully), reaches_end, fully > 0).astype(bool)
        self._would_stop_at = np.nan_to_num(self._column("would_stop_at", 0.0)).astype(np.int64)
        self._lottery = self._column("audit_fraction", np.nan)
        if "would_stop_at" not in table.column_names:  # whoever ended early was ended by a rule that let nobody off
            self._would_stop_at = np.where(self._is_full, 0, self._last)
            self._lottery[:] = 0.0
        self._complexity = {name: self._column(name, np.nan) for name in COMPLEXITIES if name in table.column_names}

    def _column(self, name: str, default: float) -> Floats:
        """One number a trial, from the first of its rows."""
        if name not in self._table.column_names:
            return np.full(len(self._first), default)
        return _numbers(self._table, name)[self._first]

    def cohort(self, space: str, scale: str, members: Ints, trial_ids: list[str], chance_error_pct: float) -> Cohort:
        place = np.full(len(trial_ids), -1, dtype=np.int64)
        place[members] = np.arange(len(members))
        made = Cohort(
            space,
            scale,
            tuple(trial_ids[member] for member in members.tolist()),
            self._budgets,
            error_matrix(
                place[self._trial],
                self._epoch,
                self._error,
                epochs=self._budgets,
                diverged_at=self._diverged_at[members],
                chance_error_pct=chance_error_pct,
            ),
            would_stop_at=self._would_stop_at[members],
            diverged_at=self._diverged_at[members],
            is_open=np.zeros(len(members), dtype=bool),
            is_cancelled=np.zeros(len(members), dtype=bool),
            audit_fraction=self._lottery[members],
            complexity={
                name: values[members] for name, values in self._complexity.items() if (values[members] > 0).all()
            },
        )
        return _checked(made, self._is_full[members])


def _checked(cohort: Cohort, full: np.ndarray) -> Cohort:
    """Refuse what contradicts itself, and forget the end of a curve that is said not to be trained in full."""
    lacking = full & ~cohort.is_finished
    if lacking.any():
        trial_id = cohort.trial_ids[int(np.flatnonzero(lacking)[0])]
        raise ValueError(
            f"fully_trained: {trial_id!r} is said to be trained in full, but has no error at epoch "
            f"{cohort.full_budget}, the highest of the file; complete its curve or set it to false"
        )
    cohort.errors[~full & (cohort.diverged_at == 0), -1] = np.nan
    short = (cohort.would_stop_at == 0) & ~cohort.is_finished
    if short.any():
        trial_id = cohort.trial_ids[int(np.flatnonzero(short)[0])]
        raise ValueError(
            f"would_stop_at: {trial_id!r} was not trained in full, though no rung wanted to end it; give the epochs of "
            "the rung that ended it, or leave trials out that ended for another reason"
        )
    return cohort


def _epochs(table: pa.Table) -> Ints:
    values = _numbers(table, "epoch")
    if np.isnan(values).any() or (values < 1).any() or (values != np.floor(values)).any():
        raise ValueError("epoch: holds values that are no whole numbers from 1 on; count epochs from 1")
    return values.astype(np.int64)


def _errors(table: pa.Table) -> Floats:
    values = _numbers(table, "val_error_pct")
    values = np.where(np.isinf(values), np.nan, values)
    finite = values[~np.isnan(values)]
    if len(finite) and (finite.min() < 0 or finite.max() > 100):
        wrong = finite.min() if finite.min() < 0 else finite.max()
        raise ValueError(f"val_error_pct: {wrong:g} is no error in percent; give values from 0 to 100")
    if len(finite) and finite.max() <= 1:
        raise ValueError(
            f"val_error_pct: no value is above {finite.max():g}; are they shares? give percent, 100 times as much"
        )
    return values


def _numbers(table: pa.Table, name: str) -> Floats:
    try:
        return pc.cast(table[name], pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise ValueError(f"{name}: is of type {table[name].type}; give numbers") from None


def _texts(table: pa.Table, name: str) -> pa.ChunkedArray:
    if table[name].null_count:
        raise ValueError(f"{name}: holds nulls; every row needs one")
    return pc.cast(table[name], pa.string())


def _numbered(table: pa.Table, name: str) -> tuple[Ints, list[str]]:
    """A column of text as numbers, and the texts in the order in which they come."""
    encoded = _texts(table, name).combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary.to_pylist()


def _refuse_double_rows(trial: Ints, epoch: Ints, trial_ids: list[str]) -> None:
    key = trial * (int(epoch.max()) + 1) + epoch
    ordered = np.sort(key)
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        number, at = divmod(int(ordered[twice[0]]), int(epoch.max()) + 1)
        raise ValueError(f"epoch: trial {trial_ids[number]!r} has epoch {at} twice; give each epoch of a trial once")
