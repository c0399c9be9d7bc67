"""Progress in a terminal and in a log, from a journal alone."""

import io
import time

import pytest
from rich.console import Console

from sweep import terminal
from sweep.records import EpochRow, Journal, TrialRow
from sweep.spaces import ZOO
from sweep.studies import load_study


@pytest.fixture
def run_dir(tmp_path):
    architecture = ZOO["regnetx_200mf"]
    trials = [
        TrialRow(f"regnet_x-small-{n:04d}", n, "regnet_x", "small", "regnet_x/small", n, architecture.id,
                 architecture.to_json(), 1, 1, 1, n, False, False)
        for n in range(4)
    ]  # fmt: skip
    meta = {"study": {"name": "progress"}, "forecast": {"epochs_low": 8, "epochs_high": 12}}
    with Journal.create(tmp_path, meta, trials) as journal:
        journal.start_attempt("regnet_x-small-0000", 1)
        for epoch in (1, 2):
            row = EpochRow("regnet_x-small-0000", epoch, 1.0, 1.0, 20.0 - epoch, 0.1, 1.0, 0.1, "here", 1)
            journal.record(row, None, "completed" if epoch == 2 else "running")
    return tmp_path


def test_the_snapshot_counts(run_dir):
    with Journal.open(run_dir, read_only=True) as journal:
        state = terminal.snapshot(journal)
    assert (state.num_trials, state.num_ended, state.epochs) == (4, 1, 2)
    assert state.best_error_pct == 18.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (61, "1 min 01 s"), (3600, "1 h 00 min"), (7380, "2 h 03 min")],
)
def test_durations_read_well(seconds, text):
    assert terminal.duration(seconds) == text


def test_the_eta_is_a_range_at_the_measured_rate():
    state = terminal.Snapshot({"running": 1}, 10, 30, 50, {}, None, "")
    assert state.eta_s(epochs_at_start=0, elapsed_s=20) == (40, 80)
    assert state.eta_s(epochs_at_start=9, elapsed_s=20) is None


@pytest.mark.parametrize("is_terminal", [False, True])
def test_the_view_shows_how_looks_stand(tmp_path, is_terminal):
    study = load_study("quickstart", ["judging.stop_when=decided"])
    Journal.create(tmp_path, {"study": study.to_dict()}, []).close()
    stream = io.StringIO()
    with terminal.live(tmp_path, Console(file=stream, width=120, force_terminal=is_terminal), interval_s=0.05):
        time.sleep(0.2)
    assert "next look after 20 of 80 trials" in stream.getvalue()


def test_a_log_gets_plain_lines(run_dir):
    stream = io.StringIO()
    with terminal.live(run_dir, Console(file=stream, width=80), interval_s=0.05):
        time.sleep(0.3)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2  # one at the start of a minute, one at the end
    assert all("1/4 trials ended (1 completed)" in line and "\x1b" not in line for line in lines)


@pytest.mark.parametrize("width", [80, 200])
def test_a_terminal_gets_a_live_view_that_fits(run_dir, width):
    stream = io.StringIO()
    with terminal.live(run_dir, Console(file=stream, width=width, force_terminal=True), interval_s=0.05):
        time.sleep(0.3)
    assert "1/4" in stream.getvalue()
    assert "18.00 % error (regnet_x)" in stream.getvalue()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_is_counted_has_an_eta(is_terminal):
    written = io.StringIO()
    console = Console(file=written, force_terminal=is_terminal, width=100)
    with terminal.counted("sweeps", 4000, console, line_every_s=0.0) as tell:
        tell(0)
        time.sleep(0.01)
        tell(1000)
    assert "1,000 of 4,000 sweeps, ETA 0 s" in written.getvalue()


def test_what_is_over_soon_leaves_no_line_in_a_log():
    written = io.StringIO()
    with terminal.counted("sweeps", 2, Console(file=written, force_terminal=False)) as tell:
        tell(2)
    assert written.getvalue() == ""
