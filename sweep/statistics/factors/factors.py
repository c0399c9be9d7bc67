"""The factors of networks: what they differ in, as columns of numbers and categories, grouped as a person names them.

In: networks of one family, or columns of any table by name (the eight choices of NAS-Bench-Macro, say). Out: `Factors`,
which every analysis of what matters takes: fanova.py, additive.py, importance.py.

The question has two resolutions. By *factor*, as exercise 3 of d2l.ai 8.8 asks it: d (depth), w (widths), b (bottleneck
ratios), g (group widths), and each part by its name; d and w are groups of columns, a total and how it grows over the
stages as well as one number for each stage. By *stage*: each stage's depth, width, ratio and group width by itself, one
number where all stages share it.

Only what varies is kept. A number with more than `MAX_LEVELS` values is cut at its quantiles into so many, as boosting
by histograms does: every marginal is then an exact sum. Columns that order the networks alike say the same: within a
factor one of them is kept; two factors that are such a column each become one, `a = b`, for no data could part them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sweep.spaces import Architecture, Network, columns_of
from sweep.statistics.bootstrap import Floats

MAX_LEVELS = 32

Resolution = Literal["factor", "stage"]

# The fields of all families, under the symbol of the factor that they belong to; other fields are factors themselves.
_SYMBOLS = {
    **{"depth": "d", "depths": "d", "num_blocks": "d"},
    **{"width": "w", "widths": "w", "num_heads": "w"},
    **{"bottleneck_ratios": "b", "group_widths": "g"},
}


@dataclass(frozen=True, eq=False)
class Column:
    """One thing that networks differ in: `codes`, shape (n,), index `levels`, rising numbers or names of categories."""

    name: str
    levels: tuple[float, ...] | tuple[str, ...]
    codes: NDArray[np.int_]

    @property
    def is_category(self) -> bool:
        return isinstance(self.levels[0], str)

    @cached_property
    def encoded(self) -> Floats:
        """What a tree splits: the number's level, (n, 1), or a column of 0 and 1 for each category, (n, levels)."""
        if self.is_category:
            return np.eye(len(self.levels))[self.codes]
        return self.codes[:, None].astype(np.float64)

    def says_the_same_as(self, other: "Column") -> bool:
        """Whether both part the networks alike, and numbers order them alike, or in reverse."""
        if len(self.levels) != len(other.levels):
            return False
        if not (self.is_category or other.is_category):
            return np.array_equal(self.codes, other.codes) or np.array_equal(
                self.codes, len(self.levels) - 1 - other.codes
            )
        return len(np.unique(np.stack([self.codes, other.codes]), axis=1).T) == len(self.levels)


@dataclass(frozen=True, eq=False)
class Factor:
    """Columns that belong together."""

    name: str
    columns: tuple[Column, ...]

    @cached_property
    def encoded(self) -> Floats:
        """The encoded columns side by side, (n, encoded columns)."""
        return np.concatenate([column.encoded for column in self.columns], axis=1)


@dataclass(frozen=True, eq=False)
class Factors:
    """The factors that vary among `num_networks` networks, and the names of columns that do not, in `constant`."""

    factors: tuple[Factor, ...]
    num_networks: int
    constant: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(factor.name for factor in self.factors)

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(column for factor in self.factors for column in factor.columns)


