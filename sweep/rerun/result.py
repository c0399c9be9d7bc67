"""What a rerun gave, and where it is kept: `rerun/<architecture id>/result.json` of the run directory.

In and out: a `RerunResult`. No torch here: reports and the command line read results.
"""

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sweep.rerun.choose import Candidate

FOLDER, RESULT, WEIGHTS, HISTORY = "rerun", "result.json", "weights.pt", "history.jsonl"


@dataclass(frozen=True)
class RerunResult:
    """What a full-scale training gave. `test_error_pct` of `num_test` images, opened once; times in seconds.

    `candidates`: all that were in the running, the chosen `candidate` first; they were judged after `sweep_epochs` on
    `num_validation` images, as in the sweep. `confidence` is that of the study's intervals. `batch_size` is that of all
    workers together. `pixel_mean` and `pixel_std`: what images are normalised by, in units of 0 to 1, one
    for each channel of RGB. `provenance`: commit, versions and machine of the driver that trained it.
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
    if saved.keys() != {field.name for field in fields(RerunResult)}:
        return None
    candidate, *others = (
        Candidate(**row | {"confirmed_error_pct": tuple(row["confirmed_error_pct"])})
        for row in (saved["candidate"], *saved["candidates"])
    )
    return RerunResult(**saved | {"candidate": candidate, "candidates": tuple(others), "directory": str(folder),
                                  "history": tuple(saved["history"]),
                                  **{key: _tuples(saved[key]) for key in ("pixel_mean", "pixel_std")}})  # fmt: skip


def _tuples(value: Any) -> Any:
    """JSON knows lists only."""
    return tuple(value) if isinstance(value, list) else value


def read_results(run_dir: Path) -> list[dict[str, Any]]:
    """All reruns of a sweep as plain dicts, for reports; the best by validation error first."""
    found = [result for path in (run_dir / FOLDER).glob(f"*/{RESULT}") if (result := read(path.parent))]
    found.sort(key=lambda result: (result.candidate.validation_error_pct, result.candidate.architecture_id))
    return [result.to_dict() for result in found]
