"""The design spaces of multilayer perceptrons: how far it reaches, and the spaces that its rules cut out of it.

In: the `[scale.mlp]` table of a study. Out: `MlpRanges`, and a `Space` whose networks are `Mlp`s. Three rules lead from
mlp_a, in which each layer has a width of its own, to mlp_d: no layer wider than the one before, a norm, skips.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import comb
from typing import Any, ClassVar

import numpy as np

from sweep.spaces.bounds import Bounds, checked_values
from sweep.spaces.checks import positive_int
from sweep.spaces.choice import log_uniform
from sweep.spaces.cost import Cost, Image
from sweep.spaces.mlp import MLP_CHECKS, Mlp, batch_mlp_complexity
from sweep.spaces.network import Network
from sweep.spaces.orders import goes_up
from sweep.spaces.space import MEMBER, Draws, Space


@dataclass(frozen=True, kw_only=True)
class MlpRanges(Bounds):
    """Hidden layers from `depth_min` to `depth_max`, widths the multiples of `width_step` between the bounds,
    inclusive; of each other part the values that a network may have. Raises ValueError naming field, value and remedy.
    """

    depth_min: int = 1
    depth_max: int = 6
    width_min: int = 16
    width_max: int = 1024
    width_step: int = 16
    skip: tuple[bool, ...] = (False, True)
    norm: tuple[str, ...] = ("none", "batch", "layer")
    activation: tuple[str, ...] = ("relu",)
    dropout: tuple[float, ...] = (0.0,)
    initialisation: tuple[str, ...] = ("he",)

    def __post_init__(self) -> None:
        for name in ("depth_min", "depth_max", "width_min", "width_max", "width_step"):
            object.__setattr__(self, name, positive_int(name, getattr(self, name)))
        for name, check in MLP_CHECKS.items():
            object.__setattr__(self, name, checked_values(name, getattr(self, name), check))
        self.check_bounds()

    @cached_property
    def templates(self) -> tuple[dict[str, Any], ...]:
        """Every combination of the other parts."""
        values = [getattr(self, name) for name in MLP_CHECKS]
        return tuple(dict(zip(MLP_CHECKS, chosen)) for chosen in product(*values))


@dataclass(frozen=True, kw_only=True)
class MlpSpace(Space):
    """`narrowing`: no layer is wider than the one before."""

    RANGES: ClassVar[type] = MlpRanges
    TABLE: ClassVar[str] = "mlp"

    narrowing: bool = False

    def within(self, ranges: MlpRanges) -> MlpRanges:
        """As of any space; of a part that the settings narrow, what both the ranges and they allow."""
        kept = {
            name: tuple(value for value in getattr(ranges, name) if value in allowed) or allowed
            for name, allowed in self.settings.items()
        }
        return MlpRanges(**{**{name: getattr(ranges, name) for name in MlpRanges.__dataclass_fields__}, **kept})

    def contains(self, network: Network, ranges: MlpRanges) -> bool:
        ranges = self.within(ranges)
        return (
            isinstance(network, Mlp)
            and network.depth in ranges.depths
            and all(width in ranges.widths for width in network.widths)
            and all(getattr(network, name) in getattr(ranges, name) for name in MLP_CHECKS)
            and self.has_order(network)
        )

    def has_order(self, network: Network) -> bool:
        assert isinstance(network, Mlp)
        return not self.narrowing or goes_up(network.widths[::-1])

    def size(self, ranges: MlpRanges) -> int:
        """How many networks the space holds, exactly."""
        ranges = self.within(ranges)
        num = len(ranges.widths)
        counts = (comb(num + depth - 1, depth) if self.narrowing else num**depth for depth in ranges.depths)
        return len(ranges.templates) * sum(counts)

    def degrees_of_freedom(self, ranges: MlpRanges) -> int:
        """The depth, the widths of the deepest network, and the parts that have several values."""
        ranges = self.within(ranges)
        return 1 + ranges.depth_max + sum(len(getattr(ranges, name)) > 1 for name in MLP_CHECKS)

    def draw(self, ranges: MlpRanges, rng: np.random.Generator, num: int) -> "MlpDraws":
        """Depth and widths log-uniformly, the parts evenly; with `narrowing` the widths put in falling order."""
        ranges = self.within(ranges)
        depths = log_uniform(ranges.depths, rng.random(num))
        widths = log_uniform(ranges.widths, rng.random((num, ranges.depth_max)))
        templates = rng.integers(len(ranges.templates), size=num)
        widths[np.arange(ranges.depth_max) >= depths[:, None]] = 0
        if self.narrowing:
            widths = -np.sort(-widths, axis=1)
        return MlpDraws(ranges, widths, templates, np.full(num, MEMBER))


@dataclass(frozen=True)
class MlpDraws(Draws):
    """`widths` (num, depth_max), with zeros after the last layer; `templates` index those of the ranges."""

    ranges: MlpRanges
    widths: np.ndarray
    templates: np.ndarray
    reasons: np.ndarray

    def weigh(self, rows: np.ndarray, image: Image) -> Cost:
        columns = np.zeros((3, len(rows)), dtype=np.int64)
        for skip in (False, True):
            for norm in {template["norm"] for template in self.ranges.templates}:
                numbers = [n for n, t in enumerate(self.ranges.templates) if (t["skip"], t["norm"]) == (skip, norm)]
                here = np.isin(self.templates[rows], numbers)
                widths = self.widths[rows[here]]
                columns[:, here] = np.stack(batch_mlp_complexity(widths, skip=skip, norm=norm, image=image))
        return Cost(*columns)

    def key(self, row: int) -> bytes:
        return self.widths[row].tobytes() + self.templates[row].tobytes()

    def network(self, row: int) -> Mlp:
        widths = tuple(width for width in self.widths[row].tolist() if width)
        return Mlp(widths, **self.ranges.templates[self.templates[row]])
