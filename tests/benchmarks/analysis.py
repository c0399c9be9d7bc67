"""How long a table of a million trials takes to judge, and how much memory.

    python tests/benchmarks/analysis.py [--trials 1000000] [--epochs 20] [--rounds 3]

Four spaces of made-up curves as ASHA with a lottery leaves them (rungs after 1, 3, 9; one in three goes on; a tenth
exempt), 2,000 resamples, each time in a process of its own, in turn with the peer: pandas reads the same file and takes
means and quartiles of the last errors by space, the least that anybody would do. Printed as one JSON line: medians of
wall seconds, the most memory in GiB, and ratios.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SPACES = ("plain", "ruled", "free", "worse")
RUNGS, PASS = (1, 3, 9), 1 / 3
OURS = """
import sys, sweep
found = sweep.judge_curves(sys.argv[1], pairs=["plain:ruled", "plain:free", "plain:worse"], num_bootstrap=2000)
print([verdict.verdict for verdict in found.verdicts])
"""
PEER = """
import sys, pandas
table = pandas.read_parquet(sys.argv[1])
last = table[table.epoch == table.epoch.max()].groupby("space").val_error_pct
print(last.mean(), last.quantile([0.25, 0.5, 0.75]))
"""


def write_curves(path: Path, num_trials: int, num_epochs: int) -> None:
    """Rows by trial; a trial's curve ends where the rule ended it."""
    rng = np.random.default_rng(0)
    quality, speed = rng.normal(size=(2, num_trials, 1))
    space = rng.integers(len(SPACES), size=num_trials)
    epochs = np.arange(1, num_epochs + 1)
    left = 1 - np.log(epochs) / np.log(num_epochs)
    errors = 10 + 4 * np.exp(0.6 * quality) + np.array([0.0, -0.3, 0.0, 0.3])[space][:, None]
    errors = np.clip(errors + 45 * left * np.exp(0.35 * (speed + 0.6 * quality)), 0, 90)
    would_stop_at = np.zeros(num_trials, dtype=np.int64)
    for rung in RUNGS:
        alive = would_stop_at == 0
        would_stop_at[alive & (errors[:, rung - 1] > np.quantile(errors[alive, rung - 1], PASS))] = rung
    is_full = (would_stop_at == 0) | (rng.random(num_trials) < 0.1)
    ends = np.where(is_full, num_epochs, would_stop_at)
    row, column = np.nonzero(epochs <= ends[:, None])
    ids = pa.array([f"trial-{number:07d}" for number in range(num_trials)])
    columns = {
        "trial_id": pa.DictionaryArray.from_arrays(pa.array(row.astype(np.int32)), ids),
        "space": pa.DictionaryArray.from_arrays(pa.array(space[row].astype(np.int32)), pa.array(SPACES)),
        "epoch": pa.array(epochs[column].astype(np.int32)),
        "val_error_pct": pa.array(errors[row, column].astype(np.float32)),
        "would_stop_at": pa.array(would_stop_at[row].astype(np.int32)),
        "fully_trained": pa.array(is_full[row]),
        "audit_fraction": pa.array(np.full(len(row), 0.1)),
    }
    pq.write_table(pa.table(columns), path)


def run(code: str, path: Path) -> tuple[float, float]:
    """Wall seconds and GiB of a fresh Python."""
    started = time.perf_counter()
    child = os.posix_spawn(sys.executable, [sys.executable, "-c", code, str(path)], os.environ)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise RuntimeError(f"a process ended with {os.waitstatus_to_exitcode(status)}; what it wrote stands above")
    return time.perf_counter() - started, usage.ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=1_000_000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "curves.parquet"
        write_curves(path, asked.trials, asked.epochs)
        rounds = [(run(OURS, path), run(PEER, path)) for _ in range(asked.rounds)]
        num_rows = pq.read_metadata(path).num_rows
    ours, peer = ([statistics.median(values) for values in zip(*side)] for side in zip(*rounds))
    print(  # noqa: T201
        json.dumps(
            {
                "trials": asked.trials,
                "rows": num_rows,
                "wall_s": round(ours[0], 1),
                "memory_gib": round(ours[1], 2),
                "pandas_wall_s": round(peer[0], 1),
                "pandas_memory_gib": round(peer[1], 2),
                "wall_ratio": round(ours[0] / peer[0], 2),
            }
        )
    )


if __name__ == "__main__":
    main()
