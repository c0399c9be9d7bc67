"""How far the parameters of a space reach: what a study scales, from the paper's 224 pixels down to a laptop's 28.

In: bounds. Out: a frozen, validated `Ranges`, and the values that it allows. The defaults are those of Radosavovic et
al. 2020 (sections 3.2 and 3.3): four stages, d ≤ 16, w ≤ 1024 in steps of 8, b ∈ {1, 2, 4}, g ∈ {1, 2, …, 32}; for
RegNet d ≤ 64, w_0, w_a ≤ 256, 1.5 ≤ w_m ≤ 3. The grid of the RegNet parameters is that of pycls' sampler.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from math import ceil, floor
from typing import Any

import numpy as np

from sweep.spaces.architecture import Architecture, Stage
from sweep.spaces.bounds import Bounds, checked_values
from sweep.spaces.checks import plain_number, positive_int, positive_number, refusal
from sweep.spaces.network import Network
from sweep.spaces.parts import CHECKS, Parts

SLOPES_PER_UNIT = 10  # w_a lies on a grid of 0.1, as in pycls' sampler
MULTIPLIERS_PER_UNIT = 1000  # w_m on one of 0.001


@dataclass(frozen=True, kw_only=True)
class Ranges(Parts, Bounds):
    """Every bound is inclusive. Each part (`Parts`) has one value for all networks of a space, or a tuple of values, of
    which every network has one: the space then holds each network once for every combination of them.

    `group_widths` (0,) stands for one group in all stages: plain convolutions, as in ResNet. A stage's width is a
    multiple of `width_step`. Of RegNet's line, `regnet_depth_max` bounds d, the blocks of all stages together;
    `regnet_width_max` bounds w_0 and w_a; `regnet_slope_min` is the least w_a; `regnet_multiplier_min` and `_max` bound
    w_m. Raises ValueError naming the field, the value and the remedy.
    """

    num_stages: int = 4
    depth_min: int = 1
    depth_max: int = 16
    width_min: int = 8
    width_max: int = 1024
    width_step: int = 8
    bottleneck_ratios: tuple[float, ...] = (1, 2, 4)
    group_widths: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    regnet_depth_max: int = 64
    regnet_width_max: int = 256
    regnet_slope_min: float = 1.0
    regnet_multiplier_min: float = 1.5
    regnet_multiplier_max: float = 3.0

    def __post_init__(self) -> None:
        for field in ("num_stages", "depth_min", "depth_max", "width_min", "width_max", "width_step"):
            object.__setattr__(self, field, positive_int(field, getattr(self, field)))
        for field in ("regnet_depth_max", "regnet_width_max"):
            object.__setattr__(self, field, positive_int(field, getattr(self, field)))
        for field in ("regnet_slope_min", "regnet_multiplier_min", "regnet_multiplier_max"):
            object.__setattr__(self, field, positive_number(field, getattr(self, field)))
        for name in CHECKS:
            object.__setattr__(self, name, _checked_part(name, getattr(self, name)))
        object.__setattr__(self, "bottleneck_ratios", _checked_ratios(self.bottleneck_ratios))
        object.__setattr__(self, "group_widths", _checked_group_widths(self.group_widths))
        self.check_bounds()
        self.check_order("regnet_multiplier_min", "regnet_multiplier_max")
        self._check_widths()
        self._check_regnet()
        self._check_templates()

    @cached_property
    def templates(self) -> tuple[Parts, ...]:
        """Every combination of the parts' values."""
        values = [part if isinstance(part, tuple) else (part,) for part in self.parts().values()]
        return tuple(Parts(**dict(zip(CHECKS, chosen))) for chosen in product(*values))

    @property
    def one_group(self) -> bool:
        """Whether all stages have plain convolutions, whatever their width."""
        return self.group_widths == (0,)

    @property
    def pairs(self) -> tuple[tuple[float, int], ...]:
        """The (bottleneck ratio, group width) that at least one width fits."""
        return tuple(_widths_by_pair(self))

    def widths_for(self, bottleneck_ratio: float, group_width: int) -> tuple[int, ...]:
        """The widths whose bottleneck is whole and divided by the group width (0: any is), in rising order."""
        return _widths_by_pair(self).get((bottleneck_ratio, group_width), ())

    @property
    def regnet_depths(self) -> range:
        """d: blocks of all stages together."""
        lowest = self.num_stages * self.depth_min
        return range(lowest, min(self.regnet_depth_max, self.num_stages * self.depth_max) + 1)

    @property
    def regnet_first_widths(self) -> range:
        """w_0: widths no wider than `regnet_width_max`."""
        return range(self.widths.start, min(self.regnet_width_max, self.width_max) + 1, self.width_step)

    @property
    def regnet_slopes(self) -> range:
        """w_a, in tenths."""
        return _grid(self.regnet_slope_min, self.regnet_width_max, SLOPES_PER_UNIT)

    @property
    def regnet_multipliers(self) -> range:
        """w_m, in thousandths."""
        return _grid(self.regnet_multiplier_min, self.regnet_multiplier_max, MULTIPLIERS_PER_UNIT)

    def has_parts_of(self, network: Network) -> bool:
        """Whether every part of the network lies inside these bounds, whatever the rules of a space."""
        return (
            isinstance(network, Architecture)
            and len(network.stages) == self.num_stages
            and all(self._has(name, value) for name, value in network.parts().items())
            and all(
                stage.depth in self.depths
                and stage.width in self.widths
                and stage.bottleneck_ratio in self.bottleneck_ratios
                and (stage.num_groups == 1 if self.one_group else stage.group_width in self.group_widths)
                for stage in network.stages
            )
        )

    def _has(self, part: str, value: Any) -> bool:
        allowed = getattr(self, part)
        return value in allowed if isinstance(allowed, tuple) else value == allowed

    def _check_widths(self) -> None:
        if not self.pairs:
            raise refusal(
                "group_widths",
                self.group_widths,
                f"divide no bottleneck of the widths {self.width_min} … {self.width_max} with bottleneck_ratios = "
                f"{self.bottleneck_ratios}",
                "add a smaller group width, for example 1",
            )

    def _check_regnet(self) -> None:
        if self.regnet_depth_max < self.num_stages * self.depth_min:
            raise refusal(
                "regnet_depth_max",
                self.regnet_depth_max,
                f"is below num_stages × depth_min = {self.num_stages * self.depth_min}",
                "raise it",
            )
        if not self.regnet_first_widths:
            raise refusal(
                "regnet_width_max", self.regnet_width_max, f"is below the first width {self.widths.start}", "raise it"
            )
        if not self.regnet_slopes:
            raise refusal(
                "regnet_slope_min",
                plain_number(self.regnet_slope_min),
                f"leaves no tenth up to regnet_width_max = {self.regnet_width_max}",
                "lower it or raise the other",
            )
        if not self.regnet_multipliers:
            raise refusal(
                "regnet_multiplier_max",
                plain_number(self.regnet_multiplier_max),
                f"leaves no thousandth from regnet_multiplier_min = {plain_number(self.regnet_multiplier_min)}",
                "raise it or lower the other",
            )
        if self.regnet_multiplier_min <= 1:
            raise refusal(
                "regnet_multiplier_min",
                plain_number(self.regnet_multiplier_min),
                "does not make stages wider",
                "use more than 1, the paper has 1.5",
            )

    def _check_templates(self) -> None:
        # The narrowest network that may be drawn must be valid in each: its own checks see what does not go together.
        narrowest = min(widths[0] for widths in _widths_by_pair(self).values())
        for template in self.templates:
            Architecture((Stage(1, narrowest, narrowest),), **template.parts())
            if template.block == "basic" and not self.one_group:
                raise refusal(
                    "group_widths", self.group_widths, "part the channels of basic blocks", "use [0]: one group"
                )


