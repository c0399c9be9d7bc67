"""The checker: whether a sweep holds the invariants I1 to I6 (DESIGN, section 5), asked from outside.

In: a run directory, and where MLflow records. Out: `Findings`. It reads the journal and MLflow with its own SQL or
over HTTP, knows the rules by its own account of them, writes nothing, and imports no other room of this package: a
fault of the sweep's code cannot be a fault of the check as well. It may be asked while a sweep is at work.

I7 (nothing leaks) and I8 (exit codes and messages) leave no trace in these records; tests/faults watches them.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweep.verify.against import compare_populations, compare_results
from sweep.verify.check import Check
from sweep.verify.decisions import check_decisions
from sweep.verify.invariants import (
    check_artifacts,
    check_file,
    check_no_point_twice,
    check_none_running,
    check_points,
    check_runs,
)
from sweep.verify.journal import DamagedError, JournalRows, UnreadableError, read_journal
from sweep.verify.looks import check_looks
from sweep.verify.mlflow import Records, UnreachableError, read_records, strip_credentials
from sweep.verify.outcomes import check_outcomes
from sweep.verify.population import check_configurations, check_population

__all__ = ["INVARIANTS", "Findings", "verify"]

# What is asked, and what is counted.
INVARIANTS = {
    "I1": ("each trial has one run that tells the truth", "trials and runs"),
    "I2": ("no run is left RUNNING", "runs"),
    "I3": ("no metric point is stored twice", "points"),
    "I4": ("no committed metric point is missing", "points"),
    "I5": ("the trials are those of the study", "trials"),
    "I6": ("each decision is the rule's", "decisions"),
    "artifacts": ("each artifact that is claimed is whole", "artifacts"),
    "journal": ("the journal is whole", "demands"),
}


@dataclass(frozen=True)
class Findings:
    """By the keys of `INVARIANTS`: how much was looked at; where there are any, a sentence for each violation; and why
    something was not looked at, which is no pass."""

    run_dir: str
    tracking_uri: str
    against: str | None
    at_work: bool
    checked: dict[str, int]
    violations: dict[str, tuple[str, ...]]
    not_checked: dict[str, str]

    @property
    def holds(self) -> bool:
        return not self.not_checked and not self.violations

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"holds": self.holds}


def verify(
    run_dir: str | Path,
    tracking_uri: str | None = None,
    against: str | Path | None = None,
    at_work: bool = False,
    *,
    timeout_s: float = 20.0,
) -> Findings:
    """Ask every invariant of the sweep in `run_dir`.

    `tracking_uri`: needed where the sweep's own held a password, which the journal does not keep. `against`: the run
    directory of an undisturbed sweep of the same study. `at_work`: a driver is at it, so that MLflow may lag behind
    the journal. `timeout_s`: for each answer of a server. Raises `ValueError` where there is no journal to read.
    """
    folder, other_folder = Path(run_dir).absolute(), None if against is None else Path(against).absolute()
    checks = {name: Check() for name in INVARIANTS}
    journal = _read(folder, checks)
    uri = tracking_uri or (journal and journal.meta.get("tracking_uri")) or f"sqlite:///{folder / 'mlflow.db'}"
    other = None if other_folder is None else _read_other(other_folder, checks)
    if journal is not None:
        _ask_journal(journal, checks)
        _ask_mlflow(journal, uri, at_work, checks, timeout_s)
        if other is not None:
            compare_populations(journal, other, checks["I5"])
            compare_results(journal, other, checks["I6"])
    return Findings(
        run_dir=str(folder),
        tracking_uri=strip_credentials(uri),
        against=None if other_folder is None else str(other_folder),
        at_work=at_work,
        checked={name: check.num_checked for name, check in checks.items()},
        violations={name: tuple(check.violations) for name, check in checks.items() if check.violations},
        not_checked={name: "; ".join(check.not_checked) for name, check in checks.items() if check.not_checked},
    )


def _read(folder: Path, checks: dict[str, Check]) -> JournalRows | None:
    """None where nothing can be asked: the checks then say why."""
    try:
        return read_journal(folder)
    except DamagedError as error:
        for line in str(error).splitlines():
            checks["journal"].ask(False, line)
        reason = "the journal is damaged"
    except UnreadableError as error:
        reason = str(error)
        checks["journal"].not_checked.append(reason)
    for name, check in checks.items():
        if name != "journal":
            check.not_checked.append(reason)
    return None


def _read_other(folder: Path, checks: dict[str, Check]) -> JournalRows | None:
    try:
        return read_journal(folder)
    except (DamagedError, UnreadableError) as error:
        for name in ("I5", "I6"):
            checks[name].not_checked.append(f"the other sweep: {error}")
    return None


def _ask_journal(journal: JournalRows, checks: dict[str, Check]) -> None:
    check_file(journal, checks["journal"])
    check_outcomes(journal, checks["I1"])
    check_population(journal, checks["I5"])
    check_decisions(journal, checks["I6"])
    check_looks(journal, checks["I6"])


def _ask_mlflow(journal: JournalRows, uri: str, at_work: bool, checks: dict[str, Check], timeout_s: float) -> None:
    asked: dict[str, Callable[[Records, Check], None]] = {
        "I1": lambda records, check: check_runs(journal, records, at_work, check),
        "I2": lambda records, check: check_none_running(records, at_work, check),
        "I3": check_no_point_twice,
        "I4": lambda records, check: check_points(journal, records, at_work, check),
        "I5": lambda records, check: check_configurations(journal, records, at_work, check),
        "artifacts": check_artifacts,
    }
    try:
        records = read_records(uri, journal.sweep_id, journal.meta.get("parent_run_id"), timeout_s=timeout_s)
    except UnreachableError as error:
        for name in asked:
            checks[name].not_checked.append(str(error))
        return
    with closing(records):  # type: ignore[type-var]
        for name, ask in asked.items():
            ask(records, checks[name])
