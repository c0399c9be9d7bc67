"""What all tables of a study have in common: frozen, strict, and without keys that nobody knows."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """A table of a study."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def message_of(problem: Any) -> str:
    """What is wrong, without pydantic's words around it."""
    text = problem["msg"].removeprefix("Value error, ")
    return text[0].lower() + text[1:]
