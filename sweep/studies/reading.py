"""How a study is read: from TOML, with overrides, and what is wrong with it told in lines.

In: the path of a TOML file, or the name of a study that ships, and `key=value` overrides. Out: a `Study`.
Raises `ValueError` whose every line names a field, the value given and the remedy; unknown keys are refused, with
the nearest known one named.
"""

import tomllib
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from sweep.studies.recipe import preset
from sweep.studies.settings import message_of
from sweep.studies.study import Study


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
    if parents[:1] == ["recipe"] and isinstance(name := table.get("recipe"), str):
        try:
            table["recipe"] = preset(name)  # a table, in which single settings can be changed
        except ValueError as error:
            raise ValueError(f"recipe = {name!r}: {error}") from None
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
            given = problem["input"]
            shown = "" if isinstance(given, dict) or problem["loc"] == () else f" = {given!r}"
            yield f"{where}{shown}: {message_of(problem)}"


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
