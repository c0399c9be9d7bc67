"""One network of AnyNet as data: a stem, stages of residual bottleneck blocks, a linear head.

In: the numbers that fix a network (Radosavovic et al. 2020, section 3.2). Out: a frozen, validated `Architecture`
that hashes, compares, has a content-based id, and goes to JSON and YAML and back without loss.

The paper's symbols, for stage i: d_i is `depth`, w_i `width`, b_i `bottleneck_ratio` (width over bottleneck width; an
inverted bottleneck has b < 1), g_i `group_width` (channels per group, *not* the number of groups).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from sweep.spaces.checks import plain_number, positive_int, positive_number, refusal, refuse_unknown_keys


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
        """Channels of the 3×3 convolution."""
        return int(self.width / self.bottleneck_ratio)

    @property
    def num_groups(self) -> int:
        """Groups of the 3×3 convolution."""
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
        _require_keys(where, data, cls, required=("depth", "width", "group_width"))
        try:
            return cls(**data)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None


@dataclass(frozen=True, slots=True)
class Architecture:
    """A whole network, apart from the channels of its images and the number of its classes.

    `stem_width` channels leave the 3×3 stem. `se_ratio` 0 means no squeeze-and-excitation; otherwise each block
    squeezes to that share of its *input* width (RegNetY: 0.25). `conv_bias` keeps a bias beside batch norm, as
    d2l.ai does. Raises ValueError naming the field, the value and the remedy.
    """

    stages: tuple[Stage, ...]
    stem_width: int = 32
    stem_stride: int = 2
    se_ratio: float = 0.0
    conv_bias: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", _checked_stages(self.stages))
        object.__setattr__(self, "stem_width", positive_int("stem_width", self.stem_width))
        object.__setattr__(self, "stem_stride", checked_stem_stride(self.stem_stride))
        object.__setattr__(self, "se_ratio", checked_se_ratio(self.se_ratio))
        if not isinstance(self.conv_bias, bool):
            raise refusal("conv_bias", self.conv_bias, "is neither true nor false", "write true or false")
        narrowest = min(self.stem_width, *self.widths)
        if self.se_ratio and squeeze_width(narrowest, self.se_ratio) < 1:
            raise refusal(
                "se_ratio",
                self.se_ratio,
                f"leaves no channel of a width of {narrowest}",
                "raise it or widen that part",
            )

    @property
    def id(self) -> str:
        """Twelve hex digits of the content: equal networks have equal ids on every machine."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

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
        """Plain numbers, lists and dicts; the inverse of `from_dict`."""
        return {
            "stem_width": self.stem_width,
            "stem_stride": self.stem_stride,
            "se_ratio": plain_number(self.se_ratio),
            "conv_bias": self.conv_bias,
            "stages": [stage.to_dict() for stage in self.stages],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Architecture":
        """Raises ValueError for unknown keys (naming the nearest known one), missing ones and impossible values."""
        _require_keys("architecture", data, cls, required=("stages",))
        stages = data["stages"]
        if not isinstance(stages, list | tuple):
            raise refusal("stages", stages, "is not a list", "give one entry per stage")
        built = tuple(Stage.from_dict(s, where=f"stages[{i}]") for i, s in enumerate(stages))
        return cls(**{**data, "stages": built})

    def to_json(self) -> str:
        """Canonical: sorted keys, no blanks. Equal networks give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Architecture":
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"architecture: not valid JSON ({error}); mend the text") from error
        return cls.from_dict(data)

    def to_yaml(self) -> str:
        """For people: one line a stage."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=110)

    @classmethod
    def from_yaml(cls, text: str) -> "Architecture":
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"architecture: not valid YAML ({error}); mend the text") from error
        return cls.from_dict(data)


def squeeze_width(width: int, se_ratio: float) -> int:
    """Channels between the two convolutions of squeeze-and-excitation, for a block of that *input* width.

    Half-even rounding, as pycls has it.
    """
    return round(width * se_ratio)


def checked_stem_stride(value: Any) -> int:
    stride = positive_int("stem_stride", value)
    if stride > 2:
        raise refusal("stem_stride", value, "is neither 1 nor 2", "use 2 (the paper), or 1 for small images")
    return stride


def checked_se_ratio(value: Any) -> float:
    if isinstance(value, bool | str) or not hasattr(value, "__float__") or not 0 <= float(value) <= 1:
        raise refusal("se_ratio", value, "is not between 0 and 1", "use 0 for none, 0.25 for RegNetY")
    return float(value)


def _checked_stages(stages: Any) -> tuple[Stage, ...]:
    if not isinstance(stages, list | tuple) or not all(isinstance(stage, Stage) for stage in stages):
        raise refusal("stages", stages, "is not a sequence of Stage", "give a tuple of Stage(depth, width, …)")
    if not stages:
        raise refusal("stages", stages, "is empty", "give at least one stage")
    return tuple(stages)


def _require_keys(where: str, data: Any, cls: type, required: tuple[str, ...]) -> None:
    known = list(cls.__dataclass_fields__)  # type: ignore[attr-defined]
    if not isinstance(data, Mapping):
        raise ValueError(f"{where}: {data!r} is not a mapping; give the keys {', '.join(known)}")
    refuse_unknown_keys(where, data, known)
    for key in required:
        if key not in data:
            raise ValueError(f"{where}: {key} is missing; give at least {', '.join(required)}")
