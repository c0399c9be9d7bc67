"""A user's own function or class by its place, `module:name`.

In: the field that names it and the text. Out: what stands there. Raises ValueError with the field, the value and the
remedy.
"""

import importlib
from typing import Any


def load_named(field: str, place: str, example: str) -> Any:
    """What `place` names; it can be called. `example` is what the user could have written."""
    module_name, _, name = place.partition(":")
    if not module_name or not name:
        raise ValueError(f"{field} = {place!r}: is not module:function; write for example {example}")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # what a module of the user's own raises while it is imported
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(
                f"{field} = {place!r}: there is no module {error.name!r}; install it on all hosts, or name its folder "
                "in PYTHONPATH"
            ) from error
        raise ValueError(
            f"{field} = {place!r}: importing {module_name} raised {type(error).__name__}: {error}; mend the module"
        ) from error
    if not hasattr(module, name):
        raise ValueError(f"{field} = {place!r}: {module_name} has no {name!r}; name a function of it")
    found = getattr(module, name)
    if not callable(found):
        raise ValueError(f"{field} = {place!r}: is a {type(found).__name__} and cannot be called; name a function")
    return found
