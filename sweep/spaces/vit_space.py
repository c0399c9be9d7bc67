"""The design space of small vision transformers: a reference point at equal flops, with no rule of its own.

In: the `[scale.vit]` table of a study. Out: `VitRanges`, and a `Space` whose networks are `Vit`s.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import ClassVar

import numpy as np

from sweep.spaces.bounds import Bounds, checked_values
from sweep.spaces.checks import positive_int
from sweep.spaces.choice import log_uniform
from sweep.spaces.cost import NOTHING, Cost, Image
from sweep.spaces.network import Network
from sweep.spaces.space import MEMBER, Draws, Space
from sweep.spaces.vit import Vit, vit_costs


@dataclass(frozen=True, kw_only=True)
class VitRanges(Bounds):
    """Patches of `patch` pixels a side and perceptrons of `mlp_ratio` times the width, each one value or several;
    blocks from `depth_min` to `depth_max`; widths the multiples of `head_width` between the bounds, inclusive, with a
    head for each. Raises ValueError naming field, value and remedy.
    """

    WIDTH_STEP = "head_width"

    patch: tuple[int, ...] = (4,)
    mlp_ratio: tuple[int, ...] = (4,)
    depth_min: int = 1
    depth_max: int = 12
    width_min: int = 16
    width_max: int = 384
    head_width: int = 16

    def __post_init__(self) -> None:
        for name in ("depth_min", "depth_max", "width_min", "width_max", "head_width"):
            object.__setattr__(self, name, positive_int(name, getattr(self, name)))
        for name in ("patch", "mlp_ratio"):
            object.__setattr__(self, name, checked_values(name, getattr(self, name), positive_int))
        self.check_bounds()

    @cached_property
    def templates(self) -> tuple[tuple[int, int], ...]:
        """Every patch with every ratio."""
        return tuple(product(self.patch, self.mlp_ratio))


@dataclass(frozen=True, kw_only=True)
class VitSpace(Space):
    """All transformers of the ranges."""

    RANGES: ClassVar[type] = VitRanges
    TABLE: ClassVar[str] = "vit"

    def contains(self, network: Network, ranges: VitRanges) -> bool:
        return (
            isinstance(network, Vit)
            and (network.patch, network.mlp_ratio) in ranges.templates
            and network.dropout == 0
            and network.num_blocks in ranges.depths
            and network.width in ranges.widths
            and network.num_heads * ranges.head_width == network.width
        )

    def size(self, ranges: VitRanges) -> int:
        """How many networks the space holds, exactly."""
        return len(ranges.templates) * len(ranges.depths) * len(ranges.widths)

    def degrees_of_freedom(self, ranges: VitRanges) -> int:
        """Blocks, width, and what else has several values."""
        return 2 + (len(ranges.patch) > 1) + (len(ranges.mlp_ratio) > 1)

    def draw(self, ranges: VitRanges, rng: np.random.Generator, num: int) -> "VitDraws":
        """Blocks and width log-uniformly, patches and ratios evenly."""
        uniform = rng.random((2, num))
        depths, widths = log_uniform(ranges.depths, uniform[0]), log_uniform(ranges.widths, uniform[1])
        templates = rng.integers(len(ranges.templates), size=num)
        return VitDraws(ranges, depths, widths, templates, np.full(num, MEMBER))


@dataclass(frozen=True)
class VitDraws(Draws):
    """Whole numbers of shape (num,); `templates` index those of the ranges."""

    ranges: VitRanges
    depths: np.ndarray
    widths: np.ndarray
    templates: np.ndarray
    reasons: np.ndarray

    def weigh(self, rows: np.ndarray, image: Image) -> Cost:
        columns = np.zeros((3, len(rows)), dtype=np.int64)
        for number, (patch, mlp_ratio) in enumerate(self.ranges.templates):
            here = self.templates[rows] == number
            chosen = rows[here]
            num_patches = Vit(patch, 1, 1, 1).num_patches(image.resolution)
            costs = vit_costs(patch, self.widths[chosen], self.depths[chosen], mlp_ratio, num_patches, image)
            columns[:, here] = np.stack(NOTHING.plus(*(cost for _, _, cost in costs)))
        return Cost(*columns)

    def key(self, row: int) -> bytes:
        return b"".join(column[row].tobytes() for column in (self.depths, self.widths, self.templates))

    def network(self, row: int) -> Vit:
        patch, mlp_ratio = self.ranges.templates[self.templates[row]]
        width = int(self.widths[row])
        return Vit(patch, width, int(self.depths[row]), width // self.ranges.head_width, mlp_ratio)
