"""designspace-sweep: find out which rules of network design really hold.

The verbs, for use from Python: `load_study`, `launch`, `judge`, `find`, `judge_curves`, `report`, `rerun`, `export`,
`status`, `stop`, `extend`, `sync`, `logs`; and `Study`. They are loaded when first used, so that `import sweep` costs
nothing.
"""

from importlib import import_module
from typing import Any

_VERBS = {
    "Study": "sweep.studies",
    "load_study": "sweep.studies",
    "launch": "sweep.api",
    "judge": "sweep.api",
    "find": "sweep.api",
    "judge_curves": "sweep.api",
    "report": "sweep.api",
    "status": "sweep.api",
    "stop": "sweep.api",
    "extend": "sweep.api",
    "sync": "sweep.api",
    "logs": "sweep.api",
    "export": "sweep.rerun.export",
}
__all__ = [*_VERBS, "rerun"]


def __getattr__(name: str) -> Any:
    if name == "rerun":  # the room of that name, which can be called
        return import_module("sweep.rerun")
    if name not in _VERBS:
        raise AttributeError(f"module 'sweep' has no attribute {name!r}; it has {', '.join(_VERBS)}")
    return getattr(import_module(_VERBS[name]), name)
