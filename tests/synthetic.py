"""Synthetic sweeps: tables of populations in which each rule is true, false or free by construction.

In: the mean error of each space, and what shall go wrong. Out: `Tables` as a sweep would leave them. Nothing is
trained: a network has a quality, its curve comes down to it, and the rule of early stopping is the plain one,
worse than the median of those that came before.
"""

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from sweep.records.tables import ARCHITECTURES, EPOCHS, TRIALS, Tables
from sweep.statistics import Assumptions, Findings, Verdict, find_in_tables
from sweep.studies import study_from_dict

MEAN_ERRORS_PCT = {"anynet_c": 24.0, "anynet_d": 21.5, "anynet_e": 21.4, "regnet_x": 19.4}
MAX_EPOCHS, GRACE_EPOCHS = 4, 2
# How far a network is from its quality after epochs 1 to 4, as a share of it.
_EXCESS = (0.45, 0.16, 0.05, 0.0)

# Where a rule comes with larger networks: beta distributions over a band of flops, without it and with it, and the
# points of error that twice the flops save.
LARGER_WITH = ((1.0, 2.0), (2.0, 1.0))
SLOPE_PCT = 3.0


def study(
    *,
    name: str = "synthetic",
    question: str = "Which rules of AnyNet and RegNet hold?",
    spaces: tuple[str, ...] = tuple(MEAN_ERRORS_PCT),
    scales: tuple[str, ...] = ("small",),
    trials_per_space: int = 20,
    objective: str = "train",
    **told: str,
) -> dict[str, Any]:
    """A study as tables carry it."""
    return study_from_dict(
        {
            "name": name,
            "question": question,
            "seed": 1,
            "spaces": list(spaces),
            "trials_per_space": trials_per_space,
            "objective": objective,
            **told,
            "scale": [
                {"name": scale, "resolution": 28, "flops_min": 4e5 * 4**i, "flops_max": 8e5 * 4**i}
                for i, scale in enumerate(scales)
            ],
            "data": {"name": "fashion_mnist", "path": "", "num_train": 5000, "num_validation": 2500},
            "recipe": {"batch_size": 128, "learning_rate": 0.1, "precision": "fp32"},
            "stopping": {
                "method": "asha",
                "max_epochs": MAX_EPOCHS,
                "grace_epochs": GRACE_EPOCHS,
                "reduction_factor": 2,
                "audit_fraction": 0.2,
                "flops_strata": 1,
            },
            "judging": {"margin_pct": 0.5, "confidence": 0.95, "num_bootstrap": 10_000},
            "rerun": {"epochs": 15, "resolution": 0, "learning_rate": 0.0},
        }
    ).to_dict()


