"""Which sweep is which, and when: one launched twice, a clock that is set back, names that nobody expects."""

import os
import random
import time
from pathlib import Path

import pytest
from faults.harness import STUDY, THOROUGH, Sweep, rounds

pytestmark = pytest.mark.slow

SYNCHRONOUS = [*STUDY, "stopping.method=synchronous"]
CLOCK = Path(__file__).parent / "clock"


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
    sweep.env["PYTHONPATH"] += f"{os.pathsep}{CLOCK}"
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
    folder = tmp_path / f"run of {name[:60]}"
    sweep = Sweep(folder, [*STUDY, "trials_per_space=2"])
    sweep.study = awkward_study(tmp_path, name)
    sweep.finish()
    sweep.check()
    injected(20, "awkward names")


def awkward_study(folder: Path, name: str) -> str:
    """The quickstart under another name; answers the path of its file."""
    path = folder / "awkward.toml"
    quickstart = Path(__file__).parents[2] / "sweep/studies/quickstart.toml"
    text = quickstart.read_text().replace('name = "quickstart"', f"name = {toml_string(name)}")
    path.write_text(text, encoding="utf-8")
    return str(path)


def toml_string(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def test_few_open_files_are_raised(tmp_path, undisturbed, injected):
    soft = Sweep(tmp_path / "soft", SYNCHRONOUS).start(prefix=["sh", "-c", 'ulimit -Sn 256 && exec "$@"', "sh"])
    code, _ = soft.end()
    assert code == 0, soft.stderr
    soft.check(against=undisturbed)
    injected(21, "256 file descriptors")
