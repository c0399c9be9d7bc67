"""What the sweep's own code draws, journals and delivers to MLflow holds: the real population, outbox and artifacts."""

import random
import shutil
from pathlib import Path

import pytest
from verify.sweep_maker import Events, MadeUpSweep, extend, made_up_clock, make_journal, quick, study

from sweep.records import Journal
from sweep.scheduling.population import draw_population
from sweep.studies import load_study
from sweep.tracking import Outbox, default_tracking_uri, deliver
from sweep.verify import verify

ROUGH = Events(diverges=0.08, fails=0.05, retries=0.1, cancels=0.03, levels=30)


def session(run_dir: Path, num_steps: int, *, seed: int) -> None:
    """What one process at work on a sweep does: train and deliver, until it is stopped or nothing is left."""
    with quick(Journal.open(run_dir)) as journal:
        outbox = Outbox(run_dir, default_tracking_uri(run_dir), experiment="quickstart", interval_s=0.05)
        outbox.start()
        with made_up_clock(seed):
            MadeUpSweep(journal, random.Random(seed), ROUGH).run(num_steps)
        outbox.close(status="finished" if journal.is_finished() else "interrupted")


@pytest.mark.parametrize("method", ["asha", "asha_promotion", "synchronous", "none"])
def test_what_is_delivered_holds_after_each_session(folder, empty_database, method):
    run_dir = folder / "Müller's run, #1"
    with made_up_clock(), make_journal(run_dir, study(method=method)):
        shutil.copy(empty_database, run_dir / "mlflow.db")
    for number, num_steps in enumerate((12, 25, 10_000)):
        session(run_dir, num_steps, seed=number)
        findings = verify(run_dir)
        assert findings.holds, findings
    with quick(Journal.open(run_dir)) as journal:
        assert journal.is_finished()
        extend(journal, 2)
    session(run_dir, 10_000, seed=9)
    findings = verify(run_dir)
    assert findings.holds, findings
    assert findings.checked["artifacts"] > 0


def test_what_a_killed_sweep_left_is_delivered_later(folder, empty_database):
    with made_up_clock(), make_journal(folder, study(method="asha")) as journal:
        shutil.copy(empty_database, folder / "mlflow.db")
        MadeUpSweep(journal, random.Random(3), ROUGH).run(30)
    assert {"I1", "I4"} <= verify(folder).violations.keys()
    deliver(folder)
    findings = verify(folder)
    assert findings.holds, findings


@pytest.mark.parametrize("flops_strata", [1, 3])
def test_the_population_that_is_drawn_is_the_studys(folder, empty_database, flops_strata):
    table = load_study("quickstart", ["trials_per_space=5", f"stopping.flops_strata={flops_strata}"])
    trials, _ = draw_population(table)
    with made_up_clock():
        meta = {"study": table.to_dict(), "study_hash": table.hash, "git_commit": None}
        with quick(Journal.create(folder, meta, trials)) as journal:
            MadeUpSweep(journal, random.Random(1), ROUGH).run()
    shutil.copy(empty_database, folder / "mlflow.db")
    deliver(folder)
    findings = verify(folder, against=folder)
    assert findings.holds, findings
    assert findings.checked["I5"] >= 3 * 5 * len(table.spaces)
