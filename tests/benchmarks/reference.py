"""The reference curves that ship: from a run of the study `reference`, in which every network trains to the end.

    sweep launch reference
    python tests/benchmarks/reference.py runs/reference

In: its run directory, finished or not: networks that have not ended are left out, and since all spaces are launched in
one shuffled order, those that have are a sample of each. Out: `sweep/studies/reference_curves.parquet`, with the
columns of sweep/statistics/reading.py, the seconds of an epoch, and in its metadata the study, commit, machine and
versions.
"""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sweep.records import Journal, from_journal

PATH = Path(__file__).parents[2] / "sweep" / "studies" / "reference_curves.parquet"
_KEPT = ("study_hash", "git_commit", "created_at_ms", "machine", "versions", "data")


def write(run_dir: Path, path: Path) -> pa.Table:
    """The curves of all networks that have ended, in the order of their launch."""
    with Journal.open(run_dir, read_only=True) as journal:
        tables = from_journal(journal)
    ended = tables.trials.filter(pc.field("outcome").isin(["completed", "diverged"]))
    columns = ["trial_id", "flops", "params", "activations"]
    curves = tables.epochs.select(["trial_id", "space", "epoch", "val_error_pct", "train_time_s"]).join(
        ended.select(columns), keys="trial_id", join_type="inner"
    )
    curves = curves.sort_by([("space", "ascending"), ("trial_id", "ascending"), ("epoch", "ascending")])
    seconds = pc.cast(pc.round(curves["train_time_s"], ndigits=3), pa.float32())
    curves = curves.set_column(curves.schema.get_field_index("train_time_s"), "train_time_s", seconds)
    told = {key: tables.metadata.get(key) for key in _KEPT}
    curves = curves.replace_schema_metadata({b"designspace_sweep": json.dumps(told)})
    pq.write_table(curves, path, compression="zstd")
    return curves


if __name__ == "__main__":
    written = write(Path(sys.argv[1]), PATH)
    networks = written.group_by("space").aggregate([("trial_id", "count_distinct")]).to_pylist()
    sys.stdout.write(f"{PATH.stat().st_size:,} bytes: {networks}\n")
