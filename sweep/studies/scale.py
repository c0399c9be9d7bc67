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


class Scale(Settings):
    """One size at which the rules are tried: image resolution in pixels, a flops band, and the spaces' ranges."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,40}$")] = "small"
    resolution: Annotated[int, Field(ge=8, le=1024)] = 28
    flops_min: Annotated[float, Field(gt=0)]
    flops_max: Annotated[float, Field(gt=0)]
    ranges: dict[str, Any] = Field(default_factory=dict)
    mlp: dict[str, Any] = Field(default_factory=dict)
    vit: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _band(self) -> "Scale":
        if self.flops_min >= self.flops_max:
            raise ValueError(
                f"flops_min = {self.flops_min:g} is not below flops_max = {self.flops_max:g}; swap or widen the band"
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
