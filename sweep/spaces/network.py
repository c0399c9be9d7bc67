"""What every kind of network has in common as data: a content-based id, and the ways to JSON and YAML.

In: a frozen dataclass with `to_dict`. Out: its id and its texts; the way back is families.py, which knows every kind.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from typing import Any

import yaml


class Network(ABC):
    """A whole network, apart from the size and channels of its images and the number of its classes."""

    __slots__ = ()

    @property
    def id(self) -> str:
        """Twelve hex digits of the content: equal networks have equal ids on every machine."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    @property
    @abstractmethod
    def depth(self) -> int:
        """Blocks, or hidden layers, one after another."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dicts; the inverse of `from_dict`."""

    def to_json(self) -> str:
        """Canonical: sorted keys, no blanks. Equal networks give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    def to_yaml(self) -> str:
        """For people: one line a stage."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=110)


def parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"architecture: not valid JSON ({error}); mend the text") from error


def parse_yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"architecture: not valid YAML ({error}); mend the text") from error
