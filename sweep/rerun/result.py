"""What a rerun gave, and where it is kept: `rerun/<name>/result.json` of the run directory.

`<name>` is the architecture's id; of a network that the user named it says so, and what it began from (`folder_name`).

In and out: a `RerunResult`. No torch here: reports and the command line read results.
"""

import json
import os
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sweep.rerun.choose import Candidate

FOLDER, RESULT, WEIGHTS, HISTORY = "rerun", "result.json", "weights.pt", "history.jsonl"
ARCHITECTURE, TRAINED = "architecture.yaml", "trained.json"


@dataclass(frozen=True)
class Origin:
    """What a training began from in place of fresh weights: a `source` of that architecture, its weights by SHA-256.

    The counts are of the new network's tensors: taken whole, taken into their leading channels, left fresh.
    """

    source: str
    architecture_id: str
    weights_sha256: str
    num_whole: int
    num_part: int
    num_fresh: int


@dataclass(frozen=True)
class Member:
    """A network of an ensemble, kept in the folder of that name beside the result's. Multiply-adds for one image."""

    trial_id: str
    architecture_id: str
    folder: str
    validation_error_pct: float
    flops: int
    params: int
    seed: int
    train_time_s: float
    weights_sha256: str


@dataclass(frozen=True)
class Ensemble:
    """The best networks together, which answer by the mean of their softmax probabilities; the chosen one comes first.

    `test_loss` is that of this mean, in nats. The last counts are of test images that one of the two, the chosen
    network alone and the ensemble, got wrong and the other right. `single_was_known`: the chosen network's test error
    was known already when the ensemble was asked for.
    """

    members: tuple[Member, ...]
    test_error_pct: float
    test_loss: float
    num_only_single_wrong: int
    num_only_ensemble_wrong: int
    single_was_known: bool

    @property
    def flops(self) -> int:
        return sum(member.flops for member in self.members)

    @property
    def params(self) -> int:
        return sum(member.params for member in self.members)


@dataclass(frozen=True)
class RerunResult:
    """What a full-scale training gave. `test_error_pct` of `num_test` images, opened once; times in seconds.

    `candidates`: all that were in the running, the chosen `candidate` first; they were judged after `sweep_epochs` on
    `num_validation` images, as in the sweep. `confidence` is that of the study's intervals. `batch_size` is that of all
    workers together. `pixel_mean` and `pixel_std`: what images are normalised by, in units of 0 to 1, one
    for each channel of RGB. `provenance`: commit, versions and machine of the driver that trained it. `named`: how the
    user named the network, where the sweep did not choose it.
    """

    candidate: Candidate
    candidates: tuple[Candidate, ...]
    num_networks: int
    sweep_epochs: int
    num_validation: int
    confidence: float
    epochs: int
    resolution: int
    num_workers: int
    batch_size: int
    learning_rate: float
    num_train: int
    num_test: int
    test_error_pct: float
    test_loss: float
    train_time_s: float
    seed: int
    pixel_mean: float | tuple[float, ...]
    pixel_std: float | tuple[float, ...]
    weights_sha256: str
    directory: str
    provenance: dict[str, Any]
    history: tuple[dict[str, Any], ...]
    named: str = ""
    warm_start: Origin | None = None
    ensemble: Ensemble | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def keep(result: RerunResult) -> None:
    write_whole(Path(result.directory) / RESULT, json.dumps(result.to_dict(), indent=1))


def read(folder: Path) -> RerunResult | None:
    """The result kept in `folder`; None where there is none, or one of another version of this file."""
    path = folder / RESULT
    saved = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known = {field.name: field.default for field in fields(RerunResult)}
    if saved.keys() - known or {name for name, default in known.items() if default is MISSING} - saved.keys():
        return None
    candidate, *others = map(_candidate, (saved["candidate"], *saved["candidates"]))
    return RerunResult(
        **saved
        | {
            "candidate": candidate,
            "candidates": tuple(others),
            "directory": str(folder),
            "pixel_mean": tuples(saved["pixel_mean"]),
            "pixel_std": tuples(saved["pixel_std"]),
            "history": tuple(saved["history"]),
            "warm_start": Origin(**saved["warm_start"]) if saved.get("warm_start") else None,
            "ensemble": _ensemble(saved["ensemble"]) if saved.get("ensemble") else None,
        }
    )


def _candidate(row: dict[str, Any]) -> Candidate:
    return Candidate(**row | {"confirmed_error_pct": tuple(row["confirmed_error_pct"])})


def _ensemble(saved: dict[str, Any]) -> Ensemble:
    return Ensemble(**saved | {"members": tuple(Member(**row) for row in saved["members"])})


def tuples(value: Any) -> Any:
    """JSON knows lists only."""
    return tuple(value) if isinstance(value, list) else value


def folder_name(architecture_id: str, *, is_named: bool = False, began_from: str = "") -> str:
    """What the folder of a training is called; `began_from` is the SHA-256 of the weights of a warm start."""
    parts = [*(["named"] if is_named else []), architecture_id, *(["from", began_from[:12]] if began_from else [])]
    return "-".join(parts)


def read_results(run_dir: Path) -> list[dict[str, Any]]:
    """All reruns of a sweep as plain dicts, for reports; the best by validation error first, then those named."""
    found = [result for path in (run_dir / FOLDER).glob(f"*/{RESULT}") if (result := read(path.parent))]
    found.sort(key=_place)
    return [result.to_dict() for result in found]


def _place(result: RerunResult) -> tuple[bool, float, str]:
    error_pct = result.candidate.validation_error_pct
    return error_pct is None, error_pct or 0.0, result.directory
