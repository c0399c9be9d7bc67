"""A population: distinct networks of one space within a band of flops, fixed by a seed before any machine starts.

In: a space, its ranges, how many, a seed, the band, and the size of the images. Out: a `Population`, with every draw
that was rejected counted by its reason. Networks are distributed as the space says (`distribution`, draws.py), given
the band, without repetition. They come in the order of their draws, so that a larger population of the same seed begins
with the smaller one.

Populations of like complexity are the fair way to compare spaces (Radosavovic et al. 2019, section 3).
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sweep.spaces.checks import positive_int, refusal
from sweep.spaces.cost import Complexity, Image
from sweep.spaces.network import Network
from sweep.spaces.space import MEMBER, Draws, Space

_BLOCK = 8192  # draws at a time; another number gives other populations
_PATIENCE = 100  # stretches of `max_draws` draws that the rest of a population may be expected to take
_BELOW, _ABOVE, _AGAIN = "flops below the band", "flops above the band", "drawn before"


@dataclass(frozen=True)
class Population:
    """Distinct networks of the space of that name, in the order of their draws, and what each costs.

    `num_draws` ends with the draw of the last member: it is len(members) plus the sum of `rejected`.
    """

    space: str
    members: tuple[Network, ...]
    costs: tuple[Complexity, ...]
    num_draws: int
    rejected: dict[str, int]


def sample_population(
    space: Space,
    ranges: Any,
    *,
    num: int,
    seed: int,
    flops_min: float,
    flops_max: float,
    resolution: int = 224,
    channels: int = 3,
    classes: int = 1000,
    max_draws: int = 500_000,
) -> Population:
    """Draw until `num` distinct networks have flops_min ≤ flops ≤ flops_max.

    Raises ValueError after a stretch of about `max_draws` draws (half a second) with no new network, or with so few
    that the rest would take a hundred such stretches: the band holds none, or next to none, or fewer than `num`. The
    message says which, and what flops the draws had.
    """
    if not 0 <= flops_min <= flops_max:
        band = f"flops_min = {flops_min:g}, flops_max = {flops_max:g}"
        raise ValueError(f"{band} is not a band; give 0 ≤ flops_min ≤ flops_max")
    rng = _generator(space, seed)
    image = Image(
        positive_int("resolution", resolution), positive_int("channels", channels), positive_int("classes", classes)
    )
    search = _Search(space, image, flops_min, flops_max, positive_int("num", num))
    blocks_per_stretch = -(-positive_int("max_draws", max_draws) // _BLOCK)
    while search.num_wanted:
        num_before = len(search.members)
        for _ in range(blocks_per_stretch):
            if search.num_wanted:
                search.take(space.draw(ranges, rng, _BLOCK))
        if (len(search.members) - num_before) * _PATIENCE < search.num_wanted:
            raise ValueError(search.failure())
    return search.population()


def _generator(space: Space, seed: int) -> np.random.Generator:
    """Under one seed each space draws on its own: populations are compared as independent samples."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise refusal("seed", seed, "is not a whole number of 0 or more", "use for example 0")
    name_key = int.from_bytes(hashlib.sha256(space.name.encode()).digest()[:4], "big")
    return np.random.default_rng([int(seed), name_key])


@dataclass
class _Search:
    """What has been found so far, and how often a draw was rejected for which reason."""

    space: Space
    image: Image
    flops_min: float
    flops_max: float
    num: int
    members: list[Network] = field(default_factory=list)
    costs: list[Complexity] = field(default_factory=list)
    seen: set[bytes] = field(default_factory=set)
    rejected: Counter[str] = field(default_factory=Counter)
    flops_seen: tuple[float, float] = (np.inf, -np.inf)

    @property
    def num_wanted(self) -> int:
        return self.num - len(self.members)

    @property
    def num_draws(self) -> int:
        return len(self.members) + self.rejected.total()

    def take(self, draws: Draws) -> None:
        """Sort a block of draws into members and rejected ones, up to the last member that is wanted."""
        valid = np.flatnonzero(draws.reasons == MEMBER)
        cost = draws.weigh(valid, self.image)
        low, high = self.flops_seen
        flops = cost.flops.astype(float)
        self.flops_seen = flops.min(initial=low), flops.max(initial=high)
        below, above = cost.flops < self.flops_min, cost.flops > self.flops_max
        end = len(draws.reasons)
        for position in np.flatnonzero(~below & ~above).tolist():
            row = int(valid[position])
            key = draws.key(row)
            if key in self.seen:
                self.rejected[_AGAIN] += 1
                continue
            self.seen.add(key)
            self.members.append(draws.network(row))
            self.costs.append(Complexity(*(int(column[position]) for column in cost)))
            if not self.num_wanted:
                end = row + 1
                break
        self.rejected[_BELOW] += int(below[valid < end].sum())
        self.rejected[_ABOVE] += int(above[valid < end].sum())
        for code, count in enumerate(np.bincount(draws.reasons[:end]).tolist()):
            if code != MEMBER:
                self.rejected[draws.REASONS[code]] += count

    def population(self) -> Population:
        rejected = {reason: count for reason, count in self.rejected.items() if count}
        return Population(self.space.name, tuple(self.members), tuple(self.costs), self.num_draws, rejected)

    def failure(self) -> str:
        """The band, what the draws had instead, and what to change."""
        band = f"flops_min = {self.flops_min:g}, flops_max = {self.flops_max:g}"
        draws = f"{self.num_draws} draws of {self.space.name}"
        low, high = self.flops_seen
        if low > high:
            [(reason, count)] = self.rejected.most_common(1)
            return f"{band}: none of {draws} was valid ({reason}: {count}); widen the ranges"
        drawn = f"in {draws}, whose flops lie between {low:.4g} and {high:.4g}"
        if not self.members:
            return f"{band}: no network {drawn}; move the band or the ranges"
        found = f"only {len(self.members)} of {self.num} distinct networks"
        return f"{band}: {found} {drawn}; ask for fewer, widen the band or the ranges, or raise max_draws"
