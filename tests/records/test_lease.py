"""The lease: one owner at a time, taken over from one that is dead, and never from one that lives."""

import os
import signal
import sqlite3
import threading
import time
from contextlib import ExitStack

import psutil
import pytest
from records.other_process import OtherProcess
from records.rows import T0, WRITES, ask, content, epoch_row, make_journal

from sweep.records import Journal, lease
from sweep.records.journal import LeaseLostError

DEAD_AFTER_S = 0.4


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(lease, "_BEAT_S", 0.05)
    monkeypatch.setattr(lease, "_DEAD_AFTER_S", DEAD_AFTER_S)


@pytest.fixture
def run_dir(tmp_path):
    with make_journal(tmp_path / "run"):
        pass
    return tmp_path / "run"


@pytest.fixture
def other(run_dir):
    """A process that owns the sweep."""
    with OtherProcess() as process:
        assert process.ask(f"hold({str(run_dir)!r})") == 1
        yield process


class Owner:
    """This process as the owner; `told` is what it was told on the way."""

    def __init__(self, run_dir):
        self.told: list[str] = []
        self._stack, self._run_dir = ExitStack(), run_dir

    def __enter__(self) -> "Owner":
        self.journal = self._stack.enter_context(Journal.open(self._run_dir))
        try:
            self.token = self._stack.enter_context(lease.held(self.journal, self.told.append))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()


def refused(run_dir, owner: str) -> list[str]:
    """That this process cannot own it; answers what it was told."""
    refusal, candidate = f"in use by {owner}.*wait for it, or end it with `sweep stop ", Owner(run_dir)
    with pytest.raises(ValueError, match=refusal), candidate:
        pass
    return candidate.told


def move_elsewhere(run_dir) -> None:
    """As another host would see the owner's row: its processes cannot be looked at from here."""
    ask(run_dir, "UPDATE lease SET host = 'another host'")


def owner_of(run_dir) -> str | None:
    with Journal.open(run_dir) as journal:
        return lease.owner_of(journal)


# -- an owner that lives ---------------------------------------------------------------------------------------------


def test_a_second_owner_is_refused_and_told_of_the_first(run_dir, other):
    assert refused(run_dir, f"process {other.pid} on ") == []  # without watching it first
    assert f"process {other.pid} on " in owner_of(run_dir)


def test_an_owner_that_is_stopped_lives(run_dir, other):
    os.kill(other.pid, signal.SIGSTOP)
    refused(run_dir, f"process {other.pid} on ")


def test_this_very_process_does_not_own_a_sweep_twice(run_dir):
    with Owner(run_dir) as owner:
        refused(run_dir, f"process {os.getpid()} on ")
        owner.journal.note("still", "mine")


def test_an_owner_on_another_host_that_beats_is_refused(run_dir, other, monkeypatch):
    monkeypatch.setattr(lease, "_DEAD_AFTER_S", 10.0)
    move_elsewhere(run_dir)
    (told,) = refused(run_dir, f"process {other.pid} on ")
    assert "had this sweep; watching for 10 s" in told


def test_the_wall_clock_does_not_matter(run_dir, other, monkeypatch):
    for shift_s in (-86_400, 86_400):
        with monkeypatch.context() as patch:
            now_s = time.time() + shift_s
            patch.setattr(time, "time", lambda now_s=now_s: now_s)
            patch.setattr(time, "time_ns", lambda now_s=now_s: int(now_s * 1e9))
            # By the wall clock the owner would have begun at another moment than it says.
            patch.setattr(psutil.Process, "create_time", lambda process, now_s=now_s: now_s)
            refused(run_dir, f"process {other.pid} on ")
    other.process.kill()
    other.process.wait()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    with Owner(run_dir) as owner:
        owner.journal.note("mine", "now")


