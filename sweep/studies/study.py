"""A study: the question that a sweep answers, frozen and validated (TOML, read by pydantic).

In: the path of a TOML file, or the name of a study that ships, and `key=value` overrides. Out: a `Study`.
Raises `ValueError` whose every line names a field, the value given and the remedy; unknown keys are refused, with
the nearest known one named. Nothing here reads the clock, the machine or the environment.
"""

import hashlib
import json
import tomllib
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from sweep.spaces import Ranges, get_space
from sweep.studies.data import Data
from sweep.studies.settings import Count, Settings, Share

MAX_TRIALS = 1_000_000  # of one sweep: drawing them takes some minutes and 1.2 GB

TRAIN = "train"  # the objective of a study that trains its networks

Name = Annotated[str, Field(min_length=1, max_length=200)]


class Scale(Settings):
    """One size at which the rules are tried: image resolution in pixels, a flops band, and the spaces' ranges."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,40}$")] = "small"
    resolution: Annotated[int, Field(ge=8, le=1024)] = 28
    flops_min: Annotated[float, Field(gt=0)]
    flops_max: Annotated[float, Field(gt=0)]
    ranges: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _band(self) -> "Scale":
        if self.flops_min >= self.flops_max:
            raise ValueError(
                f"flops_min = {self.flops_min:g} is not below flops_max = {self.flops_max:g}; swap or widen the band"
            )
        return self

    @field_validator("ranges")
    @classmethod
    def _known(cls, ranges: dict[str, Any]) -> dict[str, Any]:
        known = list(Ranges.__dataclass_fields__)
        for key in ranges:
            if key not in known:
                raise ValueError(f"unknown key {key!r}{_nearest(key, known)}")
        to_ranges(ranges)
        return ranges

    def to_ranges(self) -> Ranges:
        return to_ranges(self.ranges)


def to_ranges(table: dict[str, Any]) -> Ranges:
    settings: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    return Ranges(**settings)


class Recipe(Settings):
    """How a network trains: SGD with momentum, linear warm-up, one cosine over all its epochs to zero."""

    batch_size: Count = 128
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = True
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    flip: bool = True
    crop_padding: Annotated[int, Field(ge=0)] = 2
    precision: Literal["fp32", "bf16"] = "fp32"


class Stopping(Settings):
    """When a trial ends: at its cohort's rungs (grace, grace·eta, …) or after `max_epochs`.

    `method`: "asha" stops a trial as it arrives at a rung; "asha_promotion" lets it wait there until its place is
    earned; "synchronous" decides a rung when all its trials have arrived, so that the same study gives the same table
    whatever the timing; "none" trains all to the end.
    `audit_fraction` of the trials are exempt by a seeded lottery. `flops_strata` splits each cohort by flops into
    that many bands of equal ratio, so that cheap networks, which finish first, do not set the bar for others.
    """

    method: Literal["asha", "asha_promotion", "synchronous", "none"] = "asha"
    max_epochs: Count = 16
    grace_epochs: Count = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 4
    audit_fraction: Share = 0.1
    flops_strata: Count = 1

    @model_validator(mode="after")
    def _grace(self) -> "Stopping":
        if self.grace_epochs > self.max_epochs:
            raise ValueError(
                f"grace_epochs = {self.grace_epochs} is more than max_epochs = {self.max_epochs}; "
                "a trial must be able to outlive its grace period"
            )
        return self

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
    """How a rule is judged: harm or benefit within `margin_pct` points of error counts as none."""

    margin_pct: Annotated[float, Field(gt=0)] = 0.5
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    num_bootstrap: Annotated[int, Field(ge=100)] = 10_000


class Rerun(Settings):
    """The best network at full scale: all training images; `resolution` 0 keeps that of its scale."""

    epochs: Count = 30
    resolution: Annotated[int, Field(ge=0, le=1024)] = 0
    learning_rate: Annotated[float, Field(ge=0)] = 0.0

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
    """A whole study. `spaces` are compared at each scale with `trials_per_space` networks each.

    A trial whose own code fails is tried again `max_failures` times, one whose machine fails `max_machine_failures`
    times; one that runs out of memory counts as failed, or is tried once with half the batch ("smaller_batch").
    `objective`: "train", or `module:function` of the user's own (sweep/training/objective.py).
    """

    name: Name
    question: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
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

    @field_validator("spaces")
    @classmethod
    def _spaces(cls, spaces: tuple[str, ...]) -> tuple[str, ...]:
        for space in spaces:
            get_space(space)
        _refuse_doubles("spaces", spaces)
        return spaces

    @field_validator("scale")
    @classmethod
    def _scales(cls, scales: tuple[Scale, ...]) -> tuple[Scale, ...]:
        _refuse_doubles("scale names", [scale.name for scale in scales])
        return scales

    @model_validator(mode="after")
    def _batch(self) -> "Study":
        if self.recipe.batch_size > self.data.num_train:
            raise ValueError(
                f"recipe.batch_size = {self.recipe.batch_size} is more than data.num_train = {self.data.num_train}; "
                "an epoch would hold no batch: lower one or raise the other"
            )
        return self

    @model_validator(mode="after")
    def _size(self) -> "Study":
        if self.num_trials > MAX_TRIALS:
            raise ValueError(
                f"trials_per_space = {self.trials_per_space} makes {self.num_trials:,} trials of {len(self.spaces)} "
                f"spaces at {len(self.scale)} scales, more than {MAX_TRIALS:,}; lower it"
            )
        return self

    @property
    def num_trials(self) -> int:
        return self.trials_per_space * len(self.spaces) * len(self.scale)

    @property
    def hash(self) -> str:
        """Twelve hex digits of what decides the results; where the images lie does not count."""
        counted = self.model_dump(mode="json", exclude={"tracking": True, "data": self.data.not_counted})
        return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without `tracking`: its URI may hold a password, and this is written everywhere."""
        return self.model_dump(mode="json", exclude={"tracking"})


