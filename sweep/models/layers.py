"""The small modules that networks are made of: convolution, linear layer, norm, activation, stochastic depth.

In: widths, and the words of sweep.spaces.parts. Out: modules. Convolutions and linear layers leave their weights to
initialise.py, which sets each once: torch's own first draw would take time, and move the random state.
"""

import torch
from torch import nn


class Conv2d(nn.Conv2d):
    """A convolution that keeps the size (up to its stride). Its weights are set by initialise.py."""

    def __init__(self, width_in: int, width_out: int, kernel: int, *, stride: int = 1, groups: int = 1, bias: bool):
        super().__init__(width_in, width_out, kernel, stride, padding=kernel // 2, groups=groups, bias=bias)

    def reset_parameters(self) -> None:
        pass


class PatchEmbedding(nn.Conv2d):
    """A convolution without overlap; pixels that fill no patch are not seen. Its weights are set by initialise.py."""

    def __init__(self, channels: int, width: int, patch: int):
        super().__init__(channels, width, patch, patch)

    def reset_parameters(self) -> None:
        pass


class Linear(nn.Linear):
    """A hidden layer. Its weights are set by initialise.py."""

    def reset_parameters(self) -> None:
        pass


class Classifier(Linear):
    """The last layer of a network, from features to logits."""


_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,  # of slope 0.01
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def activation(name: str, *, may_overwrite: bool = False) -> nn.Module:
    """`may_overwrite`: nobody else reads what it is given, so that a ReLU needs no memory of its own."""
    return nn.ReLU(inplace=True) if name == "relu" and may_overwrite else _ACTIVATIONS[name]()


def norm(name: str, channels: int) -> nn.Module:
    """Of (B, C, H, W): over the batch, over each whole image ("layer"), over groups of its channels, or none."""
    if name == "none":
        return nn.Identity()
    if name == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(1 if name == "layer" else num_norm_groups(channels), channels)


def num_norm_groups(channels: int) -> int:
    """The most groups of equal size, up to the 32 of Wu & He 2018, that leave each group four channels or more.

    With fewer, little would be left of an image of one pixel, the size of a small network's last maps: a group of one
    channel would be zero there.
    """
    return max(groups for groups in range(1, 33) if channels % groups == 0 and (groups == 1 or channels // groups >= 4))


class StochasticDepth(nn.Module):
    """Drops a residual branch for each image by itself, with the chance `rate`, in training (Huang et al. 2016).

    What is kept is scaled up, so that evaluation needs no factor.
    """

    is_stochastic = True

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, y_BCHW: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return y_BCHW
        keep = 1 - self.rate
        kept_B111 = torch.empty(len(y_BCHW), 1, 1, 1, dtype=y_BCHW.dtype, device=y_BCHW.device).bernoulli_(keep)
        return y_BCHW * kept_B111.div_(keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def dropout(rate: float) -> nn.Module:
    """A module that draws nothing where the rate is zero: the trainer seeds networks that draw."""
    return nn.Dropout(rate) if rate else nn.Identity()


def stochastic_depth(rate: float) -> nn.Module:
    """As `dropout`, for a residual branch."""
    return StochasticDepth(rate) if rate else nn.Identity()
