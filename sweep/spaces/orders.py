"""How numbers of a network may run from its first stage to its last: what spaces demand, what rules ask.

In: a sequence of numbers. Out: whether it has the order. "up" and "down" allow equal neighbours; "down" and "differ"
break a rule, so that not all may be equal.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

Order = Literal["free", "up", "down", "equal"]
Sharing = Literal["free", "shared", "differ"]


def goes_up(values: Sequence[float]) -> bool:
    return all(before <= after for before, after in pairwise(values))


def goes_down(values: Sequence[float]) -> bool:
    return goes_up(values[::-1]) and not is_shared(values)


def is_shared(values: Sequence[float]) -> bool:
    return len(set(values)) == 1


def differs(values: Sequence[float]) -> bool:
    return not is_shared(values)


def is_free(values: Sequence[float]) -> bool:
    """Whatever they are."""
    return bool(values)


HAS_ORDER: dict[Order, Callable[[Sequence[float]], bool]] = {
    "free": is_free,
    "up": goes_up,
    "down": goes_down,
    "equal": is_shared,
}
HAS_SHARING: dict[Sharing, Callable[[Sequence[float]], bool]] = {
    "free": is_free,
    "shared": is_shared,
    "differ": differs,
}
