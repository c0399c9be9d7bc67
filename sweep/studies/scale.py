"""Where a study looks: the sizes at which it compares spaces, and the spaces of its own.

In: the tables `[[scale]]` and `[[space]]`. Out: the ranges of any space at a scale, and spaces. Raises `ValueError`
that names the field, the value and the remedy.
"""

from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from sweep.spaces import MlpRanges, Ranges, Space, VitRanges, get_space
from sweep.spaces.checks import nearest
from sweep.spaces.own import listed_space, own_space
from sweep.studies.settings import Settings

Whole = Annotated[int, Field(ge=0)]
Factor = Annotated[float, Field(gt=0, allow_inf_nan=False)]

INHERITED = ("resolution", "max_epochs", "grace_epochs", "num_train")


class Scale(Settings):
    """One size at which the rules are tried: image resolution in pixels, a flops band, and the spaces' ranges.

    `max_epochs`, `grace_epochs` and `num_train` are this scale's own; 0 for those of `[stopping]` and `[data]`.

    With `of`, the name of an earlier scale, the networks are those of that scale, `width_factor` times as wide and
    `depth_factor` times as deep (sweep/spaces/scaling.py): pairs of a small and a large one with one number. Of each
    space at most `trials_per_space` of them (0: all), first those that the audit lottery exempts at that scale, since
    they are seen to the end there. What it leaves out (`INHERITED`) is as in that scale. It has no ranges; a band, if
    it has one, must hold all of its networks. `of` may name a scale that has an `of` itself: a large one is repeated
    like a small one.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,40}$")] = "small"
    of: str = ""
    width_factor: Factor = 1.0
    depth_factor: Factor = 1.0
    trials_per_space: Whole = 0
    resolution: Annotated[int, Field(ge=8, le=1024)] = 28
    max_epochs: Whole = 0
    grace_epochs: Whole = 0
    num_train: Whole = 0
    flops_min: Annotated[float, Field(gt=0)] | None = None
    flops_max: Annotated[float, Field(gt=0)] | None = None
    ranges: dict[str, Any] = Field(default_factory=dict)
    mlp: dict[str, Any] = Field(default_factory=dict)
    vit: dict[str, Any] = Field(default_factory=dict)

    @property
    def band(self) -> tuple[float, float] | None:
        """The lowest and the highest flops; None where a scale with `of` has no bounds."""
        return None if self.flops_min is None or self.flops_max is None else (self.flops_min, self.flops_max)

    @model_validator(mode="after")
    def _band(self) -> "Scale":
        missing = [name for name in ("flops_min", "flops_max") if getattr(self, name) is None]
        if missing and (not self.of or len(missing) == 1):
            scaled = "or leave both out" if self.of else "or name in `of` the scale whose networks these are, scaled"
            raise ValueError(f"{missing[0]} is missing; add it, {scaled}")
        if (band := self.band) and band[0] >= band[1]:
            raise ValueError(f"flops_min = {band[0]:g} is not below flops_max = {band[1]:g}; swap or widen the band")
        return self

    @model_validator(mode="after")
    def _scaled(self) -> "Scale":
        for field in ("ranges", "mlp", "vit"):
            if self.of and getattr(self, field):
                raise ValueError(
                    f"{field} stands beside of = {self.of!r}, whose networks have their ranges already; leave it out"
                )
        for field in ("width_factor", "depth_factor", "trials_per_space"):
            if not self.of and (value := getattr(self, field)) != type(self).model_fields[field].default:
                raise ValueError(
                    f"{field} = {value:g} stands without of; name there the earlier scale whose networks these are, "
                    "or leave it out"
                )
        return self

    @field_validator("ranges", "mlp", "vit")
    @classmethod
    def _known(cls, ranges: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        kind = {"ranges": Ranges, "mlp": MlpRanges, "vit": VitRanges}[str(info.field_name)]
        _refuse_unknown(ranges, kind)
        kind(**_with_tuples(ranges))
        return ranges

    def ranges_of(self, space: Space) -> Any:
        """How far that space reaches at this scale: its `Ranges`, `MlpRanges` or `VitRanges`."""
        return space.RANGES(**_with_tuples(getattr(self, space.TABLE)))


class Own(Settings):
    """A space of the study's own: `base` narrowed by a condition (`where`), by a rule in Python (`rule`, as
    `module:name`), or with other `ranges`; or just the `networks` of a list.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    base: str = ""
    networks: Annotated[tuple[str, ...], Field(strict=False)] = ()
    where: str = ""
    rule: str = ""
    ranges: dict[str, Any] = Field(default_factory=dict)
    claim: str = ""
    citation: str = ""

    @model_validator(mode="after")
    def _sound(self) -> "Own":
        self.to_space()
        return self

    def to_space(self) -> Space:
        if self.networks:
            if any(getattr(self, key) for key in ("base", "where", "rule", "ranges", "claim", "citation")):
                raise ValueError("networks stands beside other keys than name; a list of networks needs no other")
            return listed_space(self.name, self.networks)
        if not self.base:
            raise ValueError("base is missing; name the space that this one narrows, or give a list of networks")
        base = get_space(self.base)
        return own_space(
            self.name,
            base,
            where=self.where,
            rule=self.rule,
            ranges=_with_tuples(self.ranges),
            claim=self.claim,
            citation=self.citation,
        )


def _refuse_unknown(table: dict[str, Any], kind: type) -> None:
    known = list(kind.__dataclass_fields__)  # type: ignore[attr-defined]
    for key in table:
        if key not in known:
            raise ValueError(f"unknown key {key!r}; {nearest(key, known)}")


def _with_tuples(table: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
