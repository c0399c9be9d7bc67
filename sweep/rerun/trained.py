"""A trained network on disk, before anybody knows its test error: `rerun/<name>` of the run directory.

In: what a training gave. Out: `weights.pt` (a state dict), `architecture.yaml` and `trained.json`, which holds the
SHA-256 of the weights and is written last: where it is and fits, the training is done and need not be done again.
"""

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweep.rerun.result import ARCHITECTURE, TRAINED, WEIGHTS, Origin, tuples, write_whole
from sweep.spaces import Network, network_from_json, network_from_yaml


@dataclass(frozen=True)
class Trained:
    """What a training gave; times in seconds, pixels in units of 0 to 1. `warm_start`: what it began from, if any."""

    architecture_id: str
    seed: int
    num_workers: int
    num_train: int
    pixel_mean: Any
    pixel_std: Any
    train_time_s: float
    weights_sha256: str
    warm_start: Origin | None


def save_weights(state: Mapping[str, Any], folder: Path) -> str:
    """Writes the state dict alone, on the CPU, loadable with `weights_only=True`; answers its SHA-256."""
    content = packed(state)
    draft = folder / f".{WEIGHTS}.{os.getpid()}"
    draft.write_bytes(content)
    os.replace(draft, folder / WEIGHTS)
    return hashlib.sha256(content).hexdigest()


def packed(state: Mapping[str, Any]) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save({name: value.cpu() for name, value in state.items()}, buffer)
    return buffer.getvalue()


def unpacked(content: bytes) -> dict[str, Any]:
    import torch

    state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    return state


def keep_trained(trained: Trained, architecture: str, folder: Path) -> None:
    write_whole(folder / ARCHITECTURE, network_from_json(architecture).to_yaml())
    write_whole(folder / TRAINED, json.dumps(asdict(trained), indent=1))


def read_trained(folder: Path) -> Trained | None:
    """What was kept in `folder`; None where nothing was, or where the weights are gone or others."""
    path = folder / TRAINED
    if not path.is_file() or not (folder / WEIGHTS).is_file():
        return None
    saved = json.loads(path.read_text(encoding="utf-8"))
    if hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest() != saved["weights_sha256"]:
        return None
    start = Origin(**saved["warm_start"]) if saved["warm_start"] else None
    pixels = {key: tuples(saved[key]) for key in ("pixel_mean", "pixel_std")}
    return Trained(**saved | pixels | {"warm_start": start})


def load_trained(field: str, folder: Path) -> tuple[Network, dict[str, Any], str]:
    """Network, state dict and SHA-256 of the weights that a rerun left in `folder`.

    Raises ValueError, naming `field`, where a file is missing or the weights are not those that were recorded.
    """
    missing = [name for name in (TRAINED, ARCHITECTURE, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{field} = {str(folder)!r}: holds no {', no '.join(missing)}; name the directory of a rerun, RUN/rerun/ID"
        )
    recorded = json.loads((folder / TRAINED).read_text(encoding="utf-8"))["weights_sha256"]
    try:
        network = network_from_yaml((folder / ARCHITECTURE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{field} = {str(folder)!r}: {ARCHITECTURE}: {error}") from error
    return network, load_weights(field, folder, recorded), recorded


def load_weights(field: str, folder: Path, recorded: str) -> dict[str, Any]:
    """The state dict in `folder`. Raises ValueError, naming `field`, where it is not that with the recorded SHA-256."""
    path = folder / WEIGHTS
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != recorded:
        raise ValueError(
            f"{field} = {str(folder)!r}: the SHA-256 of {WEIGHTS} is not the recorded {recorded[:12]}…; restore the "
            "file, or train the network again"
        )
    return unpacked(content)