def _refuse_doubles(field: str, values: Iterable[str]) -> None:
    values = list(values)
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{field} name {value!r} twice; name each once")


def shipped_studies() -> dict[str, Path]:
    """The studies that come with the package, by name."""
    folder = Path(str(files("sweep.studies")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_study(source: str | Path, overrides: Iterable[str] = ()) -> Study:
    """Read a study from a path or by the name of one that ships; `overrides` are `key=value`, dots for tables."""
    shipped = shipped_studies()
    path = shipped.get(str(source), Path(source))
    if not path.is_file():
        raise ValueError(
            f"study: {str(source)!r} is neither a file nor a study that ships ({', '.join(shipped)})"
            f"{_nearest(str(source), list(shipped))}"
        )
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"study: {str(path)!r} is not valid TOML: {error}; mend the file") from error
    for override in overrides:
        _apply(table, override)
    return study_from_dict(table)


def study_from_dict(table: dict[str, Any]) -> Study:
    """Validate a table as a study; errors name the field, the value and the remedy, one a line."""
    try:
        return Study.model_validate(table)
    except ValidationError as error:
        raise ValueError("\n".join(_explain(error))) from error


def _apply(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"--set: {override!r} is not key=value; write for example --set stopping.max_epochs=8")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string: quotes rarely survive a shell
    *parents, last = key.strip().split(".")
    target: Any = table
    for parent in parents:
        target = target[0] if isinstance(target, list) and len(target) == 1 else target
        if not isinstance(target, dict):
            raise ValueError(f"--set: {key!r} does not lead to a single table; edit the study file instead")
        target = target.setdefault(parent, {})
    target = target[0] if isinstance(target, list) and len(target) == 1 else target
    if not isinstance(target, dict):
        raise ValueError(f"--set: {key!r} does not lead to a single table; edit the study file instead")
    target[last] = value


def _explain(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "study"
        if problem["type"] == "extra_forbidden":
            yield f"{where}: unknown key{_nearest(str(problem['loc'][-1]), _keys_at(problem['loc'][:-1]))}"
        elif problem["type"] == "missing":
            yield f"{where}: is missing; add it to the study"
        else:
            message = problem["msg"].removeprefix("Value error, ")
            given = problem["input"]
            shown = "" if isinstance(given, dict) or problem["loc"] == () else f" = {given!r}"
            yield f"{where}{shown}: {message[0].lower() + message[1:]}"


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    model: Any = Study
    for part in location:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation
            model = next((a for a in (annotation, *get_args(annotation)) if hasattr(a, "model_fields")), None)
            if model is None:
                return []
    return list(model.model_fields)


def _nearest(word: str, known: list[str]) -> str:
    near = get_close_matches(word, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known keys: {', '.join(known)}" if known else ""
