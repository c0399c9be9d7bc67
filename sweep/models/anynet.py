"""AnyNet in torch: a stem, stages of residual bottleneck blocks, a linear head.

In: an `Architecture`, the channels of the images, the number of classes. Out: an `nn.Module` from images x_BCHW to
logits of shape (B, classes). Radosavovic et al. 2020, section 3.2 (the X block) and section 4 (the Y block, with
squeeze-and-excitation).

Weights come from torch's current random state: He initialisation over the fan-out for convolutions, N(0, 0.01²) for the
head, ones and zeros for batch norm. Modules are plain, so that a network moves to channels-last memory as a whole.
"""

import torch
from torch import nn

from sweep.spaces.architecture import Architecture, Stage, squeeze_width


class Conv2d(nn.Conv2d):
    """A convolution that keeps the size (up to its stride), initialised after He et al. once, when it is made."""

    def __init__(self, width_in: int, width_out: int, kernel: int, *, stride: int = 1, groups: int = 1, bias: bool):
        super().__init__(width_in, width_out, kernel, stride, padding=kernel // 2, groups=groups, bias=bias)

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Linear(nn.Linear):
    """The classifier, initialised near zero, so that training starts from even odds."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.01)
        nn.init.zeros_(self.bias)


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate in (0, 1) that sees the mean of all channels."""

    def __init__(self, width: int, squeezed_width: int):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = Conv2d(width, squeezed_width, 1, bias=True)
        self.relu = nn.ReLU(inplace=True)
        self.excite = Conv2d(squeezed_width, width, 1, bias=True)
        self.gate = nn.Sigmoid()

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return x_BCHW * self.gate(self.excite(self.relu(self.squeeze(self.pool(x_BCHW)))))


class Block(nn.Module):
    """1×1, grouped 3×3 and 1×1 convolution beside a skip connection, which is a projection where shapes differ."""

    def __init__(self, width_in: int, stage: Stage, *, stride: int, se_ratio: float, bias: bool):
        super().__init__()
        bottleneck = stage.bottleneck_width
        self.conv1 = Conv2d(width_in, bottleneck, 1, bias=bias)
        self.norm1 = nn.BatchNorm2d(bottleneck)
        self.conv2 = Conv2d(bottleneck, bottleneck, 3, stride=stride, groups=stage.num_groups, bias=bias)
        self.norm2 = nn.BatchNorm2d(bottleneck)
        self.se = SqueezeExcitation(bottleneck, squeeze_width(width_in, se_ratio)) if se_ratio else nn.Identity()
        self.conv3 = Conv2d(bottleneck, stage.width, 1, bias=bias)
        self.norm3 = nn.BatchNorm2d(stage.width)
        self.relu = nn.ReLU(inplace=True)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or width_in != stage.width:
            projection = Conv2d(width_in, stage.width, 1, stride=stride, bias=bias)
            self.skip = nn.Sequential(projection, nn.BatchNorm2d(stage.width))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        y_BCHW = self.relu(self.norm1(self.conv1(x_BCHW)))
        y_BCHW = self.relu(self.norm2(self.conv2(y_BCHW)))
        y_BCHW = self.norm3(self.conv3(self.se(y_BCHW)))
        return self.relu(self.skip(x_BCHW) + y_BCHW)


class BlockStage(nn.Module):
    """The blocks of one stage; the first halves the resolution and takes the new width."""

    def __init__(self, width_in: int, stage: Stage, *, se_ratio: float, bias: bool):
        super().__init__()
        self.blocks = nn.Sequential()
        for index in range(stage.depth):
            stride = 2 if index == 0 else 1
            self.blocks.append(Block(width_in, stage, stride=stride, se_ratio=se_ratio, bias=bias))
            width_in = stage.width

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.blocks(x_BCHW)


class AnyNet(nn.Module):
    """`stem`, `stages` (each with `blocks`) and `head`, as the rows of `layer_table` have them."""

    def __init__(self, architecture: Architecture, *, channels: int, classes: int):
        super().__init__()
        width, bias = architecture.stem_width, architecture.conv_bias
        self.stem = nn.Sequential(
            Conv2d(channels, width, 3, stride=architecture.stem_stride, bias=bias),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.stages = nn.Sequential()
        for stage in architecture.stages:
            self.stages.append(BlockStage(width, stage, se_ratio=architecture.se_ratio, bias=bias))
            width = stage.width
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), Linear(width, classes))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x_BCHW)))


def build(architecture: Architecture, *, channels: int = 3, classes: int = 1000) -> nn.Module:
    """The network on torch's current default device, with weights drawn from its current random state."""
    return AnyNet(architecture, channels=channels, classes=classes)
