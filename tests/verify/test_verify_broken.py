"""One thing is broken at a time, by SQL, in the journal or in MLflow: it is found, named and counted where it belongs.

Each break stands with the invariants that must speak of it, and with words that their sentences must hold.
"""

import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from verify import mlflow_maker
from verify.sweep_maker import BEGUN_MS, Events

from sweep.verify import verify

SWEEP = Events(diverges=0.06, fails=0.03, retries=0.05, levels=500)
"""With seed 1 each mode has a trial of every outcome that it can have, but cancelled."""

CALM = Events(diverges=0.06, retries=0.05, levels=500)
"""Nothing that an undisturbed sweep would not have."""

# How trials are picked: the first of an outcome in launch order.
COMPLETED, STOPPED, DIVERGED, FAILED = (
    f"(SELECT trial_id FROM trials WHERE outcome = '{outcome}' ORDER BY launch_order LIMIT 1)"
    for outcome in ("completed", "stopped", "diverged", "failed")
)


def run_of(outcome: str) -> str:
    """A run of a trial with this outcome, in MLflow's database."""
    return (
        f"(SELECT min(run_uuid) FROM tags WHERE key = 'outcome' AND value = '{outcome}' AND run_uuid != '{'a' * 32}')"
    )


def copy_run(source: str) -> tuple[str, ...]:
    """A second run, with the tags of another one and no points and params."""
    return (
        "INSERT INTO runs (run_uuid, status, lifecycle_stage, artifact_uri, experiment_id, source_type) SELECT"
        f" 'second', status, 'active', artifact_uri, experiment_id, source_type FROM runs WHERE run_uuid = {source}",
        f"INSERT INTO tags (run_uuid, key, value) SELECT 'second', key, value FROM tags WHERE run_uuid = {source}",
    )


ADD_POINT = "INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid)"

