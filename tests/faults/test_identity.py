"""Which sweep is which, and when: one launched twice, a clock that is set back, names that nobody expects."""

import os
import random
import time
from pathlib import Path

import pytest
from faults.harness import STUDY, THOROUGH, Sweep, rounds

pytestmark = pytest.mark.slow

SYNCHRONOUS = [*STUDY, "stopping.method=synchronous"]


@pytest.mark.parametrize("seed", rounds())
def test_the_same_sweep_launched_twice_in_the_same_second(seed, tmp_path, undisturbed, injected):
    chance = random.Random(f"{seed} twice")
    first, second = (Sweep(tmp_path / "run", SYNCHRONOUS) for _ in range(2))
    second._stderr = tmp_path / "second.stderr"
    first.start()
    time.sleep(chance.random() * 0.2)
    second.start()
    ended = [sweep.end() for sweep in (first, second)]
    assert sorted(code for code, _ in ended) == [0, 2]
    winner, loser = (first, second) if ended[0][0] == 0 else (second, first)
    assert f"in use by process {winner.process.pid} on " in loser.stderr
    winner.check(against=undisturbed)
    injected(16, "launched twice in the same second")


@pytest.mark.parametrize("seed", rounds())
@pytest.mark.parametrize("when", ["while it runs", "between two sessions"] if THOROUGH else ["while it runs"])
def test_the_clock_set_back_an_hour(when, seed, tmp_path, undisturbed, injected):
    chance = random.Random(f"{seed} clock {when}")
    clock = tmp_path / "clock"
    clock.write_text("0")
    sweep = Sweep(tmp_path / "run", SYNCHRONOUS, env={"FAULT_CLOCK": str(clock)})
    sweep.env["PYTHONPATH"] += f"{os.pathsep}{Path(__file__).parent / 'clock'}"
    sweep.start()
    sweep.at(chance, last=6)
    if when == "between two sessions":
        sweep.hurt("driver", chance=chance)
    clock.write_text("-3600")
    sweep.finish()
    sweep.check(against=undisturbed)
    moments = [row["recorded_at_ms"] for row in sweep.query("SELECT recorded_at_ms FROM epochs")]
    assert max(moments) - min(moments) < 600_000  # no moment lies an hour before another
    assert not sweep.query("SELECT 1 FROM trials WHERE ended_at_ms < started_at_ms")
    injected(15, f"clock set back an hour {when}")


@pytest.mark.parametrize("name", ["naïve – 試験 🧪", 'it\'s "quoted" $HOME `id`', "n" * 200])
def test_awkward_names(name, tmp_path, injected):
    study = tmp_path / "awkward.toml"
    quickstart = Path(__file__).parents[2] / "sweep/studies/quickstart.toml"
    text = quickstart.read_text().replace('name = "quickstart"', f"name = {_toml(name)}")
    study.write_text(text, encoding="utf-8")
    folder = tmp_path / f"run of {name[:60]}"
    sweep = Sweep(folder, [*STUDY, "trials_per_space=2"])
    sweep.study = str(study)
    sweep.finish()
    sweep.check()
    injected(20, "awkward names")


def _toml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@pytest.mark.parametrize("name", ["../escape", "a/b", "n" * 300, "", ".hidden", "tab\tname", "50%"])
def test_names_that_cannot_be_are_refused(name, tmp_path, sweep_cli, injected):
    done = sweep_cli("launch", "quickstart", "--run-dir", tmp_path / "run", "--set", f"name={_toml(name)}")
    assert done.returncode == 2
    assert "name = " in done.stderr
    assert not (tmp_path / "run").exists()
    injected(20, "names that are refused")


def test_few_open_files_are_raised_or_refused(tmp_path, sweep_cli, undisturbed, injected):
    soft = Sweep(tmp_path / "soft", SYNCHRONOUS).start(prefix=["sh", "-c", 'ulimit -Sn 256 && exec "$@"', "sh"])
    code, _ = soft.end()
    assert code == 0, soft.stderr
    soft.check(against=undisturbed)
    hard = Sweep(tmp_path / "hard", SYNCHRONOUS).start(prefix=["sh", "-c", 'ulimit -n 256 && exec "$@"', "sh"])
    code, _ = hard.end()
    assert code == 2
    assert "this process may open 256, and Ray needs 1024; raise the limit" in hard.stderr
    assert not hard.run_dir.exists()
    injected(21, "256 file descriptors", times=2)
