"""A study: the question that a sweep answers, frozen and validated by pydantic.

In: tables of plain values (reading.py reads them from TOML). Out: a `Study`. Raises pydantic's `ValidationError`, whose
messages name the value and the remedy. Nothing here reads the clock, the machine or the environment.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from sweep.spaces import SPACES, Space, colours_of, get_space, rule_pairs
from sweep.spaces.checks import nearest
from sweep.spaces.mlp import MLP_CHECKS
from sweep.studies.data import Data
from sweep.studies.recipe import Recipe, preset
from sweep.studies.scale import INHERITED, Own, Scale
from sweep.studies.settings import Count, Settings, Share, message_of

MAX_TRIALS = 1_000_000  # of one sweep: drawing them takes some minutes and 1.2 GB

MIN_TRIALS_AT_LOOK = 4  # of each space at each scale, on average; fewer show no spread

TRAIN = "train"  # the objective of a study that trains its networks

Match = Literal["none", "flops", "params", "activations"]
Name = Annotated[str, Field(min_length=1, max_length=200)]

LATER_FIELDS: dict[str, tuple[str, ...]] = {
    "recipe": (
        "drop_last", "optimizer", "beta2", "l1_decay", "gradient_clip", "schedule", "step_at", "step_factor",
        "cycle_rise", "mixup", "random_erasing",
    ),
    "judging": ("match", "match_strata", "stop_when", "looks"),
    "scale": (
        "mlp", "vit", "of", "width_factor", "depth_factor", "trials_per_space", "max_epochs", "grace_epochs",
        "num_train",
    ),
    "stopping": ("audit_worst",),
    "rerun": ("ensemble",),
    "": ("space",),
}  # fmt: skip
"""Fields, by table ("" is the top level), that came after studies had been recorded. At its default such a field does
not enter the hash, so that a recorded study keeps the one it has."""


WORST_TIMES = 3.0
"""How many times as often the lottery keeps the worst tenth of a rung as others."""


class Stopping(Settings):
    """When a trial ends: at its cohort's rungs (grace, grace·eta, …) or after `max_epochs`.

    `method`: "asha" stops a trial as it arrives at a rung; "asha_promotion" lets it wait there until its place is
    earned; "synchronous" decides a rung when all its trials have arrived, so that the same study gives the same table
    whatever the timing; "none" trains all to the end.
    `audit_fraction` of the trials are exempt by a seeded lottery; of those that "asha" wants to end, and that are among
    the worst tenth at that rung, `audit_worst` (None: three times as many), for the ends of bad networks differ most.
    `flops_strata` splits each cohort by flops into
    that many bands of equal ratio, so that cheap networks, which finish first, do not set the bar for others.
    """

    method: Literal["asha", "asha_promotion", "synchronous", "none"] = "asha"
    max_epochs: Count = 16
    grace_epochs: Count = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 4
    audit_fraction: Share = 0.1
    audit_worst: Share | None = None
    flops_strata: Count = 1

    @model_validator(mode="after")
    def _worst(self) -> "Stopping":
        if self.audit_worst is not None and not self.audit_fraction <= self.audit_worst:
            raise ValueError(
                f"audit_worst = {self.audit_worst} is less than audit_fraction = {self.audit_fraction}; who is exempt "
                "from the start is exempt among the worst, too: give as much or more"
            )
        if self.audit_worst is not None and self.method != "asha":
            raise ValueError(
                f"audit_worst = {self.audit_worst} goes with method = 'asha', which knows at once who is to end; "
                f"leave it out with {self.method!r}"
            )
        return self

    @model_validator(mode="after")
    def _grace(self) -> "Stopping":
        if self.grace_epochs > self.max_epochs:
            raise ValueError(
                f"grace_epochs = {self.grace_epochs} is more than max_epochs = {self.max_epochs}; "
                "a trial must be able to outlive its grace period"
            )
        return self

    def lottery(self, *, among_worst: bool) -> float:
        """The share of the trials that it exempts, of those among the worst of a rung or of others."""
        if not among_worst or self.method != "asha":
            return self.audit_fraction
        return min(1.0, WORST_TIMES * self.audit_fraction) if self.audit_worst is None else self.audit_worst

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs after which a decision falls: grace, grace·eta, grace·eta², … below `max_epochs`."""
        found = []
        rung = self.grace_epochs
        while self.method != "none" and rung < self.max_epochs:
            found.append(rung)
            rung *= self.reduction_factor
        return tuple(found)


