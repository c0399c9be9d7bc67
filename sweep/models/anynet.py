"""AnyNet in torch: a stem, stages of residual blocks, a linear head.

In: an `Architecture`, the channels of the images, the number of classes. Out: an `nn.Module` from images x_BCHW to
logits of shape (B, classes). Radosavovic et al. 2020, section 3.2 (the X block) and section 4 (the Y block, with
squeeze-and-excitation); He et al. 2016 for basic blocks ("Deep residual learning …") and for activation before
convolution ("Identity mappings …").

Weights come from torch's current random state (initialise.py). Modules are plain, so that a network moves to
channels-last memory as a whole. The names of the default parts' tensors never change: trained weights go by them.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import nn

from sweep.models.initialise import initialise, zero_branch
from sweep.models.layers import Classifier, Conv2d, activation, dropout, norm, stochastic_depth
from sweep.spaces.architecture import Architecture, Stage, squeeze_width
from sweep.spaces.parts import Parts


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate in (0, 1) that sees the mean of all channels; inside, the network's activation."""

    def __init__(self, width: int, squeezed_width: int, activation_name: str):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = Conv2d(width, squeezed_width, 1, bias=True)
        self.activation = activation(activation_name, may_overwrite=True)
        self.excite = Conv2d(squeezed_width, width, 1, bias=True)
        self.gate = nn.Sigmoid()

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return x_BCHW * self.gate(self.excite(self.activation(self.squeeze(self.pool(x_BCHW)))))


def _convolutions(width_in: int, stage: Stage, stride: int, parts: Parts) -> Iterator[Conv2d]:
    """Those of the residual branch, in their order: 1×1, grouped k×k and 1×1, or two k×k."""
    kernel, width, bottleneck, bias = parts.kernel_size, stage.width, stage.bottleneck_width, parts.conv_bias
    if parts.block == "basic":
        yield Conv2d(width_in, bottleneck, kernel, stride=stride, bias=bias)
        yield Conv2d(bottleneck, width, kernel, bias=bias)
    else:
        yield Conv2d(width_in, bottleneck, 1, bias=bias)
        yield Conv2d(bottleneck, bottleneck, kernel, stride=stride, groups=stage.num_groups, bias=bias)
        yield Conv2d(bottleneck, width, 1, bias=bias)


