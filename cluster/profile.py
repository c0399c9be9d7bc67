"""A profile says where a study runs: which Ray, and what one trial occupies.

In: the name of a profile that ships (`laptop`) or the path of a TOML file. Out: a frozen `Profile`. Raises
`ValueError` naming the field, the value and the remedy.
"""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Profile(BaseModel):
    """`address` "local" starts Ray in this process; `num_cpus` 0 takes what the machine has.

    A trial occupies `cpus_per_trial` cores and `gpus_per_trial` cards ("auto": one where there is any, else none;
    0.25 packs four trials onto a card).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    address: Literal["local"] = "local"
    num_cpus: Annotated[int, Field(ge=0)] = 0
    cpus_per_trial: Annotated[float, Field(gt=0)] = 1
    gpus_per_trial: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"


def shipped_profiles() -> dict[str, Path]:
    folder = Path(str(files("cluster"))) / "profiles"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_profile(source: str | Path) -> Profile:
    """Read a profile by its shipped name or from a path."""
    shipped = shipped_profiles()
    path = shipped.get(str(source), Path(source))
    if not path.is_file():
        raise ValueError(f"--on: {str(source)!r} is neither a file nor a profile that ships ({', '.join(shipped)})")
    try:
        return Profile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"--on: {str(path)!r} is not valid TOML: {error}; mend the file") from error
    except ValidationError as error:
        problems = [
            f"--on: {path.name}: {'.'.join(map(str, p['loc']))} = {p['input']!r}: {p['msg']}; "
            f"known keys: {', '.join(Profile.model_fields)}"
            for p in error.errors()
        ]
        raise ValueError("\n".join(problems)) from error
