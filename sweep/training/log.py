"""What a trial says: its prints, warnings and log records, collected instead of shown.

In: whatever Python code of this process writes to stdout and stderr while a `TrialLog` is open (warnings go there too),
and what reaches the root logger at WARNING or above. Out: plain text in portions, `take()`, each of at most 64 kB: of
more, the middle is left out and the text says so. What C code writes past Python is not seen.

A worker runs many trials in one process: when a log closes, everything is as it was before, also where logs overlap. A
thread that still holds on to a stream of a closed log writes to where it would have written without one.
"""

import io
import logging
import re
import sys
import threading
import warnings
from typing import Any, Self, TextIO

_HALF_BYTES = 31_900  # what is left of 64,000 is for the notice between the halves

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
# Also what makes a terminal write from right to left, and bytes that were no UTF-8.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufffd]")


class TrialLog:
    """Collects while it is open; with `capture=False` everything stays as it is, and there is nothing to take."""

    def __init__(self, capture: bool = True):
        self._capture = capture
        self._collected = _Collected()
        self._streams: dict[str, io.TextIOWrapper] = {}
        self._records = _Records(self._collected)

    def __enter__(self) -> Self:
        if self._capture:
            for name in ("stdout", "stderr"):
                sink = _Sink(self._collected, getattr(sys, name))
                self._streams[name] = io.TextIOWrapper(sink, "utf-8", "backslashreplace", write_through=True)
                setattr(sys, name, self._streams[name])
            logging.getLogger().addHandler(self._records)
            with warnings.catch_warnings():
                pass  # Python shows a warning once: now it forgets which, and each trial is told of its own
        return self

    def __exit__(self, *error: Any) -> None:
        logging.getLogger().removeHandler(self._records)
        for name, stream in self._streams.items():
            stream.buffer.is_open = False  # type: ignore[attr-defined]
            setattr(sys, name, _without_closed(getattr(sys, name)))

    def take(self) -> str:
        """What came in since the last time, as lines without colours and control characters."""
        text = _ESCAPES.sub("", self._collected.take())
        # A carriage return goes back to the beginning of the line: what comes last on it is what is seen.
        lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
        return _CONTROLS.sub("?", "\n".join(lines))


class _Collected:
    """The first and the last bytes of what comes in, from whichever thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._first, self._last, self._num_dropped = bytearray(), bytearray(), 0

    def add(self, content: bytes) -> None:
        with self._lock:
            room = _HALF_BYTES - len(self._first)
            self._first += content[:room]
            self._last += content[room:]
            if len(self._last) > 2 * _HALF_BYTES:
                self._trim()

    def _trim(self) -> None:
        surplus = max(0, len(self._last) - _HALF_BYTES)
        del self._last[:surplus]
        self._num_dropped += surplus

    def take(self) -> str:
        with self._lock:
            self._trim()
            first, last, num_dropped = self._first, self._last, self._num_dropped
            self._first, self._last, self._num_dropped = bytearray(), bytearray(), 0
        if not num_dropped:
            return (first + last).decode(errors="replace")
        notice = f"\n[{num_dropped:,} bytes are left out here]\n"
        return notice.join(part.decode(errors="ignore") for part in (first, last))


class _Sink(io.BufferedIOBase):
    """Below a stream: its bytes go into the log while that is open, later to the stream that it stands for."""

    name = "<log of a trial>"

    def __init__(self, collected: _Collected, below: TextIO | None):
        self._collected, self.below, self.is_open = collected, below, True

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        content = bytes(content)
        if self.is_open:
            self._collected.add(content)
        elif self.below is not None:
            self.below.write(content.decode(errors="replace"))
        return len(content)

    def fileno(self) -> int:
        """For a child process that is given the stream: what it writes is not collected."""
        if self.below is None:
            raise io.UnsupportedOperation("fileno")
        return self.below.fileno()


def _without_closed(stream: Any) -> Any:
    """The stream itself, or what it stands for where its log is closed."""
    while isinstance(sink := getattr(stream, "buffer", None), _Sink) and not sink.is_open:
        stream = sink.below
    return stream


class _Records(logging.Handler):
    def __init__(self, collected: _Collected):
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        self._collected = collected

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._collected.add(f"{self.format(record)}\n".encode(errors="backslashreplace"))
        except Exception:  # a record whose arguments do not fit its message must not end the trial
            self.handleError(record)
