"""What others recorded, in `shared/data` above the project; without it a test that wants it is skipped."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@cache
def nas_bench_macro() -> np.ndarray:
    """(6561, 3) errors in percent: all networks of NAS-Bench-Macro (Su et al. 2021) on CIFAR-10, each with 3 seeds.

    In the order of their choices: the digits to base 3 of the row are the choices in the eight layers.
    """
    networks = _recorded("nas-bench-macro-cifar10.json")
    return 100 - np.array([networks[key]["test_acc"] for key in sorted(networks)])


@cache
def regnetx_400mf() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """d, w_0, w_a, w_m, b and g of 32 RegNetX of about 400 MF, and their errors on ImageNet in percent, 25 epochs."""
    rows = _recorded("regnetx-400mf-imagenet.json")
    columns = {
        "d": "network_depth",
        "w_0": "initial_width",
        "w_a": "slope",
        "w_m": "quantized_param",
        "b": "bottleneck_ratio",
        "g": "group_width",
    }
    parameters = {name: np.array([row[column] for row in rows], dtype=float) for name, column in columns.items()}
    return parameters, 100 - np.array([row["accuracy"] for row in rows])


def _recorded(name: str) -> Any:
    for folder in Path(__file__).resolve().parents:
        file = folder / "shared" / "data" / name
        if file.is_file():
            return json.loads(file.read_text(encoding="utf-8"))
    pytest.skip(f"shared/data/{name} is not here")
