"""Processes that die: the driver, workers, Ray itself; and those that only stop."""

import random
import signal
import time

import pytest
from faults.harness import STUDY, THOROUGH, Sweep, rounds

pytestmark = pytest.mark.slow

SYNCHRONOUS = [*STUDY, "stopping.method=synchronous"]


@pytest.mark.parametrize("seed", rounds())
@pytest.mark.parametrize("method", ["synchronous", "asha_promotion", "asha"] if THOROUGH else ["synchronous"])
def test_the_driver_killed_three_times_in_one_sweep(method, seed, tmp_path, undisturbed, injected):
    chance = random.Random(f"{seed} driver {method}")
    sweep = Sweep(tmp_path / "run", [*STUDY, f"stopping.method={method}"]).start()
    for _ in range(3):
        sweep.at(chance, last=6)
        sweep.hurt("driver", chance=chance)
        killed_s, known = time.monotonic(), sweep.num_epochs()
        sweep.start()
        sweep.until_epochs(known + 1)
        injected(1, "SIGKILL of the driver", recovery_s=time.monotonic() - killed_s)
    sweep.finish()
    sweep.check(against=undisturbed if method == "synchronous" else None)


@pytest.mark.parametrize("seed", rounds())
def test_workers_raylet_and_gcs_killed(seed, tmp_path, undisturbed, injected):
    """One sweep takes them all, in an order drawn by the seed; Ray is started anew by itself, no command is needed."""
    chance = random.Random(f"{seed} processes")
    sweep = Sweep(tmp_path / "run", SYNCHRONOUS, env={"FAULT_EPOCH_S": "0.6"}).start()
    faults = [(2, "worker"), (3, "raylet"), (3, "gcs_server"), (2, "worker"), (1, "engine")]
    chance.shuffle(faults)
    for number, role in faults:
        known = sweep.at(chance, last=3)
        sweep.hurt(role, chance=chance)
        hurt_s = time.monotonic()
        sweep.until_epochs(known + 3)
        injected(number, f"SIGKILL of {role}", recovery_s=time.monotonic() - hurt_s)
    sweep.finish()
    sweep.check(against=undisturbed)


@pytest.mark.parametrize("seed", rounds())
def test_a_worker_that_stops_is_replaced(seed, tmp_path, undisturbed, injected):
    chance = random.Random(f"{seed} stop")
    profile = tmp_path / "impatient.toml"
    profile.write_text('name = "impatient"\nstall_after_s = 10\n')
    sweep = Sweep(tmp_path / "run", SYNCHRONOUS, env={"FAULT_EPOCH_S": "0.5"}).start("--on", str(profile))
    sweep.at(chance, last=8)
    victim = sweep.hurt("worker", signal.SIGSTOP, chance=chance)
    stopped_s = time.monotonic()
    sweep.until(lambda: any("stalled" in message for message in sweep.events("retried")))
    injected(4, "SIGSTOP of a worker", recovery_s=time.monotonic() - stopped_s)
    sweep.finish()
    assert not sweep.alive([victim])
    sweep.check(against=undisturbed)


@pytest.mark.parametrize("seed", rounds())
def test_asked_to_end_it_drains_and_at_the_second_time_leaves(seed, tmp_path, undisturbed, injected):
    """Ctrl-C once, a spot machine's SIGTERM, Ctrl-C twice; after each of them it goes on where it was."""
    chance = random.Random(f"{seed} asked")
    sweep = Sweep(tmp_path / "run", SYNCHRONOUS)
    for number in (signal.SIGINT, signal.SIGTERM):
        sweep.start()
        sweep.at(chance, last=5)
        asked_s = time.monotonic()
        sweep.hurt("driver", number, chance=chance)
        code, summary = sweep.end()
        injected(17, f"{number.name} once", recovery_s=time.monotonic() - asked_s)
        assert code == 3, sweep.stderr
        assert "--resume" in sweep.stderr
        assert not summary["finished"]
        assert not sweep.runs_open()
    sweep.start()
    sweep.at(chance, last=5)
    family = sweep.family()
    sweep.hurt("driver", signal.SIGINT, chance=chance)
    time.sleep(0.3)
    asked_s = time.monotonic()
    sweep.hurt("driver", signal.SIGINT, chance=chance)
    code, _ = sweep.end()
    took_s = time.monotonic() - asked_s
    assert code == 130, sweep.stderr
    assert took_s < 10  # five on a machine that has nothing else to do
    assert not sweep.alive(family)
    injected(17, "SIGINT twice", recovery_s=took_s)
    sweep.finish()
    sweep.check(against=undisturbed)
