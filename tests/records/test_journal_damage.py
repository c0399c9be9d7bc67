"""Journals that were killed, cut, flipped or put back: all that was committed is there, or the file is refused.

A refusal is a `ValueError` that names the file and the remedy.
"""

import os
import random
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from records.other_process import OtherProcess
from records.rows import T0, T1, ask, count, decision_row, epoch_row, make_journal, marked_commits

from sweep.records import Journal

FILE, LOG, MARK = "journal.sqlite", "journal.sqlite-wal", ".journal-commits"
NUM_EPOCHS = 40
TENTHS = range(10)


def read_if_whole(run_dir: Path) -> dict[str, int] | None:
    """Rows of each table as a resumed sweep would find them; None where the journal is refused as it should be."""
    try:
        with Journal.open(run_dir) as journal:
            journal.check_whole()
            assert len(journal.epochs()) == journal.num_epochs()
            assert len(journal.trials()) == sum(journal.counts().values())
            assert journal.meta()
    except ValueError as error:
        refusal = str(error)
    else:
        return count(run_dir)
    assert FILE in refusal
    assert "sweep recover --from" in refusal or "use the version" in refusal
    return None


def cut(path: Path, tenth: int) -> None:
    os.truncate(path, path.stat().st_size * tenth // 10)


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """What a process leaves that was killed: all that it committed stands in the log."""
    run_dir = tmp_path_factory.mktemp("killed")
    make_journal(run_dir).close()
    with OtherProcess() as writer:
        assert writer.ask(f"write_epochs({str(run_dir)!r}, {NUM_EPOCHS})") == NUM_EPOCHS
        writer.process.send_signal(signal.SIGKILL)
        writer.process.wait()
    return run_dir


@pytest.fixture
def copy(killed, tmp_path) -> Callable[[str], Path]:
    def copied(name: str, *, log: bool = True) -> Path:
        target = tmp_path / name
        target.mkdir()
        for file in (FILE, LOG, MARK):
            shutil.copy(killed / file, target)
        if not log:  # as a process leaves it that ends by itself
            ask(target, "PRAGMA wal_checkpoint(TRUNCATE)")
            assert not (target / LOG).exists()
        return target

    return copied


def test_what_was_committed_outlives_a_kill(tmp_path):
    """Whole epochs, counted from 1 without a gap, each with its decision."""
    make_journal(tmp_path).close()
    with OtherProcess() as writer:
        assert writer.ask(f"write_epochs({str(tmp_path)!r}, 5)") == 5
        ask(tmp_path, "DELETE FROM epochs")
        ask(tmp_path, "DELETE FROM decisions")
        writer.send(f"write_epochs({str(tmp_path)!r}, 100_000)")
        while count(tmp_path)["epochs"] < 100:
            pass
        writer.process.send_signal(signal.SIGKILL)
        writer.process.wait()
    acted_on = marked_commits(tmp_path) - 5
    with Journal.open(tmp_path) as journal:
        journal.check_whole()
        epochs = [row["epoch"] for row in journal.epochs()]
        assert epochs == list(range(1, len(epochs) + 1))
        assert len(epochs) >= acted_on >= 99
        assert [row["rung_epochs"] for row in journal.decisions()] == epochs


# -- the log ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tenth", TENTHS)
def test_a_log_that_was_cut_is_refused(copy, tenth):
    run_dir = copy("cut")
    cut(run_dir / LOG, tenth)
    assert read_if_whole(run_dir) is None
    assert ask(run_dir, "SELECT commits FROM progress")[0][0] < marked_commits(run_dir) == NUM_EPOCHS


def test_a_log_that_was_cut_at_any_offset_never_passes_with_fewer_commits_than_marked(copy):
    size = (copy("size") / LOG).stat().st_size
    rng = random.Random(0)
    for number in range(40):
        run_dir = copy(f"cut {number}")
        os.truncate(run_dir / LOG, size - 1 - rng.randrange(size if number % 2 else 6000))
        found = read_if_whole(run_dir)
        assert found is None or found["epochs"] == found["decisions"] == NUM_EPOCHS


def test_a_log_that_is_gone_or_was_flipped_is_refused(copy):
    run_dir = copy("gone")
    (run_dir / LOG).unlink()
    assert read_if_whole(run_dir) is None
    rng = random.Random(0)
    for number in range(20):
        run_dir = copy(f"flipped {number}")
        flip(run_dir / LOG, rng, 1)
        found = read_if_whole(run_dir)  # a flip may also hit a frame that a later one replaces in the same commit
        assert found is None or found["epochs"] == NUM_EPOCHS


def test_the_refusal_counts_what_is_lost(copy):
    run_dir = copy("gone")
    (run_dir / LOG).unlink()
    with Journal.open(run_dir) as journal, pytest.raises(ValueError, match=r"lost the last 40 of its 40 commits"):
        journal.check_whole()


def test_a_whole_log_is_read(copy):
    found = read_if_whole(copy("whole"))
    assert found is not None
    assert found["epochs"] == found["decisions"] == NUM_EPOCHS


# -- the file --------------------------------------------------------------------------------------------------------


def flip(path: Path, rng: random.Random, num: int) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(num):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


@pytest.mark.parametrize("log", [True, False], ids=["with its log", "alone"])
@pytest.mark.parametrize("tenth", TENTHS)
def test_a_file_that_was_cut_is_refused(copy, tenth, log):
    run_dir = copy("cut", log=log)
    cut(run_dir / FILE, tenth)
    found = read_if_whole(run_dir)  # the log can hold all that the cut took away
    assert found is None or (log and found["epochs"] == found["decisions"] == NUM_EPOCHS)


def test_a_file_with_flipped_bits_is_refused_or_all_rows_are_there(copy):
    whole = read_if_whole(copy("whole", log=False))
    rng = random.Random(0)
    refused = 0
    for number in range(150):
        run_dir = copy(f"flipped {number}", log=False)
        flip(run_dir / FILE, rng, 1 + number % 3)
        found = read_if_whole(run_dir)
        assert found in (None, whole)
        refused += found is None
    assert refused > 10


@pytest.mark.parametrize("content", [b"", b"\0" * 9000, b"not a database, but long enough to look like a file" * 40])
def test_what_is_no_journal_is_named(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ValueError, match=r"journal\.sqlite.*sweep recover --from"):
        Journal.open(tmp_path)


@pytest.mark.parametrize("value", ["[2", "two", "", None, b"\xff\xfe"])
def test_a_damaged_version_is_named(tmp_path, value):
    make_journal(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as db:
        if value is None:
            db.execute("DELETE FROM meta WHERE key = 'schema_version'")
        else:
            db.execute("UPDATE meta SET value = CAST(? AS TEXT) WHERE key = 'schema_version'", (value,))
    with pytest.raises(ValueError, match=r"journal\.sqlite.*(sweep recover --from|schema version None)"):
        Journal.open(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE trials SET architecture = CAST(x'ff' AS TEXT) WHERE launch_order = 2",
        "UPDATE meta SET value = '{\"name\": ' WHERE key = 'study'",
    ],
)
def test_damage_in_the_text_of_a_row_is_found_before_it_is_needed(tmp_path, damage):
    make_journal(tmp_path).close()
    ask(tmp_path, damage)
    with Journal.open(tmp_path) as journal, pytest.raises(ValueError, match=r"is damaged .*sweep recover"):
        journal.check_whole()


# -- the mark --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tenth", TENTHS)
def test_a_mark_that_was_cut_is_borne(copy, tenth):
    run_dir = copy("cut")
    cut(run_dir / MARK, tenth)
    assert read_if_whole(run_dir) is not None


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 40, b"99999999999999999999\n", b"-5", b"1e9", b"many" * 5000])
def test_a_mark_that_is_gone_or_garbage_is_borne_and_made_anew(copy, content):
    run_dir = copy("damaged")
    (run_dir / MARK).unlink()
    if content is not None:
        (run_dir / MARK).write_bytes(content)
    assert read_if_whole(run_dir) is not None
    with Journal.open(run_dir) as journal:
        journal.note("one", "more")
    assert marked_commits(run_dir) == NUM_EPOCHS + 1
    (run_dir / FILE).unlink()
    shutil.copy(copy("older") / FILE, run_dir)
    assert read_if_whole(run_dir) is None


