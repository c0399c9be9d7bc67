"""The supervisor: it starts an engine (engine.py), listens to it, and starts another one when it dies.

In: a journal under this process's lease, a profile, the data. Out: a journal in which every trial has ended, or one
that can be resumed. What can pass is waited for or tried again: Ray that died, a disk that is full, a data file that
has to be made anew. What cannot is raised, and says what to do.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from cluster import Profile
from sweep.records import Journal
from sweep.records.journal import LeaseLostError
from sweep.scheduling.conductor import Conductor
from sweep.scheduling.engine import DRAIN, Order
from sweep.scheduling.looks import Looks
from sweep.studies import study_from_dict
from sweep.training.data import DataFiles

LOG_FILE = "engine.log"
_MAX_DEATHS = 4  # in a row, without an epoch between them
_BACKOFF_S = 2.0
_START_PATIENCE_S = 600.0  # the hosts of a cluster are examined meanwhile
_PATIENCE_S = 120.0
_SAY_AGAIN_S = 60.0
_ROOM_BYTES = 4_000_000
_KILLED_WITHIN_S = 2.0

Log = Callable[[str], None]


class EngineDiedError(RuntimeError):
    """Ray died again and again; nothing is lost, and the sweep can be resumed."""


class StopSwitch:
    """Whether the sweep was asked to end: by a signal handler of this process, or by `sweep stop` in the journal."""

    def __init__(self, journal: Journal, interval_s: float = 0.5):
        self._journal, self._interval_s, self._next_look = journal, interval_s, 0.0
        self.requested = self.aborted = False

    def __call__(self) -> bool:
        if self.aborted:
            raise KeyboardInterrupt
        if not self.requested and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + self._interval_s
            self.requested = bool(self._journal.get("stop_requested", False))
        return self.requested


@contextmanager
def stop_on_signals(switch: StopSwitch) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the sweep so that it can be resumed; the second Ctrl-C ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: object) -> None:
        if switch.requested and number == signal.SIGINT:
            switch.aborted = True  # Python swallows an exception that is raised while it tidies up
            raise KeyboardInterrupt
        switch.requested = True

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def supervise(
    journal: Journal,
    profile: Profile,
    data: dict[str, DataFiles],
    prepare: Callable[[], dict[str, DataFiles]],
    switch: StopSwitch,
    log: Log,
) -> None:
    """Train everything that is unfinished; returns early when the switch says so. Looks are taken meanwhile (looks.py).

    `prepare` makes damaged data files again. Raises `ValueError` for what was wrong before the first trial,
    `EngineDiedError`, `LeaseLostError`, or `RuntimeError` where the data's source is damaged too.
    """
    run_dir = journal.path.parent
    assert journal.token is not None
    deaths, has_trained = 0, False
    looks = Looks(journal, log)
    while not switch():
        if journal.is_finished():
            if journal.has_open_places():  # a driver was killed between the last end and the decision on the others
                Conductor(journal, study_from_dict(journal.get("study"))).next_stretch()
            return
        known = journal.num_epochs()
        end, message = _run_engine(Order.of(run_dir, journal.token, profile, data), switch, looks, log)
        if end == "done" and (switch() or journal.is_finished()):
            continue
        if end == "fenced":
            raise LeaseLostError(message)
        has_trained = has_trained or journal.num_epochs() > known
        if end == "refused" and not has_trained and deaths == 0:
            raise ValueError(message)
        if end == "full" or not has_room(run_dir):
            _wait_for_room(run_dir, switch, log)
            continue
        message = message.partition("\n")[0]  # Ray can say pages; they are in the engine's log
        deaths = 1 if journal.num_epochs() > known else deaths + 1
        if end == "done" and deaths == 1:  # trials were added in its last moment
            continue
        journal.note("data_damaged" if end == "data" else "engine_died", message)
        if deaths > _MAX_DEATHS:
            raise EngineDiedError(
                f"Ray died {deaths} times without a new result ({message}); nothing is lost. Look at "
                f"{run_dir / LOG_FILE}, mend what it names, and go on with --resume"
            )
        if end == "data":
            log(f"{message}; making it again from its source")
            data = _prepared_again(prepare)
        else:
            log(f"{message}; starting again with what the journal holds ({deaths} of {_MAX_DEATHS})")
            _pause(_BACKOFF_S * 2 ** (deaths - 1), switch)


def _prepared_again(prepare: Callable[[], dict[str, DataFiles]]) -> dict[str, DataFiles]:
    try:
        return prepare()
    except ValueError as error:
        raise RuntimeError(f"{error}; then go on with --resume: nothing is lost") from error


def _pause(seconds: float, switch: StopSwitch) -> None:
    deadline = time.monotonic() + seconds
    while not switch() and time.monotonic() < deadline:
        time.sleep(0.2)


# -- storage that is full ------------------------------------------------------------------------------------------


def _writable_places(run_dir: Path) -> list[Path]:
    """Where a sweep must be able to write: results and states, and what Ray and torch put aside."""
    return [run_dir, Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()), Path(tempfile.gettempdir())]


def _without_room(run_dir: Path) -> Path | None:
    for place in _writable_places(run_dir):
        try:
            with tempfile.TemporaryFile(dir=place) as file:
                file.write(bytes(_ROOM_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            return place
    return None


def has_room(run_dir: Path) -> bool:
    return _without_room(run_dir) is None


def _wait_for_room(run_dir: Path, switch: StopSwitch, log: Log) -> None:
    """No trial is burned for a full disk: the sweep waits, says so, and goes on when there is room."""
    say_s = 0.0
    while (place := _without_room(run_dir)) is not None and not switch():
        if time.monotonic() >= say_s:
            say_s = time.monotonic() + _SAY_AGAIN_S
            log(f"waiting: {place} is full or cannot be written; free some room there, and the sweep goes on by itself")
        time.sleep(1)


def when_there_is_room(step: Callable[[], Any], run_dir: Path, switch: StopSwitch, log: Log) -> Any:
    """What `step` answers; it is done again after it failed for want of room. Until it is asked to stop."""
    while True:
        try:
            return step()
        except Exception:
            if switch.requested or has_room(run_dir):
                raise
        _wait_for_room(run_dir, switch, log)


# -- one engine ----------------------------------------------------------------------------------------------------


def _run_engine(order: Order, switch: StopSwitch, looks: Looks, log: Log) -> tuple[str, str]:
    """How an engine ended (`engine.End`), and why."""
    log_path = Path(order.run_dir) / LOG_FILE
    try:
        with open(log_path, "wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "sweep.scheduling.engine"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,  # a Ctrl-C in the terminal is for us alone
            )
    except OSError as error:
        return ("full" if not has_room(Path(order.run_dir)) else "died"), f"no process could be started: {error}"
    try:
        return _attend(process, order, switch, looks, log)
    finally:
        _end(process)


def _attend(process: subprocess.Popen, order: Order, switch: StopSwitch, looks: Looks, log: Log) -> tuple[str, str]:
    messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
    threading.Thread(target=_read, args=(process, messages), daemon=True).start()
    _send(process, json.dumps(asdict(order)))
    heard_s, patience_s, say_s, drained = time.monotonic(), _START_PATIENCE_S, 0.0, False
    while True:
        if switch() and not drained:
            drained = True
            _send(process, DRAIN)
        looks()
        try:
            message = messages.get(timeout=0.2)
        except queue.Empty:
            if time.monotonic() - heard_s > patience_s:
                return "died", f"Ray said nothing for {patience_s:g} s"
            continue
        if message is None:
            return "died", _last_words(process, Path(order.run_dir) / LOG_FILE)
        heard_s = time.monotonic()
        if "end" in message:
            return message["end"], message["message"]
        if "log" in message:
            log(message["log"])
        if "alive" in message:
            patience_s = _PATIENCE_S
        if "waiting" in message and heard_s >= say_s:
            say_s = heard_s + _SAY_AGAIN_S
            log(f"waiting: {message['waiting']}; free some room, and the sweep goes on by itself")


def _read(process: subprocess.Popen, messages: queue.Queue) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        with suppress(json.JSONDecodeError):  # the half line of an engine that was killed
            messages.put(json.loads(line))
    messages.put(None)


def _send(process: subprocess.Popen, line: str) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it has just died, which is heard elsewhere
        process.stdin.write(line.encode() + b"\n")
        process.stdin.flush()


def _last_words(process: subprocess.Popen, log_path: Path) -> str:
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    code = process.returncode
    how = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with code {code}"
    lines = log_path.read_text(errors="replace").strip().splitlines() if log_path.exists() else []
    said = f": {lines[-1][:200]}" if lines else ""
    return f"the process that runs Ray ended {how}{said}"


def _end(process: subprocess.Popen) -> None:
    """End an engine and the Ray that it started, if any of it is left.

    They are one session (`start_new_session`). Of an engine that was killed, some of Ray's agents stay for a minute
    otherwise, and are no one's children.
    """
    family = list(_session(process.pid))
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
    deadline = time.monotonic() + _KILLED_WITHIN_S
    while any(map(_runs, family)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()


def _session(leader: int) -> Iterator[psutil.Process]:
    for pid in psutil.pids():
        with suppress(OSError, psutil.NoSuchProcess):  # it has just ended, or is none of ours
            if os.getsid(pid) == leader:
                yield psutil.Process(pid)


def _runs(process: psutil.Process) -> bool:
    """One that only waits for its parent to hear of its end does not: in a container no one may ever do."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
