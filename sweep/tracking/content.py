"""What an MLflow run holds: names, tags, params, metrics, files, the note and the saved view. No MLflow, no clock.

In: rows of the journal and the study as a dict. Out: plain dicts and tuples that `delivery` sends. Numeric facts of a
network are metrics at step 0 (params are strings, which cannot be compared), curves are metrics at step = epoch, so
that the viewer draws bars and lines; a run has some dozen keys, because the viewer makes a chart of each.
Params are an allow-list: nothing is logged because it happens to be in the study.
"""

import base64
import json
import math
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweep.records.journal import (
    CANCELLED,
    COMPLETED,
    DIVERGED,
    FAILED,
    PAUSED,
    PRIVATE_META,
    RUNNING,
    STOPPED,
)
from sweep.spaces import Network, columns_of, space_title
from sweep.studies import TRAIN
from sweep.tracking.preflight import strip_credentials

INTERRUPTED = "interrupted"
# KILLED is MLflow's word for a run that was ended from outside: what early stopping does to a trial. SCHEDULED is one
# that waits for its turn.
RUN_STATUS = {
    RUNNING: "RUNNING",
    PAUSED: "SCHEDULED",
    COMPLETED: "FINISHED",
    STOPPED: "KILLED",
    DIVERGED: "FAILED",
    FAILED: "FAILED",
    CANCELLED: "KILLED",
    INTERRUPTED: "KILLED",
}
PARENT_STATUS = {"finished": "FINISHED", INTERRUPTED: "KILLED", "failed": "FAILED"}

VIEW_TAG = "mlflow.sharedViewState."
SWEEP_ID_TAG, TRIAL_ID_TAG, RERUN_ID_TAG = "sweep.id", "sweep.trial_id", "sweep.rerun_id"
ATTEMPTS_TAG, HOST_TAG, FAILURE_TAG = "attempts", "host", "failure"
# Columns of the journal that are tags of the same name where they are set.
COUNTED = ("user_failures", "machine_failures", "batch_size")
EPOCHS_TRAINED = "epochs_trained"
# Artifacts of the sweep's run: what it is, and what was drawn for it.
ORIGIN_FILE, POPULATION_FILE = "sweep.json", "architectures.parquet"
NUM_TRIALS = "num_trials"
# The arrivals at the rungs, metrics of the sweep's run at step = number of the arrival: which trial (by its launch
# order), at which rung, with which error; without the last, it had none.
ARRIVAL_TRIAL, ARRIVAL_RUNG, ARRIVAL_ERROR = "arrivals/trial", "arrivals/rung_epochs", "arrivals/error_pct"
# What decides places between two arrivals. That those who wait were stopped: at step = number of the arrival before it.
# That a trial left, where its rung waits for it: at step = its launch order, with the number of arrivals before.
CLOSED = "arrivals/closed"
LEFT = {FAILED: "arrivals/failed", CANCELLED: "arrivals/cancelled"}
# Artifacts of a trial's run.
ARCHITECTURE_FILE, FAILURE_FILE, LOG_FILE = "architecture.yaml", "failure.txt", "log.txt"
FAILURE_TAG_LENGTH = 5000
_TITLE_LENGTH = 15
_TOLD_COLUMNS = ("stem_width", "depth", "width", "num_heads", "patch")
_LOG_MAX_BYTES = 256_000
_NOTE_MAX_CHARACTERS = 8000

# Column of the journal -> metric of the run. The error stands first and alone: it is what one sorts and plots by.
CURVES = {
    "val_error_pct": "error_pct",
    "train_loss": "train/loss",
    "val_loss": "val/loss",
    "learning_rate": "train/learning_rate",
    "train_time_s": "perf/train_time_s",
    "eval_time_s": "perf/eval_time_s",
}
_STUDY_PARAMS = {
    "": ("seed", "spaces", "trials_per_space", "max_failures", "objective"),
    "data": ("name", "num_train", "num_validation", "num_classes", "num_channels"),
    "recipe": (
        "batch_size", "drop_last", "optimizer", "learning_rate", "momentum", "beta2", "nesterov", "weight_decay",
        "l1_decay", "gradient_clip", "schedule", "step_at", "step_factor", "cycle_rise", "warmup_steps",
        "label_smoothing", "mixup", "random_erasing", "flip", "crop_padding", "precision",
    ),
    "stopping": (
        "method", "max_epochs", "grace_epochs", "reduction_factor", "audit_fraction", "audit_worst", "flops_strata",
    ),
    "judging": ("margin_pct", "confidence", "num_bootstrap"),
}  # fmt: skip
_COLUMNS = [
    "metrics.`error_pct`", "tags.`space`", "tags.`scale`", "tags.`outcome`", "tags.`rung`", "tags.`audited`",
    "metrics.`flops_m`", "metrics.`params_m`", "metrics.`depth`", "params.`widths`", "params.`depths`",
    "params.`group_widths`",
]  # fmt: skip
_SCALE_PARAMS = (
    "of", "width_factor", "depth_factor", "trials_per_space", "resolution", "max_epochs", "grace_epochs", "num_train",
    "flops_min", "flops_max",
)  # fmt: skip