def test_a_flipped_mark_is_borne(copy):
    rng = random.Random(0)
    for number in range(50):
        run_dir = copy(f"flipped {number}")
        flip(run_dir / MARK, rng, 1)
        assert read_if_whole(run_dir) is not None


def test_a_mark_that_cannot_be_written_stops_nothing(tmp_path):
    make_journal(tmp_path).close()
    (tmp_path / MARK).mkdir()
    with Journal.open(tmp_path) as journal:
        journal.note("one", "more")
        journal.check_whole()


# -- an older copy ---------------------------------------------------------------------------------------------------


def test_an_older_copy_put_back_is_refused(tmp_path):
    with make_journal(tmp_path) as journal:
        journal.record(epoch_row(T0, 1), decision_row(T0, 1, 20.0), "running")
    shutil.copy(tmp_path / FILE, tmp_path / "older")
    with Journal.open(tmp_path) as journal:
        journal.record(epoch_row(T1, 1), decision_row(T1, 1, 20.0), "running")
    shutil.copy(tmp_path / "older", tmp_path / FILE)
    assert read_if_whole(tmp_path) is None
    with Journal.open(tmp_path, read_only=True) as journal, pytest.raises(ValueError, match="lost the last 1 of its 2"):
        journal.check_whole()


def test_a_whole_directory_put_back_is_accepted(tmp_path):
    run_dir = tmp_path / "run"
    with make_journal(run_dir) as journal:
        journal.record(epoch_row(T0, 1), None, "running")
    shutil.copytree(run_dir, tmp_path / "older")
    with Journal.open(run_dir) as journal:
        journal.record(epoch_row(T1, 1), None, "running")
    assert read_if_whole(tmp_path / "older") is not None
