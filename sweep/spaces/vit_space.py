"""The design space of small vision transformers: a reference point at equal flops, with no rule of its own.

In: the `[scale.vit]` table of a study. Out: `VitRanges`, and a `Space` whose networks are `Vit`s.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sweep.spaces.checks import positive_int, refusal
from sweep.spaces.choice import log_uniform
from sweep.spaces.cost import NOTHING, Cost, Image
from sweep.spaces.network import Network
from sweep.spaces.space import MEMBER, Draws, Space
from sweep.spaces.vit import Vit, vit_costs


@dataclass(frozen=True, kw_only=True)
class VitRanges:
    """Patches of `patch` pixels a side; blocks from `depth_min` to `depth_max`; widths the multiples of `head_width`
    between the bounds, inclusive, with a head for each. Raises ValueError naming field, value and remedy.
    """

    patch: int = 4
    depth_min: int = 1
    depth_max: int = 12
    width_min: int = 16
    width_max: int = 384
    head_width: int = 16
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            object.__setattr__(self, name, positive_int(name, getattr(self, name)))
        for low, high in (("depth_min", "depth_max"), ("width_min", "width_max")):
            if getattr(self, low) > getattr(self, high):
                raise refusal(low, getattr(self, low), f"is above {high} = {getattr(self, high)}", "lower it")
        if not self.widths:
            raise refusal("head_width", self.head_width, "has no multiple between the widths' bounds", "lower it")

    @property
    def depths(self) -> range:
        return range(self.depth_min, self.depth_max + 1)

    @property
    def widths(self) -> range:
        first = -(-self.width_min // self.head_width) * self.head_width
        return range(first, self.width_max + 1, self.head_width)


@dataclass(frozen=True, kw_only=True)
class VitSpace(Space):
    """All transformers of the ranges."""

    RANGES: ClassVar[type] = VitRanges
    TABLE: ClassVar[str] = "vit"

    def contains(self, network: Network, ranges: VitRanges) -> bool:
        return (
            isinstance(network, Vit)
            and (network.patch, network.mlp_ratio, network.dropout) == (ranges.patch, ranges.mlp_ratio, 0)
            and network.num_blocks in ranges.depths
            and network.width in ranges.widths
            and network.num_heads * ranges.head_width == network.width
        )

    def size(self, ranges: VitRanges) -> int:
        """How many networks the space holds, exactly."""
        return len(ranges.depths) * len(ranges.widths)

    def degrees_of_freedom(self, ranges: VitRanges) -> int:
        """Blocks and width."""
        return 2

    def draw(self, ranges: VitRanges, rng: np.random.Generator, num: int) -> "VitDraws":
        """Blocks and width log-uniformly."""
        uniform = rng.random((2, num))
        depths, widths = log_uniform(ranges.depths, uniform[0]), log_uniform(ranges.widths, uniform[1])
        return VitDraws(ranges, depths, widths, np.full(num, MEMBER))


@dataclass(frozen=True)
class VitDraws(Draws):
    """Whole numbers of shape (num,)."""

    ranges: VitRanges
    depths: np.ndarray
    widths: np.ndarray
    reasons: np.ndarray

    def weigh(self, rows: np.ndarray, image: Image) -> Cost:
        patch, mlp_ratio = self.ranges.patch, self.ranges.mlp_ratio
        num_patches = self._fields(1, 1).num_patches(image.resolution)
        costs = vit_costs(patch, self.widths[rows], self.depths[rows], mlp_ratio, num_patches, image)
        total = NOTHING.plus(*(cost for _, _, cost in costs))
        return Cost(*(np.asarray(column, dtype=np.int64) for column in total))

    def key(self, row: int) -> bytes:
        return self.depths[row].tobytes() + self.widths[row].tobytes()

    def network(self, row: int) -> Vit:
        width = int(self.widths[row])
        return self._fields(int(self.depths[row]), width // self.ranges.head_width)

    def _fields(self, num_blocks: int, num_heads: int) -> Vit:
        ranges: Any = self.ranges
        return Vit(
            patch=ranges.patch,
            width=num_heads * ranges.head_width,
            num_blocks=num_blocks,
            num_heads=num_heads,
            mlp_ratio=ranges.mlp_ratio,
        )