def tables(
    mean_errors_pct: Mapping[str, float] = MEAN_ERRORS_PCT,
    *,
    rng: np.random.Generator,
    scales: tuple[str, ...] = ("small",),
    trials_per_space: int = 20,
    spread_pct: float = 2.5,
    num_diverged: int = 0,
    num_failed: int = 0,
    num_unfinished: int = 0,
    noise_pct: float = 0.0,
    kinship: float = 0.0,
    **study_fields: Any,
) -> Tables:
    """One sweep. Of each space and scale the last trials launched failed, diverged or are unfinished, so many each.

    `mean_errors_pct` is each space's mean error at the first rung, 2 epochs; around it errors are skewed (a shifted
    gamma distribution) with a standard deviation of `spread_pct` points. `noise_pct` shakes each point of a curve, so
    that ranks change; `kinship`, 0 to 1, is the share of the variance that networks of one number have in common at all
    scales.
    """
    common = {space: rng.gamma(4.0, size=trials_per_space) if kinship else 4.0 for space in mean_errors_pct}
    architectures: list[dict[str, Any]] = []
    trials: list[dict[str, Any]] = []
    epochs: list[dict[str, Any]] = []
    for scale_index, scale in enumerate(scales):
        for space, mean_pct in mean_errors_pct.items():
            qualities = (1 - kinship) ** 0.5 * (rng.gamma(4.0, size=trials_per_space) - 4.0)
            errors = mean_pct + spread_pct * (qualities + kinship**0.5 * (common[space] - 4.0)) / 2.0
            endings = ["failed"] * num_failed + ["diverged"] * num_diverged
            endings += ["running", "pending"] * num_unfinished
            endings = ["trained"] * (trials_per_space - len(endings)) + endings[:trials_per_space]
            seen: list[float] = []
            for draw, (error, ending) in enumerate(zip(errors, endings)):
                drawn = _draw(space, scale, draw, len(trials), 4**scale_index, rng)
                curve = [float(error * (1 + excess) / (1 + _EXCESS[1])) for excess in _EXCESS]
                if noise_pct:
                    curve = [error + noise_pct * float(rng.normal()) for error in curve]
                row, rows = _train(drawn, curve, ending, seen, rng)
                architectures.append(drawn)
                trials.append(row)
                epochs.extend(rows)
    return Tables(
        architectures=pa.Table.from_pylist(architectures, ARCHITECTURES),
        trials=pa.Table.from_pylist(trials, TRIALS),
        epochs=pa.Table.from_pylist(epochs, EPOCHS),
        metadata={
            "schema_version": 1,
            "study": study(
                spaces=tuple(mean_errors_pct), scales=scales, trials_per_space=trials_per_space, **study_fields
            ),
            "study_hash": "0123456789ab",
            "git_commit": "89abcdef0123456789abcdef0123456789abcdef",
            "created_at_ms": 1_700_000_000_000,
            "draws": [
                {"space": space, "scale": scale, "num_draws": 1000, "rejected": {"flops_below": 900, "flops_above": 0}}
                for scale in scales
                for space in mean_errors_pct
            ],
            "data": {"source": "dataset-fashion-mnist", "digest": "fedcba987654"},
            "versions": {"python": "3.11.2", "designspace-sweep": "0.1.0", "torch": "2.14.1", "ray": "2.60.0"},
            "machine": {"host": "example", "cpu": "Example CPU @ 2.00GHz", "num_cpus": 2},
        },
    )


def with_scale(tables: Tables, number: int, **fields: Any) -> Tables:
    """The same sweep, said to be of a study whose scale of that number has these fields besides its name."""
    told = dict(tables.metadata["study"])
    told["scale"] = [
        {"name": scale["name"], **fields} if index == number else scale for index, scale in enumerate(told["scale"])
    ]
    return replace(tables, metadata=tables.metadata | {"study": study_from_dict(told).to_dict()})


def scaled(rng: np.random.Generator, **changes: Any) -> Tables:
    """A sweep of two scales, the large one with the networks of the small one, and repeats of both."""
    scales = ("small", "large", "small_again", "large_again")
    found = tables(rng=rng, scales=scales, **{"noise_pct": 0.7, "kinship": 0.8} | changes)
    own = {"of": "small", "width_factor": 2.0, "depth_factor": 1.5, "num_train": 9000}
    for number, fields in ((1, own), (2, {"of": "small"}), (3, {"of": "large"})):
        found = with_scale(found, number, **fields)
    return found


def looked_at(
    mean_errors_pct: Mapping[str, float] = MEAN_ERRORS_PCT,
    *,
    seed: int = 0,
    looks: int = 4,
    margin_pct: float = 0.5,
    trials_per_space: int = 16,
    **changes: Any,
) -> Tables:
    """A finished sweep that was to be judged while it ran, its trials launched in a shuffled order."""
    rng = np.random.default_rng(seed)
    found = tables(mean_errors_pct, rng=rng, trials_per_space=trials_per_space, **changes)
    judging = {"stop_when": "decided", "looks": looks, "margin_pct": margin_pct, "num_bootstrap": 999}
    known = found.metadata["study"]
    order = pa.array(rng.permutation(found.trials.num_rows), pa.int32())
    return replace(
        found,
        architectures=replaced(found.architectures, "launch_order", order),
        metadata=found.metadata | {"study": known | {"judging": known["judging"] | judging}},
    )