def factors_from_columns(
    columns: Mapping[str, ArrayLike],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    categorical: Collection[str] = (),
) -> Factors:
    """The factors of any table: `columns` by name, of shape (n,) each; texts are categories, numbers are ordered.

    `groups` names factors of several columns; a column in none is a factor by itself. `categorical` names columns of
    numbers whose order means nothing. Raises `ValueError` naming the column that is missing, of another length, in two
    groups, or that lacks values.
    """
    groups = dict(groups or {})
    grouped = [name for members in groups.values() for name in members]
    _refuse_unknown("groups", grouped, columns)
    _refuse_unknown("categorical", categorical, columns)
    twice = sorted({name for name in grouped if grouped.count(name) > 1})
    if twice:
        raise ValueError(f"groups: column {twice[0]!r} is in two of them; leave it in one")
    coded = {name: _column(name, values, name in categorical) for name, values in columns.items()}
    lengths = {name: len(column.codes) for name, column in coded.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns: their lengths differ, {lengths}; give one value for each network in each")
    alone = {name: (name,) for name in columns if name not in grouped}
    factors = [
        Factor(name, _telling([coded[member] for member in members])) for name, members in {**groups, **alone}.items()
    ]
    return Factors(
        factors=_merged([factor for factor in factors if factor.columns]),
        num_networks=next(iter(lengths.values()), 0),
        constant=tuple(name for name, column in coded.items() if len(column.levels) < 2),
    )


def factors_of(networks: Sequence[Network], *, by: Resolution = "factor") -> Factors:
    """The factors of networks of one family, by factor or by stage.

    Raises `ValueError` if there are none, if they are of several families, or if `by` is not known.
    """
    if by not in get_args(Resolution):
        raise ValueError(f"by: {by!r} is no resolution; choose one of {', '.join(get_args(Resolution))}")
    families = sorted({type(network).__name__ for network in networks})
    if len(families) != 1:
        raise ValueError(f"networks: {families or 'none'}; give networks of one family, the others by themselves")
    told = [columns_of(network) for network in networks]
    columns: dict[str, list[Any]] = {}
    groups: dict[str, list[str]] = {}
    for field in told[0]:
        if field == "group_widths" and _all_in_one_group(networks):
            continue  # then the group width is but the bottleneck's
        symbol = _SYMBOLS.get(field, field)
        values = [row[field] for row in told]
        added = _of_stages(symbol, values, by) if isinstance(values[0], tuple) else {field: values}
        columns |= added
        groups.setdefault(symbol, []).extend(added)
    return factors_from_columns(columns, groups=groups if by == "factor" else None)


def _all_in_one_group(networks: Sequence[Network]) -> bool:
    return all(
        stage.num_groups == 1 for network in networks if isinstance(network, Architecture) for stage in network.stages
    )


def _of_stages(symbol: str, rows: list[tuple[float, ...]], by: Resolution) -> dict[str, list[Any]]:
    """A number for each stage (not where networks have different numbers of them), and what sums them up.

    Depths by their total, others by the mean of their logarithms; both by how much the logarithm grows a stage.
    """
    if all(len(set(row)) == 1 for row in rows):
        shared = {symbol: [row[0] for row in rows]}
        return shared | ({"depth": [sum(row) for row in rows]} if symbol == "d" else {})
    alike = len({len(row) for row in rows}) == 1
    stages = {f"{symbol}{i}": list(of_stage) for i, of_stage in enumerate(zip(*rows), start=1)} if alike else {}
    if by == "stage" and alike:
        return stages
    logs = [np.log2(row) for row in rows]
    size = (
        {"depth": [sum(row) for row in rows]}
        if symbol == "d"
        else {f"{symbol} mean": [_rounded(float(log.mean())) for log in logs]}
    )
    return size | {f"{symbol} growth": [_growth(log) for log in logs]} | stages


def _growth(logs: Floats) -> float:
    """The least-squares slope over the stages, in octaves a stage; 0 for a single one."""
    place = np.arange(len(logs)) - (len(logs) - 1) / 2
    return _rounded(float(place @ logs / (place @ place))) if len(logs) > 1 else 0.0


def _rounded(value: float) -> float:
    """Without the dust of a sum, which would tell networks apart that are alike."""
    return round(value, 9)


def _refuse_unknown(field: str, names: Collection[str], columns: Mapping[str, ArrayLike]) -> None:
    for name in names:
        if name not in columns:
            raise ValueError(f"{field}: there is no column {name!r}; known are {', '.join(columns)}")


def _column(name: str, values: ArrayLike, as_category: bool) -> Column:
    given = np.asarray(values)
    if given.ndim != 1 or not len(given):
        raise ValueError(f"{name}: shape {given.shape} is not one value for each network; give a list of them")
    if given.dtype.kind not in "biuf":
        missing = sum(value is None or value != value for value in given.tolist())
    else:
        missing = np.count_nonzero(~np.isfinite(given.astype(np.float64)))
    if missing:
        raise ValueError(
            f"{name}: {missing} of {len(given)} networks lack a finite value; leave them out or drop the column"
        )
    if given.dtype.kind not in "biuf" or as_category:
        labels, codes = np.unique([str(value) for value in given.tolist()], return_inverse=True)
        return Column(name, tuple(labels.tolist()), codes)
    return _number(name, given.astype(np.float64))


def _number(name: str, values: Floats) -> Column:
    levels, codes = np.unique(values, return_inverse=True)
    if len(levels) > MAX_LEVELS:
        edges = np.unique(np.quantile(values, np.arange(1, MAX_LEVELS) / MAX_LEVELS))
        # A bin without networks would be a level that none has.
        _, codes = np.unique(np.searchsorted(edges, values, side="right"), return_inverse=True)
        levels = np.bincount(codes, values) / np.bincount(codes)
    return Column(name, tuple(levels.tolist()), codes)


def _telling(columns: list[Column]) -> tuple[Column, ...]:
    """Those that vary, without those that say the same as one before them."""
    kept: list[Column] = []
    for column in columns:
        if len(column.levels) > 1 and not any(column.says_the_same_as(other) for other in kept):
            kept.append(column)
    return tuple(kept)


def _merged(factors: list[Factor]) -> tuple[Factor, ...]:
    """Factors of one column each that say the same, as one."""
    merged: list[Factor] = []
    for factor in factors:
        for place, other in enumerate(merged):
            if len(factor.columns) == len(other.columns) == 1 and factor.columns[0].says_the_same_as(other.columns[0]):
                merged[place] = replace(other, name=f"{other.name} = {factor.name}")
                break
        else:
            merged.append(factor)
    return tuple(merged)