class Judging(Settings):
    """How a rule is judged: harm or benefit within `margin_pct` points of error counts as none.

    `match` compares only networks of like flops, params or activations, so that the effect of a rule and that of being
    larger do not mix: in `match_strata` bands of equal ratio, 0 for as many as there are networks for.

    `stop_when` "decided" judges a sweep while it runs, at `looks` looks after equal shares of its trials, the last one
    at its end. It ends early where a look leaves no rule undecided. The error rates hold for all looks together
    (sweep/statistics/rules/sequential.py).
    """

    margin_pct: Annotated[float, Field(gt=0)] = 0.5
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    num_bootstrap: Annotated[int, Field(ge=100)] = 10_000
    match: Match = "none"
    match_strata: Annotated[int, Field(ge=0, le=1000)] = 0
    stop_when: Literal["end", "decided"] = "end"
    looks: Annotated[int, Field(ge=2, le=10)] = 4

    @model_validator(mode="after")
    def _looks(self) -> "Judging":
        if self.stop_when == "end" and self.looks != type(self).model_fields["looks"].default:
            raise ValueError(
                f"looks = {self.looks} goes with stop_when = 'decided', not with {self.stop_when!r}; leave it out, or "
                "change stop_when"
            )
        return self

    def look_sizes(self, num_trials: int) -> tuple[int, ...]:
        """After how many of `num_trials` planned trials, in launch order, there is a look before the end."""
        return tuple(
            math.ceil(num_trials * number / self.looks)
            for number in range(1, self.looks)
            if self.stop_when == "decided"
        )


class Rerun(Settings):
    """The best network at full scale: all training images; `resolution` 0 keeps that of its scale.

    `ensemble` > 1 trains that many of the best, each by itself, and tests them together too.
    """

    epochs: Count = 30
    resolution: Annotated[int, Field(ge=0, le=1024)] = 0
    learning_rate: Annotated[float, Field(ge=0)] = 0.0
    ensemble: Annotated[int, Field(ge=1, le=100)] = 1

    @field_validator("resolution")
    @classmethod
    def _resolution(cls, resolution: int) -> int:
        if 0 < resolution < 8:
            raise ValueError("must be 0 (as in the sweep) or at least 8 pixels")
        return resolution


class Tracking(Settings):
    """Where MLflow records: an URI, or nothing for a SQLite file in the run directory."""

    uri: str = ""


