"""How the spaces refuse what they are given: a ValueError that names the field, the value and the remedy.

In: a field's name and its value. Out: the value in its plain type, or the error.
"""

import math
import operator
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

_MOST_NAMES = 24


def refusal(field: str, value: object, problem: str, remedy: str) -> ValueError:
    """The error to raise: `depth = 0 is not positive; use 1 or more`."""
    return ValueError(f"{field} = {value!r} {problem}; {remedy}")


def positive_int(field: str, value: Any) -> int:
    """The value as a plain int of 1 or more; numpy integers pass, booleans and 3.0 do not."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise refusal(field, value, "is not a positive whole number", "use 1, 2, 3 …")
    return number


def positive_number(field: str, value: Any) -> float:
    """The value as a plain float above zero and finite."""
    if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        raise refusal(field, value, "is not a number", "give a number above 0")
    number = float(value)
    if not (number > 0 and math.isfinite(number)):
        raise refusal(field, value, "is not a positive, finite number", "give a number above 0")
    return number


def plain_number(value: float) -> int | float:
    """1.0 as 1, so that the same number has one spelling in JSON, YAML and error messages."""
    return int(value) if float(value).is_integer() else value


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the known name closest to what was typed, or what is known (of many, the first)."""
    known = list(known)
    close = get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    more = len(known) - _MOST_NAMES
    return f"known are {', '.join(known[:_MOST_NAMES])}" + (f" and {more} more" if more > 0 else "")


def refuse_unknown_keys(where: str, given: Iterable[Any], known: Iterable[str]) -> None:
    """Raise for the first key that is not known, naming the nearest known one."""
    known = list(known)
    for key in given:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}; {nearest(str(key), known)}")


def choice_of(field: str, value: Any, known: tuple[str, ...]) -> str:
    """The value, if it is one of these words."""
    if value not in known:
        raise refusal(field, value, "is not known", nearest(str(value), known))
    return value


def require_keys(where: str, data: Any, known: Iterable[str], required: Iterable[str]) -> None:
    """Raise where `data` is no mapping, has a key that is not known, or lacks one that is required."""
    known, required = list(known), list(required)
    if not isinstance(data, Mapping):
        raise ValueError(f"{where}: {data!r} is not a mapping; give the keys {', '.join(known)}")
    refuse_unknown_keys(where, data, known)
    for key in required:
        if key not in data:
            raise ValueError(f"{where}: {key} is missing; give at least {', '.join(required)}")
