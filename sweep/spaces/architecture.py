"""One network of AnyNet as data: a stem, stages of residual blocks, a linear head.

In: the numbers that fix a network (Radosavovic et al. 2020, section 3.2). Out: a frozen, validated `Architecture`
that hashes, compares, has a content-based id, and goes to JSON and YAML and back without loss.

The paper's symbols, for stage i: d_i is `depth`, w_i `width`, b_i `bottleneck_ratio` (width over bottleneck width; an
inverted bottleneck has b < 1), g_i `group_width` (channels per group, *not* the number of groups).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweep.spaces.checks import plain_number, positive_int, positive_number, refusal, require_keys
from sweep.spaces.network import Network, parse_json, parse_yaml
from sweep.spaces.parts import ALWAYS_TOLD, CHECKS, Parts, squeeze_width


@dataclass(frozen=True, slots=True)
class Stage:
    """A run of `depth` blocks with one output width; its first block halves the resolution.

    Raises ValueError where the bottleneck has no whole width, or where the groups do not divide it.
    """

    depth: int
    width: int
    group_width: int
    bottleneck_ratio: float = 1

    def __post_init__(self) -> None:
        for field in ("depth", "width", "group_width"):
            object.__setattr__(self, field, positive_int(field, getattr(self, field)))
        ratio = positive_number("bottleneck_ratio", self.bottleneck_ratio)
        object.__setattr__(self, "bottleneck_ratio", ratio)
        if not (self.width / ratio).is_integer():
            raise refusal(
                "bottleneck_ratio",
                plain_number(ratio),
                f"does not divide the width {self.width} into whole channels",
                "take a width that is a multiple of it",
            )
        if self.bottleneck_width % self.group_width:
            raise refusal(
                "group_width",
                self.group_width,
                f"does not divide the bottleneck width {self.bottleneck_width} "
                f"(width {self.width} / bottleneck_ratio {plain_number(ratio)})",
                "take a divisor of it",
            )

    @property
    def bottleneck_width(self) -> int:
        """Channels of the k×k convolution."""
        return int(self.width / self.bottleneck_ratio)

    @property
    def num_groups(self) -> int:
        """Groups of the k×k convolution."""
        return self.bottleneck_width // self.group_width

    def to_dict(self) -> dict[str, int | float]:
        return {
            "depth": self.depth,
            "width": self.width,
            "group_width": self.group_width,
            "bottleneck_ratio": plain_number(self.bottleneck_ratio),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, where: str = "stage") -> "Stage":
        """The stage of `to_dict`; errors begin with `where`."""
        require_keys(where, data, cls.__dataclass_fields__, required=("depth", "width", "group_width"))
        try:
            return cls(**data)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None


@dataclass(frozen=True, slots=True)
class Architecture(Parts, Network):
    """A whole network, apart from the channels of its images and the number of its classes.

    The stages share the parts of `Parts`. A basic block's first convolution has the bottleneck width, and no groups.
    Raises ValueError naming the field, the value and the remedy.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        Parts.__post_init__(self)
        object.__setattr__(self, "stages", _checked_stages(self.stages))
        narrowest = min(self.stem_width, *self.widths)
        if self.se_ratio and squeeze_width(narrowest, self.se_ratio) < 1:
            raise refusal(
                "se_ratio",
                self.se_ratio,
                f"leaves no channel of a width of {narrowest}",
                "raise it or widen that part",
            )
        if self.block == "basic":
            for stage in self.stages:
                if stage.num_groups > 1:
                    raise refusal(
                        "group_width",
                        stage.group_width,
                        f"parts the {stage.bottleneck_width} channels of a basic block, which has no groups",
                        f"use {stage.bottleneck_width}, or block = 'bottleneck'",
                    )

    @property
    def depth(self) -> int:
        """Blocks of all stages together."""
        return sum(self.depths)

    @property
    def depths(self) -> tuple[int, ...]:
        return tuple(stage.depth for stage in self.stages)

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(stage.width for stage in self.stages)

    @property
    def group_widths(self) -> tuple[int, ...]:
        return tuple(stage.group_width for stage in self.stages)

    @property
    def bottleneck_ratios(self) -> tuple[float, ...]:
        return tuple(stage.bottleneck_ratio for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        defaults = Parts().parts()
        told = {k: v for k, v in self.parts().items() if k in ALWAYS_TOLD or v != defaults[k]}
        return {**told, "stages": [stage.to_dict() for stage in self.stages]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Architecture":
        """Raises ValueError for unknown keys (naming the nearest known one), missing ones and impossible values."""
        require_keys("architecture", data, ("stages", *CHECKS), required=("stages",))
        stages = data["stages"]
        if not isinstance(stages, list | tuple):
            raise refusal("stages", stages, "is not a list", "give one entry per stage")
        built = tuple(Stage.from_dict(s, where=f"stages[{i}]") for i, s in enumerate(stages))
        return cls(**{**data, "stages": built})

    @classmethod
    def from_json(cls, text: str) -> "Architecture":
        return cls.from_dict(parse_json(text))

    @classmethod
    def from_yaml(cls, text: str) -> "Architecture":
        return cls.from_dict(parse_yaml(text))


def _checked_stages(stages: Any) -> tuple[Stage, ...]:
    if not isinstance(stages, list | tuple) or not all(isinstance(stage, Stage) for stage in stages):
        raise refusal("stages", stages, "is not a sequence of Stage", "give a tuple of Stage(depth, width, …)")
    if not stages:
        raise refusal("stages", stages, "is empty", "give at least one stage")
    return tuple(stages)
