"""A multilayer perceptron as data, and what it costs.

In: the widths of its hidden layers and the parts that they share. Out: a frozen, validated `Mlp`, and its layers'
costs.

The image is flattened; each hidden layer is linear → norm → activation → dropout; with `skip` its input is added to its
output, through a linear projection without bias where the two widths differ (a residual network of He et al. 2016 in
which every block is one layer). The input of the first layer is the image, which has no skip.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.spaces.checks import plain_number, positive_int, refusal, require_keys
from sweep.spaces.cost import Cost, Image, linear, norm
from sweep.spaces.network import Network
from sweep.spaces.parts import ACTIVATIONS, checked_flag, checked_share, one_of

MLP_NORMS = ("batch", "layer", "none")
MLP_INITIALISATIONS = ("he", "xavier")

MLP_CHECKS = {
    "skip": checked_flag,
    "norm": one_of(MLP_NORMS),
    "activation": one_of(ACTIVATIONS),
    "dropout": checked_share,
    "initialisation": one_of(MLP_INITIALISATIONS),
}


@dataclass(frozen=True, slots=True)
class Mlp(Network):
    """`widths` are those of the hidden layers, from the image to the classifier.

    Raises ValueError naming the field, the value and the remedy.
    """

    widths: tuple[int, ...]
    skip: bool = False
    norm: str = "none"
    activation: str = "relu"
    dropout: float = 0.0
    initialisation: str = "he"

    def __post_init__(self) -> None:
        if not isinstance(self.widths, list | tuple) or not self.widths:
            raise refusal("widths", self.widths, "is no list of widths", "give one for each hidden layer")
        object.__setattr__(self, "widths", tuple(positive_int("widths", width) for width in self.widths))
        for name, check in MLP_CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))

    @property
    def depth(self) -> int:
        """Hidden layers."""
        return len(self.widths)

    def to_dict(self) -> dict[str, Any]:
        return {
            "family": "mlp",
            "widths": list(self.widths),
            **{name: getattr(self, name) for name in MLP_CHECKS},
            "dropout": plain_number(self.dropout),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Mlp":
        """Raises ValueError for unknown keys (naming the nearest known one), missing ones and impossible values."""
        fields = {key: value for key, value in data.items() if key != "family"}
        require_keys("mlp", fields, cls.__dataclass_fields__, required=("widths",))
        return cls(**fields)


def mlp_layers(network: Mlp, image: Image) -> Iterator[tuple[str, tuple[Any, ...], Cost]]:
    """Name, output shape and cost of each hidden layer and the head."""
    width_in = _inputs(image)
    for number, width in enumerate(network.widths, start=1):
        projects = network.skip and number > 1 and width != width_in
        yield f"hidden {number}", (width,), _layer(width_in, width, network.norm, projects)
        width_in = width
    yield "head", (image.classes,), linear(width_in, image.classes)


def batch_mlp_complexity(widths: np.ndarray, *, skip: bool, norm: str, image: Image) -> Cost:
    """Of many networks: `widths` (num, layers) has zeros after the last layer of each. Arrays of shape (num,)."""
    cost = _layer(_inputs(image), widths[:, 0], norm, False)
    last = widths[:, 0]
    for layer in range(1, widths.shape[1]):
        width = widths[:, layer]
        projects = skip & (width > 0) & (width != last)
        cost = cost.plus(_layer(last, width, norm, projects))
        last = np.where(width > 0, width, last)
    return cost.plus(linear(last, image.classes))


def _layer(width_in: Any, width: Any, kind: str, projects: Any) -> Cost:
    cost = linear(width_in, width).plus(norm(width, kind))
    return cost.plus(linear(width_in, width, bias=False).times(1 * projects))


def _inputs(image: Image) -> int:
    return image.channels * image.resolution**2