class Block(nn.Module):
    """A residual branch beside a skip connection, which is a 1×1 projection where shapes differ.

    The branch is `conv1`, `norm1`, `conv2` …, each norm before its convolution where the activation comes first;
    squeeze-and-excitation sees what the last convolution is given. `drop` is its stochastic depth.
    """

    def __init__(self, width_in: int, stage: Stage, parts: Parts, *, stride: int, drop_rate: float = 0.0):
        super().__init__()
        self.is_pre = parts.activation_order == "pre"
        convs = list(_convolutions(width_in, stage, stride, parts))
        self.num_convs = len(convs)
        for number, conv in enumerate(convs, start=1):
            if number == len(convs):
                squeezed = squeeze_width(width_in, parts.se_ratio)
                inner = conv.in_channels
                self.se = SqueezeExcitation(inner, squeezed, parts.activation) if parts.se_ratio else nn.Identity()
            self.add_module(f"conv{number}", conv)
            self.add_module(f"norm{number}", norm(parts.norm, conv.in_channels if self.is_pre else conv.out_channels))
        # In order "pre" and without a norm, the block's input is activated, which the skip connection still reads.
        self.activation = activation(parts.activation, may_overwrite=not self.is_pre)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or width_in != stage.width:
            self.skip = nn.Sequential(Conv2d(width_in, stage.width, 1, stride=stride, bias=parts.conv_bias))
            if not self.is_pre:
                self.skip.append(norm(parts.norm, stage.width))
        self.drop = stochastic_depth(drop_rate)

    def layer(self, number: int) -> tuple[Any, Any]:
        """Convolution and norm, counted from 1."""
        return getattr(self, f"conv{number}"), getattr(self, f"norm{number}")

    def zero(self) -> None:
        """Let the branch begin as zero."""
        zero_branch(*self.layer(self.num_convs), "pre" if self.is_pre else "post")

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self._activated_before(x_BCHW) if self.is_pre else self._activated_after(x_BCHW)

    def _activated_after(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        y_BCHW = x_BCHW
        for number in range(1, self.num_convs):
            conv, norm = self.layer(number)
            y_BCHW = self.activation(norm(conv(y_BCHW)))
        conv, norm = self.layer(self.num_convs)
        return self.activation(self.skip(x_BCHW) + self.drop(norm(conv(self.se(y_BCHW)))))

    def _activated_before(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        conv, norm = self.layer(1)
        activated_BCHW = self.activation(norm(x_BCHW))
        y_BCHW = conv(activated_BCHW)
        for number in range(2, self.num_convs + 1):
            conv, norm = self.layer(number)
            y_BCHW = self.activation(norm(y_BCHW))
            y_BCHW = conv(self.se(y_BCHW) if number == self.num_convs else y_BCHW)
        projects = not isinstance(self.skip, nn.Identity)
        return self.skip(activated_BCHW if projects else x_BCHW) + self.drop(y_BCHW)


class BlockStage(nn.Module):
    """The blocks of one stage; the first, or the pooling before it, halves the resolution (up) and takes the new width.

    `drop_rates` has one for each block.
    """

    def __init__(self, width_in: int, stage: Stage, parts: Parts, drop_rates: list[float]):
        super().__init__()
        pools = parts.downsampling == "pool"
        self.pool = nn.MaxPool2d(2, ceil_mode=True) if pools else nn.Identity()
        self.blocks = nn.Sequential()
        for index, rate in enumerate(drop_rates):
            stride = 2 if index == 0 and not pools else 1
            self.blocks.append(Block(width_in, stage, parts, stride=stride, drop_rate=rate))
            width_in = stage.width

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.pool(x_BCHW))


class AnyNet(nn.Module):
    """`stem`, `stages` (each with `blocks`) and `head`, as the rows of `layer_table` have them."""

    def __init__(self, architecture: Architecture, *, channels: int, classes: int):
        super().__init__()
        self.stem = _stem(architecture, channels)
        self.stages = nn.Sequential()
        width, rates = architecture.stem_width, _drop_rates(architecture)
        for stage in architecture.stages:
            drop_rates, rates = rates[: stage.depth], rates[stage.depth :]
            self.stages.append(BlockStage(width, stage, architecture, drop_rates))
            width = stage.width
        self.head = _head(architecture, width, classes)
        initialise(self, architecture.initialisation)
        if architecture.initialisation == "zero_last_norm":
            for block in chain(*self.blocks()):
                block.zero()

    def blocks(self) -> list[list[Block]]:
        """Of each stage, in their order."""
        return [[one for one in stage.modules() if isinstance(one, Block)] for stage in self.stages]

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x_BCHW)))


def _drop_rates(architecture: Architecture) -> list[float]:
    """A rate for each block: linearly from zero at the first to the whole rate at the last, also where it is alone."""
    last = architecture.depth - 1
    return [architecture.stochastic_depth * (index / last if last else 1) for index in range(last + 1)]


def _stem(parts: Parts, channels: int) -> nn.Sequential:
    width, is_pre = parts.stem_width, parts.stem_order == "pre"
    conv = Conv2d(channels, width, parts.stem_kernel, stride=parts.stem_stride, bias=parts.conv_bias)
    normed = [norm(parts.norm, channels if is_pre else width), activation(parts.activation, may_overwrite=not is_pre)]
    pooling = [nn.MaxPool2d(3, stride=2, padding=1)] if parts.stem_pool else []
    return nn.Sequential(*normed, conv, *pooling) if is_pre else nn.Sequential(conv, *normed, *pooling)


def _head(parts: Parts, width: int, classes: int) -> nn.Sequential:
    """Its layers keep their names whatever stands beside them: the linear one is always `head.2`."""
    head = nn.Sequential()
    if parts.activation_order == "pre":  # what the last block leaves is neither normed nor activated
        head.add_module("norm", norm(parts.norm, width))
        head.add_module("activation", activation(parts.activation))
    head.add_module("0", nn.AdaptiveAvgPool2d(1))
    head.add_module("1", nn.Flatten())
    if parts.dropout:
        head.add_module("dropout", dropout(parts.dropout))
    head.add_module("2", Classifier(width, classes))
    return head
