"""The tables of a sweep: three Parquet files that every analysis reads, instead of MLflow's search.

In: a journal. Out: `architectures.parquet` (what was drawn), `trials.parquet` (what became of it) and
`epochs.parquet` (the learning curves), units in the column names, and in each file's metadata the schema version,
the study with its hash, the git commit and the machine (DESIGN, sections 2 and 4.5).
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sweep.records.journal import PRIVATE_META, Journal, TrialRow
from sweep.spaces.families import ANYNET
from sweep.spaces.parts import Parts

TABLES_VERSION = 3
_METADATA_KEY = b"designspace_sweep"

ARCHITECTURES = pa.schema(
    [
        ("trial_id", pa.string()), ("space", pa.string()), ("scale", pa.string()), ("cohort", pa.string()),
        ("draw", pa.int32()), ("launch_order", pa.int32()), ("audited", pa.bool_()),
        ("audited_if_worst", pa.bool_()), ("seed", pa.int64()), ("architecture_id", pa.string()),
        ("family", pa.string()), ("stem_width", pa.int32()), ("depth", pa.int32()),
        ("depths", pa.list_(pa.int32())), ("widths", pa.list_(pa.int32())),
        ("bottleneck_ratios", pa.list_(pa.float64())), ("group_widths", pa.list_(pa.int32())),
        ("block", pa.string()), ("kernel_size", pa.int32()), ("activation_order", pa.string()),
        ("downsampling", pa.string()), ("norm", pa.string()), ("activation", pa.string()), ("skip", pa.bool_()),
        ("se_ratio", pa.float64()), ("dropout", pa.float64()), ("stochastic_depth", pa.float64()),
        ("initialisation", pa.string()),
        ("flops", pa.int64()), ("params", pa.int64()), ("activations", pa.int64()), ("architecture", pa.string()),
    ]
)  # fmt: skip
TRIALS = pa.schema(
    [
        ("trial_id", pa.string()), ("space", pa.string()), ("scale", pa.string()), ("cohort", pa.string()),
        ("architecture_id", pa.string()), ("audited", pa.bool_()), ("among_worst", pa.bool_()),
        ("outcome", pa.string()), ("epochs_trained", pa.int32()), ("stopped_at_epoch", pa.int32()),
        ("would_stop_at_epoch", pa.int32()), ("last_val_error_pct", pa.float64()), ("flops", pa.int64()),
        ("params", pa.int64()), ("activations", pa.int64()), ("train_time_s", pa.float64()),
        ("eval_time_s", pa.float64()), ("attempts", pa.int32()), ("failure", pa.string()), ("run_id", pa.string()),
    ]
)  # fmt: skip
EPOCHS = pa.schema(
    [
        ("trial_id", pa.string()), ("space", pa.string()), ("scale", pa.string()), ("epoch", pa.int32()),
        ("train_loss", pa.float64()), ("val_loss", pa.float64()), ("val_error_pct", pa.float64()),
        ("learning_rate", pa.float64()), ("train_time_s", pa.float64()), ("eval_time_s", pa.float64()),
        ("host", pa.string()), ("recorded_at_ms", pa.int64()),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Tables:
    """The three tables of one sweep, and its provenance: `study` (a dict), `study_hash`, `git_commit`, …"""

    architectures: pa.Table
    trials: pa.Table
    epochs: pa.Table
    metadata: dict[str, Any]


def from_journal(journal: Journal) -> Tables:
    """The tables of a sweep as its journal stands, finished or not."""
    trials = [dict(row) for row in journal.trials()]
    epochs = [dict(row) for row in journal.epochs()]
    decisions = [dict(row) for row in journal.decisions()]
    metadata = {key: value for key, value in journal.meta().items() if key not in PRIVATE_META}
    metadata["study"] = extended_study(metadata)
    return Tables(
        architectures=architectures_table(trials),
        trials=pa.Table.from_pylist(_trial_rows(trials, epochs, decisions), TRIALS),
        epochs=pa.Table.from_pylist(epochs, EPOCHS),
        metadata={"tables_version": TABLES_VERSION, **metadata},
    )


def extended_study(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The study of a sweep with the spaces that `sweep extend` added to it."""
    added = [space for extension in meta.get("extensions", []) for space in extension["spaces"]]
    return meta["study"] | {"spaces": list(dict.fromkeys([*meta["study"]["spaces"], *added]))}