IN_MLFLOW = [
    # I1: one run a trial, and it tells the truth
    ("a second run of a trial", "I1 I5", "has 2 runs instead of one", copy_run(run_of("completed"))),
    ("a second run of the sweep", "I1", "the sweep has 2 runs", copy_run(f"'{mlflow_maker.PARENT}'")),
    ("no run of a trial", "I1 I4", "is completed, and has no run", (
        f"DELETE FROM tags WHERE key = 'sweep.trial_id' AND run_uuid = {run_of('completed')}",
    )),
    ("a deleted run", "I1 I4", "was deleted", (
        f"UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = {run_of('stopped')}",
    )),
    ("the sweep's run deleted", "I1 I4", "the sweep has 0 runs instead of one: none (1 deleted)", (
        f"UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = '{mlflow_maker.PARENT}'",
    )),
    ("a run of no trial", "I1", "the sweep has no such trial", (
        *copy_run(run_of("completed")),
        "UPDATE tags SET value = 'nobody' WHERE run_uuid = 'second' AND key = 'sweep.trial_id'",
    )),
    ("another run than the journal's", "I1 I4 I5", "the journal", (
        f"UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = {run_of('failed')}", *copy_run(run_of("failed")),
        "UPDATE runs SET status = 'FAILED' WHERE run_uuid = 'second'",
    )),
    *(
        (f"status of a {outcome} trial", "I1", f"its status is {wrong}", (
            f"UPDATE runs SET status = '{wrong}' WHERE run_uuid = {run_of(outcome)}",
        ))
        for outcome, wrong in (("completed", "KILLED"), ("stopped", "FINISHED"), ("diverged", "FINISHED"),
                               ("failed", "KILLED"))
    ),
    ("status of the sweep", "I1", "stands for FINISHED", (
        f"UPDATE runs SET status = 'KILLED' WHERE run_uuid = '{mlflow_maker.PARENT}'",
    )),
    ("outcome of a trial", "I1", "its tag outcome is 'stopped', and the trial is completed", (
        f"UPDATE tags SET value = 'stopped' WHERE key = 'outcome' AND run_uuid = {run_of('completed')}",
    )),
    ("rung of a trial", "I1", "its tag rung is 77", (
        f"UPDATE tags SET value = '77' WHERE key = 'rung' AND run_uuid = {run_of('stopped')}",
    )),
    # I2
    ("a run left RUNNING", "I2", "is RUNNING, and no driver is at work", (
        f"UPDATE runs SET status = 'RUNNING' WHERE run_uuid = {run_of('completed')}",
    )),
    ("a run left SCHEDULED", "I2", "is SCHEDULED", (
        f"UPDATE runs SET status = 'SCHEDULED' WHERE run_uuid = {run_of('stopped')}",
    )),
    ("the sweep's run left RUNNING", "I2", "the sweep's run", (
        f"UPDATE runs SET status = 'RUNNING' WHERE run_uuid = '{mlflow_maker.PARENT}'",
    )),
    ("a rerun left RUNNING", "I2", "rerun run second", (
        *copy_run(run_of("completed")), "UPDATE tags SET value = 'rerun' WHERE run_uuid = 'second' AND key = 'kind'",
        "UPDATE runs SET status = 'RUNNING' WHERE run_uuid = 'second'",
    )),
    # I3
    ("a doubled point", "I3", "error_pct at step 1 is stored 2 times", (
        f"{ADD_POINT} SELECT key, value, timestamp + 1, step, is_nan, run_uuid FROM metrics"
        f" WHERE key = 'error_pct' AND step = 1 AND run_uuid = {run_of('completed')}",
    )),
    ("a point with two values", "I3", "stored 2 times", (
        f"{ADD_POINT} SELECT key, value + 1, timestamp, step, is_nan, run_uuid FROM metrics"
        f" WHERE key = 'train/loss' AND step = 1 AND run_uuid = {run_of('completed')}",
    )),
    ("a doubled arrival", "I3", "arrivals/trial at step 2 is stored 2 times", (
        f"{ADD_POINT} SELECT key, value, timestamp + 9, step, is_nan, run_uuid FROM metrics"
        " WHERE key = 'arrivals/trial' AND step = 2",
    )),
    # I4
    *(
        (f"a missing point of {key}", "I4", f"{key} at step 1 is missing", (
            f"DELETE FROM metrics WHERE key = '{key}' AND step = 1 AND run_uuid = {run_of('completed')}",
        ))
        for key in mlflow_maker.CURVES
    ),
    ("a missing arrival", "I4", "arrivals/rung_epochs at step 3 is missing", (
        "DELETE FROM metrics WHERE key = 'arrivals/rung_epochs' AND step = 3",
    )),
    ("another value", "I4", "and the journal has", (
        f"UPDATE metrics SET value = value + 0.001 WHERE key = 'val/loss' AND run_uuid = {run_of('completed')}",
    )),
    ("another moment", "I4", "ms, and the journal has", (
        f"UPDATE metrics SET timestamp = timestamp + 1 WHERE key = 'val/loss' AND run_uuid = {run_of('completed')}",
    )),
    ("a point that is NaN", "I4", "is NaN, and the journal has", (
        f"UPDATE metrics SET is_nan = 1 WHERE key = 'error_pct' AND step = 1 AND run_uuid = {run_of('completed')}",
    )),
    ("an error where it diverged", "I4", "the journal has no finite value there", (
        f"{ADD_POINT} SELECT 'error_pct', 50, timestamp, step, 0, run_uuid FROM metrics"
        f" WHERE key = 'train/learning_rate' AND run_uuid = {run_of('diverged')} ORDER BY step DESC LIMIT 1",
    )),
    ("an epoch that never was", "I4", "error_pct is stored at step 99, and the journal has no such epoch", (
        f"{ADD_POINT} SELECT key, value, timestamp, 99, 0, run_uuid FROM metrics"
        f" WHERE key = 'error_pct' AND step = 1 AND run_uuid = {run_of('completed')}",
    )),
    ("an arrival that never was", "I4", "the journal has no such arrival", (
        f"{ADD_POINT} SELECT key, value, timestamp, 999, 0, run_uuid FROM metrics"
        " WHERE key = 'arrivals/trial' AND step = 1",
    )),
    ("a fact of the network", "I4", "flops_m at step 0", (
        f"UPDATE metrics SET value = 1 WHERE key = 'flops_m' AND run_uuid = {run_of('stopped')}",
    )),
    ("the number of epochs", "I4", "epochs_trained at step 0 is 77", (
        f"UPDATE metrics SET value = 77 WHERE key = 'epochs_trained' AND run_uuid = {run_of('stopped')}",
    )),
    # I5
    *(
        (f"{table[:-1]} {key}", "I5", f"its {table[:-1]} {key} is", (
            f"UPDATE {table} SET value = '4, 2, 4' WHERE key = '{key}' AND run_uuid = {run_of('completed')}",
        ))
        for table, keys in (
            ("tags", ("space", "scale", "cohort", "audited", "architecture_id")),
            ("params", ("space", "scale", "seed", "audited", "depths", "widths", "group_widths", "bottleneck_ratios")),
        )
        for key in keys
    ),
    # artifacts
    ("a claim of another content", "artifacts", "claims the artifact architecture.yaml with SHA-256 00", (
        f"UPDATE tags SET value = '00' WHERE key = 'sha256.architecture.yaml' AND run_uuid = {run_of('completed')}",
    )),
    ("a claim of nothing", "artifacts", "claims the artifact logs/log.txt, and there is none", (
        f"INSERT INTO tags (run_uuid, key, value) SELECT {run_of('failed')}, 'sha256.logs/log.txt', '00'",
    )),
    ("a claim outside", "artifacts", "and there is none", (
        f"INSERT INTO tags (run_uuid, key, value) SELECT {run_of('failed')}, 'sha256.../../../mlflow.db', '00'",
    )),
]  # fmt: skip

