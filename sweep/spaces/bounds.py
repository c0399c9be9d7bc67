"""What all ranges have in common: lowest and highest depth and width, and parts that have one value or several.

In: the fields of a ranges table. Out: the values that they allow, or a refusal.
"""

from collections.abc import Callable, Iterable
from typing import Any

from sweep.spaces.checks import plain_number, refusal


class Bounds:
    """A mixin of frozen dataclasses with `depth_min`, `depth_max`, `width_min`, `width_max`, all inclusive."""

    __slots__ = ()
    WIDTH_STEP = "width_step"  # the field that says of what widths are multiples

    depth_min: int
    depth_max: int
    width_min: int
    width_max: int

    @property
    def depths(self) -> range:
        return range(self.depth_min, self.depth_max + 1)

    @property
    def widths(self) -> range:
        """All multiples of the step between the bounds."""
        step = getattr(self, self.WIDTH_STEP)
        return range(-(-self.width_min // step) * step, self.width_max + 1, step)

    def check_order(self, low: str, high: str) -> None:
        """Raises ValueError where the field `low` is above `high`."""
        lowest, highest = (plain_number(getattr(self, field)) for field in (low, high))
        if lowest > highest:
            raise refusal(low, lowest, f"is above {high} = {highest}", "lower it or raise the other")

    def check_bounds(self) -> None:
        """Raises ValueError where no depth or no width lies between the bounds."""
        self.check_order("depth_min", "depth_max")
        self.check_order("width_min", "width_max")
        if not self.widths:
            raise refusal(
                self.WIDTH_STEP,
                getattr(self, self.WIDTH_STEP),
                f"has no multiple between width_min = {self.width_min} and width_max = {self.width_max}",
                "lower it or widen the bounds",
            )


def checked_values(name: str, given: Any, check: Callable[[str, Any], Any]) -> tuple[Any, ...]:
    """One value or several as a tuple, each checked. Raises ValueError for none, and for one that is there twice."""
    several = isinstance(given, Iterable) and not isinstance(given, str)
    values = tuple(check(name, value) for value in (given if several else (given,)))
    if not values:
        raise refusal(name, given, "is empty", "give at least one value")
    if len(set(values)) < len(values):
        raise refusal(name, given, "names a value twice", "name each once")
    return values
