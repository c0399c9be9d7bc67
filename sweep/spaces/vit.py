"""A small vision transformer as data, and what it costs: the reference point at equal flops (Dosovitskiy et al. 2021).

In: patch size, width, number of blocks and heads. Out: a frozen, validated `Vit`, and its layers' costs.

The image is cut into patches by a convolution of that stride (what is left over at the right and the bottom is not
seen), learnt positions are added, `num_blocks` pre-norm blocks of self-attention and a two-layer perceptron of
`mlp_ratio` times the width follow, then a norm, the mean over the patches (no class token, as in Beyer et al. 2022) and
the head.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sweep.spaces.checks import plain_number, positive_int, refusal, require_keys
from sweep.spaces.cost import Cost, Image, conv, linear, norm
from sweep.spaces.network import Network
from sweep.spaces.parts import checked_share


@dataclass(frozen=True, slots=True)
class Vit(Network):
    """`patch` in pixels a side. Raises ValueError naming the field, the value and the remedy."""

    patch: int
    width: int
    num_blocks: int
    num_heads: int
    mlp_ratio: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for field in ("patch", "width", "num_blocks", "num_heads", "mlp_ratio"):
            object.__setattr__(self, field, positive_int(field, getattr(self, field)))
        object.__setattr__(self, "dropout", checked_share("dropout", self.dropout))
        if self.width % self.num_heads:
            raise refusal("num_heads", self.num_heads, f"does not divide the width {self.width}", "take a divisor")

    @property
    def depth(self) -> int:
        """Transformer blocks."""
        return self.num_blocks

    def num_patches(self, resolution: int) -> int:
        """Raises ValueError where not even one patch fits."""
        if resolution < self.patch:
            raise refusal("patch", self.patch, f"is more than the image's {resolution} pixels", "take a smaller one")
        return (resolution // self.patch) ** 2

    def to_dict(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {"family": "vit", **fields, "dropout": plain_number(self.dropout)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Vit":
        """Raises ValueError for unknown keys (naming the nearest known one), missing ones and impossible values."""
        fields = {key: value for key, value in data.items() if key != "family"}
        require_keys("vit", fields, cls.__dataclass_fields__, required=("patch", "width", "num_blocks", "num_heads"))
        return cls(**fields)


def vit_layers(network: Vit, image: Image) -> Iterator[tuple[str, tuple[Any, ...], Cost]]:
    """Name, output shape and cost of the stem, the blocks and the head."""
    num_patches = network.num_patches(image.resolution)
    for name, width, cost in vit_costs(
        network.patch, network.width, network.num_blocks, network.mlp_ratio, num_patches, image
    ):
        yield name, (image.classes,) if name == "head" else (num_patches, width), cost


def vit_costs(
    patch: int, width: Any, num_blocks: Any, mlp_ratio: int, num_patches: int, image: Image
) -> Iterator[tuple[str, Any, Cost]]:
    """Name, width and cost of the parts; `width` and `num_blocks` are whole numbers or arrays of shape (num,)."""
    side = int(num_patches**0.5)
    positions = Cost(flops=0, params=num_patches * width, activations=0)
    yield "stem", width, conv(image.channels, width, side, kernel=patch, bias=True).plus(positions)
    attention = linear(width, 3 * width, times=num_patches).plus(
        Cost(flops=2 * num_patches**2 * width, params=0, activations=0),
        linear(width, width, times=num_patches),
    )
    perceptron = linear(width, mlp_ratio * width, times=num_patches).plus(
        linear(mlp_ratio * width, width, times=num_patches)
    )
    block = attention.plus(perceptron, norm(width), norm(width))
    yield "blocks", width, block.times(num_blocks)
    yield "head", image.classes, norm(width).plus(linear(width, image.classes))
