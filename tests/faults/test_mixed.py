"""The form for CI: each fault of the list at least once, several in one sweep, for a start of Ray costs seconds.

`make faults` runs the other modules too, each fault by itself and again and again (tests/faults/conftest.py).
"""

import os
import random
import signal
import tempfile
import time
from pathlib import Path

import pytest
from faults.harness import STUDY, Sweep
from faults.test_identity import CLOCK, awkward_study
from faults.test_mlflow import crash, server
from faults.test_storage import check_cut_state_files, damage_newest_states, fill, flip_last_bytes, small_disk
from faults.test_trials import check_hungry, check_raising, limited_memory
from postgres import postgres
from sweeps.outside import curves
from sweeps.small import SETTINGS as TRAINING

from sweep.spaces import Architecture
from sweep.studies import load_study
from sweep.training.data import open_split, prepare
from sweep.training.trial import Trial

pytestmark = pytest.mark.slow

SYNCHRONOUS = [*STUDY, "stopping.method=synchronous"]


def test_processes_disks_and_the_clock(tmp_path, undisturbed, injected):
    """1, 2, 3, 4, 8, 10, 15, 17: one sweep through all of it, and its table is that of an undisturbed one."""
    chance = random.Random("mixed")
    profile = tmp_path / "impatient.toml"
    profile.write_text('name = "impatient"\nstall_after_s = 10\n')
    clock = tmp_path / "clock"
    clock.write_text("0")
    with tempfile.TemporaryDirectory(prefix="s-", dir="/tmp") as place, small_disk(Path(place), 200) as small:
        env = {"FAULT_CLOCK": str(clock), "FAULT_EPOCH_S": "0.7", "RAY_TMPDIR": place}
        sweep = Sweep(small / "run", SYNCHRONOUS, env=env)
        sweep.env["PYTHONPATH"] += f"{os.pathsep}{CLOCK}"
        sweep.start("--on", str(profile))

        sweep.at(chance, last=2)
        sweep.hurt("worker", chance=chance)
        injected(2, "SIGKILL of worker")
        sweep.at(chance, last=2)
        ballast = fill(small)
        sweep.until(lambda: "waiting" in sweep.stderr)
        ballast.unlink()
        injected(8, "run directory and temporary directory full")
        sweep.at(chance, last=2)
        clock.write_text("-3600")
        injected(15, "clock set back an hour while it runs")
        sweep.at(chance, last=2)
        sweep.hurt("worker", signal.SIGSTOP, chance=chance)
        sweep.until(lambda: any("stalled" in message for message in sweep.events("retried")))
        injected(4, "SIGSTOP of a worker")
        sweep.hurt("driver", chance=chance)
        injected(1, "SIGKILL of the driver")

        check_cut_state_files(sweep, tmp_path, injected)
        sweep.start()
        sweep.at(chance, last=2)
        sweep.hurt(chance.choice(["raylet", "gcs_server"]), chance=chance)
        injected(3, "SIGKILL of raylet or GCS")
        sweep.at(chance, last=2)
        sweep.hurt("driver", signal.SIGINT, chance=chance)
        code, _ = sweep.end()
        injected(17, "SIGINT once")
        assert code == 3, sweep.stderr
        assert not sweep.runs_open()

        sweep.start()
        sweep.at(chance, last=2)
        family = sweep.family()
        sweep.hurt("driver", signal.SIGINT, chance=chance)
        time.sleep(0.3)
        sweep.hurt("driver", signal.SIGINT, chance=chance)
        code, _ = sweep.end(15)
        injected(17, "SIGINT twice")
        assert code == 130, sweep.stderr
        assert "Traceback" not in sweep.stderr
        assert not sweep.alive(family)
        sweep.finish()
        sweep.check(against=undisturbed)
        assert not sweep.query("SELECT 1 FROM trials WHERE ended_at_ms < started_at_ms OR user_failures > 0")


def test_mlflow_away_in_every_way(tmp_path, sweep_cli, undisturbed, injected):
    """6, 7, 22: PostgreSQL crashes, the driver dies in an upload, the server is killed, comes back, and is gone."""
    chance = random.Random("away")
    with postgres(tmp_path) as uri, server(tmp_path, uri.replace("postgresql:", "postgresql+psycopg2:")) as mlflow:
        settings = [*SYNCHRONOUS, f"tracking.uri={mlflow.uri}"]
        profile = tmp_path / "talkative.toml"
        profile.write_text('name = "talkative"\n[tracking]\ninterval_s = 0.5\n')
        sweep = Sweep(tmp_path / "run", settings, env={"FAULT_EPOCH_S": "0.8"}).start("--on", str(profile))
        sweep.at(chance, last=1)
        with sweep.held():
            sweep.until(lambda: list(mlflow.artifacts.rglob("*.yaml*")))
            sweep.hurt("driver", chance=chance)
        injected(22, "SIGKILL during an artifact upload")
        sweep.start()
        sweep.at(chance, last=1)
        crash(uri)
        injected(7, "PostgreSQL restarted (immediate)")
        sweep.at(chance, last=1)
        mlflow.kill()
        time.sleep(3)
        with sweep.held():
            mlflow.start()
        injected(6, "MLflow server killed for a while")
        sweep.at(chance, last=1)
        mlflow.kill()
        code, summary = sweep.end()
        assert code == 1
        assert summary["finished"]
        assert "sweep sync" in sweep.stderr
        mlflow.start()
        done = sweep_cli("sync", sweep.run_dir)
        assert done.returncode == 0, done.stderr
        injected(6, "MLflow server killed for good, then `sweep sync`")
        sweep.check(against=undisturbed)


