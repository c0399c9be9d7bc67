"""A population: distinct networks of one space within a band of flops, fixed by a seed before any machine starts.

In: a space, its ranges, how many, a seed, the band, and the size of the images. Out: a `Population`, with every draw
that was rejected counted by its reason. Networks are distributed as draws.py says, given the band, without repetition.
They come in the order of their draws, so that a larger population of the same seed begins with the smaller one.

Populations of like complexity are the fair way to compare spaces (Radosavovic et al. 2019, section 3).
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np

from sweep.spaces.architecture import Architecture, Stage
from sweep.spaces.checks import positive_int, refusal
from sweep.spaces.complexity import Complexity, batch_complexity
from sweep.spaces.draws import MEMBER, REASONS, Draws, draw, stage_arrays
from sweep.spaces.ranges import Ranges
from sweep.spaces.space import Space

_BLOCK = 8192  # draws at a time; another number gives other populations
_PATIENCE = 100  # stretches of `max_draws` draws that the rest of a population may be expected to take
_ALL_REASONS = (*REASONS, "flops below the band", "flops above the band", "drawn before")
_BELOW, _ABOVE, _AGAIN = range(len(REASONS), len(_ALL_REASONS))


@dataclass(frozen=True)
class Population:
    """Distinct networks of the space of that name, in the order of their draws, and what each costs.

    `num_draws` ends with the draw of the last member: it is len(members) plus the sum of `rejected`.
    """

    space: str
    members: tuple[Architecture, ...]
    costs: tuple[Complexity, ...]
    num_draws: int
    rejected: dict[str, int]


def sample_population(
    space: Space,
    ranges: Ranges,
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
    image = {
        "resolution": positive_int("resolution", resolution),
        "channels": positive_int("channels", channels),
        "classes": positive_int("classes", classes),
    }
    search = _Search(space, ranges, image, flops_min, flops_max, positive_int("num", num))
    blocks_per_stretch = -(-positive_int("max_draws", max_draws) // _BLOCK)
    while search.num_wanted:
        num_before = len(search.members)
        for _ in range(blocks_per_stretch):
            if search.num_wanted:
                search.take(draw(space, ranges, rng, _BLOCK))
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
    """What has been found so far, and how often which code came up."""

    space: Space
    ranges: Ranges
    image: dict[str, int]
    flops_min: float
    flops_max: float
    num: int
    members: list[Architecture] = field(default_factory=list)
    costs: list[Complexity] = field(default_factory=list)
    seen: set[bytes] = field(default_factory=set)
    stages: dict[tuple[int, int, int], Stage] = field(default_factory=dict)
    counts: np.ndarray = field(default_factory=lambda: np.zeros(len(_ALL_REASONS), dtype=np.int64))
    flops_seen: tuple[float, float] = (np.inf, -np.inf)

    @property
    def num_wanted(self) -> int:
        return self.num - len(self.members)

    def take(self, draws: Draws) -> None:
        """Sort a block of draws into members and rejected ones, up to the last member that is wanted."""
        codes = draws.reasons.copy()
        valid = np.flatnonzero(codes == MEMBER)
        weighed = self._weigh(draws.rows(valid))
        flops = weighed[0]
        codes[valid] = np.select([flops < self.flops_min, flops > self.flops_max], [_BELOW, _ABOVE], default=MEMBER)
        end = len(codes)
        for position in np.flatnonzero(codes[valid] == MEMBER).tolist():
            index = int(valid[position])
            row = draws.key(index)
            if row in self.seen:
                codes[index] = _AGAIN
                continue
            self.seen.add(row)
            self.members.append(self._build(draws, index))
            self.costs.append(Complexity(*(int(column[position]) for column in weighed)))
            if not self.num_wanted:
                end = index + 1
                break
        self.counts += np.bincount(codes[:end], minlength=len(self.counts))

    def _weigh(self, draws: Draws) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Flops, parameters and activations of these members."""
        ranges = self.ranges
        weighed = batch_complexity(
            stage_arrays(draws, ranges),
            stem_width=ranges.stem_width,
            stem_stride=ranges.stem_stride,
            se_ratio=ranges.se_ratio,
            conv_bias=ranges.conv_bias,
            **self.image,
        )
        flops = weighed[0].astype(float)
        low, high = self.flops_seen
        self.flops_seen = flops.min(initial=low), flops.max(initial=high)
        return weighed

    def _build(self, draws: Draws, index: int) -> Architecture:
        rows = zip(draws.depths[index].tolist(), draws.widths[index].tolist(), draws.pairs[index].tolist())
        ranges = self.ranges
        return Architecture(
            tuple(self._stage(*row) for row in rows),
            stem_width=ranges.stem_width,
            stem_stride=ranges.stem_stride,
            se_ratio=ranges.se_ratio,
            conv_bias=ranges.conv_bias,
        )

    def _stage(self, depth: int, width: int, pair: int) -> Stage:
        """Networks of a space share their stages: thousands of networks, hundreds of stages."""
        key = depth, width, pair
        if key not in self.stages:
            ratio, group_width = self.ranges.pairs[pair]
            self.stages[key] = Stage(depth, width, group_width, ratio)
        return self.stages[key]

    def population(self) -> Population:
        rejected = {reason: int(self.counts[code]) for code, reason in enumerate(_ALL_REASONS) if code != MEMBER}
        return Population(
            space=self.space.name,
            members=tuple(self.members),
            costs=tuple(self.costs),
            num_draws=int(self.counts.sum()),
            rejected={reason: count for reason, count in rejected.items() if count},
        )

    def failure(self) -> str:
        """The band, what the draws had instead, and what to change."""
        band = f"flops_min = {self.flops_min:g}, flops_max = {self.flops_max:g}"
        draws = f"{self.counts.sum()} draws of {self.space.name}"
        low, high = self.flops_seen
        if low > high:
            code = int(self.counts.argmax())
            return f"{band}: none of {draws} was valid ({_ALL_REASONS[code]}: {self.counts[code]}); widen the ranges"
        drawn = f"in {draws}, whose flops lie between {low:.4g} and {high:.4g}"
        if not self.members:
            return f"{band}: no network {drawn}; move the band or the ranges"
        found = f"only {len(self.members)} of {self.num} distinct networks"
        return f"{band}: {found} {drawn}; ask for fewer, widen the band or the ranges, or raise max_draws"
