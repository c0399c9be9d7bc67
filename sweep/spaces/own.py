"""A user's own design space: one that ships, narrowed by a rule of theirs or with other ranges; or a list of networks.

In: a base, and a condition (condition.py), a rule in Python, or some ranges. Out: a `Space` whose parent is the base,
so that a study which names both puts the rule to the test. In: networks by their names. Out: a `Space` of just these.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sweep.spaces.architecture import Architecture, Stage
from sweep.spaces.checks import nearest, refusal, refuse_unknown_keys
from sweep.spaces.complexity import complexity
from sweep.spaces.condition import Condition
from sweep.spaces.cost import Cost, Image
from sweep.spaces.families import columns_of
from sweep.spaces.loading import load_named
from sweep.spaces.mlp import Mlp
from sweep.spaces.network import Network
from sweep.spaces.ranges import Ranges
from sweep.spaces.rules import Rule
from sweep.spaces.shipped import space_title
from sweep.spaces.space import MEMBER, Draws, Space
from sweep.spaces.vit import Vit
from sweep.spaces.zoo import ZOO, named_network


@dataclass(frozen=True, kw_only=True)
class OwnSpace(Space):
    """The networks of `parent`, with `settings` in place of some of its ranges, that obey `rule`."""

    parent: Space
    rule: Rule

    @property
    def RANGES(self) -> type:  # type: ignore[override]  # noqa: N802 the base's
        return self.parent.RANGES

    @property
    def TABLE(self) -> str:  # type: ignore[override]  # noqa: N802 the base's
        return self.parent.TABLE

    def contains(self, network: Network, ranges: Any) -> bool:
        return self.parent.contains(network, self.within(ranges)) and bool(self.rule.predicate(network))

    def has_order(self, network: Network) -> bool:
        return self.parent.has_order(network)

    def size(self, ranges: Any) -> int:
        """Raises ValueError where a rule of the user's decides: no formula counts what it admits."""
        if self.rule.predicate is not _anything:
            raise ValueError(
                f"{self.name}: what an own rule admits is not counted; {self.parent.name}, which it narrows, has "
                f"{self.parent.size(self.within(ranges)):,}"
            )
        return self.parent.size(self.within(ranges))

    def degrees_of_freedom(self, ranges: Any) -> int:
        return self.parent.degrees_of_freedom(self.within(ranges))

    def draw(self, ranges: Any, rng: np.random.Generator, num: int) -> Draws:
        """As its base; what the rule does not admit is rejected."""
        draws = self.parent.draw(self.within(ranges), rng, num)
        return draws if self.rule.predicate is _anything else AdmittedDraws(draws, self.rule)


class AdmittedDraws(Draws):
    """Another space's draws, those that a rule does not admit rejected."""

    def __init__(self, draws: Draws, rule: Rule):
        self._draws = draws
        self.REASONS = (*draws.REASONS, f"breaks the rule {rule.name}")  # type: ignore[misc]
        self.reasons = draws.reasons.copy()
        for row in np.flatnonzero(self.reasons == MEMBER).tolist():
            if not rule.predicate(draws.network(row)):
                self.reasons[row] = len(draws.REASONS)

    def weigh(self, rows: np.ndarray, image: Image) -> Cost:
        return self._draws.weigh(rows, image)

    def key(self, row: int) -> bytes:
        return self._draws.key(row)

    def network(self, row: int) -> Network:
        return self._draws.network(row)


# A network of each family: what a condition may speak of.
_EXAMPLES: dict[str, Network] = {
    "ranges": Architecture((Stage(1, 8, 8),)),
    "mlp": Mlp((8,)),
    "vit": Vit(patch=4, width=16, num_blocks=1, num_heads=1),
}