# -- an owner that is gone -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_owner_is_followed_at_once(run_dir, other, reaped):
    other.process.kill()
    if reaped:
        other.process.wait()
    else:
        while psutil.Process(other.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
    assert owner_of(run_dir) is None
    with Owner(run_dir) as owner:
        assert owner.token == 2
        owner.journal.record(epoch_row(T0, 1), None, "running")
    assert owner.told == [
        f"taking over from process {other.pid} on {os.uname().nodename}, which ended without letting go"
    ]


def test_a_process_that_has_the_number_of_the_dead_owner_is_another(run_dir, other):
    other.process.kill()
    other.process.wait()
    ask(run_dir, "UPDATE lease SET pid = ?, pid_started = pid_started - 1", os.getppid())
    with Owner(run_dir) as owner:
        assert owner.token == 2


def test_an_owner_on_another_host_that_beats_no_more_is_followed_after_a_time(run_dir, other):
    other.process.kill()
    move_elsewhere(run_dir)
    started_s = time.monotonic()
    with Owner(run_dir) as owner:
        assert time.monotonic() - started_s >= DEAD_AFTER_S
        assert owner.token == 2
    assert ["had this sweep; watching" in owner.told[0], "taking over from" in owner.told[1]] == [True, True]


def test_whoever_lets_go_is_followed_without_a_word(run_dir, other):
    other.ask("let_go()")
    assert owner_of(run_dir) is None
    move_elsewhere(run_dir)  # nor does it matter where it was
    with Owner(run_dir) as owner:
        assert (owner.token, owner.told) == (2, [])
    with Owner(run_dir) as owner:
        assert (owner.token, owner.told) == (3, [])


def test_an_owner_lets_go_also_where_it_fails(run_dir):
    with pytest.raises(RuntimeError, match="anything"), Owner(run_dir):
        raise RuntimeError("anything")
    assert owner_of(run_dir) is None
    assert "lease" not in {thread.name for thread in threading.enumerate()}


def test_one_that_takes_over_while_a_third_watches_is_named(run_dir, other, monkeypatch):
    """The third one saw the row of the dead owner, whose beats would be mistaken for those of the new one."""
    other.process.kill()
    ask(run_dir, "UPDATE lease SET host = 'another host', heartbeat = 0")
    monkeypatch.setattr(lease, "_DEAD_AFTER_S", 2.0)
    with OtherProcess() as quicker:

        def overtake(message: str) -> None:
            ask(run_dir, "UPDATE lease SET host = ?", lease._host())
            assert quicker.ask(f"hold({str(run_dir)!r}, 60)") == 2  # it will not beat in the time

        with Journal.open(run_dir) as journal, pytest.raises(ValueError, match=f"in use by process {quicker.pid} on "):
            lease.held(journal, overtake).__enter__()


# -- races, and those that were thought dead ---------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["nobody", "released", "dead"])
def test_of_two_that_take_it_at_the_same_moment_one_does(run_dir, before):
    with OtherProcess() as first, OtherProcess() as second:
        for _ in range(15):
            if before == "nobody":
                ask(run_dir, "DELETE FROM lease")
            elif before == "dead":
                ask(run_dir, "UPDATE lease SET released = 0, pid = 2147480000")
            moment_s = time.monotonic() + 0.005
            for process in (first, second):
                process.send(f"at({moment_s!r}, hold, {str(run_dir)!r})")
            answers = {first: first.answer(), second: second.answer()}
            winners = [process for process, answer in answers.items() if isinstance(answer, int)]
            assert len(winners) == 1, answers.values()
            (loser,) = {first, second} - set(winners)
            assert f"ValueError: --run-dir: {str(run_dir)!r} is in use by process {winners[0].pid} on" in answers[loser]
            winners[0].ask("let_go()")


def test_an_owner_that_was_thought_dead_writes_nothing_when_it_wakes(run_dir, other):
    os.kill(other.pid, signal.SIGSTOP)
    move_elsewhere(run_dir)
    with Owner(run_dir) as owner:
        owner.journal.record(epoch_row(T0, 1), None, "running")
        os.kill(other.pid, signal.SIGCONT)
        answer = other.ask("_journals[0].record(epoch_row(T0, 2), None, 'completed')")
        assert answer.startswith("LeaseLostError")
        assert "another process has taken this sweep over" in answer
        other.ask("let_go()")  # which is not its own to let go any more
        assert ask(run_dir, "SELECT count(*), max(epoch) FROM epochs") == [(1, 1)]
        assert ask(run_dir, "SELECT token, pid, released FROM lease") == [(2, os.getpid(), 0)]
        owner.journal.note("still", "mine")


def test_all_writes_of_a_lost_lease_are_refused(run_dir):
    with Owner(run_dir) as owner:
        owner.journal.record(epoch_row(T0, 1), None, "paused")
        ask(run_dir, "UPDATE lease SET token = token + 1, owner = 'another'")
        time.sleep(0.2)  # its beats end
        before = content(run_dir)
        for write in WRITES.values():
            with pytest.raises(LeaseLostError):
                write(owner.journal)
    assert content(run_dir) == before  # nor was the other's lease released


# -- beats -----------------------------------------------------------------------------------------------------------


def heartbeat(run_dir) -> int:
    return ask(run_dir, "SELECT heartbeat FROM lease")[0][0]


def wait_for_beats(run_dir, num: int, patience_s: float = 10) -> None:
    wanted, deadline_s = heartbeat(run_dir) + num, time.monotonic() + patience_s
    while heartbeat(run_dir) < wanted:
        assert time.monotonic() < deadline_s, "the owner beats no more"
        time.sleep(0.02)


def test_an_owner_beats_while_others_write_much(run_dir):
    ended = threading.Event()

    def write() -> None:
        with Journal.open(run_dir) as journal:
            while not ended.is_set():
                journal.note("wrote", "x" * 1000)

    with Owner(run_dir) as owner:
        writers = [threading.Thread(target=write) for _ in range(2)]
        for writer in writers:
            writer.start()
        try:
            wait_for_beats(run_dir, 5)
            for epoch in range(1, 20):
                owner.journal.record(epoch_row(T0, epoch), None, "running")
        finally:
            ended.set()
            for writer in writers:
                writer.join()
        assert len(owner.journal.events()) > 20
        assert owner.journal.num_epochs() == 19


def test_beats_that_cannot_be_written_do_no_harm(small_disk):
    make_journal(small_disk.folder).close()
    with Owner(small_disk.folder) as owner:
        wait_for_beats(small_disk.folder, 2)
        small_disk.fill()
        with pytest.raises(sqlite3.OperationalError):
            owner.journal.note("fill", "x" * 100_000)
        time.sleep(0.3)
        assert "lease" in {thread.name for thread in threading.enumerate()}
        small_disk.free()
        wait_for_beats(small_disk.folder, 2)
        owner.journal.note("still", "mine")
    assert owner_of(small_disk.folder) is None


def test_an_owner_without_room_ends_without_waiting_for_it(small_disk):
    make_journal(small_disk.folder).close()
    with Owner(small_disk.folder) as owner:
        owner.journal.blocked = lambda reason: pytest.fail("it waited for room")
        small_disk.fill()
        started_s = time.monotonic()
    assert time.monotonic() - started_s < 5
    small_disk.free()


def test_a_journal_that_is_away_for_a_moment_costs_no_lease(run_dir):
    with Owner(run_dir) as owner:
        wait_for_beats(run_dir, 1)
        path = run_dir / "journal.sqlite"
        path.rename(run_dir / "away")
        time.sleep(0.2)
        (run_dir / "away").rename(path)
        wait_for_beats(run_dir, 2)
        owner.journal.note("still", "mine")
