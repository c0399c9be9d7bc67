"""The best configuration at full scale: chosen by validation, trained on all training images, tested once.

In: the tables of a sweep and its study. Out: a `RerunResult`, with the trained weights and `result.json` in
`rerun/<architecture id>` of the run directory. The best of many is lucky, so with more than one candidate or seed
the K best are first trained again with fresh seeds at the sweep's budget and the winner has the lowest mean error.

Interrupted, it continues from its last epoch. The test images are opened after the last epoch, once: a second call
answers what the first one found.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sweep.records import Tables
from sweep.records.journal import now_ms
from sweep.spaces import Architecture
from sweep.studies import Study, derive_seed
from sweep.training import checkpoint
from sweep.training.data import open_split, open_test, prepare
from sweep.training.trial import EpochResult, Trial, evaluate

Progress = Callable[[str, EpochResult], None]


@dataclass(frozen=True)
class Candidate:
    """A network of the sweep; `confirmed_error_pct` holds its validation errors under fresh seeds, if any."""

    trial_id: str
    space: str
    scale: str
    architecture_id: str
    architecture: str
    sweep_error_pct: float
    confirmed_error_pct: tuple[float, ...] = ()


@dataclass(frozen=True)
class RerunResult:
    """What a full-scale training gave. `test_error_pct` of `num_test` images, opened once; times in seconds."""

    candidate: Candidate
    epochs: int
    resolution: int
    num_train: int
    num_test: int
    test_error_pct: float
    test_loss: float
    train_time_s: float
    seed: int
    directory: str
    history: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def choose(tables: Tables, k: int) -> list[Candidate]:
    """The `k` best trials by validation error among those that trained to the end; each network once."""
    rows = [row for row in tables.trials.to_pylist() if row["outcome"] == "completed"]
    if not rows:
        raise ValueError(
            "run: no trial of this sweep has trained to the end; let it finish (`sweep launch … --resume`)"
        )
    rows.sort(key=lambda row: (row["last_val_error_pct"], row["trial_id"]))
    architectures = dict(
        zip(tables.architectures["trial_id"].to_pylist(), tables.architectures["architecture"].to_pylist())
    )
    distinct = {row["architecture_id"]: row for row in reversed(rows)}
    best = sorted(distinct.values(), key=lambda row: (row["last_val_error_pct"], row["trial_id"]))[:k]
    return [
        Candidate(
            trial_id=row["trial_id"],
            space=row["space"],
            scale=row["scale"],
            architecture_id=row["architecture_id"],
            architecture=architectures[row["trial_id"]],
            sweep_error_pct=row["last_val_error_pct"],
        )
        for row in best
    ]


def rerun_best(
    tables: Tables, study: Study, run_dir: Path, *, best: int = 1, seeds: int = 1, progress: Progress | None = None
) -> RerunResult:
    """Choose, confirm where asked, train the winner at full scale and test it."""
    progress = progress or (lambda stage, result: None)
    candidates = choose(tables, best)
    if len(candidates) > 1 or seeds > 1:
        candidates = [_confirm(candidate, study, seeds, progress) for candidate in candidates]
        candidates.sort(key=lambda candidate: float(np.mean(candidate.confirmed_error_pct)))
    return _full_scale(candidates[0], study, run_dir, progress)


def _scale_resolution(study: Study, name: str) -> int:
    return next(scale.resolution for scale in study.scale if scale.name == name)


def _confirm(candidate: Candidate, study: Study, seeds: int, progress: Progress) -> Candidate:
    """Train at the sweep's budget with fresh seeds; a divergence counts as chance."""
    files = prepare(path=study.data.path, resolution=_scale_resolution(study, candidate.scale))
    split = open_split(files, num_train=study.data.num_train, num_validation=study.data.num_validation, seed=study.seed)
    errors = []
    for number in range(seeds):
        trial = Trial(
            Architecture.from_json(candidate.architecture),
            study.recipe,
            split,
            num_epochs=study.stopping.max_epochs,
            seed=derive_seed(study.seed, "confirm", candidate.trial_id, number),
            num_classes=study.data.num_classes,
        )
        for result in trial.run():
            progress(f"confirm {candidate.trial_id}, seed {number + 1} of {seeds}", result)
        errors.append(100 - 100 / study.data.num_classes if result.diverged else result.val_error_pct)
    return replace(candidate, confirmed_error_pct=tuple(errors))


