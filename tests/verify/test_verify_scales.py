"""Sweeps of several scales, drawn by the real population: whole ones pass, and what is wrong with a pair is found."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from scaled import AGAIN, LARGE, LARGE_AGAIN, LARGER, scaled_study
from verify import mlflow_maker
from verify.sweep_maker import Events, MadeUpSweep, made_up_clock, quick

from sweep.records import Journal
from sweep.scheduling.extend import extend
from sweep.scheduling.population import draw_population
from sweep.verify import verify

METHODS = ("asha", "asha_promotion", "synchronous", "none")
ROUGH = Events(diverges=0.08, fails=0.05, retries=0.1, cancels=0.02, levels=20)


def launch(run_dir: Path, method: str, **more) -> Journal:
    study = scaled_study(LARGE, LARGER, AGAIN, LARGE_AGAIN, method=method, **more)
    trials, draws = draw_population(study)
    meta = {"study": study.to_dict(), "study_hash": study.hash, "draws": [vars(draw) for draw in draws]}
    return quick(Journal.create(run_dir, meta, trials))


@pytest.fixture
def sweep(folder: Path, empty_database: Path) -> Callable[..., Path]:
    def make(method: str = "asha", *, extended: tuple[int, ...] = (), **more) -> Path:
        with made_up_clock(), launch(folder, method, **more) as journal:
            MadeUpSweep(journal, random.Random(1), ROUGH).run(10_000 if not extended else 60)
        for num in extended:
            extend(folder, trials=num)
            with made_up_clock(num), quick(Journal.open(folder)) as journal:
                MadeUpSweep(journal, random.Random(num), ROUGH).run()
        shutil.copy(empty_database, folder / "mlflow.db")
        mlflow_maker.deliver(folder)
        return folder

    return make


@pytest.mark.parametrize("method", METHODS)
def test_a_sweep_with_pairs_and_repeats_holds(sweep, method):
    findings = verify(sweep(method, flops_strata=2))
    assert findings.holds, findings
    assert findings.checked["I6"] > 30 or method == "none"


@pytest.mark.parametrize("method", ["asha", "synchronous"])
def test_so_it_does_when_it_was_extended(sweep, method):
    """By so many that the part at the scale `larger`, of three, was short at first."""
    findings = verify(sweep(method, extended=(1, 2), num=2))
    assert findings.holds, findings


OTHER = (
    "(SELECT architecture{} FROM trials AS other WHERE scale = 'large' AND space = trials.space"
    " AND draw != trials.draw LIMIT 1)"
)

BROKEN = [
    ("a repeat that may be stopped", "I5", "the scale again is a repeat, and it is not exempt from stopping", (
        "UPDATE trials SET audited = 0 WHERE scale = 'again' AND draw IN (SELECT min(draw) FROM trials WHERE scale ="
        " 'again')",
    )),
    ("another network in a repeat", "I5", "its network is not that of anynet_c-large-", (
        f"UPDATE trials SET architecture = {OTHER.format('')}, architecture_id = {OTHER.format('_id')}"
        " WHERE scale = 'large_again' AND space = 'anynet_c'",
    )),
    ("other parts than the original's", "I5", "its network has other parts than anynet_d-large-", (
        "UPDATE trials SET architecture = json_set(architecture, '$.stem_width', 16) WHERE scale = 'larger'",
    )),
    ("other depths than the factor's", "I5", "scaled has", (
        "UPDATE trials SET architecture = json_set(architecture, '$.stages[0].depth', 9) WHERE scale = 'large'",
    )),
    ("a part that is not asked for", "I5", "anynet_d at scale larger lacks the draws", (
        """UPDATE meta SET value = json_set(value, '$.scale[2].trials_per_space', 4) WHERE key = 'study'""",
    )),
    ("more epochs than the scale has", "I1", "it has 12 epochs of 6", (
        """UPDATE meta SET value = json_set(value, '$.scale[1].max_epochs', 6) WHERE key = 'study'""",
    )),
    ("rungs of another scale", "I6", "arrivals at rungs that the study has not", (
        """UPDATE meta SET value = json_set(value, '$.scale[1].grace_epochs', 5) WHERE key = 'study'""",
    )),
    ("a scale of none", "journal", "the scale large is of 'huge', which is no earlier one", (
        """UPDATE meta SET value = json_set(value, '$.scale[1].of', 'huge') WHERE key = 'study'""",
    )),
    ("a factor that is none", "journal", "the depth_factor of scale large is 'deep'", (
        """UPDATE meta SET value = json_set(value, '$.scale[1].depth_factor', 'deep') WHERE key = 'study'""",
    )),
    ("epochs that are none", "journal", "the max_epochs of scale large is -1", (
        """UPDATE meta SET value = json_set(value, '$.scale[1].max_epochs', -1) WHERE key = 'study'""",
    )),
]  # fmt: skip


@pytest.mark.parametrize(("invariant", "words", "queries"), [case[1:] for case in BROKEN], ids=[c[0] for c in BROKEN])
def test_what_is_wrong_is_found(sweep, change, invariant, words, queries):
    run_dir = sweep()
    for query in queries:
        change(run_dir / "journal.sqlite", query)
    found = verify(run_dir).violations
    assert words in "\n".join(found[invariant]), found


def test_a_journal_from_before_there_were_scaled_scales_is_read_as_ever(sweep, change):
    """Without the fields that came later."""
    run_dir = sweep()
    [(study,)] = change(run_dir / "journal.sqlite", "SELECT value FROM meta WHERE key = 'study'")
    table = json.loads(study)
    kept = ("name", "resolution", "flops_min", "flops_max", "ranges")
    table["scale"] = [{key: table["scale"][0][key] for key in kept}]
    change(run_dir / "journal.sqlite", "UPDATE meta SET value = ? WHERE key = 'study'", json.dumps(table))
    for name in ("epochs", "decisions", "trials"):
        change(run_dir / "journal.sqlite", f"DELETE FROM {name} WHERE trial_id NOT LIKE '%-small-%'")
    findings = verify(run_dir)
    assert not [line for line in findings.violations.get("I5", ()) if "launch order" not in line and "run" not in line]
    assert "journal" not in findings.violations