def trained_alone(trial, study, cache):
    """The curve of a trial that is trained here, without a sweep."""
    files = prepare(resolution=study.scale[0].resolution, cache=cache)
    data = study.data_at(trial["scale"])
    sizes = {"num_train": data.num_train, "num_validation": data.num_validation}
    split = open_split(files, seed=study.seed, **sizes)
    network = Architecture.from_json(trial["architecture"])
    num_epochs = study.stopping_at(trial["scale"]).max_epochs
    results = Trial(network, study.recipe, split, num_epochs=num_epochs, seed=trial["seed"]).run()
    return [(result.epoch, result.train_loss, result.val_loss, result.val_error_pct) for result in results]


def test_states_and_images_damaged(tmp_path, injected):
    """9, 11, 17: real training is told to leave; states and images are damaged while nobody looks."""
    chance = random.Random("damaged")
    settings, cache = [*TRAINING, "stopping.method=none"], tmp_path / "cache"
    sweep = Sweep(tmp_path / "run", settings, env={"XDG_CACHE_HOME": str(cache)}).start()
    sweep.at(chance, last=3)
    flip_last_bytes(next(cache.rglob("train-images-*.npy")))
    injected(11, "data file damaged between launch and trial")
    sweep.until(lambda: sweep.events("data_damaged"))
    at_work = "SELECT 1 FROM epochs JOIN trials USING (trial_id) WHERE outcome = 'running' GROUP BY trial_id"
    sweep.until(lambda: sweep.query(f"{at_work} HAVING count(*) = 1"))  # it has three more to do
    sweep.hurt("driver", signal.SIGTERM, chance=chance)
    code, _ = sweep.end()
    injected(17, "SIGTERM once")
    assert code == 3, sweep.stderr
    assert not sweep.runs_open()
    going_on = [row["trial_id"] for row in sweep.query("SELECT trial_id FROM trials")]
    injected(9, "newest checkpoint damaged", times=damage_newest_states(sweep, chance, going_on).total())
    sweep.finish()
    sweep.check()
    refused = "SELECT trial_id FROM events WHERE kind = 'checkpoint_refused'"
    disturbed = sweep.query(f"SELECT * FROM trials WHERE trial_id IN ({refused})")
    assert disturbed
    study = load_study("quickstart", settings)
    for trial in disturbed:
        assert curves(sweep.run_dir)[trial["trial_id"]] == trained_alone(trial, study, cache / "designspace-sweep")


def test_trials_that_go_wrong_by_themselves(tmp_path, injected):
    """12, 13, 14 in one sweep: no numbers, errors, and more memory than there is."""
    with limited_memory(3000) as prefix:
        sweep = Sweep(tmp_path / "run", [*STUDY, "objective=objectives:troubled", "stopping.method=none", "seed=43"])
        code, summary = sweep.start(prefix=prefix).end()
    assert code == 1
    assert summary["finished"]
    assert summary["trials"]["diverged"] > 0
    injected(12, "NaN, infinity or None as a result", times=summary["trials"]["diverged"])
    injected(13, "a trial that always raises", times=check_raising(sweep, max_failures=2))
    injected(14, "out of memory in a small cgroup", times=check_hungry(sweep, allowed=False))
    sweep.check()


def test_launched_twice_under_an_awkward_name_with_few_files(tmp_path, undisturbed, injected):
    """16, 20, 21."""
    first, second = (Sweep(tmp_path / 'it\'s a "run" – 試験', SYNCHRONOUS) for _ in range(2))
    second._stderr = tmp_path / "second.stderr"
    for sweep in (first, second):
        sweep.study = awkward_study(tmp_path, "naïve – 試験 🧪 'quoted' $HOME `id`")
        sweep.start(prefix=["sh", "-c", 'ulimit -Sn 256 && exec "$@"', "sh"])
    ended = [sweep.end() for sweep in (first, second)]
    assert sorted(code for code, _ in ended) == [0, 2], (first.stderr, second.stderr)
    winner, loser = (first, second) if ended[0][0] == 0 else (second, first)
    assert "in use by process" in loser.stderr
    winner.check()
    injected(16, "launched twice in the same second")
    injected(20, "awkward names")
    injected(21, "256 file descriptors")
    assert winner.query("SELECT count(*) AS n FROM epochs") == undisturbed.query("SELECT count(*) AS n FROM epochs")
