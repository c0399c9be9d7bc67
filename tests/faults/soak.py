"""The soak: sweep after sweep under a random mix of faults: `python tests/faults/soak.py MINUTES [SEED]`.

In: minutes, and a seed to repeat a run with. Out: a line a sweep on stderr, the record of each fault in SOAK_RECORD (a
file that tests/faults/table.py reads), exit code 1 at the first sweep of which anything is lost, doubled or untrue; its
run directory is then kept. Each sweep has a mode of stopping, and an objective or real training, drawn by lot; the
table of a synchronous one must be that of an undisturbed sweep.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.harness import STUDY, EndedError, Sweep
from faults.test_identity import CLOCK
from faults.test_mlflow import Server, server
from faults.test_storage import damage, fill, small_disk
from sweeps.small import SETTINGS as TRAINING

Fault = tuple[int, str]
STEADY, TRAINED, DIVERGING = "an objective", "real training", "an objective that diverges"
SETTINGS = {STEADY: STUDY, TRAINED: TRAINING, DIVERGING: [*STUDY, "objective=objectives:not_a_number"]}


class Soaked:
    """One sweep, and the faults that can be injected into it at any moment."""

    def __init__(self, folder: Path, chance: random.Random, mlflow: Server, disk: Path, references: dict[str, Sweep]):
        self.chance, self.mlflow, self.disk = chance, mlflow, disk
        self.kind = chance.choice([STEADY, STEADY, TRAINED, DIVERGING])
        self.method = chance.choice(["asha", "asha_promotion", "synchronous", "synchronous"])
        self.reference = references.get(self.kind) if self.method == "synchronous" else None
        self.clock = folder.with_suffix(".clock")
        self.clock.write_text("0")
        env = {"FAULT_EPOCH_S": "0.5", "FAULT_CLOCK": str(self.clock)}
        settings = [*SETTINGS[self.kind], f"stopping.method={self.method}", f"tracking.uri={mlflow.uri}"]
        self.sweep = Sweep(disk / folder.name, settings, env=env)
        self.sweep.env["PYTHONPATH"] += f"{os.pathsep}{CLOCK}"
        profile = folder.with_suffix(".toml")
        profile.write_text('name = "impatient"\nstall_after_s = 10\n')
        self.options = ("--on", str(profile))

    def start(self) -> None:
        self.sweep.start(*self.options)

    def is_over(self) -> bool:
        assert self.sweep.process is not None
        return self.sweep.process.poll() is not None

    # -- faults: each answers its number and name ----------------------------------------------------------------

    def kill_driver(self) -> Fault:
        self.sweep.hurt("driver", chance=self.chance)
        if self.chance.random() < 0.3 and (states := sorted(self.sweep.run_dir.glob("checkpoints/*/epoch-*.pt"))):
            damage(self.chance.choice(states), self.chance)
        self.start()
        return 1, "SIGKILL of the driver"

    def kill_worker(self) -> Fault:
        self.sweep.hurt("worker", chance=self.chance)
        return 2, "SIGKILL of worker"

    def kill_ray(self) -> Fault:
        role = self.chance.choice(["raylet", "gcs_server", "engine"])
        self.sweep.hurt(role, chance=self.chance)
        return 3, f"SIGKILL of {role}"

    def stop_worker(self) -> Fault:
        self.sweep.hurt("worker", signal.SIGSTOP, chance=self.chance)
        return 4, "SIGSTOP of a worker"

    def kill_server(self) -> Fault:
        self.mlflow.kill()
        time.sleep(10 * self.chance.random())
        self.mlflow.start()
        return 6, "MLflow server killed for a while"

    def fill_disk(self) -> Fault:
        ballast = fill(self.disk)
        time.sleep(1 + 8 * self.chance.random())
        ballast.unlink()
        return 8, "run directory full"

    def ask_to_end(self) -> Fault:
        number = self.chance.choice([signal.SIGINT, signal.SIGTERM])
        self.sweep.hurt("driver", number, chance=self.chance)
        code, _ = self.sweep.end()
        assert code in (0, 3), (code, self.sweep.stderr)  # it may have come to its end in that moment
        self.start()
        return 17, f"{number.name} once"

    def ask_twice(self) -> Fault:
        self.sweep.hurt("driver", signal.SIGINT, chance=self.chance)
        time.sleep(0.3)
        with contextlib.suppress(psutil.NoSuchProcess):  # it came to its end in that moment
            self.sweep.hurt("driver", signal.SIGINT, chance=self.chance)
        code, _ = self.sweep.end(15)
        assert code in (0, 3, 130), (code, self.sweep.stderr)
        self.start()
        return 17, "SIGINT twice"

    def set_clock_back(self) -> Fault:
        self.clock.write_text(str(int(self.clock.read_text()) - 3600))
        return 15, "clock set back an hour"

    def launch_again(self) -> Fault:
        second = Sweep(self.sweep.run_dir, self.sweep.settings, env=self.sweep.env)
        second._stderr = self.clock.with_suffix(".second")
        code, _ = second.start(*self.options).end()
        assert code in (0, 2), second.stderr  # 0: there was nothing left to do, and nobody at work
        assert code == 0 or "in use by process" in second.stderr, second.stderr
        return 16, "launched again while it runs"

    def faults(self) -> list[Callable[[], Fault]]:
        return [self.kill_driver, self.kill_worker, self.kill_ray, self.stop_worker, self.kill_server, self.fill_disk,
                self.ask_to_end, self.ask_twice, self.set_clock_back, self.launch_again]  # fmt: skip


@contextlib.contextmanager
def services(folder: Path) -> Iterator[tuple[Server, Path]]:
    with small_disk(folder / "disk", 300) as disk, server(folder) as mlflow:
        yield mlflow, disk


def soak(minutes: float, seed: int) -> int:
    chance, deadline, record = random.Random(seed), time.monotonic() + 60 * minutes, os.environ.get("SOAK_RECORD")
    total: Counter[Fault] = Counter()
    number = 0
    sys.stderr.write(f"seed {seed}\n")
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch, services(Path(scratch)) as (mlflow, disk):
        references = {kind: _undisturbed(Path(scratch) / kind, SETTINGS[kind]) for kind in (STEADY, TRAINED)}
        while time.monotonic() < deadline:
            number += 1
            soaked = Soaked(Path(scratch) / f"sweep-{number}", chance, mlflow, disk, references)
            try:
                injected = _one(soaked, chance)
            except BaseException:
                shutil.copytree(disk, kept := tempfile.mkdtemp(prefix="soak-broken-"), dirs_exist_ok=True)
                sys.stderr.write(f"sweep {number} ({soaked.kind}, {soaked.method}) is kept in {kept}\n")
                soaked.sweep.kill_all()
                raise
            shutil.rmtree(soaked.sweep.run_dir)
            total.update(injected)
            said = ", ".join(name for _, name in injected) or "nothing"
            sys.stderr.write(f"sweep {number} ({soaked.kind}, {soaked.method}): {said}: all invariants hold\n")
            if record:
                with open(record, "a") as file:
                    for fault_number, name in injected:
                        line = {"number": fault_number, "fault": name, "times": 1, "recovery_s": None, "held": True}
                        file.write(json.dumps(line) + "\n")
    sys.stderr.write(f"{number} sweeps, {total.total()} faults: {dict(total)}\n")
    return number


def _undisturbed(folder: Path, settings: list[str]) -> Sweep:
    sweep = Sweep(folder, [*settings, "stopping.method=synchronous"])
    sweep.finish()
    return sweep


def _one(soaked: Soaked, chance: random.Random) -> list[Fault]:
    injected: list[Fault] = []
    soaked.start()
    for _ in range(chance.randint(1, 5)):
        with contextlib.suppress(AssertionError):  # it ends before the moment comes
            soaked.sweep.at(chance, last=8)
        with contextlib.suppress(EndedError, IndexError, psutil.NoSuchProcess):  # nobody is there in this moment
            injected.append(chance.choice(soaked.faults())())
        if soaked.is_over():
            # It may have come to its end while the server was away: the next launch delivers the rest.
            undelivered = soaked.sweep.process.returncode == 1 and "`sweep sync" in soaked.sweep.stderr
            assert soaked.sweep.process.returncode == 0 or undelivered, soaked.sweep.stderr
            break
    soaked.sweep.finish(300)
    soaked.sweep.check(against=soaked.reference)
    return injected


if __name__ == "__main__":
    soak(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time()))
