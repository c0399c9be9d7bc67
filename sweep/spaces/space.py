"""What a design space is, whatever the family of its networks, and which spaces put which rule to the test.

In: the ranges of a study. Out: membership, exact sizes, degrees of freedom, draws. The spaces themselves are in
shipped.py; a user's own in own.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from sweep.spaces.cost import Cost, Image
from sweep.spaces.network import Network
from sweep.spaces.rules import Rule

MEMBER = 0  # the code of a draw that is a member; others index the reasons of its space


class Draws(ABC):
    """Many draws at once, before any network is built: for each a code, (num,): `MEMBER` or an index of `REASONS`.

    Only the rows of members are networks.
    """

    REASONS: ClassVar[tuple[str, ...]] = ("member",)
    reasons: np.ndarray

    @abstractmethod
    def weigh(self, rows: np.ndarray, image: Image) -> Cost:
        """What the members at these rows cost: int64 arrays of shape (len(rows),)."""

    @abstractmethod
    def key(self, row: int) -> bytes:
        """Equal for equal networks of the same ranges."""

    @abstractmethod
    def network(self, row: int) -> Network:
        """The member at that row."""


@dataclass(frozen=True, kw_only=True)
class Space(ABC):
    """A set of networks, given the ranges of a study.

    `parent` names the space that it narrows by `rule` (or alters by it, where `settings` are set: RegNet Y is RegNet X
    with squeeze-and-excitation). `breaks` is a rule that its members lack, and `counterpart` the space whose members
    obey it and that is alike in the rest. `settings` replace some of the ranges. `distribution` says in words what a
    draw's chances are. `about` and `source` stand in for the claim and the citation of a rule where it has none.
    `published_size` is the paper's own count for its ranges.
    """

    RANGES: ClassVar[type]  # what a study gives it: Ranges, MlpRanges or VitRanges
    TABLE: ClassVar[str]  # the name of that table in a study's scale

    name: str
    title: str
    parent: "Space | None" = None
    rule: Rule | None = None
    breaks: Rule | None = None
    counterpart: "Space | None" = None
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    distribution: str = ""
    about: str = ""
    source: str = ""
    published_size: float | None = None

    @property
    def ancestors(self) -> tuple["Space", ...]:
        """From the parent up to the first of its line."""
        return () if self.parent is None else (self.parent, *self.parent.ancestors)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Those of its line, in the order in which the spaces add them."""
        lineage = (*reversed(self.ancestors), self)
        return tuple(space.rule for space in lineage if space.rule is not None)

    @property
    def claim(self) -> str:
        """What is put to the test by comparing it with its parent or its counterpart."""
        tested = self.rule or self.breaks
        return tested.claim if tested else self.about

    @property
    def citation(self) -> str:
        tested = self.rule or self.breaks
        return tested.citation if tested else self.source

    def within(self, ranges: Any) -> Any:
        """The ranges with this space's own settings in place."""
        return replace(ranges, **self.settings) if self.settings else ranges

    @abstractmethod
    def contains(self, network: Network, ranges: Any) -> bool:
        """Whether the network lies in the ranges and obeys what the space demands."""

    def has_order(self, network: Network) -> bool:
        """Whether widths and depths run from the first to the last as the space demands, whatever the ranges."""
        return True

    @abstractmethod
    def size(self, ranges: Any) -> int:
        """How many networks the space holds, exactly; for RegNet, how many settings of its parameters."""

    def num_networks(self, ranges: Any) -> int:
        """How many distinct networks the space holds, exactly."""
        return self.size(ranges)

    @abstractmethod
    def degrees_of_freedom(self, ranges: Any) -> int:
        """Numbers and words to choose for one network."""

    @abstractmethod
    def draw(self, ranges: Any, rng: np.random.Generator, num: int) -> Draws:
        """The next `num` draws of the generator."""


@dataclass(frozen=True)
class RulePair:
    """Two spaces that differ by `rule`; where several rules lie between, their names are joined by `+`."""

    rule: str
    claim: str
    space_without: str
    space_with: str


def rule_pairs(spaces: Iterable[Space]) -> list[RulePair]:
    """For each space, in the order given, its nearest ancestor among the others, and its counterpart if it is there."""
    spaces = list(spaces)
    names = {space.name for space in spaces}
    pairs = []
    for space in spaces:
        without = next((ancestor for ancestor in space.ancestors if ancestor.name in names), None)
        if without is not None:
            between = space.rules[len(without.rules) :]
            pairs.append(
                RulePair(
                    rule="+".join(rule.name for rule in between),
                    claim="; ".join(rule.claim for rule in between),
                    space_without=without.name,
                    space_with=space.name,
                )
            )
        if space.breaks is not None and space.counterpart is not None and space.counterpart.name in names:
            pairs.append(RulePair(space.breaks.name, space.breaks.claim, space.name, space.counterpart.name))
    return pairs
