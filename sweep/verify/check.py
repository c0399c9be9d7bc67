"""A check: how many things one invariant was asked of, and a sentence for each that does not hold.

In: answers of the modules beside this one. Out: what `Findings` (sweep/verify/__init__.py) reports.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

Sentence = str | Callable[[], str]
"""Made when it is needed, where there are many."""


@dataclass
class Check:
    """`not_checked`: why something could not be looked at, which is never a pass."""

    num_checked: int = 0
    violations: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)

    def ask(self, holds: bool, otherwise: Sentence) -> bool:
        """Count one thing that was looked at, with the sentence to report unless it holds."""
        self.num_checked += 1
        return self.require(holds, otherwise)

    def require(self, holds: bool, otherwise: Sentence) -> bool:
        """One more demand on a thing that is counted already."""
        if not holds:
            self.violations.append(otherwise if isinstance(otherwise, str) else otherwise())
        return holds


def some(items: object, limit: int = 5) -> str:
    """The first few of a collection, in order, for a sentence."""
    found = sorted(map(str, items))  # type: ignore[call-overload]
    return ", ".join(found[:limit]) + (f" and {len(found) - limit} more" if len(found) > limit else "")