def own_space(
    name: str,
    base: Space,
    *,
    where: str = "",
    rule: str = "",
    ranges: Mapping[str, Any] | None = None,
    claim: str = "",
    citation: str = "",
) -> OwnSpace:
    """The space of a study's `[[space]]` table.

    `rule` is `module:name` of a function from a network to a truth, or of a class whose instances are such functions.
    It is imported when it is first asked, so that a report of a finished study does not need it. Raises ValueError
    naming the field that is wrong.
    """
    if bool(where) + bool(rule) > 1:
        raise refusal("where", where, f"stands beside rule = {rule!r}", "give one of the two")
    if not (where or rule or ranges):
        raise refusal("space", name, f"is {base.name} again", "give it a condition (where), a rule, or ranges")
    settings = dict(ranges or {})
    fields = base.RANGES.__dataclass_fields__  # type: ignore[attr-defined]
    refuse_unknown_keys("ranges", settings, fields)  # their values are judged beside the others, of a scale (`within`)
    predicate: Callable[[Any], bool] = _anything
    if where:
        predicate = Condition(where, columns_of(_EXAMPLES[base.TABLE]) | {"depth": 0})
    elif rule:
        predicate = _Imported(rule)
    return OwnSpace(
        name=name,
        title=space_title(name),
        parent=base,
        rule=Rule(name, claim or where or f"the rule {name} makes networks better", citation or "the study", predicate),
        settings=settings,
        distribution=f"as {base.title}" + ("; what breaks the rule is rejected" if where or rule else ""),
    )


@dataclass(frozen=True, kw_only=True)
class ListedSpace(Space):
    """Just these networks, whatever the ranges: the first that are drawn are the first of the list."""

    RANGES: ClassVar[type] = Ranges
    TABLE: ClassVar[str] = "ranges"

    networks: tuple[Network, ...]

    def contains(self, network: Network, ranges: Any) -> bool:
        return network in self.networks

    def size(self, ranges: Any) -> int:
        """How many networks the list has."""
        return len(self.networks)

    def degrees_of_freedom(self, ranges: Any) -> int:
        """Which network."""
        return 1

    def draw(self, ranges: Any, rng: np.random.Generator, num: int) -> "ListedDraws":
        """The list over and over; the generator is not asked."""
        return ListedDraws(self.networks, num)


class ListedDraws(Draws):
    """Row i is the i-th network of the list, counted around."""

    def __init__(self, networks: tuple[Network, ...], num: int):
        self._networks = networks
        self.reasons = np.full(num, MEMBER)

    def weigh(self, rows: np.ndarray, image: Image) -> Cost:
        costs = [vars(complexity(network, **image._asdict())).values() for network in self._networks]
        return Cost(*np.array([list(cost) for cost in costs], dtype=np.int64)[rows % len(costs)].T)

    def key(self, row: int) -> bytes:
        return self.network(row).id.encode()

    def network(self, row: int) -> Network:
        return self._networks[row % len(self._networks)]


def listed_space(name: str, networks: Sequence[str]) -> ListedSpace:
    """The space of a study's `[[space]]` table that names `networks`: those of the zoo, or by their numbers.

    Raises ValueError for a name that is not known, or for a file, which another machine would not have.
    """
    found = []
    for text in networks:
        network = named_network(text)
        if network is None:
            raise refusal("networks", text, "is no known network", f"write it as a text; {nearest(text, ZOO)}")
        if network in found:
            raise refusal("networks", text, "is there twice", "name each once")
        found.append(network)
    return ListedSpace(
        name=name,
        title=space_title(name),
        networks=tuple(found),
        distribution="the list, in its order",
        about="just these networks",
        source="the study",
    )


def _anything(network: Network) -> bool:
    """No rule but the ranges."""
    return bool(network)


class _Imported:
    """A rule by its place, imported when it is first asked."""

    def __init__(self, place: str):
        if not all(place.partition(":")):
            raise refusal("rule", place, "is not module:name", f"write for example {_EXAMPLE}")
        self._place = place
        self._rule: Callable[[Network], Any] | None = None

    def __call__(self, network: Network) -> bool:
        if self._rule is None:
            found = load_named("rule", self._place, _EXAMPLE)
            self._rule = found() if isinstance(found, type) else found
        answer = self._rule(network)
        if not isinstance(answer, bool | np.bool_):
            raise refusal("rule", self._place, f"answered {answer!r}", "answer True or False")
        return bool(answer)


_EXAMPLE = "my_rules:wide_start"