IN_THE_JOURNAL = [
    # I1: what the journal itself says became of a trial
    ("a gap in the epochs", "I1 I4", "its epochs are 1, 3 to 5, not 1 to 4", "asha", (
        f"DELETE FROM epochs WHERE epoch = 2 AND trial_id = {COMPLETED}",
    )),
    ("completed too early", "I1 I4", "it is completed after 4 of 5 epochs", "asha", (
        f"DELETE FROM epochs WHERE epoch = 5 AND trial_id = {COMPLETED}",
    )),
    ("an outcome that is none", "I1", "its outcome is 'lost'", "asha", (
        f"UPDATE trials SET outcome = 'lost' WHERE trial_id = {STOPPED}",
    )),
    ("stopped where the rule lets it go on", "I1 I6", "where the decision is 'continue'", "asha", (
        f"UPDATE decisions SET decision = 'continue', would_stop = 0 WHERE trial_id = {STOPPED}"
        f" AND rung_epochs = (SELECT max(epoch) FROM epochs WHERE trial_id = {STOPPED})",
    )),
    ("stopped though it is exempt", "I1", "though the lottery exempts it", "asha", (
        f"UPDATE trials SET audited = 1 WHERE trial_id = {STOPPED}",
    )),
    ("stopped where nothing was decided", "I1 I6", "where there is no decision", "asha", (
        f"DELETE FROM decisions WHERE trial_id = {STOPPED}",
    )),
    ("diverged with an error", "I1 I4", "it diverged, but its last epoch has the error", "asha", (
        f"UPDATE epochs SET val_error_pct = 3 WHERE val_error_pct IS NULL AND trial_id = {DIVERGED}",
    )),
    ("completed without an error", "I1 I4", "and has no error in epoch 3", "asha", (
        f"UPDATE epochs SET val_error_pct = NULL WHERE epoch = 3 AND trial_id = {COMPLETED}",
    )),
    ("failed without a reason", "I1", "nothing says of what", "asha", (
        f"UPDATE trials SET failure = ' ' WHERE trial_id = {FAILED}",
    )),
    ("running where it was stopped", "I1", "but was stopped at the rung", "asha", (
        f"UPDATE trials SET outcome = 'running', ended_at_ms = NULL WHERE trial_id = {STOPPED}",
    )),
    ("running for ever", "I1", "but has all of its 5 epochs", "asha", (
        f"UPDATE trials SET outcome = 'running', ended_at_ms = NULL WHERE trial_id = {COMPLETED}",
    )),
    ("paused where nothing waits", "I1", "where no decision lets it wait", "asha_promotion", (
        f"UPDATE trials SET outcome = 'paused', ended_at_ms = NULL WHERE trial_id = {COMPLETED}",
    )),
    ("paused after its place was lost", "I1", "where its place is lost already", "asha_promotion", (
        f"UPDATE trials SET outcome = 'paused', ended_at_ms = NULL WHERE trial_id = {STOPPED}",
    )),
    ("an attempt that never was", "I1", "is of attempt 9 of", "asha", (
        f"UPDATE epochs SET attempt = 9 WHERE epoch = 2 AND trial_id = {COMPLETED}",
    )),
    ("ended at no time", "I1", "with None as the moment of its end", "asha", (
        f"UPDATE trials SET ended_at_ms = NULL WHERE trial_id = {COMPLETED}",
    )),
    # I5
    ("a deleted trial", "I1 I5 journal", "has 5 trials, and the study asks for 6", "asha", (
        f"DELETE FROM trials WHERE trial_id = {COMPLETED}",
    )),
    ("a trial too many", "I5", "has 7 trials, and the study asks for 6", "asha", (
        "INSERT INTO trials SELECT replace(trial_id, '0005', '0006'), 12, space, scale, cohort, 6, architecture_id,"
        " architecture, flops, params, activations, seed + 1, audited, audited, 'pending', 0, 0, 0, NULL, 0, NULL,"
        " NULL, NULL, NULL, NULL, NULL FROM trials WHERE trial_id = 'regnet_x-small-0005'",
    )),
    ("another architecture", "I5", "its architecture has the id", "asha", (
        f"UPDATE trials SET architecture = replace(architecture, '16', '32') WHERE trial_id = {COMPLETED}",
    )),
    ("no architecture", "I5", "is not the JSON of a network", "asha", (
        f"UPDATE trials SET architecture = '[]' WHERE trial_id = {COMPLETED}",
    )),
    ("another cohort", "I5 I6", "its cohort is anynet_a/small", "asha", (
        f"UPDATE trials SET cohort = 'anynet_a/small' WHERE trial_id = {COMPLETED}",
    )),
    ("an extension that never was", "I5", "of 0 extensions", "synchronous", (
        f"UPDATE trials SET cohort = cohort || '/+1' WHERE trial_id = {COMPLETED}",
    )),
    ("two of one seed", "I5", "have the same seed", "asha", (
        "UPDATE trials SET seed = (SELECT seed FROM trials WHERE launch_order = 0) WHERE launch_order = 1",
    )),
    # I6
    ("an arrival that is lost", "I6 I4", "arrivals 2 of", "asha", ("DELETE FROM decisions WHERE arrival = 2",)),
    ("an arrival with another error", "I6 I4", "was held to have the error 1", "asha", (
        "UPDATE decisions SET error_pct = 1 WHERE arrival = 1",
    )),
    ("a flipped decision", "I6", "the rule would let it go on", "asha", (
        "UPDATE decisions SET would_stop = 1 WHERE arrival = 1",
    )),
    ("another cutoff", "I6", "the cutoff was 1", "asha", ("UPDATE decisions SET cutoff_pct = 1 WHERE arrival = 5",)),
    ("a promotion too early", "I6", "was promoted after arrival 1, and has earned it by", "asha_promotion", (
        "UPDATE promotions SET after_arrival = 1 WHERE after_arrival = (SELECT max(after_arrival) FROM promotions)",
    )),
    ("a place that was not earned", "I6", "was given a place, and has not earned it", "asha_promotion", (
        f"INSERT INTO promotions VALUES ({STOPPED}, 1, 3, {BEGUN_MS})",
    )),
    ("a place that was not given", "I6", "has earned its place, and was not given it", "synchronous", (
        "DELETE FROM promotions WHERE rung_epochs = 2",
    )),
    ("a place in a mode without places", "I6", "was given a place, and has not earned it", "asha", (
        f"INSERT INTO promotions VALUES ({COMPLETED}, 1, 3, {BEGUN_MS})",
    )),
    ("trained on without a place", "I6", "and trained on", "synchronous", (
        "DELETE FROM promotions WHERE rung_epochs = 1",
    )),
    ("a closing that never was", "I6", "the rule", "asha_promotion", (
        f"INSERT INTO closings VALUES (3, {BEGUN_MS + 60})",
    )),
    ("a closing while trials train", "I6", "were closed after arrival 3, while", "asha_promotion", (
        f"INSERT INTO closings VALUES (3, {BEGUN_MS + 60})",
    )),
    ("a lost closing", "I6", "was left open", "asha_promotion", (
        "DELETE FROM closings", "UPDATE decisions SET would_stop = NULL WHERE would_stop AND error_pct IS NOT NULL",
    )),
    ("another rung", "I6", "arrivals at rungs that the study has not", "asha", (
        "UPDATE decisions SET rung_epochs = 3 WHERE arrival = 1",
    )),
    ("a decision on what never was", "I6", "it was never there", "asha", (
        "INSERT INTO decisions SELECT 99, trial_id, cohort, 4, 1, 1, 0, 0, audited, 'continue', decided_at_ms"
        f" FROM decisions WHERE trial_id = {STOPPED} AND rung_epochs = 1",
    )),
    # the file
    ("lost commits", "journal", "the last ones are lost", "asha", ("UPDATE progress SET commits = commits - 1",)),
    ("a moment that is lost", "journal", "the journal's latest moment is 5 ms", "asha", (
        "UPDATE progress SET latest_ms = 5",
    )),
    ("a number that is a text", "journal", "epochs.recorded_at_ms of", "asha", (
        f"UPDATE epochs SET recorded_at_ms = 'soon' WHERE trial_id = {COMPLETED}",
    )),
    ("an infinity", "journal", "epochs.val_loss of", "asha", (
        f"UPDATE epochs SET val_loss = 9e999 WHERE trial_id = {COMPLETED}",
    )),
    ("a study without a rule", "journal", "stopping.method is None", "asha", (
        """UPDATE meta SET value = json_remove(value, '$.stopping.method') WHERE key = 'study'""",
    )),
    ("meta that is no JSON", "journal", "meta 'study' is not JSON", "asha", (
        "UPDATE meta SET value = substr(value, 1, 100) WHERE key = 'study'",
    )),
    ("a table that is gone", "journal", "no such table: promotions", "asha", ("DROP TABLE promotions",)),
]  # fmt: skip


