"""The rules as data: what each demands of a network, what it claims, and who says so.

In: a network. Out: whether it obeys. The first five lead from AnyNet A to RegNet X (Radosavovic et al. 2020, sections
3.2 and 3.3), each space adding one; then come rules on a network's blocks, and those of perceptrons. Widths and depths
that "go up" may stay equal, as in the paper's formulas.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sweep.spaces.architecture import Architecture
from sweep.spaces.mlp import Mlp
from sweep.spaces.orders import goes_up, is_shared
from sweep.spaces.regnet import follows_line


@dataclass(frozen=True)
class Rule:
    """A demand on networks, with the claim that a study puts to the test. `predicate` takes a network of its family."""

    name: str
    claim: str
    citation: str
    predicate: Callable[[Any], bool]


def shared_bottleneck_ratio(architecture: Architecture) -> bool:
    return is_shared(architecture.bottleneck_ratios)


def shared_group_width(architecture: Architecture) -> bool:
    return is_shared(architecture.group_widths)


def widths_up(architecture: Architecture) -> bool:
    return goes_up(architecture.widths)


def depths_up(architecture: Architecture) -> bool:
    return goes_up(architecture.depths)


def quantised_widths(architecture: Architecture) -> bool:
    """For any w_0 (a multiple of 8), any w_a (of 0.1), and w_m from 1.5 to 3 (by 0.001).

    A space asks with the bounds of its ranges instead.
    """
    return follows_line(architecture)


def no_inverted_bottleneck(architecture: Architecture) -> bool:
    return min(architecture.bottleneck_ratios) >= 1


def no_depthwise_groups(architecture: Architecture) -> bool:
    return min(architecture.group_widths) > 1


def resnext_blocks(architecture: Architecture) -> bool:
    return architecture.block == "bottleneck" and any(stage.num_groups > 1 for stage in architecture.stages)


def squeeze_excitation(architecture: Architecture) -> bool:
    return architecture.se_ratio > 0


def layers_narrow(network: Mlp) -> bool:
    """No hidden layer is wider than the one before."""
    return goes_up(network.widths[::-1])


def layers_normed(network: Mlp) -> bool:
    return network.norm != "none"


def layers_skipped(network: Mlp) -> bool:
    return network.skip


_DDS = "Radosavovic et al. 2020, Designing Network Design Spaces"
_RESNEXT = "Xie et al. 2017, Aggregated Residual Transformations for Deep Neural Networks"

RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            "shared_bottleneck_ratio",
            "one bottleneck ratio for all stages costs nothing",
            f"{_DDS}, section 3.2, AnyNetX_B",
            shared_bottleneck_ratio,
        ),
        Rule(
            "shared_group_width",
            "one group width for all stages costs nothing",
            f"{_DDS}, section 3.2, AnyNetX_C",
            shared_group_width,
        ),
        Rule(
            "widths_up",
            "networks whose stages never get narrower are better",
            f"{_DDS}, section 3.2, AnyNetX_D",
            widths_up,
        ),
        Rule(
            "depths_up",
            "networks whose stages never get shallower are better",
            f"{_DDS}, section 3.2, AnyNetX_E",
            depths_up,
        ),
        Rule(
            "quantised_widths",
            "networks whose widths follow a quantised line are better",
            f"{_DDS}, section 3.3, RegNetX",
            quantised_widths,
        ),
        Rule(
            "no_inverted_bottleneck",
            "bottlenecks that are not wider than their block are better",
            f"{_DDS}, section 4",
            no_inverted_bottleneck,
        ),
        Rule(
            "no_depthwise_groups",
            "groups of more than one channel are better than depthwise convolutions",
            f"{_DDS}, section 4",
            no_depthwise_groups,
        ),
        Rule("resnext_blocks", "ResNeXt blocks are better than ResNet blocks at equal flops", _RESNEXT, resnext_blocks),
        Rule(
            "squeeze_excitation",
            "squeeze-and-excitation makes networks better at equal flops",
            f"{_DDS}, section 4, RegNetY; Hu et al. 2018, Squeeze-and-Excitation Networks",
            squeeze_excitation,
        ),
        Rule(
            "layers_narrow",
            "perceptrons whose layers never get wider are better",
            "Masters 1993, Practical Neural Network Recipes in C++, the geometric pyramid rule",
            layers_narrow,
        ),
        Rule(
            "layers_normed",
            "perceptrons with a norm after each layer are better",
            "Ioffe and Szegedy 2015, Batch Normalization; Ba et al. 2016, Layer Normalization",
            layers_normed,
        ),
        Rule(
            "layers_skipped",
            "perceptrons with skip connections are better",
            "He et al. 2016, Deep Residual Learning for Image Recognition",
            layers_skipped,
        ),
    )
}
