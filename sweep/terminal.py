"""What a sweep looks like in a terminal: progress while it trains, tables when it is asked.

In: a run directory (its journal is read, nothing else). Out: renderables of rich, and `live`, which keeps one view
up to date on stderr: a panel on a terminal, one plain line a minute in a log.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
VERDICT_STYLES = {"helps": "bold green", "free": "bold blue", "hurts": "bold red", "undecided": "yellow"}


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


def findings_tables(findings: Any) -> list[RenderableType]:
    """All that a sweep says: verdicts at the shared rung, at the full budget, other measures, and the spaces
    themselves."""
    at_rung = [verdict for verdict in findings.verdicts if not _is_estimated(verdict)]
    at_full = [verdict for verdict in findings.verdicts if _is_estimated(verdict)]
    parts = [verdict_table(at_rung)]
    if at_full:
        parts += [Text("\nEstimated at the full budget", style="bold"), verdict_table(at_full)]
    if findings.verdicts:
        parts += [Text("\nNot only on average", style="bold"), measures_table(findings.verdicts)]
    if findings.estimates:
        parts += [Text("\nSpaces at their full budget", style="bold"), estimates_table(findings.estimates)]
    return parts


def measures_table(verdicts: Sequence[Any]) -> RenderableType:
    """Effects on the median, on the best tenth, and how often a network with the rule beats one without."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for heading in ("compared", "epochs", "median", "best tenth", "wins"):
        table.add_column(heading, overflow="fold")
    scales = {verdict.scale for verdict in verdicts}
    for verdict in verdicts:
        by_name = {other.measure: other for other in verdict.others}
        place = f", {verdict.scale}" if len(scales) > 1 else ""
        table.add_row(
            f"{verdict.space_without} → {verdict.space_with}{place}",
            f"{verdict.rung_epochs}",
            _measured(by_name["median"]),
            _measured(by_name["quantile_10"]),
            _wins(by_name["superiority"]),
        )
    explained = (
        "points of error, with the rule minus without; wins: how often a network with the rule is the better one"
    )
    return Group(table, Text(explained, style="dim"))


def estimates_table(estimates: Sequence[Any]) -> RenderableType:
    """Mean and quantiles of the error of each space at its full budget, whether its networks were trained so far or
    not."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("space", overflow="fold")
    table.add_column("known", justify="right", no_wrap=True)
    for heading in ("mean, %", "median, %", "best tenth, %"):
        table.add_column(heading, no_wrap=True)
    scales = {estimate.scale for estimate in estimates}
    for estimate in estimates:
        place = f", {estimate.scale}" if len(scales) > 1 else ""
        row = [f"{estimate.space}{place}", f"{estimate.num_known} of {estimate.num_networks}"]
        if estimate.mean is None:
            limits = estimate.bounds
            told = f"{limits.low_pct:.1f} to {limits.high_pct:.1f} at most" if limits else "–"
            table.add_row(*row, told, "–", "–")
        else:
            shown = (estimate.mean, estimate.quantiles["median"], estimate.quantiles["q10"])
            table.add_row(*row, *map(_ranged, shown))
    epochs = ", ".join(sorted({f"{estimate.epochs}" for estimate in estimates}))
    audited = sum(estimate.num_audited for estimate in estimates)
    stopped = sum(estimate.num_wanted_to_end for estimate in estimates)
    lottery = (
        f" All networks count, known at that budget or not: of {stopped} that early stopping wanted to end, the "
        f"lottery kept {audited}, which stand for the others."
        if stopped
        else ""
    )
    explained = f"validation error after {epochs} epochs, {estimates[0].confidence:.0%} intervals.{lottery}"
    return Group(table, Text(explained, style="dim"))


def _ranged(found: Any) -> str:
    if found.low is None or found.high is None:
        return f"{found.value:.1f}"
    return f"{found.value:.1f} [{found.low:.1f}, {found.high:.1f}]"


def _measured(other: Any) -> str:
    if other.effect is None or other.low is None:
        return "–"
    return f"{other.effect:+.2f} [{other.low:+.2f}, {other.high:+.2f}]"


def _wins(other: Any) -> str:
    if other.effect is None or other.low is None:
        return "–"
    return f"{other.with_:.0%} [{0.5 - other.high:.0%}, {0.5 - other.low:.0%}]"


_ESTIMATED = "All trials: those that early stopping ended count by those that the lottery kept"


def _is_estimated(verdict: Any) -> bool:
    return (verdict.num_known_without, verdict.num_known_with) != (verdict.n_without, verdict.n_with)


def verdict_table(verdicts: list[Any]) -> RenderableType:
    """The verdicts of a sweep: effect in points of error, its interval, n and the budget that they speak of.

    Fits 80 columns; what is the same in every row stands below the table instead.
    """
    scales, budgets = ({getattr(v, field) for v in verdicts} for field in ("scale", "rung_epochs"))
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for heading in (
        "rule",
        "compared",
        *(["scale"] if len(scales) > 1 else ()),
        *(["epochs"] if len(budgets) > 1 else ()),
    ):
        table.add_column(heading, overflow="fold")
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("effect, points", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for verdict in verdicts:
        table.add_row(
            verdict.rule,
            f"{verdict.space_without} → {verdict.space_with}",
            *([verdict.scale] if len(scales) > 1 else ()),
            *([str(verdict.rung_epochs)] if len(budgets) > 1 else ()),
            f"{verdict.num_matched_without}+{verdict.num_matched_with}",
            _effect(verdict),
            Text(verdict.verdict, style=VERDICT_STYLES[verdict.verdict]),
        )
    budget = "after the epochs given"
    if len(budgets) == 1:
        epochs = budgets.pop()
        budget = f"after {epochs} epoch{'s' if epochs > 1 else ''}"
    whose = "All trials, survivors or not" if not any(map(_is_estimated, verdicts)) else _ESTIMATED
    explained = Text(
        f"effect: mean validation error {budget} with the rule minus without; below 0 it helps. {whose}"
        f"{_matching(verdicts)}; verdicts are corrected for their number{_looks(verdicts)}.",
        style="dim",
    )
    return Group(table, explained) if verdicts else Text("no two of the study's spaces differ by a rule", style="dim")


def _looks(verdicts: list[Any]) -> str:
    num = verdicts[0].looks_taken if verdicts else None
    if num is None:
        return ""
    return f", and for {num} look{'' if num == 1 else 's'} so far" if num else ", and say nothing before the first look"


def _matching(verdicts: list[Any]) -> str:
    if not verdicts or verdicts[0].matched_on == "none":
        return ""
    most = max(verdict.share_outside or 0.0 for verdict in verdicts)
    return f", matched on {verdicts[0].matched_on} (up to {most:.0%} of a pair have no counterpart and are left out)"


def _effect(verdict: Any) -> str:
    if verdict.effect_pct is None or verdict.ci_low_pct is None:
        return "–"
    return f"{verdict.effect_pct:+.2f} [{verdict.ci_low_pct:+.2f}, {verdict.ci_high_pct:+.2f}]"
