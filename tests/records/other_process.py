"""A second process for tests of what processes do to one another (import as `records.other_process`).

It evaluates the expressions that it is sent, with this module's functions and those of `records.rows` at hand, and
answers values that JSON has; what it raises comes back as text.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from records.rows import META, T0, decision_row, epoch_row, trial_row

from sweep.records import Journal, lease

__all__ = ["META", "T0", "OtherProcess", "at", "create", "decision_row", "epoch_row", "hold", "let_go", "write_epochs"]


class OtherProcess:
    """`ask` sends an expression and waits for its value; `send` and `answer` do the two halves."""

    def __enter__(self) -> "OtherProcess":
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from records import other_process; other_process.obey()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate()

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, expression: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, expression: str) -> Any:
        self.send(expression)
        return self.answer()


# -- what runs in the other process ----------------------------------------------------------------------------

_held = ExitStack()
_journals: list[Journal] = []


def obey() -> None:
    for line in sys.stdin:
        try:
            value = eval(line, globals())  # noqa: S307 - the test's own expressions
        except Exception as error:
            value = f"{type(error).__name__}: {error}"
        print(json.dumps(value), flush=True)  # noqa: T201


def at(moment_s: float, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call it at a moment of the monotonic clock, which all processes share."""
    while time.monotonic() < moment_s:
        pass
    return function(*arguments)


def create(run_dir: str, who: str) -> str:
    """A journal of one's own, with three notes in it."""
    with Journal.create(Path(run_dir), {**META, "who": who}, [trial_row(number) for number in range(4)]) as journal:
        for number in range(3):
            journal.note("wrote", f"{who} {number}")
    return who


def write_epochs(run_dir: str, num: int) -> int:
    """Epochs with their decisions; the connection stays open, and so does the log."""
    journal = Journal.open(Path(run_dir))
    _journals.append(journal)
    for epoch in range(1, num + 1):
        journal.record(epoch_row(T0, epoch), decision_row(T0, epoch, 20.0), "running")
    return num


def hold(run_dir: str, beat_s: float = 0.05) -> int:
    """Own the sweep until `let_go`; answers the token."""
    lease._BEAT_S = beat_s
    journal = Journal.open(Path(run_dir))
    _journals.append(journal)
    _held.callback(journal.close)
    return _held.enter_context(lease.held(journal, lambda message: None))


def let_go() -> None:
    _held.close()
