"""What a sweep looks like in a terminal while it trains; what it found is in findings_view.py.

In: a run directory (its journal is read, nothing else). Out: renderables of rich, and `live`, which keeps one view
up to date on stderr: a panel on a terminal, one plain line a minute in a log.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweep.records import Journal
from sweep.records.journal import CANCELLED, COMPLETED, DIVERGED, ENDED, FAILED, PAUSED, PENDING, RUNNING, STOPPED
from sweep.scheduling.standing import standing, told

_STYLES = {
    COMPLETED: "green", STOPPED: "yellow", DIVERGED: "magenta", FAILED: "red", CANCELLED: "red", RUNNING: "cyan",
    PAUSED: "blue", PENDING: "dim",
}  # fmt: skip
# Shown only where there are any.
_RARE = (CANCELLED, PAUSED)


@dataclass(frozen=True)
class Snapshot:
    """A sweep at one moment; `epochs_low` and `epochs_high` are what the stopping rule is expected to train in all.
    `looks`: how they stand, of a sweep that may end early."""

    counts: dict[str, int]
    epochs: int
    epochs_low: int
    epochs_high: int
    arrivals: dict[int, int]
    best_error_pct: float | None
    best_space: str
    last_event: str = ""
    looks: str = ""

    @property
    def num_trials(self) -> int:
        return sum(self.counts.values())

    @property
    def num_ended(self) -> int:
        return sum(self.counts[outcome] for outcome in ENDED)

    def eta_s(self, epochs_at_start: int, elapsed_s: float) -> tuple[float, float] | None:
        """Seconds to go, low and high, at the rate since the start; None before there is a rate."""
        done = self.epochs - epochs_at_start
        if done < 3 or elapsed_s <= 0:
            return None
        rate = done / elapsed_s
        return max(0, self.epochs_low - self.epochs) / rate, max(1, self.epochs_high - self.epochs) / rate


def snapshot(journal: Journal) -> Snapshot:
    forecast = journal.get("forecast", {})
    best = journal.best_completed()
    return Snapshot(
        counts=journal.counts(),
        epochs=journal.num_epochs(),
        epochs_low=forecast.get("epochs_low", 0),
        epochs_high=forecast.get("epochs_high", 0),
        arrivals=journal.arrivals_by_rung(),
        best_error_pct=best["val_error_pct"] if best else None,
        best_space=best["space"] if best else "",
        last_event=_last_event(journal),
        looks=told(looks) if (looks := standing(journal)) else "",
    )


def _last_event(journal: Journal) -> str:
    row = journal.last_event()
    if row is None:
        return ""
    about = f"{row['trial_id']} " if row["trial_id"] else ""
    return f"{about}{row['kind']}: {row['message']}".splitlines()[0]


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def size(num_bytes: float) -> str:
    """A number of bytes as one reads it."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def _eta(eta: tuple[float, float] | None) -> str:
    if eta is None:
        return "ETA: measuring"
    low, high = duration(eta[0]), duration(eta[1])
    return f"ETA {low}" if low == high else f"ETA {low} to {high}"


def plain_line(state: Snapshot, elapsed_s: float, eta: tuple[float, float] | None) -> str:
    """One line for a log file."""
    outcomes = ", ".join(f"{state.counts[name]} {name}" for name in (*ENDED, RUNNING, PAUSED) if state.counts[name])
    best = "" if state.best_error_pct is None else f"; best {state.best_error_pct:.2f} % ({state.best_space})"
    shown = f" ({outcomes})" if outcomes else ""
    looks = f"; {state.looks}" if state.looks else ""
    return (
        f"{duration(elapsed_s)}: {state.num_ended}/{state.num_trials} trials ended{shown}; "
        f"{state.epochs} epochs of about {state.epochs_low} to {state.epochs_high}{best}{looks}; {_eta(eta)}"
    )


