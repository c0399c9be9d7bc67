"""A multilayer perceptron in torch.

In: an `Mlp`, the size and channels of the images, the number of classes. Out: an `nn.Module` from images x_BCHW to
logits of shape (B, classes). sweep/spaces/mlp.py says what its layers are; weights are those of initialise.py.
"""

import torch
from torch import nn

from sweep.models.initialise import initialise
from sweep.models.layers import Classifier, Linear, activation, dropout
from sweep.spaces.mlp import Mlp

_NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "none": nn.Identity}


class HiddenLayer(nn.Module):
    """Linear → norm → activation → dropout; with `skips` added to its input, projected where widths differ."""

    def __init__(self, width_in: int, width: int, network: Mlp, *, skips: bool):
        super().__init__()
        self.linear = Linear(width_in, width)
        self.norm = _NORMS[network.norm](width)
        self.activation = activation(network.activation)
        self.dropout = dropout(network.dropout)
        self.skips = skips
        self.skip = Linear(width_in, width, bias=False) if skips and width_in != width else nn.Identity()

    def forward(self, x_BD: torch.Tensor) -> torch.Tensor:
        y_BD = self.dropout(self.activation(self.norm(self.linear(x_BD))))
        return self.skip(x_BD) + y_BD if self.skips else y_BD


class Perceptron(nn.Module):
    """`hidden` layers and `head`, as the rows of `layer_table` have them."""

    def __init__(self, network: Mlp, *, resolution: int, channels: int, classes: int):
        super().__init__()
        width = channels * resolution**2
        self.hidden = nn.Sequential()
        for index, width_out in enumerate(network.widths):
            self.hidden.append(HiddenLayer(width, width_out, network, skips=network.skip and index > 0))
            width = width_out
        self.head = Classifier(width, classes)
        initialise(self, network.initialisation)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.head(self.hidden(x_BCHW.flatten(1)))
