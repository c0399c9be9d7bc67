"""Storage that is full, read-only or damaged: the run directory, Ray's folder, states, the journal, the images."""

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults.harness import STUDY, Sweep, rounds
from sweeps.small import SETTINGS as TRAINING

from sweep.records import Journal

pytestmark = pytest.mark.slow

SYNCHRONOUS = [*STUDY, "stopping.method=synchronous"]


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Path]:
    place.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {done.stderr}")
    try:
        yield place
    finally:
        for _ in range(20):  # Ray's last processes may still be at it
            if subprocess.run(["umount", str(place)], capture_output=True).returncode == 0:
                break
            time.sleep(0.5)
        else:
            subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path) -> Path:
    """Take all room that is left; answers the file to remove."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for chunk in (1 << 20, 1 << 12, 1):
            try:
                while file.write(b"x" * chunk):
                    pass
            except OSError:
                continue
    return ballast


@pytest.mark.parametrize("seed", rounds())
@pytest.mark.parametrize("which", ["run directory", "temporary directory"])
def test_a_full_disk_is_waited_for_and_burns_no_trial(which, seed, tmp_path, undisturbed, injected):
    chance = random.Random(f"{seed} {which}")
    # A path of Ray's sockets must be short.
    with tempfile.TemporaryDirectory(prefix="s-", dir="/tmp") as place, small_disk(Path(place), 120) as small:
        env = {} if which == "run directory" else {"RAY_TMPDIR": str(small), "TMPDIR": str(small)}
        run_dir = small / "run" if which == "run directory" else tmp_path / "run"
        sweep = Sweep(run_dir, SYNCHRONOUS, env=env).start()
        sweep.at(chance, last=6)
        ballast = fill(small)
        if which == "run directory":
            sweep.until(lambda: "waiting" in sweep.stderr)
        time.sleep(3)
        known = sweep.num_epochs()
        ballast.unlink()
        freed_s = time.monotonic()
        sweep.until_epochs(known + 2)
        injected(8, f"{which} full", recovery_s=time.monotonic() - freed_s)
        sweep.finish()
        sweep.check(against=undisturbed)
        assert not sweep.query("SELECT 1 FROM trials WHERE outcome = 'failed' OR user_failures > 0")


def interrupted(run_dir: Path, settings: list[str], chance: random.Random) -> Sweep:
    """A sweep whose driver was killed in the middle, with states of trials in training on disk."""
    sweep = Sweep(run_dir, settings).start()
    sweep.at(chance, first=4, last=9)
    sweep.hurt("driver", chance=chance)
    time.sleep(2)  # its workers end by themselves
    return sweep


def damage(path: Path, chance: random.Random) -> str:
    if chance.random() < 0.5:
        os.truncate(path, chance.randrange(path.stat().st_size))
        return "truncated"
    with path.open("r+b") as file:
        file.seek(chance.randrange(path.stat().st_size))
        bit = file.read(1)[0] ^ (1 << chance.randrange(8))
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([bit]))
    return "bit-flipped"


def damage_newest_states(sweep: Sweep, chance: random.Random, going_on: Iterable[str]) -> Counter[str]:
    """Of each of these trials that has begun, all from its last known epoch; how often it was done in which way."""
    last = {
        row["trial_id"]: row["epoch"]
        for row in sweep.query(
            "SELECT trial_id, coalesce(max(epoch), 0) AS epoch FROM trials LEFT JOIN epochs USING (trial_id)"
            " WHERE outcome IN ('running', 'paused') GROUP BY trial_id"
        )
    }
    damaged: Counter[str] = Counter()
    for trial_id in sorted(set(going_on) & last.keys()):
        for state in sorted((sweep.run_dir / "checkpoints" / trial_id).glob("epoch-*.pt")):
            if int(state.name[len("epoch-") :][:4]) >= last[trial_id]:
                damaged[damage(state, chance)] += 1
    assert damaged
    return damaged


@pytest.mark.parametrize("seed", rounds())
def test_a_damaged_checkpoint_is_refused_and_the_one_before_used(seed, tmp_path, undisturbed_training, injected):
    chance = random.Random(f"{seed} checkpoint")
    sweep = interrupted(tmp_path / "run", [*TRAINING, "stopping.method=synchronous"], chance)
    completed = undisturbed_training.query("SELECT trial_id FROM trials WHERE outcome = 'completed'")
    damaged = damage_newest_states(sweep, chance, [row["trial_id"] for row in completed])
    sweep.finish()
    refused = sweep.events("checkpoint_refused")
    sweep.check(against=undisturbed_training)
    assert refused
    for how, times in damaged.items():
        injected(9, f"newest checkpoint {how}", times=times)


@pytest.mark.parametrize("seed", rounds())
def test_state_files_cut_at_ten_places_are_recovered_or_refused(seed, tmp_path, undisturbed, injected):
    """Never a fresh sweep in silence: what is known afterwards is all that was known, or the resume is refused."""
    chance = random.Random(f"{seed} cut")
    sweep = interrupted(tmp_path / "run", SYNCHRONOUS, chance)
    whole, survivors = check_cut_state_files(sweep, tmp_path, injected)
    # Of those that are taken up again, one goes on to its end, in the place where it was.
    name, tenth = chance.choice([one for one in survivors if one[0] != "mlflow.db"])
    shutil.rmtree(sweep.run_dir)
    _copied(whole, sweep.run_dir)
    os.truncate(sweep.run_dir / name, (sweep.run_dir / name).stat().st_size * tenth // 10)
    sweep.finish()
    sweep.check(against=undisturbed)
    # And one that is refused says so, and what to do.
    copy = _copied(whole, tmp_path / "copy")
    os.truncate(copy / "journal.sqlite", 5000)
    refused = Sweep(copy, SYNCHRONOUS).start()
    assert refused.end() == (2, {})
    assert "sweep recover" in refused.stderr


def check_cut_state_files(sweep: Sweep, folder: Path, injected: Callable[..., None]) -> tuple[Path, list]:
    """Cut each state file of a sweep that nobody is at work on, in a copy, at ten places.

    What is known afterwards is all that was known, or it is refused. Answers a whole copy, and the cuts that were not.
    """
    known = _known(sweep)
    names = [path.name for path in sweep.run_dir.iterdir() if path.is_file() and path.stat().st_size]
    assert {"journal.sqlite", "journal.sqlite-wal", "mlflow.db"} <= set(names)
    whole = folder / "whole"
    shutil.copytree(sweep.run_dir, whole)
    survivors = []
    for name in names:
        for tenth in range(10):
            copy = _copied(whole, folder / "copy")
            os.truncate(copy / name, (copy / name).stat().st_size * tenth // 10)
            if not _is_refused(copy):
                assert _known(Sweep(copy)) == known, (name, tenth)
                survivors.append((name, tenth))
            injected(10, "state file truncated")
    return whole, survivors


def _is_refused(run_dir: Path) -> bool:
    try:
        with Journal.open(run_dir) as journal:
            journal.check_whole()
    except ValueError:
        return True
    return False


def _copied(whole: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    return Path(shutil.copytree(whole, place))


def _known(sweep: Sweep) -> list[list]:
    tables = ("trials", "epochs", "decisions", "promotions")
    return [[tuple(row.values()) for row in sweep.query(f"SELECT * FROM {table} ORDER BY 1, 2")] for table in tables]


def flip_last_bytes(path: Path) -> None:
    """In place: those who mapped it see it too."""
    with path.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        last = file.read()
        file.seek(-100, os.SEEK_END)
        file.write(bytes(byte ^ 0xFF for byte in last))


@pytest.mark.parametrize("seed", rounds())
def test_images_damaged_between_launch_and_trial_are_made_again(seed, tmp_path, undisturbed_training, injected):
    chance = random.Random(f"{seed} images")
    cache = tmp_path / "cache"
    env = {"XDG_CACHE_HOME": str(cache)}
    sweep = Sweep(tmp_path / "run", [*TRAINING, "stopping.method=synchronous"], env=env).start()
    sweep.at(chance, last=4)
    images = chance.choice(sorted(cache.rglob("train-images-*.npy")))
    flip_last_bytes(images)
    # A worker that has checked the file looks again when it has changed.
    sweep.finish()
    sweep.check(against=undisturbed_training)
    injected(11, "data file damaged between launch and trial")


def test_a_killed_driver_leaves_no_process(tmp_path):
    chance = random.Random("left")
    sweep = Sweep(tmp_path / "run", SYNCHRONOUS).start()
    sweep.at(chance)
    family = sweep.family()
    sweep.hurt("driver", signal.SIGKILL, chance=chance)
    deadline = time.monotonic() + 10
    while (left := sweep.alive(family)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