def panel(title: str, state: Snapshot, elapsed_s: float, eta: tuple[float, float] | None) -> RenderableType:
    """The live view: a bar, trials by outcome, arrivals at each rung, the best so far."""
    outcomes = Text("  ").join(
        Text(f"{state.counts[name]} {name}", style=_STYLES[name])
        for name in (RUNNING, PAUSED, *ENDED, PENDING)
        if state.counts[name] or name not in _RARE
    )
    rungs = ", ".join(f"epoch {rung}: {count}" for rung, count in state.arrivals.items()) or "none yet"
    best = "–" if state.best_error_pct is None else f"{state.best_error_pct:.2f} % error ({state.best_space})"
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(ratio=1)
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        ProgressBar(total=max(state.num_trials, 1), completed=state.num_ended, width=30),
        f"{state.num_ended}/{state.num_trials}",
        f"{duration(elapsed_s)}, {_eta(eta)}",
    )
    grid.add_row("trials", bar)
    grid.add_row("", outcomes)
    grid.add_row("at rungs", rungs)
    grid.add_row("epochs", f"{state.epochs} of about {state.epochs_low} to {state.epochs_high}")
    grid.add_row("best", best)
    if state.looks:
        grid.add_row("looks", state.looks)
    if state.last_event:
        grid.add_row("last", Text(state.last_event, style="yellow", overflow="ellipsis", no_wrap=True))
    return Group(Text(title, style="bold"), grid)


@contextmanager
def live(run_dir: Path, console: Console, *, interval_s: float = 1.0, line_every_s: float = 60.0) -> Iterator[None]:
    """Show the sweep in `run_dir` until the block ends; its journal is read in a thread of its own."""
    ended = threading.Event()
    shown = threading.Thread(
        target=_show, args=(run_dir, console, ended.wait, interval_s, line_every_s), name="progress", daemon=True
    )
    shown.start()
    try:
        yield
    finally:
        ended.set()
        shown.join()


def follow(run_dir: Path, console: Console, ended: Callable[[], bool], *, interval_s: float = 1.0) -> None:
    """Show the sweep in `run_dir` until `ended()`; blocks."""

    def wait(seconds: float) -> bool:
        time.sleep(seconds)
        return ended()

    _show(run_dir, console, wait, interval_s, 60.0)


def _show(
    run_dir: Path, console: Console, wait: Callable[[float], bool], interval_s: float, line_every_s: float
) -> None:
    started = time.monotonic()
    with Journal.open(run_dir, read_only=True) as journal:
        title = f"{journal.get('study')['name']} in {run_dir}"
        at_start = journal.num_epochs()

        def look() -> tuple[Snapshot, float, tuple[float, float] | None]:
            state, elapsed_s = snapshot(journal), time.monotonic() - started
            return state, elapsed_s, state.eta_s(at_start, elapsed_s)

        if console.is_terminal:
            with Live(panel(title, *look()), console=console, auto_refresh=False, transient=False) as view:
                while not wait(interval_s):
                    view.update(panel(title, *look()), refresh=True)
                view.update(panel(title, *look()), refresh=True)
            return
        next_line = 0.0
        while not wait(min(interval_s, line_every_s)):
            if time.monotonic() >= next_line:
                console.print(plain_line(*look()), soft_wrap=True)
                next_line = time.monotonic() + line_every_s
        console.print(plain_line(*look()), soft_wrap=True)


@contextmanager
def counted(what: str, total: int, console: Console, *, line_every_s: float = 60.0) -> Iterator[Callable[[int], None]]:
    """Shows how many of `total` are done, which the block tells by calling what it is given, with an ETA: a bar on a
    terminal that goes when the block ends, one plain line a minute in a log."""
    started = time.monotonic()
    next_line = started + line_every_s

    def line(done: int) -> str:
        elapsed_s = time.monotonic() - started
        eta = f"ETA {duration(elapsed_s / done * (total - done))}" if done else "ETA: measuring"
        return f"{done:,} of {total:,} {what}, {eta}"

    def tell(done: int) -> None:
        nonlocal next_line
        if time.monotonic() >= next_line:
            console.print(line(done), soft_wrap=True)
            next_line = time.monotonic() + line_every_s

    if not console.is_terminal:
        yield tell
        return
    with Live(line(0), console=console, auto_refresh=False, transient=True) as view:

        def show(done: int) -> None:
            bar = Table.grid(padding=(0, 1))
            bar.add_row(ProgressBar(total=total, completed=done, width=30), line(done))
            view.update(bar, refresh=True)

        yield show