Point = tuple[str, float, int, int]
"""A metric point: key, value, timestamp in ms, step."""


# -- the sweep: the parent run -------------------------------------------------------------------------------


def experiment_name(study_name: str) -> str:
    """MLflow reads a slash in an experiment's name as a folder."""
    return study_name.replace("/", "-").replace("\\", "-").strip() or "sweep"


def sweep_id(meta: Mapping[str, Any]) -> str:
    """What tells this sweep from another one of the same study: the study's hash and when the journal was made."""
    return f"{meta.get('study_hash', '')}-{meta['created_at_ms']}"


def parent_name(meta: Mapping[str, Any]) -> str:
    day = datetime.fromtimestamp(meta["created_at_ms"] / 1000, UTC)
    return f"{meta['study']['name'][:10]}-{day:%m%d}-{meta.get('study_hash', '')[:4]}".rstrip("-")


def parent_tags(meta: Mapping[str, Any]) -> dict[str, str]:
    tags = {
        "kind": "sweep",
        "outcome": RUNNING,
        "study": meta["study"]["name"],
        "study_hash": meta.get("study_hash"),
        "git_commit": meta.get("git_commit"),
        "mlflow.source.git.commit": meta.get("git_commit"),
        SWEEP_ID_TAG: sweep_id(meta),
    }
    return {key: str(value) for key, value in tags.items() if value}


def sweep_filter(meta: Mapping[str, Any]) -> str:
    return f"tags.`{SWEEP_ID_TAG}` = '{sweep_id(meta)}' AND tags.kind = 'sweep'"


def parent_params(study: Mapping[str, Any]) -> dict[str, str]:
    """The study's own settings, dotted: `stopping.max_epochs`, `scale.small.resolution`."""
    params: dict[str, Any] = {}
    for table, keys in _STUDY_PARAMS.items():
        values = study if table == "" else study.get(table, {})
        params |= {f"{table}.{key}".lstrip("."): values[key] for key in keys if key in values}
    for scale in study.get("scale", []):
        told = [key for key in _SCALE_PARAMS if scale.get(key) and (scale.get("of") or not key.endswith("_factor"))]
        params |= {f"scale.{scale['name']}.{key}": scale[key] for key in told}
    return {key: shown(value) for key, value in params.items()}


