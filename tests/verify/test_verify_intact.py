"""What is whole passes, in each mode and at each moment, and is not touched by it."""

import json
import os
import random
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from verify import mlflow_maker
from verify.sweep_maker import Events, MadeUpSweep, extend, made_up_clock, make_journal, quick, study

from sweep.records import Journal
from sweep.verify import INVARIANTS, verify

METHODS = ("asha", "asha_promotion", "synchronous", "none")
ROUGH = Events(diverges=0.1, fails=0.1, retries=0.1, cancels=0.05, levels=20)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("steps", [0, 3, 20, 45, 10_000])
def test_an_intact_sweep_holds_at_every_moment(make, method, steps):
    findings = verify(make(method, steps=steps, events=ROUGH, seed=steps))
    assert findings.holds, findings
    assert (findings.violations, findings.not_checked) == ({}, {})


@pytest.mark.parametrize("method", METHODS)
def test_what_was_looked_at_is_counted(make, change, method):
    run_dir = make(method)
    [(trials, started)] = change(run_dir / "journal.sqlite", "SELECT count(*), sum(attempts > 0) FROM trials")
    [(epochs,)] = change(run_dir / "journal.sqlite", "SELECT count(*) FROM epochs")
    [(points,)] = change(run_dir / "mlflow.db", "SELECT count(*) FROM metrics")
    [(decisions,)] = change(run_dir / "journal.sqlite", "SELECT count(*) FROM decisions")
    checked = verify(run_dir).checked
    assert list(checked) == list(INVARIANTS)
    assert checked["I1"] == trials + started + 1
    assert checked["I2"] == checked["artifacts"] == started + 1
    assert checked["I3"] == points
    assert checked["I4"] >= 6 * epochs + 3 * decisions
    assert checked["I5"] == trials + started
    assert checked["I6"] >= decisions > 0 or method == "none"


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


def test_nothing_is_written(make):
    run_dir = make("synchronous")
    before = snapshot(run_dir)
    time.sleep(0.01)
    assert verify(run_dir, against=run_dir).holds
    assert snapshot(run_dir) == before


def test_storage_that_cannot_be_written_can_be_checked(make):
    run_dir = make("asha")
    before = snapshot(run_dir)
    for path in (*run_dir.rglob("*"), run_dir):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert verify(run_dir).holds
    finally:
        run_dir.chmod(0o755)
    assert snapshot(run_dir).keys() == before.keys()


def test_a_journal_in_use_is_read_as_of_one_moment(make):
    """What another process has committed to the log counts, what it is about to commit does not."""
    run_dir = make("asha", steps=20)
    with closing(sqlite3.connect(run_dir / "journal.sqlite", isolation_level=None)) as writer:
        writer.execute("UPDATE progress SET commits = commits + 1")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM epochs")
        assert (run_dir / "journal.sqlite-wal").stat().st_size > 0
        assert verify(run_dir).holds
        writer.execute("ROLLBACK")


def test_a_sweep_at_work_may_be_ahead_of_mlflow(make, change):
    """Only what the journal marks as delivered is asked for, and runs may be running."""
    run_dir = make("asha_promotion", steps=25)
    change(run_dir / "mlflow.db", "UPDATE runs SET status = 'RUNNING' WHERE status = 'KILLED'")
    with made_up_clock(5), quick(Journal.open(run_dir)) as journal:
        MadeUpSweep(journal, random.Random(2), Events()).run(20)
    assert verify(run_dir, at_work=True).holds
    behind = verify(run_dir)
    assert {"I2", "I4"} <= behind.violations.keys()
    assert "missing" in " ".join(behind.violations["I4"])


def test_nothing_delivered_yet_is_no_fault_of_a_sweep_at_work(make, change, empty_database):
    run_dir = make("asha", steps=15)
    shutil.copy(empty_database, run_dir / "mlflow.db")
    change(run_dir / "journal.sqlite", "DELETE FROM meta WHERE key IN ('parent_run_id', 'arrivals_delivered')")
    change(run_dir / "journal.sqlite", "UPDATE epochs SET delivered = 0")
    change(run_dir / "journal.sqlite", "UPDATE trials SET run_id = NULL, delivered_outcome = NULL")
    assert verify(run_dir, at_work=True).holds
    assert {"I1", "I4"} <= verify(run_dir).violations.keys()


@pytest.mark.parametrize("method", METHODS[:3])
def test_an_extended_and_resumed_sweep_holds(folder, empty_database, method):
    with made_up_clock(), make_journal(folder, study(method=method)) as journal:
        for steps in (15, 15, 10_000):
            MadeUpSweep(journal, random.Random(steps), ROUGH).run(steps)
        for num in (2, 3):
            extend(journal, num)
            MadeUpSweep(journal, random.Random(num), ROUGH).run()
        assert journal.is_finished()
    shutil.copy(empty_database, folder / "mlflow.db")
    mlflow_maker.deliver(folder)
    findings = verify(folder)
    assert findings.holds, findings
    assert findings.checked["I5"] > 2 * (4 + 2 + 3)


