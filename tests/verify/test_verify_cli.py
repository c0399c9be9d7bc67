"""`sweep verify`: the table, the sentences, the JSON and the exit code."""

import json
import os

import psutil
import pytest
from click.testing import CliRunner, Result

from sweep.cli.verify import verify
from sweep.records import Journal
from sweep.records.lease import held
from sweep.verify import INVARIANTS


def run(*args: object) -> Result:
    return CliRunner().invoke(verify, list(map(str, args)), env={"COLUMNS": "100"}, catch_exceptions=True)


def test_what_holds_is_a_table_of_a_line_each(make):
    done = run(make("asha"))
    lines = done.stdout.splitlines()
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in lines[1:]] == list(INVARIANTS)
    assert all(line.rstrip().endswith("ok") for line in lines[1:])
    assert "each decision is the rule's" in done.stdout


def test_violations_are_sentences_below_the_table(make, change):
    run_dir = make("asha")
    change(run_dir / "mlflow.db", "DELETE FROM metrics WHERE key = 'val/loss'")
    done = run(run_dir)
    assert done.exit_code == 1
    table, sentences = done.stdout.splitlines()[:9], done.stdout.splitlines()[9:]
    [line] = [line for line in table if line.startswith("I4")]
    assert line.rstrip().endswith("violations")
    assert sentences[0].startswith("I4: ")
    assert "val/loss at step 1 is missing" in sentences[0]
    assert "more; --json names all" in sentences[-1]


def test_json_names_all(make, change):
    run_dir = make("asha")
    [(wrong,)] = change(run_dir / "mlflow.db", "SELECT count(*) FROM metrics WHERE key = 'val/loss'")
    change(run_dir / "mlflow.db", "DELETE FROM metrics WHERE key = 'val/loss'")
    done = run(run_dir, "--json")
    told = json.loads(done.stdout)
    assert done.exit_code == 1
    assert len(told["violations"]["I4"]) == wrong
    assert told["holds"] is False


def test_what_is_not_checked_is_no_success(make):
    run_dir = make("asha")
    os.remove(run_dir / "mlflow.db")
    done = run(run_dir)
    assert done.exit_code == 1
    assert "not checked: I1, I2, I3, I4, I5, artifacts: " in done.stdout


def test_another_mlflow_and_another_sweep_can_be_named(make, folder):
    run_dir, other = make("synchronous"), make("synchronous", name="other")
    moved = folder / "moved.db"
    os.rename(run_dir / "mlflow.db", moved)
    done = run(run_dir, "--tracking-uri", f"sqlite:///{moved}", "--against", other, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["against"] == str(other)


@pytest.mark.parametrize("args", [("nowhere",), ("{run}", "--against", "nowhere")])
def test_bad_input_is_a_value_error(make, args):
    run_dir = make("asha")
    done = run(*(arg.format(run=run_dir) for arg in args))
    assert isinstance(done.exception, ValueError)
    assert "nowhere" in str(done.exception)


def test_a_sweep_at_work_is_not_asked_for_what_it_has_not_delivered(make, change):
    run_dir = make("asha", steps=20)
    change(run_dir / "mlflow.db", "UPDATE runs SET status = 'RUNNING'")
    assert run(run_dir).exit_code == 1
    with Journal.open(run_dir) as journal, held(journal, lambda message: None):
        done = run(run_dir)
    assert done.exit_code == 0, done.output
    assert "the sweep is at work" in done.stderr


def test_a_lease_of_a_process_that_is_gone_does_not_excuse(make, change):
    run_dir = make("asha", steps=20)
    change(run_dir / "mlflow.db", "UPDATE runs SET status = 'RUNNING'")
    with Journal.open(run_dir) as journal, held(journal, lambda message: None):
        [lease] = change(run_dir / "journal.sqlite", "SELECT * FROM lease")
    gone = max(psutil.pids()) + 10_000
    change(run_dir / "journal.sqlite", "DELETE FROM lease")
    change(run_dir / "journal.sqlite", f"INSERT INTO lease VALUES ({', '.join('?' * len(lease))})", *lease)
    change(run_dir / "journal.sqlite", "UPDATE lease SET released = 0, pid = ?", gone)
    done = run(run_dir, "--json")
    assert json.loads(done.stdout)["at_work"] is False
    assert done.exit_code == 1


def test_a_damaged_journal_is_a_violation_and_not_bad_input(make):
    run_dir = make("asha")
    (run_dir / "journal.sqlite").write_bytes(b"nothing" * 1000)
    done = run(run_dir)
    assert done.exit_code == 1
    assert "journal: journal.sqlite is damaged" in done.stdout