def architectures_table(trials: Iterable[Mapping[str, Any]]) -> pa.Table:
    """The population, from rows of the journal's trials: all that is known of them before anything starts."""
    return pa.Table.from_pylist([_architecture_row(dict(trial)) for trial in trials], ARCHITECTURES)


def read_population(path: Path) -> list[TrialRow]:
    """The trials as they were drawn, in launch order, from an `architectures.parquet`."""
    names = list(TrialRow.__dataclass_fields__)
    rows = pq.read_table(path, columns=names).to_pylist()
    return sorted((TrialRow(**row) for row in rows), key=lambda row: row.launch_order)


def _architecture_row(trial: dict[str, Any]) -> dict[str, Any]:
    """What a kind of network lacks stays null; a hidden layer is a stage of one block, a transformer is one stage."""
    network = json.loads(trial["architecture"])
    family = network.get("family", ANYNET)
    told = {name: bool(trial[name]) for name in ("audited", "audited_if_worst")} | {"family": family}
    if family != ANYNET:
        widths = network["widths"] if "widths" in network else [network["width"]]
        depths = [network.get("num_blocks", 1)] * len(widths)
        return trial | told | network | {"depth": sum(depths), "depths": depths, "widths": widths}
    stages = network.pop("stages")
    columns = {f"{name}s": [stage[name] for stage in stages] for name in stages[0]}
    return trial | told | _DEFAULT_PARTS | network | columns | {"depth": sum(columns["depths"])}


_DEFAULT_PARTS = Parts().parts()


def _trial_rows(trials: list[dict], epochs: list[dict], decisions: list[dict]) -> list[dict[str, Any]]:
    last = {row["trial_id"]: row for row in epochs}  # sorted by epoch: the last one stays
    train_time_s: Counter[str] = Counter()
    eval_time_s: Counter[str] = Counter()
    for row in epochs:
        train_time_s[row["trial_id"]] += row["train_time_s"]
        eval_time_s[row["trial_id"]] += row["eval_time_s"]
    would_stop: dict[str, int] = {}
    audited, among_worst = set(), set()
    for row in decisions:
        if row["would_stop"]:
            would_stop.setdefault(row["trial_id"], row["rung_epochs"])
        if row["audited"]:
            audited.add(row["trial_id"])
        if row["among_worst"]:
            among_worst.add(row["trial_id"])
    return [
        trial
        | {
            "audited": bool(trial["audited"]) or trial_id in audited,
            "among_worst": trial_id in among_worst,
            "epochs_trained": last[trial_id]["epoch"] if trial_id in last else 0,
            "stopped_at_epoch": last[trial_id]["epoch"] if trial["outcome"] == "stopped" else None,
            "would_stop_at_epoch": would_stop.get(trial_id),
            "last_val_error_pct": last[trial_id]["val_error_pct"] if trial_id in last else None,
            "train_time_s": float(train_time_s[trial_id]),
            "eval_time_s": float(eval_time_s[trial_id]),
        }
        for trial in trials
        for trial_id in [trial["trial_id"]]
    ]


def write_tables(tables: Tables, run_dir: Path) -> None:
    """Write the three files into `run_dir`, each whole or not at all."""
    metadata = {_METADATA_KEY: json.dumps(tables.metadata)}
    for name in ("architectures", "trials", "epochs"):
        table = getattr(tables, name).replace_schema_metadata(metadata)
        draft = run_dir / f".{name}.parquet.{os.getpid()}"
        pq.write_table(table, draft)
        os.replace(draft, run_dir / f"{name}.parquet")


def read_tables(run_dir: Path) -> Tables:
    """Read what `write_tables` wrote. Raises `ValueError` naming the file if one is missing or not ours."""
    read: dict[str, pa.Table] = {}
    for name in ("architectures", "trials", "epochs"):
        path = run_dir / f"{name}.parquet"
        if not path.is_file():
            raise ValueError(f"run: {str(run_dir)!r} holds no {name}.parquet; run `sweep judge` on the sweep first")
        read[name] = pq.read_table(path)
    embedded = (read["trials"].schema.metadata or {}).get(_METADATA_KEY)
    if embedded is None:
        raise ValueError(
            f"run: the tables in {str(run_dir)!r} carry no metadata of designspace-sweep; were they rewritten?"
        )
    return Tables(metadata=json.loads(embedded), **read)