def apply(path: Path, queries: tuple[str, ...]) -> None:
    """Fails where a query finds nothing to break."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        for query in queries:
            changed = db.execute(query).rowcount
            assert changed != 0, f"nothing was broken: {query}"


@pytest.fixture
def sweep(make) -> Callable[[str], Path]:
    def build(method: str) -> Path:
        return make(method, events=SWEEP, trials_per_space=6, seed=1)

    return build


@pytest.mark.parametrize(
    ("invariants", "words", "queries"), [case[1:] for case in IN_MLFLOW], ids=[c[0] for c in IN_MLFLOW]
)
def test_what_is_broken_in_mlflow_is_found(sweep, invariants, words, queries):
    run_dir = sweep("asha")
    apply(run_dir / "mlflow.db", queries)
    findings = verify(run_dir)
    assert set(invariants.split()) == set(findings.violations), findings.violations
    assert words in " ".join(findings.violations[invariants.split()[0]])
    assert findings.not_checked == {}


@pytest.mark.parametrize(
    ("invariants", "words", "method", "queries"),
    [case[1:] for case in IN_THE_JOURNAL],
    ids=[c[0] for c in IN_THE_JOURNAL],
)
def test_what_is_broken_in_the_journal_is_found(sweep, invariants, words, method, queries):
    run_dir = sweep(method)
    apply(run_dir / "journal.sqlite", queries)
    findings = verify(run_dir)
    assert set(invariants.split()) <= set(findings.violations), findings.violations
    assert words in " ".join(sentence for name in findings.violations for sentence in findings.violations[name])
    assert not findings.holds


@pytest.mark.parametrize("method", ["asha", "asha_promotion", "synchronous"])
def test_nothing_is_found_before_it_is_broken(sweep, method):
    assert verify(sweep(method)).holds


def test_violations_are_counted_and_name_their_trials(sweep, change):
    run_dir = sweep("asha")
    [(wrong,)] = change(run_dir / "mlflow.db", "SELECT count(*) FROM metrics WHERE key = 'val/loss'")
    change(run_dir / "mlflow.db", "DELETE FROM metrics WHERE key = 'val/loss'")
    trials = {
        row[0] for row in change(run_dir / "journal.sqlite", "SELECT DISTINCT trial_id FROM epochs WHERE val_loss")
    }
    found = verify(run_dir).violations["I4"]
    assert len(found) == wrong
    assert {sentence.partition(":")[0] for sentence in found} == trials


def test_a_flipped_bit_of_an_artifact_is_found(sweep):
    run_dir = sweep("asha")
    path = next((run_dir / "mlartifacts").rglob("architecture.yaml"))
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(content)
    [found] = verify(run_dir).violations["artifacts"]
    assert path.parts[-3] in found
    path.unlink()
    assert "and there is none" in verify(run_dir).violations["artifacts"][0]


def test_an_older_copy_of_the_journal_is_found(sweep):
    run_dir = sweep("asha")
    digits = b"%020d" % 10_000
    (run_dir / ".journal-commits").write_bytes(b"%s %08x\n" % (digits, zlib.crc32(digits)))
    assert "10000 were made in this directory" in verify(run_dir).violations["journal"][0]
    for damaged in (b"no number", b"%s 00000000\n" % digits, digits):
        (run_dir / ".journal-commits").write_bytes(damaged)
        assert verify(run_dir).holds


# ---- against an undisturbed sweep --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("invariant", "words", "query"),
    [
        ("I5", "1 trials fewer than the other sweep", f"DELETE FROM trials WHERE trial_id = {COMPLETED}"),
        *(
            ("I5", f"its {column} is", f"UPDATE trials SET {column} = {column} + 1 WHERE trial_id = {COMPLETED}")
            for column in ("seed", "flops", "params", "activations", "draw")
        ),
        *(
            ("I5", f"its {column} is", f"UPDATE trials SET {column} = {column} || 'x' WHERE trial_id = {COMPLETED}")
            for column in ("cohort", "architecture", "architecture_id", "space", "scale")
        ),
        ("I5", "its audited is", f"UPDATE trials SET audited = 1 - audited WHERE trial_id = {COMPLETED}"),
        ("I6", "its outcome is 'failed'", f"UPDATE trials SET outcome = 'failed' WHERE trial_id = {COMPLETED}"),
        *(
            ("I6", f"its {column} is", f"UPDATE epochs SET {column} = {column} + 1e-9 WHERE trial_id = {COMPLETED}")
            for column in ("train_loss", "val_loss", "val_error_pct", "learning_rate")
        ),
        ("I6", "its would_stop is 1, and 0", "UPDATE decisions SET would_stop = 1 WHERE would_stop = 0"),
        ("I6", "its error_pct is", "UPDATE decisions SET error_pct = error_pct + 1 WHERE arrival = 1"),
        ("I6", "the decision is only there", "DELETE FROM decisions WHERE arrival = 2"),
        ("I6", "has no place, unlike there", "DELETE FROM promotions"),
        ("I6", "the method is asha", "UPDATE meta SET value = replace(value, 'synchronous', 'asha')"),
    ],
)  # fmt: skip
def test_what_differs_from_an_undisturbed_sweep_is_found(make, invariant, words, query):
    run_dir, other = (make("synchronous", name=name, seed=seed, events=CALM) for seed, name in enumerate("ab"))
    assert verify(run_dir, against=other).holds
    apply(run_dir / "journal.sqlite", (query,))
    assert words in " ".join(verify(run_dir, against=other).violations[invariant])


def test_timing_may_differ_from_an_undisturbed_sweep(make):
    """Times, hosts and the order of arrivals are the machine's; in the asynchronous modes what follows from it too."""
    for method in ("asha", "asha_promotion"):
        run_dir, other = (make(method, name=f"{method} {seed}", seed=seed) for seed in range(2))
        assert verify(run_dir, against=other).holds


def test_a_smaller_batch_makes_another_curve(make, change):
    run_dir, other = (make("synchronous", name=name, events=CALM) for name in "ab")
    trial = f"WHERE trial_id = {COMPLETED}"
    change(run_dir / "journal.sqlite", f"UPDATE epochs SET train_loss = 1 {trial}")
    assert verify(run_dir, against=other).violations["I6"]
    change(run_dir / "journal.sqlite", f"UPDATE trials SET batch_size = 64 {trial}")
    assert "I6" not in verify(run_dir, against=other).violations