def _checked_part(name: str, value: Any) -> Any:
    """One value, or a tuple of them; a tuple of one is that value."""
    if not isinstance(value, tuple):
        return CHECKS[name](name, value)
    values = checked_values(name, value, CHECKS[name])
    return values[0] if len(values) == 1 else values


def _grid(low: float, high: float, steps_per_unit: int) -> range:
    """The whole numbers of steps between two bounds; the bounds' decimals survive binary floating point."""
    blur = 1e-6
    return range(ceil(low * steps_per_unit - blur), floor(high * steps_per_unit + blur) + 1)


@lru_cache(maxsize=64)
def _widths_by_pair(ranges: Ranges) -> dict[tuple[float, int], tuple[int, ...]]:
    widths = np.array(ranges.widths)
    by_pair = {}
    for ratio in ranges.bottleneck_ratios:
        bottlenecks = widths / ratio
        for group_width in ranges.group_widths:
            fits = (bottlenecks % 1 == 0) & (bottlenecks % max(group_width, 1) == 0)
            if fits.any():
                by_pair[ratio, group_width] = tuple(widths[fits].tolist())
    return by_pair


def _checked_ratios(values: Any) -> tuple[float, ...]:
    ratios = tuple(positive_number("bottleneck_ratios", value) for value in _entries("bottleneck_ratios", values))
    for ratio in ratios:
        # pycls has the same limit; it keeps the widths of a RegNet exact.
        if not (ratio.is_integer() or (1 / ratio).is_integer()):
            raise refusal(
                "bottleneck_ratios", ratio, "is neither whole nor one over a whole number", "use 1, 2, 4 or 0.5"
            )
    return ratios


def _checked_group_widths(values: Any) -> tuple[int, ...]:
    entries = _entries("group_widths", values)
    if entries == (0,):
        return (0,)
    return tuple(positive_int("group_widths", value) for value in entries)


def _entries(field: str, values: Any) -> tuple[Any, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise refusal(field, values, "is not a list", "give a list of numbers")
    entries = tuple(values)
    if not entries:
        raise refusal(field, entries, "is empty", "give at least one value")
    if any(entry in entries[:number] for number, entry in enumerate(entries)):
        raise refusal(field, entries, "names a value twice", "name each once")
    return entries