def test_two_synchronous_sweeps_agree_whatever_their_timing(make):
    events = Events(diverges=0.1, retries=0.2, levels=12)
    left_alone = make("synchronous", name="left alone", seed=5, events=events)
    for seed in range(3):
        findings = verify(make("synchronous", name=f"hurt {seed}", seed=seed, events=events), against=left_alone)
        assert findings.holds, findings
        assert findings.against == str(left_alone)


def test_findings_are_json(make):
    run_dir = make("asha")
    told = json.loads(json.dumps(verify(run_dir).to_dict()))
    assert told["holds"] is True
    assert told["run_dir"] == str(run_dir)
    assert told["tracking_uri"] == f"sqlite:///{run_dir}/mlflow.db"
    assert set(told) == {
        "run_dir", "tracking_uri", "against", "at_work", "checked", "violations", "not_checked", "holds"
    }  # fmt: skip


def test_a_recovered_journal_may_know_an_arrival_without_its_epoch(make, change):
    """The trial trains that epoch again; what was decided on the first one stays."""
    run_dir = make("asha", steps=25, events=Events())
    journal, mlflow = run_dir / "journal.sqlite", run_dir / "mlflow.db"
    [(trial_id, epoch)] = change(
        journal, "SELECT trial_id, max(epoch) FROM epochs JOIN trials USING (trial_id) WHERE outcome = 'running'"
        " AND (trial_id, epoch) IN (SELECT trial_id, rung_epochs FROM decisions) GROUP BY trial_id LIMIT 1"
    )  # fmt: skip
    change(journal, "DELETE FROM epochs WHERE trial_id = ? AND epoch = ?", trial_id, epoch)
    run_id = mlflow_maker.run_id_of(trial_id)
    change(mlflow, "DELETE FROM metrics WHERE run_uuid = ? AND step = ?", run_id, epoch)
    change(mlflow, "UPDATE tags SET value = ? WHERE run_uuid = ? AND key = 'rung'", str(epoch - 1), run_id)
    assert "was never there" in " ".join(verify(run_dir).violations["I6"])
    change(journal, "INSERT INTO meta VALUES ('recovered_at_ms', '1')")
    assert verify(run_dir).holds


# ---- what cannot be looked at is no pass --------------------------------------------------------------------------


def test_an_mlflow_that_is_away_is_not_checked(make):
    run_dir = make("asha")
    os.remove(run_dir / "mlflow.db")
    findings = verify(run_dir)
    assert not findings.holds
    assert findings.violations == {}
    assert set(findings.not_checked) == {"I1", "I2", "I3", "I4", "I5", "artifacts"}
    assert "there is no file" in findings.not_checked["I2"]
    assert findings.checked["I6"] > 0


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://someone:canary@127.0.0.1:9", "does not answer"),
        ("postgresql://someone:canary@127.0.0.1:9/x", "cannot be read as MLflow's database"),
        ("file://someone:canary@host/x", "neither a database nor a server"),
        ("sqlite:///{run_dir}/journal.sqlite", "no such table"),
    ],
)
def test_what_does_not_answer_is_said_without_its_password(make, uri, words):
    run_dir = make("asha")
    findings = verify(run_dir, uri.format(run_dir=run_dir), timeout_s=3)
    assert not findings.holds
    assert words in findings.not_checked["I4"]
    assert "canary" not in json.dumps(findings.to_dict())


def test_artifacts_that_only_a_server_reaches_are_not_checked(make, change):
    run_dir = make("asha")
    change(run_dir / "mlflow.db", "UPDATE runs SET artifact_uri = 's3://bucket/x'")
    findings = verify(run_dir)
    assert set(findings.not_checked) == {"artifacts"}
    assert "--tracking-uri" in findings.not_checked["artifacts"]


@pytest.mark.parametrize("damage", [b"", b"not a database at all, but text" * 200])
def test_a_journal_that_is_no_database_is_a_violation(make, damage):
    run_dir = make("asha")
    (run_dir / "journal.sqlite").write_bytes(damage)
    findings = verify(run_dir)
    assert set(findings.violations) == {"journal"}
    assert set(findings.not_checked) == set(INVARIANTS) - {"journal"}


def test_a_page_of_the_journal_that_is_damaged_is_found(make):
    run_dir = make("asha", trials_per_space=30)
    content = bytearray((run_dir / "journal.sqlite").read_bytes())
    content[3 * 4096 : 4 * 4096] = os.urandom(4096)
    (run_dir / "journal.sqlite").write_bytes(content)
    assert "damaged" in " ".join(verify(run_dir).violations["journal"])


def test_bad_input_is_refused(make, tmp_path, change):
    with pytest.raises(ValueError, match=r"holds no journal\.sqlite"):
        verify(tmp_path)
    run_dir = make("asha")
    with pytest.raises(ValueError, match=r"holds no journal\.sqlite"):
        verify(run_dir, against=tmp_path)
    change(run_dir / "journal.sqlite", "UPDATE meta SET value = '1' WHERE key = 'schema_version'")
    with pytest.raises(ValueError, match="schema version 1"):
        verify(run_dir)


def test_another_sweep_that_cannot_be_read_is_not_checked(make):
    run_dir, other = make("asha"), make("asha", name="other")
    (other / "journal.sqlite").write_bytes(b"nothing" * 1000)
    assert set(verify(run_dir, against=other).not_checked) == {"I5", "I6"}
