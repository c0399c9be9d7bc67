"""What the fault tests share: one undisturbed sweep to compare with, and the record of what was injected."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.harness import STUDY, THOROUGH, Sweep
from once import once
from sweeps.small import SETTINGS as TRAINING

# In CI each fault has its turn in test_mixed.py; here each is alone, and as often as `make faults` says.
collect_ignore = (
    [] if THOROUGH else [f"test_{name}.py" for name in ("processes", "storage", "mlflow", "trials", "identity")]
)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """The synchronous sweep of the deterministic objective, that nothing happened to."""
    return _finished(tmp_path_factory, "steady", STUDY)


@pytest.fixture(scope="session")
def undisturbed_training(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """The synchronous sweep of real training, that nothing happened to."""
    return _finished(tmp_path_factory, "training", TRAINING)


def _finished(tmp_path_factory: pytest.TempPathFactory, name: str, settings: list[str]) -> Sweep:
    def sweep_in(folder: Path) -> Sweep:
        return Sweep(folder / "run", [*settings, "stopping.method=synchronous"])

    def make(folder: Path) -> None:
        sweep_in(folder).finish()
        sweep_in(folder).check()

    return sweep_in(once(tmp_path_factory, name, make))


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    """A test that fails leaves no sweep at work."""
    yield
    for sweep in Sweep.started:
        sweep.kill_all()
    Sweep.started.clear()


@pytest.fixture
def injected(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """`injected(number, fault, recovery_s=…)`: a fault of the list was injected; it counts as survived if the test
    passes. `make faults` gathers the lines into the README's table."""
    lines: list[dict[str, Any]] = []

    def note(number: int, fault: str, *, times: int = 1, recovery_s: float | None = None) -> None:
        lines.append({"number": number, "fault": fault, "times": times, "recovery_s": recovery_s})

    yield note
    record = os.environ.get("SWEEP_FAULT_RECORD")
    if record:
        held = not request.node.stash.get(_FAILED, False)
        with Path(record).open("a") as file:
            for line in lines:
                file.write(json.dumps({**line, "held": held, "test": request.node.name, "at": time.time()}) + "\n")


_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Any:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report