def _full_scale(candidate: Candidate, study: Study, run_dir: Path, progress: Progress) -> RerunResult:
    folder = run_dir / "rerun" / candidate.architecture_id
    done = folder / "result.json"
    if done.is_file():
        return replace(_read(done), candidate=candidate)
    resolution = study.rerun.resolution or _scale_resolution(study, candidate.scale)
    files = prepare(path=study.data.path, resolution=resolution)
    split = open_split(files, num_train=60_000, num_validation=0, seed=study.seed)
    seed = derive_seed(study.seed, "rerun", candidate.architecture_id)
    trial = Trial(
        Architecture.from_json(candidate.architecture),
        study.recipe.model_copy(update={"learning_rate": study.rerun.learning_rate or study.recipe.learning_rate}),
        split,
        num_epochs=study.rerun.epochs,
        seed=seed,
        num_classes=study.data.num_classes,
    )
    history = _train(trial, folder, lambda result: progress(f"full scale {candidate.trial_id}", result))
    images, labels = (torch.from_numpy(array).to(trial.device) for array in open_test(files))
    test_loss, test_error_pct = evaluate(trial, images, labels, np.arange(len(labels)))
    torch.save(trial.network.state_dict(), folder / "weights.pt")
    result = RerunResult(
        candidate=candidate,
        epochs=study.rerun.epochs,
        resolution=resolution,
        num_train=len(split.train),
        num_test=len(labels),
        test_error_pct=test_error_pct,
        test_loss=test_loss,
        train_time_s=sum(epoch["train_time_s"] for epoch in history),
        seed=seed,
        directory=str(folder),
        history=tuple(history),
    )
    draft = done.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(result.to_dict(), indent=1))
    os.replace(draft, done)
    return result


def _train(trial: Trial, folder: Path, progress: Callable[[EpochResult], None]) -> list[dict[str, Any]]:
    """Train to the end, a checkpoint and a line of `history.jsonl` each epoch; continues where it was cut off."""
    log = folder / "history.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    resumed = checkpoint.load_newest(folder, trial)
    lines = log.read_text().splitlines() if resumed is not None and log.is_file() else []
    history = [json.loads(line) for line in lines[: trial.epoch]]
    if resumed is not None and len(history) < trial.epoch:  # killed between the checkpoint and its line
        history.append(_row(resumed))
    log.write_text("".join(json.dumps(row) + "\n" for row in history))
    for result in trial.run():
        if result.diverged:
            raise RuntimeError(
                f"rerun: training diverged in epoch {result.epoch}; launch the study again with a lower "
                "rerun.learning_rate, into another run directory"
            )
        checkpoint.save(folder, trial, result)
        history.append(_row(result))
        with log.open("a") as file:
            file.write(json.dumps(history[-1]) + "\n")
        progress(result)
    return history


def _row(result: EpochResult) -> dict[str, Any]:
    """As the journal names it; NaN, which stands for what was not measured, becomes null."""
    values = result.to_dict() | {"recorded_at_ms": now_ms()}
    return {key: None if value != value else value for key, value in values.items()}


def _read(path: Path) -> RerunResult:
    saved = json.loads(path.read_text())
    candidate = saved["candidate"] | {"confirmed_error_pct": tuple(saved["candidate"]["confirmed_error_pct"])}
    return RerunResult(**{**saved, "candidate": Candidate(**candidate), "history": tuple(saved["history"])})
