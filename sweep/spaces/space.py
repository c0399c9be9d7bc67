"""The design spaces: AnyNet A to E and RegNet X, each its parent plus one rule.

In: a space's name and the `Ranges` of a study. Out: membership, exact sizes, degrees of freedom, and the pairs of
spaces that put a rule to the test. Radosavovic et al. 2020, sections 3.2 and 3.3.

Deviations from the paper: a network whose group width does not divide its bottleneck belongs to no space (the paper's
code changes its widths until it does); and RegNet X keeps all rules of AnyNet E, so that it adds one rule alone, where
the published RegNetX lets a stage, mostly the last, be shallower than the one before.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from math import comb, prod

from sweep.spaces.architecture import Architecture
from sweep.spaces.checks import nearest
from sweep.spaces.ranges import Ranges
from sweep.spaces.regnet import follows_line, line_grid
from sweep.spaces.rules import RULES, Rule


@dataclass(frozen=True)
class Space:
    """A set of networks, given the ranges: those of `parent` that obey `rule`.

    `published_size` is the paper's count for its own ranges, which ignores that groups must divide bottlenecks.
    """

    name: str
    title: str
    parent: str | None
    rule: Rule | None
    published_size: float

    @property
    def ancestors(self) -> tuple["Space", ...]:
        """From the parent up to AnyNet A."""
        if self.parent is None:
            return ()
        parent = SPACES[self.parent]
        return (parent, *parent.ancestors)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All that its members obey, in the order in which the spaces add them."""
        lineage = (*reversed(self.ancestors), self)
        return tuple(space.rule for space in lineage if space.rule is not None)

    def has_rule(self, name: str) -> bool:
        return any(rule.name == name for rule in self.rules)

    def contains(self, architecture: Architecture, ranges: Ranges) -> bool:
        """Whether the network lies in the ranges and obeys every rule.

        The quantised line is sought on the grid of the ranges, which `RULES` by itself does not know.
        """
        demands = [rule for rule in self.rules if rule.name != "quantised_widths"]
        return (
            ranges.has_parts_of(architecture)
            and all(rule.predicate(architecture) for rule in demands)
            and (len(demands) == len(self.rules) or self._on_a_line(architecture, ranges))
        )

    @staticmethod
    def _on_a_line(architecture: Architecture, ranges: Ranges) -> bool:
        return architecture.depth in ranges.regnet_depths and follows_line(architecture, line_grid(ranges))

    def degrees_of_freedom(self, ranges: Ranges) -> int:
        """Numbers to choose: per stage or shared d, w, b, g; for RegNet d, w_0, w_a, w_m, b, g."""
        if self.has_rule("quantised_widths"):
            return 6
        shared = self.has_rule("shared_bottleneck_ratio") + self.has_rule("shared_group_width")
        return (4 - shared) * ranges.num_stages + shared

    def size(self, ranges: Ranges, *, compatible: bool = True) -> int:
        """How many networks the space holds, exactly.

        For RegNet X: how many settings of (d, w_0, w_a, w_m, b, g) the grid of the ranges has. Several settings may
        give one network, and many give none (another number of stages); the paper's 64^4 · 18 counts likewise, with
        64 values for each of the first four. `compatible=False` counts as the paper does, without asking that group
        widths divide bottlenecks.
        """
        widths_by_pair = {
            (ratio, group_width): len(ranges.widths_for(ratio, group_width) if compatible else ranges.widths)
            for ratio, group_width in product(ranges.bottleneck_ratios, ranges.group_widths)
        }
        if self.has_rule("quantised_widths"):
            num_pairs = sum(count > 0 for count in widths_by_pair.values())
            return num_pairs * _num_lines(ranges)
        return _num_depths(self, ranges) * _num_widths(self, ranges, widths_by_pair)


@dataclass(frozen=True)
class RulePair:
    """Two spaces that differ by `rule`; where several rules lie between, their names are joined by `+`."""

    rule: str
    claim: str
    space_without: str
    space_with: str


def _num_depths(space: Space, ranges: Ranges) -> int:
    num, stages = len(ranges.depths), ranges.num_stages
    return comb(num + stages - 1, stages) if space.has_rule("depths_up") else num**stages


def _num_widths(space: Space, ranges: Ranges, widths_by_pair: dict[tuple[float, int], int]) -> int:
    """Choices of all stages' widths, bottleneck ratios and group widths together."""
    stages = ranges.num_stages
    if space.has_rule("widths_up"):
        return sum(comb(count + stages - 1, stages) for count in widths_by_pair.values())
    if space.has_rule("shared_group_width"):
        return sum(count**stages for count in widths_by_pair.values())
    if space.has_rule("shared_bottleneck_ratio"):
        by_ratio = (
            sum(widths_by_pair[ratio, group_width] for group_width in ranges.group_widths)
            for ratio in ranges.bottleneck_ratios
        )
        return sum(count**stages for count in by_ratio)
    return sum(widths_by_pair.values()) ** stages


def _num_lines(ranges: Ranges) -> int:
    """Settings of d, w_0, w_a and w_m."""
    axes = ranges.regnet_depths, ranges.regnet_first_widths, ranges.regnet_slopes, ranges.regnet_multipliers
    return prod(len(axis) for axis in axes)


SPACES: dict[str, Space] = {
    space.name: space
    for space in (
        Space("anynet_a", "AnyNet A", None, None, 1.8e18),
        Space("anynet_b", "AnyNet B", "anynet_a", RULES["shared_bottleneck_ratio"], 6.8e16),
        Space("anynet_c", "AnyNet C", "anynet_b", RULES["shared_group_width"], 3.2e14),
        Space("anynet_d", "AnyNet D", "anynet_c", RULES["widths_up"], 1.3e13),
        Space("anynet_e", "AnyNet E", "anynet_d", RULES["depths_up"], 5.5e11),
        Space("regnet_x", "RegNet X", "anynet_e", RULES["quantised_widths"], 3.0e8),
    )
}


def get_space(name: str) -> Space:
    """Raises ValueError naming the nearest known space."""
    if name not in SPACES:
        raise ValueError(f"space = {name!r} is not known; {nearest(str(name), SPACES)}")
    return SPACES[name]


def rule_pairs(space_names: Iterable[str]) -> list[RulePair]:
    """For each named space, in the order of the spaces, its nearest ancestor that is named as well."""
    named = {get_space(name).name for name in space_names}
    pairs = []
    for space in SPACES.values():
        without = next((ancestor for ancestor in space.ancestors if ancestor.name in named), None)
        if space.name in named and without is not None:
            between = space.rules[len(without.rules) :]
            pairs.append(
                RulePair(
                    rule="+".join(rule.name for rule in between),
                    claim="; ".join(rule.claim for rule in between),
                    space_without=without.name,
                    space_with=space.name,
                )
            )
    return pairs
