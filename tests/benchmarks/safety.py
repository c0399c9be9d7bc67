"""What safety costs: a sweep of short trials with journal and outbox, against the same sweep without them.

Run with `python tests/benchmarks/safety.py [PAIRS] [SETTING…]` (6 pairs of the quickstart; settings as `--set` takes
them) on a quiet machine; prints one JSON line a sweep, then the result: the ratio of the walls, with safety to without,
as the median of the pairs and a 95 % interval (bootstrap over the pairs), and the share of the wall that the journal's
writes and the outbox's processor time came to where they were weighed: what they would cost if all else waited for
them. The two sweeps of a pair train the same networks, one after the other, the first of them by turns. The wall is
that of the whole command, from its start to its last line, Ray's own start included and also told apart.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

PATCHES = Path(__file__).with_name("safety")
SETTINGS = ("stopping.method=synchronous",)
"""Synchronous: both sweeps of a pair train the same epochs."""


def run_once(mode: str, folder: Path, settings: Sequence[str]) -> dict[str, float]:
    """One sweep; seconds of the whole command, seconds from its first trial to its last, and what was weighed."""
    record = folder / "record.jsonl"
    record.touch()
    options = [word for setting in (*SETTINGS, *settings) for word in ("--set", setting)]
    command = [sys.executable, "-m", "sweep", "launch", "quickstart", "--run-dir", str(folder / "run"), "--json"]
    env = {**os.environ, "PYTHONPATH": str(PATCHES), "SAFETY": mode, "SAFETY_RECORD": str(record)}
    begun = time.perf_counter()
    done = subprocess.run([*command, *options], env=env, capture_output=True, text=True, check=False)
    wall_s = time.perf_counter() - begun
    if done.returncode != 0:
        raise SystemExit(done.stderr[-3000:])
    status = subprocess.run(
        [sys.executable, "-m", "sweep", "status", str(folder / "run"), "--json"], capture_output=True, check=True
    )
    spent = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    return {
        "wall_s": round(wall_s, 2),
        "training_s": json.loads(status.stdout)["wall_s"],
        "epochs": json.loads(done.stdout)["epochs_trained"],
        **{name: round(sum(process[name] for process in spent), 3) for name in ("writes", "journal_s", "outbox_cpu_s")},
    }


def interval(ratios: list[float]) -> tuple[float, float]:
    """95 %, of the median, by the bootstrap over pairs."""
    chance = random.Random(0)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(10_000))
    return medians[250], medians[9_749]


def main(num_pairs: int, settings: Sequence[str]) -> None:
    pairs = []
    for number in range(num_pairs):
        modes = ("weighed", "out") if number % 2 == 0 else ("out", "weighed")
        pair = {}
        for mode in modes:
            with tempfile.TemporaryDirectory() as folder:
                pair[mode] = run_once(mode, Path(folder), settings)
            print(json.dumps({"pair": number, "safety": mode, **pair[mode]}), flush=True)  # noqa: T201
        pairs.append(pair)
    result: dict[str, object] = {"pairs": num_pairs}
    for wall in ("wall_s", "training_s"):
        ratios = [pair["weighed"][wall] / pair["out"][wall] for pair in pairs]
        low, high = interval(ratios)
        result[f"{wall[:-2]}_ratio"] = [round(value, 4) for value in (statistics.median(ratios), low, high)]
    for part in ("journal_s", "outbox_cpu_s"):
        shares = [pair["weighed"][part] / pair["weighed"]["wall_s"] for pair in pairs]
        result[f"{part[: part.index('_')]}_share"] = round(statistics.median(shares), 4)
    print(json.dumps(result))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 6, sys.argv[2:])
