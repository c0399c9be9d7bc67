"""`deliver`, by hand and later: whatever has become of MLflow or of the sweep, both say the same afterwards."""

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tracking.journal_maker import MadeUpSweep, asking, extend, make_journal, train
from tracking.outside import assert_whole

from sweep.records.journal import Journal
from sweep.records.lease import held
from sweep.tracking import Outbox, TrackingError, default_tracking_uri, deliver
from sweep.tracking.delivery import connect
from sweep.verify import verify

T0, T1 = "regnet_x-small-0000", "regnet_x-small-0001"


def close(run_dir: Path, status: Any = "interrupted") -> None:
    """As a session of the sweep ends."""
    report = run_dir / "report.html"
    report.write_text(status)
    outbox = Outbox(run_dir, default_tracking_uri(run_dir), experiment="quickstart")
    outbox.start()
    outbox.close(status=status, artifacts={"report.html": report}, note="**undecided**")


@pytest.fixture
def delivered(run_dir: Path) -> Path:
    """A sweep with arrivals, some trials over, others at work or waiting, and all of it in MLflow."""
    with make_journal(run_dir, num=6, method="asha_promotion") as journal:
        MadeUpSweep(journal, seed=1).go_on(24)
        outcomes = {row["outcome"] for row in journal.trials()}
        assert outcomes >= {"running", "paused", "diverged"}
    close(run_dir)
    return run_dir


def dump(run_dir: Path) -> list[str]:
    with closing(sqlite3.connect(run_dir / "mlflow.db")) as db:
        return list(db.iterdump())


def statuses(run_dir: Path) -> list[tuple[Any, ...]]:
    return asking(run_dir / "mlflow.db")("SELECT name, status FROM runs WHERE lifecycle_stage = 'active' ORDER BY 1")


def test_where_all_is_there_nothing_changes(delivered):
    before = dump(delivered)
    assert deliver(delivered) == 0
    assert dump(delivered) == before
    assert "**undecided**" in "".join(before)


@pytest.mark.parametrize("how", ["gone", "empty"])
def test_a_database_that_is_gone_is_made_anew(delivered, sql, how):
    before = statuses(delivered)
    if how == "gone":
        (delivered / "mlflow.db").unlink()
    else:
        (delivered / "mlflow.db").write_bytes(b"")
    assert deliver(delivered) > 10
    assert_whole(delivered, sql)
    assert statuses(delivered) == before
    note = "SELECT count(*) FROM tags WHERE key = 'mlflow.note.content' AND value LIKE '%undecided%'"
    assert sql(note) == [(1,)]
    assert deliver(delivered) == 0


@pytest.mark.parametrize("damage", [1000, -1, "flipped"])
def test_a_database_that_is_damaged_is_named_with_the_remedy(delivered, sql, damage):
    path = delivered / "mlflow.db"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        for place in range(20 * 4096, 40 * 4096, 97):
            content[place] ^= 255
    else:
        del content[damage:]
    path.write_bytes(content)
    remedy = "is damaged .*move it away, then `sweep sync RUN` delivers"
    with pytest.raises(TrackingError, match=f"the database .*{re.escape(str(path))}.*{remedy}"):
        deliver(delivered)
    if damage != "flipped":  # which is found by who reads it all
        with pytest.raises(TrackingError, match=remedy):
            close(delivered)
    path.rename(delivered / "away.db")
    assert deliver(delivered) > 10
    assert_whole(delivered, sql)


def test_what_an_older_copy_of_the_database_lacks_is_told_again(run_dir, sql):
    with make_journal(run_dir, num=6) as journal:
        sweep = MadeUpSweep(journal, seed=1)
        sweep.go_on(10)
        close(run_dir)
        shutil.copy(run_dir / "mlflow.db", run_dir / "backup.db")
        sweep.go_on(12)
        close(run_dir)
    whole = dump(run_dir)
    shutil.copy(run_dir / "backup.db", run_dir / "mlflow.db")
    assert deliver(run_dir) > 5
    assert_whole(run_dir, sql)
    points = [line for line in whole if line.startswith('INSERT INTO "metrics"')]
    assert len(points) == sum(line.startswith('INSERT INTO "metrics"') for line in dump(run_dir))
    assert deliver(run_dir) == 0


def test_arrivals_that_an_older_copy_lacks_are_told_again(delivered, sql):
    with Journal.open(delivered, read_only=True) as journal:
        last, parent = journal.decisions()[-1]["arrival"], journal.get("parent_run_id")
    sql("DELETE FROM metrics WHERE run_uuid = ? AND key LIKE 'arrivals/%' AND step = ?", parent, last)
    deliver(delivered)
    assert_whole(delivered, sql)


def test_a_run_that_was_deleted_by_hand_is_made_again(delivered, sql):
    with Journal.open(delivered, read_only=True) as journal:
        gone = journal.trials("outcome = 'diverged'")[0]
    connect(default_tracking_uri(delivered)).delete_run(gone["run_id"])
    assert deliver(delivered) > 0
    assert_whole(delivered, sql)


def test_a_sweep_that_was_extended_tells_what_was_added(run_dir, sql):
    with make_journal(run_dir, num=3) as journal:
        MadeUpSweep(journal, seed=1).go_on()
        close(run_dir, "finished")
        extend(journal, 2)
        assert "I1" not in verify(run_dir).violations
        deliver(run_dir)  # before any of them has begun
        assert "I1" not in verify(run_dir).violations
        assert sql("SELECT status FROM runs WHERE run_uuid = ?", journal.get("parent_run_id")) == [("KILLED",)]
        stored = run_dir / "mlartifacts" / journal.get("parent_run_id") / "artifacts"
        drawn = pq.read_table(stored / "architectures.parquet", columns=["trial_id"]).to_pylist()
        assert [row["trial_id"] for row in drawn] == [row["trial_id"] for row in journal.trials()]
        assert '"extensions"' in (stored / "sweep.json").read_text()
        MadeUpSweep(journal, seed=2).go_on(2)
        deliver(run_dir)
    assert_whole(run_dir, sql)


def test_a_sweep_at_work_is_left_to_its_owner(delivered):
    before = dump(delivered)
    with Journal.open(delivered) as journal, held(journal, lambda message: None):
        with pytest.raises(ValueError, match=r"in use by process \d+"):
            deliver(delivered)
        assert dump(delivered) == before
    assert deliver(delivered) == 0


def test_a_journal_that_has_lost_commits_is_not_delivered(run_dir):
    with make_journal(run_dir) as journal:
        train(journal, T0, [40.0], "running")
        shutil.copy(run_dir / "journal.sqlite", run_dir / "copy.sqlite")
        train(journal, T0, [30.0], "completed")
        close(run_dir)
    for name in ("journal.sqlite-wal", "journal.sqlite-shm"):
        (run_dir / name).unlink(missing_ok=True)
    shutil.copy(run_dir / "copy.sqlite", run_dir / "journal.sqlite")
    with pytest.raises(ValueError, match=r"has lost the last \d+ of its \d+ commits"):
        deliver(run_dir)


def test_progress_is_told_trial_by_trial(run_dir):
    told: list[tuple[int, int]] = []
    with make_journal(run_dir) as journal:
        for trial_id in (T0, T1):
            train(journal, trial_id, [40.0], "completed")
    deliver(run_dir, progress=lambda done, num: told.append((done, num)))
    assert told == [(1, 2), (2, 2)]
