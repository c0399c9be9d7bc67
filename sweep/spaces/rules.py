"""The rules of AnyNet and RegNet as data: what each demands of a network, what it claims, and who says so.

In: an `Architecture`. Out: whether it obeys. The rules lead from AnyNet A to RegNet X (Radosavovic et al. 2020,
sections 3.2 and 3.3), each space adding one. Widths and depths that "go up" may stay equal, as in the paper's formulas.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from sweep.spaces.architecture import Architecture
from sweep.spaces.regnet import follows_line


@dataclass(frozen=True)
class Rule:
    """A demand on networks, with the claim that a study puts to the test."""

    name: str
    claim: str
    citation: str
    predicate: Callable[[Architecture], bool]


def shared_bottleneck_ratio(architecture: Architecture) -> bool:
    return len(set(architecture.bottleneck_ratios)) == 1


def shared_group_width(architecture: Architecture) -> bool:
    return len(set(architecture.group_widths)) == 1


def widths_up(architecture: Architecture) -> bool:
    return _non_decreasing(architecture.widths)


def depths_up(architecture: Architecture) -> bool:
    return _non_decreasing(architecture.depths)


def quantised_widths(architecture: Architecture) -> bool:
    """For any w_0 (a multiple of 8), any w_a (of 0.1), and w_m from 1.5 to 3 (by 0.001).

    A space asks with the bounds of its ranges instead.
    """
    return follows_line(architecture)


def _non_decreasing(values: tuple[int, ...]) -> bool:
    return all(before <= after for before, after in pairwise(values))


_DDS = "Radosavovic et al. 2020, Designing Network Design Spaces"

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
    )
}