def only(verdicts: Sequence[Verdict]) -> Findings:
    """Findings that hold nothing else."""
    return Findings(tuple(verdicts), (), Assumptions((), (), (), (), ()))


def found(sweep: Tables, verdicts: Sequence[Verdict] | None = None) -> Findings:
    """All that the sweep says but its factors, whose forests take seconds."""
    with patch("sweep.statistics.findings.find_factors", return_value=()):
        return find_in_tables(sweep, verdicts)


def kept(sweep: Tables, *, lottery: bool, stopped: bool) -> Tables:
    """Without the networks that only the lottery kept, or without those that were stopped."""
    chosen = [
        (lottery or row["outcome"] != "completed" or row["would_stop_at_epoch"] is None)
        and (stopped or row["outcome"] != "stopped")
        for row in sweep.trials.to_pylist()
    ]
    trials = sweep.trials.filter(pa.array(chosen))
    left = set(trials["trial_id"].to_pylist())
    epochs = sweep.epochs.filter(pa.array([trial_id in left for trial_id in sweep.epochs["trial_id"].to_pylist()]))
    return replace(sweep, trials=trials, epochs=epochs)


def replaced(table: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(column), column, values)


def with_errors(sweep: Tables, errors_pct: np.ndarray) -> Tables:
    """The same sweep with other validation errors, one for each row of its epochs."""
    return replace(sweep, epochs=replaced(sweep.epochs, "val_error_pct", pa.array(errors_pct)))


def launched(sweep: Tables) -> list[str]:
    """Trials in launch order."""
    return sweep.architectures.sort_by("launch_order")["trial_id"].to_pylist()


def at_moment(sweep: Tables, num_begun: int, in_flight: Container[int] = ()) -> Tables:
    """The sweep when so many had begun; those of these places in launch order have trained one epoch."""
    order = launched(sweep)
    late = {trial_id for place, trial_id in enumerate(order) if place >= num_begun}
    flying = {trial_id for place, trial_id in enumerate(order) if place in in_flight}
    now = [
        "pending" if trial_id in late else "running" if trial_id in flying else outcome
        for trial_id, outcome in zip(sweep.trials["trial_id"].to_pylist(), sweep.trials["outcome"].to_pylist())
    ]
    trained = [
        trial_id not in late and (trial_id not in flying or epoch < GRACE_EPOCHS)
        for trial_id, epoch in zip(sweep.epochs["trial_id"].to_pylist(), sweep.epochs["epoch"].to_pylist())
    ]
    return replace(
        sweep, trials=replaced(sweep.trials, "outcome", pa.array(now)), epochs=sweep.epochs.filter(pa.array(trained))
    )


def with_outcome(sweep: Tables, places: Container[int], outcome: str, attempts: int = 1) -> Tables:
    """Those of these places in launch order ended so; their epochs stay."""
    chosen = {trial_id for place, trial_id in enumerate(launched(sweep)) if place in places}
    ids = sweep.trials["trial_id"].to_pylist()
    for column, value in (("outcome", outcome), ("attempts", attempts)):
        old = sweep.trials[column].to_pylist()
        new = [value if trial_id in chosen else known for trial_id, known in zip(ids, old)]
        kind = sweep.trials.schema.field(column).type
        sweep = replace(sweep, trials=replaced(sweep.trials, column, pa.array(new, kind)))
    return sweep