def shown(value: Any) -> str:
    """A value as a param reads best: `8, 16, 32`, `0.0005`."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


_TOLD = {"method": "Method:", "expected": "Expected:", "finding": "Found before:"}


def note(study: Mapping[str, Any], verdicts: str = "") -> str:
    """Markdown for `mlflow.note.content`. The runs page shows its first line raw, so that line carries no mark-up."""
    margin_pct, objective = study.get("judging", {}).get("margin_pct"), study.get("objective", TRAIN)
    parts = [
        study.get("question") or f"A sweep of the study {study['name']}.",
        *(f"**{label}** {study[key]}" for key, label in _TOLD.items() if study.get(key)),
        verdicts,
        "This run is the sweep; the runs below it are its trials, one network each.",
        "" if objective == TRAIN else f"No network was trained: the function `{objective}` answered the errors.",
        "\n".join(
            [
                "- `error_pct`: error on the validation images in percent, one point an epoch. Compare only trials of "
                "the same scale and `rung` (epochs trained): the longer one trains, the lower it gets.",
                "- `outcome`: completed; stopped (early, at `rung`; status KILLED); diverged, failed (status FAILED); "
                "cancelled (by hand, or because all was decided before it began; KILLED); paused (waits at `rung` for "
                "its place; SCHEDULED).",
                "- `audited`: kept on by lottery whatever its error, so that the stopped ones can be judged fairly; "
                "more of the worst are, once they are found to be.",
                "- `flops_m`, `params_m`, `activations_m`: millions, for one image. Colours tell the design spaces.",
            ]
        ),
        "" if margin_pct is None else f"*Free*: a rule that changes the mean error by less than {margin_pct:g} points.",
    ]
    return "\n\n".join(filter(None, parts))[:_NOTE_MAX_CHARACTERS]


def origin(meta: Mapping[str, Any], num_trials: int) -> dict[str, Any]:
    """The journal's meta without what only says how its run directory stands, and no password in any URI of it.

    `num_trials`: of the population that it goes with, `sweep extend` makes it grow.
    """
    where = ("tracking_uri", "experiment_id", "parent_run_id")
    known = {key: _stripped(value) for key, value in meta.items() if key not in (*PRIVATE_META, *where)}
    return known | {NUM_TRIALS: num_trials}


def _stripped(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _stripped(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_stripped(item) for item in value]
    return strip_credentials(value) if isinstance(value, str) else value


def arrival_points(row: Mapping[str, Any]) -> Iterator[Point]:
    """One arrival; with the `launch_order` of its trial beside the columns of the decision."""
    moment, number = row["decided_at_ms"], row["arrival"]
    if is_finite(row["error_pct"]):
        yield ARRIVAL_ERROR, row["error_pct"], moment, number
    yield ARRIVAL_RUNG, float(row["rung_epochs"]), moment, number
    yield ARRIVAL_TRIAL, float(row["launch_order"]), moment, number


def closing_point(row: Mapping[str, Any]) -> Point:
    return CLOSED, 1.0, row["closed_at_ms"], row["after_arrival"]


def leave_point(row: Mapping[str, Any]) -> Point:
    return LEFT[row["outcome"]], float(row["after_arrival"]), row["ended_at_ms"], row["launch_order"]


def dataset(meta: Mapping[str, Any]) -> dict[str, str]:
    """The training and validation images as an MLflow dataset: name, digest, source type, source and profile.

    The digest is of what the data set holds, as it was prepared.
    """
    data = meta["study"].get("data", {})
    profile = {key: data[key] for key in _STUDY_PARAMS["data"] if key in data and key != "name"}
    return {
        "name": data.get("name", "unknown"),
        "digest": (meta.get("data") or {}).get("digest", "unknown"),
        "source_type": "code",
        "source": json.dumps({"tags": {"mlflow.source.name": "sweep.training"}}),
        "profile": json.dumps(profile),
    }


# -- a trial: a child run --------------------------------------------------------------------------------------


def trial_name(trial: Mapping[str, Any], *, several_scales: bool) -> str:
    """`RegNetX-0012`: the viewer cuts names at about 20 characters, so what is least telling stands last."""
    title = "".join(filter(str.isalnum, space_title(trial["space"])))
    name = f"{title[:_TITLE_LENGTH]}-{trial['draw']:04d}"
    return f"{name}-{trial['scale']}" if several_scales else name


def trial_tags(trial: Mapping[str, Any], parent_run_id: str, colour: str) -> dict[str, str]:
    return {
        "mlflow.parentRunId": parent_run_id,
        "mlflow.runColor": colour,
        "kind": "trial",
        "space": trial["space"],
        "scale": trial["scale"],
        "cohort": trial["cohort"],
        "audited": _yes(trial["audited"]),
        "architecture_id": trial["architecture_id"],
        "outcome": RUNNING,
        "rung": "0",
        TRIAL_ID_TAG: trial["trial_id"],
    }


def trial_params(trial: Mapping[str, Any], network: Network, varied: Container[str]) -> dict[str, str]:
    """Few, and in the order of the alphabet in which the viewer compares them; the whole network is an artifact.

    Of the parts that all stages share, those in `varied`: what the networks of the study have in common says nothing.
    """
    columns = {
        name: shown(value)
        for name, value in columns_of(network).items()
        if isinstance(value, tuple) or name in _TOLD_COLUMNS or name in varied
    }
    known = {"audited": _yes(trial["audited"]), "scale": trial["scale"], "seed": str(trial["seed"])}
    return dict(sorted({**known, "space": trial["space"], **columns}.items()))


def _yes(flag: Any) -> str:
    return "yes" if flag else "no"


def state_tags(trial: Mapping[str, Any], outcome: str) -> dict[str, str]:
    """What became of it so far; `last_epoch` and `host`, that of the epoch, beside the columns of the journal."""
    tags = {"outcome": outcome, "rung": str(trial["last_epoch"]), ATTEMPTS_TAG: str(trial["attempts"])}
    told = {HOST_TAG: trial["host"], "failure_kind": trial["failure_kind"]}
    told |= {column: trial[column] for column in COUNTED}
    tags |= {key: str(value) for key, value in told.items() if value}
    if trial["failure"]:
        tags[FAILURE_TAG] = plain(trial["failure"])[:FAILURE_TAG_LENGTH]
    return tags


def plain(text: str) -> str:
    """Without what no database takes: NUL, and halves of pairs that stand for bytes which are not UTF-8."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def failure_files(trial: Mapping[str, Any], log_path: Path) -> dict[str, bytes]:
    """The whole message of a trial that failed, and the end of its log if there is one."""
    files = {FAILURE_FILE: plain(trial["failure"] or "").encode()} if trial["failure"] else {}
    if log_path.is_file():
        with log_path.open("rb") as log:
            log.seek(max(0, log_path.stat().st_size - _LOG_MAX_BYTES))
            files[LOG_FILE] = log.read(_LOG_MAX_BYTES)
    return files