class Study(Settings):
    """A whole study. `spaces`, those that ship or of its own (`[[space]]`), are compared at each scale with
    `trials_per_space` networks each.

    A trial whose own code fails is tried again `max_failures` times, one whose machine fails `max_machine_failures`
    times; one that runs out of memory counts as failed, or is tried once with half the batch ("smaller_batch").
    `method`, `expected` and `finding` are for people: how the question is put to the test, what others would expect,
    and, once it has run, what came out. `objective`: "train", or `module:function` of the user's own
    (sweep/training/objective.py). `recipe`: a table, or the name of a preset in its place (sweep/studies/recipe.py).
    """

    name: Name
    question: str = ""
    method: str = ""
    expected: str = ""
    finding: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    space: Annotated[tuple[Own, ...], Field(strict=False)] = ()
    spaces: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    trials_per_space: Count = 48
    max_failures: Annotated[int, Field(ge=0)] = 2
    max_machine_failures: Annotated[int, Field(ge=0)] = 8
    out_of_memory: Literal["fail", "smaller_batch"] = "fail"
    objective: Annotated[str, Field(pattern=r"^(train|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$")] = TRAIN
    scale: Annotated[tuple[Scale, ...], Field(min_length=1, strict=False)]
    data: Data = Data()
    recipe: Recipe = Recipe()
    stopping: Stopping = Stopping()
    judging: Judging = Judging()
    rerun: Rerun = Rerun()
    tracking: Tracking = Tracking()

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        # It becomes a directory, an MLflow experiment and a part of an URL.
        if set(name) & set("/\\%?#") or name.startswith(".") or not name.isprintable():
            raise ValueError("must be printable, hold no slash, %, ? or #, and not begin with a dot")
        return name

    @field_validator("space")
    @classmethod
    def _own(cls, own: tuple[Own, ...]) -> tuple[Own, ...]:
        _refuse_doubles("space names", [*SPACES, *(table.name for table in own)])
        return own

    @field_validator("spaces")
    @classmethod
    def _spaces(cls, spaces: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        own = [table.to_space() for table in info.data.get("space", ())]
        for space in spaces:
            get_space(space, own)
        _refuse_doubles("spaces", spaces)
        return spaces

    @field_validator("recipe", mode="before")
    @classmethod
    def _recipe(cls, recipe: Any) -> Any:
        return preset(recipe) if isinstance(recipe, str) else recipe

    @field_validator("scale", mode="before")
    @classmethod
    def _as_its_original(cls, scales: Any) -> Any:
        """What a scale with `of` leaves out is as in that scale; who names none is refused later."""
        if not isinstance(scales, list | tuple):
            return scales
        found: dict[str, dict[str, Any]] = {}
        told = [one.model_dump(exclude_unset=True) if isinstance(one, Scale) else one for one in scales]
        for number, table in enumerate(told):
            if isinstance(table, dict):
                original = found.get(str(table.get("of")), {})
                told[number] = {key: original[key] for key in INHERITED if key in original} | table
                found[str(table.get("name", Scale.model_fields["name"].default))] = told[number]
        return told

    @field_validator("scale")
    @classmethod
    def _scales(cls, scales: tuple[Scale, ...]) -> tuple[Scale, ...]:
        _refuse_doubles("scale names", [scale.name for scale in scales])
        return scales

    @model_validator(mode="after")
    def _originals(self) -> "Study":
        names = [scale.name for scale in self.scale]
        for number, scale in enumerate(self.scale):
            if scale.of and scale.of not in names[:number]:
                remedy = nearest(scale.of, names[:number]) if number else "put the scale that it scales before it"
                raise ValueError(f"of = {scale.of!r} of scale {scale.name!r} names no earlier scale; {remedy}")
        return self

    @model_validator(mode="after")
    def _budgets(self) -> "Study":
        for scale in self.scale:
            is_own = scale.max_epochs or scale.grace_epochs or scale.num_train
            for table in (self.stopping_at(scale.name), self.data_at(scale.name)) if is_own else ():
                try:
                    type(table).model_validate(table.model_dump())
                except ValidationError as error:
                    raise ValueError(f"scale {scale.name!r}: {message_of(error.errors()[0])}") from error
            num_train = self.data_at(scale.name).num_train
            if self.recipe.num_steps(num_train) == 0:
                where = f"scale {scale.name!r}: num_train" if scale.num_train else "data.num_train"
                raise ValueError(
                    f"recipe.batch_size = {self.recipe.batch_size} is more than {where} = {num_train}; "
                    "an epoch would hold no batch: lower one or raise the other"
                )
        return self

    @model_validator(mode="after")
    def _ranges(self) -> "Study":
        others = [table.to_space() for table in self.space if table.name not in self.spaces]
        for scale in self.scale:
            for space in (*self.design_spaces, *others) if not scale.of else ():
                try:
                    space.within(scale.ranges_of(space))
                except ValueError as error:
                    raise ValueError(f"{space.name} at scale {scale.name!r}: {error}") from error
        return self

    @model_validator(mode="after")
    def _size(self) -> "Study":
        if self.num_trials > MAX_TRIALS:
            raise ValueError(
                f"trials_per_space = {self.trials_per_space} makes {self.num_trials:,} trials of {len(self.spaces)} "
                f"spaces at {len(self.scale)} scales, more than {MAX_TRIALS:,}; lower it"
            )
        return self

    @model_validator(mode="after")
    def _looks(self) -> "Study":
        judging = self.judging
        if judging.stop_when == "end":
            return self
        if not rule_pairs(self.design_spaces):
            raise ValueError(
                "judging.stop_when = 'decided', but no two of the spaces differ by a rule, so there is nothing to "
                "decide; name two that do, or leave it out"
            )
        fewest = min(self.judged_scales, key=lambda scale: self.trials_at(scale.name)).name
        if self.trials_at(fewest) < MIN_TRIALS_AT_LOOK * judging.looks:
            where = f" at scale {fewest!r}" if self.get_scale(fewest).of else ""
            raise ValueError(
                f"judging.looks = {judging.looks} with trials_per_space = {self.trials_at(fewest)}{where}: the first "
                f"look would come after fewer than {MIN_TRIALS_AT_LOOK} networks of each space; lower looks, or raise "
                f"trials_per_space to {MIN_TRIALS_AT_LOOK * judging.looks}"
            )
        return self

    def get_scale(self, name: str) -> Scale:
        return next(scale for scale in self.scale if scale.name == name)

    def lineage(self, name: str) -> tuple[Scale, ...]:
        """The scale that draws the networks of this one, then those that scale them, this one last."""
        scale = self.get_scale(name)
        return (*self.lineage(scale.of), scale) if scale.of else (scale,)

    def stopping_at(self, scale: str) -> Stopping:
        """`stopping` with the epochs of that scale."""
        one = self.get_scale(scale)
        own = {"max_epochs": one.max_epochs, "grace_epochs": one.grace_epochs}
        return self.stopping.model_copy(update={field: value for field, value in own.items() if value})

    def data_at(self, scale: str) -> Data:
        """`data` with the training images of that scale."""
        num_train = self.get_scale(scale).num_train
        return self.data.model_copy(update={"num_train": num_train}) if num_train else self.data

    def trials_at(self, scale: str) -> int:
        """How many networks of each space the study has at that scale."""
        one = self.get_scale(scale)
        if not one.of:
            return self.trials_per_space
        originals = self.trials_at(one.of)
        return min(originals, one.trials_per_space or originals)

    def is_repeat(self, scale: str) -> bool:
        """Whether it trains networks of another scale once more, just as there, with other seeds: to measure what one
        seed does. Its trials are exempt from stopping, and no rule is judged by them."""
        one = self.get_scale(scale)
        if not one.of or (one.width_factor, one.depth_factor) != (1, 1):
            return False
        conditions = [
            (self.get_scale(s).resolution, self.stopping_at(s).max_epochs, self.data_at(s).num_train)
            for s in (scale, one.of)
        ]
        return conditions[0] == conditions[1]

    @property
    def judged_scales(self) -> tuple[Scale, ...]:
        """Those at which rules are judged: all but repeats."""
        return tuple(scale for scale in self.scale if not self.is_repeat(scale.name))

    @cached_property
    def design_spaces(self) -> tuple[Space, ...]:
        """Those of `spaces`, in that order."""
        own = [table.to_space() for table in self.space]
        return tuple(get_space(name, own) for name in self.spaces)

    def get_space(self, name: str) -> Space:
        """One that ships, or of the study's own, whether `spaces` names it or not. Raises ValueError."""
        return get_space(name, [table.to_space() for table in self.space])

    @cached_property
    def varied_parts(self) -> frozenset[str]:
        """The parts in which networks of this study may differ: several values at a scale, or a space's own."""
        found = {key for space in self.design_spaces for key in space.settings}
        for scale in self.scale:
            for table in (scale.ranges, scale.mlp):
                found |= {key for key, value in table.items() if isinstance(value, list | tuple)}
        if any(space.TABLE == "mlp" for space in self.design_spaces):
            found |= MLP_CHECKS.keys()
        return frozenset(found)

    def colour_of(self, space: str) -> str:
        """The space's colour wherever this study is shown, also one that joined the sweep later."""
        return colours_of(list(dict.fromkeys([*self.spaces, space])))[space]

    def smoke(self) -> "Study":
        """The same study in miniature: it goes the whole way in under a minute, and says nothing."""
        num_train, num_validation = min(self.data.num_train, 128), min(self.data.num_validation, 100)
        epochs = min(self.stopping.max_epochs, 2)
        stopping = {"max_epochs": epochs, "grace_epochs": 1}
        most = {"max_epochs": 2, "grace_epochs": 1, "num_train": num_train, "trials_per_space": 1}
        scales = [
            scale.model_dump(exclude_unset=True) | {field: min(getattr(scale, field), most[field]) for field in most}
            for scale in self.scale
        ]
        return Study.model_validate(
            self.model_dump(exclude_unset=True)
            | {
                "name": f"{self.name.removesuffix('-smoke')}-smoke",
                "trials_per_space": 1,
                "scale": scales,
                "data": self.data.model_dump() | {"num_train": num_train, "num_validation": num_validation},
                "recipe": self.recipe.model_dump() | {"batch_size": min(self.recipe.batch_size, 32)},
                "stopping": self.stopping.model_dump() | stopping,
                "judging": self.judging.model_dump() | {"stop_when": "end", "looks": Judging().looks},
                "rerun": self.rerun.model_dump() | {"epochs": 1},
            }
        )

    @property
    def num_trials(self) -> int:
        return len(self.spaces) * sum(self.trials_at(scale.name) for scale in self.scale)

    @property
    def hash(self) -> str:
        """Twelve hex digits of what decides the results; where the images lie, or what was found, does not count."""
        told = {"method": True, "expected": True, "finding": True}
        counted = self.model_dump(mode="json", exclude={"tracking": True, "data": self.data.not_counted, **told})
        for table, later in LATER_FIELDS.items():
            _forget_defaults(getattr(self, table) if table else self, counted[table] if table else counted, later)
        return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without `tracking`: its URI may hold a password, and this is written everywhere."""
        return self.model_dump(mode="json", exclude={"tracking"})


def _forget_defaults(settings: Settings | tuple[Settings, ...], counted: Any, names: Iterable[str]) -> None:
    """Take out of a dumped table, or of each of several, what stands at its default."""
    if isinstance(settings, tuple):
        for one, its in zip(settings, counted):
            _forget_defaults(one, its, names)
        return
    for name in names:
        if getattr(settings, name) == type(settings).model_fields[name].get_default(call_default_factory=True):
            del counted[name]


def _refuse_doubles(field: str, values: Iterable[str]) -> None:
    values = list(values)
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{field} name {value!r} twice; name each once")