def confounded(rng: np.random.Generator, num: int, *, effect_pct: float = 0.0) -> list[np.ndarray]:
    """Errors of `num` networks without and with a rule, then their flops: larger with the rule, within a band of 2:1.

    The mean error falls with log flops, by `SLOPE_PCT` over the band; around it errors are as in `tables`.
    """
    positions = [rng.beta(*shape, size=num) for shape in LARGER_WITH]
    errors = [22.0 - SLOPE_PCT * position + 2.5 * (rng.gamma(4.0, size=num) - 4.0) / 2.0 for position in positions]
    return [errors[0], errors[1] + effect_pct, *(4e5 * 2.0**position for position in positions)]


def _draw(space: str, scale: str, draw: int, order: int, size: int, rng: np.random.Generator) -> dict[str, Any]:
    depths = rng.integers(1, 7, size=3)
    widths = 8 * rng.integers(1, 12, size=3)
    if space in ("anynet_d", "anynet_e", "regnet_x"):
        widths.sort()
    if space in ("anynet_e", "regnet_x"):
        depths.sort()
    flops = int(size * rng.uniform(4e5, 8e5))
    stages = [
        {"depth": int(d), "width": int(w), "group_width": 8, "bottleneck_ratio": 1} for d, w in zip(depths, widths)
    ]
    return {
        "trial_id": f"{space}-{scale}-{draw:04d}",
        "space": space,
        "scale": scale,
        "cohort": f"{space}/{scale}",
        "draw": draw,
        "launch_order": order,
        "audited": bool(rng.random() < 0.2),
        "seed": order,
        "architecture_id": f"{order:012x}",
        "stem_width": 16,
        "depth": int(depths.sum()),
        "depths": depths.tolist(),
        "widths": widths.tolist(),
        "bottleneck_ratios": [1.0] * 3,
        "group_widths": [8] * 3,
        "flops": flops,
        "params": flops // 60,
        "activations": flops // 20,
        "architecture": json.dumps({"stem_width": 16, "stages": stages}),
    }


def _train(
    drawn: dict[str, Any], curve: list[float], ending: str, seen: list[float], rng: np.random.Generator
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The row of a trial and its epochs. `seen` holds the cohort's errors at the rung, and gets this one."""
    at_rung = curve[GRACE_EPOCHS - 1]
    would_stop = ending == "trained" and bool(seen) and at_rung > float(np.median(seen))
    stops = would_stop and not drawn["audited"]
    num_epochs = {"trained": 2 if stops else 4, "diverged": 1, "failed": 3, "running": 1, "pending": 0}[ending]
    if ending == "trained":
        seen.append(at_rung)
    errors: list[float | None] = [None] if ending == "diverged" else list(curve[:num_epochs])
    rate_s = drawn["flops"] / 4e5
    rows = [
        {
            "trial_id": drawn["trial_id"],
            "space": drawn["space"],
            "scale": drawn["scale"],
            "epoch": epoch,
            "train_loss": None if error is None else 0.04 * error,
            "val_loss": None if error is None else 0.035 * error,
            "val_error_pct": error,
            "learning_rate": 0.1 * (1 - epoch / MAX_EPOCHS),
            "train_time_s": rate_s * float(rng.uniform(0.9, 1.1)),
            "eval_time_s": 0.1 * rate_s,
            "host": "example",
            "recorded_at_ms": 1_700_000_000_000 + epoch,
        }
        for epoch, error in enumerate(errors, start=1)
    ]
    row = {key: drawn[key] for key in TRIALS.names if key in drawn} | {
        "among_worst": False,
        "outcome": ending if ending != "trained" else "stopped" if stops else "completed",
        "epochs_trained": num_epochs,
        "stopped_at_epoch": GRACE_EPOCHS if stops else None,
        "would_stop_at_epoch": GRACE_EPOCHS if would_stop else None,
        "last_val_error_pct": errors[-1] if errors else None,
        "train_time_s": float(sum(row["train_time_s"] for row in rows)),
        "eval_time_s": float(sum(row["eval_time_s"] for row in rows)),
        "attempts": 0 if ending == "pending" else 3 if ending == "failed" else 1,
        "failure": "CUDA out of memory" if ending == "failed" else None,
    }
    return row, rows