def begun_at_ms(trial: Mapping[str, Any]) -> int:
    """When it first started; a trial that failed before it could has only an end."""
    return trial["started_at_ms"] or trial["ended_at_ms"]


def static_points(trial: Mapping[str, Any], network: Network) -> list[Point]:
    """The network's numbers, in millions, stamped with its first start: sent again, they are the same points."""
    values = {
        "flops_m": trial["flops"] / 1e6,
        "params_m": trial["params"] / 1e6,
        "activations_m": trial["activations"] / 1e6,
        "depth": float(network.depth),
    }
    return [(key, value, begun_at_ms(trial), 0) for key, value in values.items()]


def epoch_points(epochs: Iterable[Mapping[str, Any]]) -> Iterator[Point]:
    """The curves. What is missing or not finite (None in the journal) is left out: MLflow would show NaN as 0."""
    for row in epochs:
        for column, key in CURVES.items():
            if is_finite(row.get(column)):
                yield key, float(row[column]), row["recorded_at_ms"], row["epoch"]


def is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def rerun_tags(parent_run_id: str, rerun_id: str) -> dict[str, str]:
    return {"mlflow.parentRunId": parent_run_id, "kind": "rerun", RERUN_ID_TAG: rerun_id}


# -- the saved view ----------------------------------------------------------------------------------------------


def saved_view(parent_run_id: str, created_at_ms: int) -> str:
    """The experiment tag `VIEW_TAG + parent_run_id`: one link opens the trials with columns, sorting and charts.

    The viewer's own format, undocumented, as MLflow 3.17 writes it (`deflate;` + base64 of zlib of JSON).
    """
    state = {
        "searchFilter": trials_filter(parent_run_id),
        "orderByKey": "metrics.`error_pct`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": _COLUMNS,
        "columnOrder": _COLUMNS,
        "columnWidths": dict.fromkeys(_COLUMNS, 92),
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": list(_charts()),
        "compareRunSections": [
            {
                "uuid": name, "name": name, "display": shown, "columns": columns, "cardHeight": 400,
                "isReordered": True, "deleted": False, "isGenerated": False,
            }
            for name, columns, shown in (("Error", 2, True), ("Size and error", 1, True), ("Loss", 2, True),
                                         ("Time and learning rate", 3, False))
        ],
        "isAccordionReordered": True,
    }  # fmt: skip
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    view = {"name": "Trials", "createdAt": created_at_ms, "updatedAt": created_at_ms, "state": f"deflate;{packed}"}
    return json.dumps(view)


def trials_filter(parent_run_id: str) -> str:
    return f"tags.`mlflow.parentRunId` = '{parent_run_id}'"


def _charts() -> Iterator[dict[str, Any]]:
    def card(kind: str, section: str, uuid: str, **settings: Any) -> dict[str, Any]:
        return {
            "type": kind, "uuid": uuid, "metricSectionId": section, "deleted": False, "isGenerated": False,
            "runsCountToCompare": 100, **settings,
        }  # fmt: skip

    def axis(key: str) -> dict[str, str]:
        return {"key": key, "type": "METRIC"}

    def line(key: str, section: str) -> dict[str, Any]:
        return card(
            "LINE", section, key, metricKey=key, selectedMetricKeys=[key], xAxisKey="step", xAxisScaleType="linear",
            scaleType="linear", lineSmoothness=0, useGlobalXaxisKey=False,
        )  # fmt: skip

    yield line("error_pct", "Error")
    yield card("SCATTER", "Error", "scatter", xaxis=axis("flops_m"), yaxis=axis("error_pct"))
    yield card(
        "PARALLEL", "Size and error", "parallel", selectedParams=["space"], showAllRuns=True,
        selectedMetrics=["depth", "flops_m", "params_m", "activations_m", "error_pct"],
    )  # fmt: skip
    yield line("val/loss", "Loss")
    yield line("train/loss", "Loss")
    for key in ("train/learning_rate", "perf/train_time_s", "perf/eval_time_s"):
        yield line(key, "Time and learning rate")
    # A metric without a card gets one from the viewer: a bar chart of flops says nothing, so it is held back.
    for key in ("flops_m", "params_m", "activations_m", "depth", EPOCHS_TRAINED):
        yield card("BAR", "Error", key, metricKey=key) | {"deleted": True}
