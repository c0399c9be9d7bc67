"""A sweep under faults: started as its users start it, hurt at a seeded moment, resumed, and checked from outside.

In: a study of a deterministic objective or of real training. Out: what `sweep.verify`, which imports none of the code
that wrote journal and MLflow, finds wrong (nothing), with the table of an undisturbed sweep beside it. Each fault that
was injected is a line of the table that `make faults` writes (tests/faults/table.py).
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import psutil

from sweep.verify import verify

ROUNDS = int(os.environ.get("SWEEP_FAULT_ROUNDS", "1"))
"""How often each fault is injected; CI takes one, `make faults` more."""

STUDY = [
    "objective=objectives:steady", "trials_per_space=4", 'spaces=["anynet_c", "anynet_d"]',
    "stopping.max_epochs=9", "stopping.grace_epochs=1", "stopping.reduction_factor=3", "stopping.audit_fraction=0.25",
    "judging.num_bootstrap=200",
]  # fmt: skip
_HERE = Path(__file__).resolve().parent


THOROUGH = ROUNDS > 1
"""Whether there is time for variants of a fault beside the fault itself."""


def rounds() -> Iterable[int]:
    """The seeds of the moments of a fault."""
    return range(ROUNDS)


class EndedError(AssertionError):
    """The sweep came to its end before a moment that was waited for."""


class Sweep:
    """One run directory, and the process at work on it. `started`: all that this test has started."""

    started: ClassVar[list["Sweep"]] = []

    def __init__(self, run_dir: Path, settings: Iterable[str] = STUDY, *, env: dict[str, str] | None = None):
        self.run_dir, self.settings = run_dir, list(settings)
        self._hold = run_dir.with_name(f"{run_dir.name}.hold")
        self.env = {"PYTHONPATH": str(_HERE), "FAULT_HOLD": str(self._hold), **(env or {})}
        self.study = "quickstart"
        self.process: subprocess.Popen[str] | None = None
        self._stderr = run_dir.with_name(f"{run_dir.name}.stderr")
        self._engines: set[int] = set()

    # -- its life ----------------------------------------------------------------------------------------------

    def start(self, *more: str, prefix: Iterable[str] = (), **popen: Any) -> "Sweep":
        options = [word for setting in self.settings for word in ("--set", setting)]
        command = [
            *prefix, sys.executable, "-m", "sweep", "launch", self.study, "--run-dir", str(self.run_dir), "--resume",
            "--json", *options, *more,
        ]  # fmt: skip
        self.run_dir.parent.mkdir(parents=True, exist_ok=True)
        self.started.append(self)
        with self._stderr.open("w") as stderr:
            self.process = subprocess.Popen(
                command, env={**os.environ, **self.env}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=stderr, text=True, encoding="utf-8", **popen,
            )  # fmt: skip
        return self

    def end(self, timeout_s: float = 150) -> tuple[int, dict[str, Any]]:
        """Wait for its end; answers the exit code and the summary that it printed, if it did."""
        assert self.process is not None
        try:
            stdout, _ = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill_all()
            raise AssertionError(f"no end after {timeout_s} s\n{self.stderr}\n{self.log()}") from None
        return self.process.returncode, json.loads(stdout) if stdout.strip() else {}

    def finish(self, timeout_s: float = 150) -> dict[str, Any]:
        """Resume it if it is not at work, and let it come to its end."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        code, summary = self.end(timeout_s)
        assert code == 0, (code, self.stderr, self.log())
        assert summary["finished"]
        return summary

    @property
    def stderr(self) -> str:
        return self._stderr.read_text(errors="replace") if self._stderr.exists() else ""

    def log(self) -> str:
        path = self.run_dir / "engine.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    # -- its processes -----------------------------------------------------------------------------------------

    def family(self) -> list[psutil.Process]:
        assert self.process is not None
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def find(self, role: str) -> list[psutil.Process]:
        """`engine`, `raylet`, `gcs_server` or `worker` (one that has a trial)."""
        marks = {"engine": "sweep.scheduling.engine", "worker": "Trainable.train"}
        found = []
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                words = " ".join(process.cmdline())
                if (role in marks and marks[role] in words) or process.name() == role:
                    found.append(process)
        return found

    def hurt(self, role: str, number: signal.Signals = signal.SIGKILL, *, chance: random.Random) -> psutil.Process:
        """Send a signal to the driver or to one process of a role."""
        assert self.process is not None
        self._engines |= {engine.pid for engine in self.find("engine")}
        found = [psutil.Process(self.process.pid)] if role == "driver" else self.until(lambda: self.find(role))
        victim = chance.choice(found)
        victim.send_signal(number)
        if role == "driver" and number == signal.SIGKILL:
            self.process.communicate()
        return victim

    @staticmethod
    def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
        """Those that run; one that waits for its parent to hear of its end does not."""
        found = []
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def left(self) -> list[psutil.Process]:
        """What still runs of the engines that were hurt: each is the leader of a session, and Ray is in it."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, OSError):
                if os.getsid(process.pid) in self._engines:
                    found.append(process)
        return self.alive(found)

    def kill_all(self) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            for process in [*self.family(), psutil.Process(self.process.pid)]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        with suppress(ValueError):  # it was heard to its end
            self.process.communicate()

    # -- its moments -------------------------------------------------------------------------------------------

    def until(self, look: Callable[[], Any], timeout_s: float = 90) -> Any:
        """What `look` answers, as soon as that is true."""
        assert self.process is not None
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if found := look():
                return found
            if self.process.poll() is not None:
                raise EndedError(f"ended with {self.process.returncode}: {self.stderr}\n{self.log()}")
            time.sleep(0.05)
        raise AssertionError(f"not seen within {timeout_s} s\n{self.stderr}\n{self.log()}")

    def until_epochs(self, number: int) -> None:
        self.until(lambda: self.num_epochs() >= number)

    def at(self, chance: random.Random, *, first: int = 1, last: int = 12) -> int:
        """A moment: after that many more epochs, and a bit."""
        known, wanted = self.num_epochs(), chance.randint(first, last)
        self.until(lambda: self.num_epochs() >= known + wanted)
        time.sleep(chance.random() * 0.3)
        return known + wanted

    @contextmanager
    def held(self) -> Iterator[None]:
        """No epoch of an objective ends meanwhile, so nothing comes too late. Not for a minute: it would stall."""
        self._hold.touch()
        yield
        self._hold.unlink()

    # -- what it holds -----------------------------------------------------------------------------------------

    def query(self, sql: str) -> list[dict[str, Any]]:
        path = self.run_dir / "journal.sqlite"
        if not path.exists():
            return []
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(sql)]

    def num_epochs(self) -> int:
        return len(self.query("SELECT 1 FROM epochs"))

    def events(self, kind: str) -> list[str]:
        return [row["message"] for row in self.query("SELECT * FROM events ORDER BY number") if row["kind"] == kind]

    def runs_open(self) -> int:
        """How many runs MLflow's own database, in the run directory, holds as RUNNING or SCHEDULED."""
        with closing(sqlite3.connect(f"file:{self.run_dir}/mlflow.db?mode=ro", uri=True, timeout=10)) as database:
            sought = "SELECT count(*) FROM runs WHERE status IN ('RUNNING', 'SCHEDULED')"
            return database.execute(sought).fetchone()[0]

    def check(self, against: "Sweep | None" = None) -> None:
        """All invariants hold, no process is left, and the trials are those of an undisturbed sweep."""
        assert not self.left()
        findings = verify(self.run_dir, against=against.run_dir if against else None)
        assert not findings.violations, findings
        assert not findings.not_checked, findings

    def artifacts(self, run_id: str) -> Path:
        return next(self.run_dir.glob(f"mlartifacts/{run_id}")) / "artifacts"
