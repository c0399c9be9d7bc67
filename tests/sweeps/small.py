"""One undisturbed sweep of real trials on a real Ray into a real MLflow, for whoever looks at one."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from once import once

# Epochs and images are those of the scale, not the study's.
SETTINGS = [
    "trials_per_space=3", 'spaces=["anynet_c", "anynet_d"]', "data.num_train=2048", "data.num_validation=250",
    "scale.max_epochs=4", "scale.num_train=1024", "stopping.max_epochs=8", "stopping.grace_epochs=1",
    "stopping.reduction_factor=2", "stopping.audit_fraction=0.4", "judging.num_bootstrap=500", "rerun.epochs=1",
    "rerun.resolution=12",
]  # fmt: skip
OPTIONS = [part for setting in SETTINGS for part in ("--set", setting)]


def finished_sweep(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Launched with --json, ended by itself: `run_dir`, `summary` and what was printed on stderr."""
    folder = once(tmp_path_factory, "awkward ’ names", _launch)
    return SimpleNamespace(
        run_dir=folder / "run with space",
        summary=json.loads((folder / "stdout").read_text(encoding="utf-8")),
        stderr=(folder / "stderr").read_text(encoding="utf-8"),
    )


def _launch(folder: Path) -> None:
    command = [
        sys.executable, "-m", "sweep", "launch", "quickstart", "--run-dir", folder / "run with space", "--json",
        *OPTIONS,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", timeout=400)
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout, encoding="utf-8")
    (folder / "stderr").write_text(done.stderr, encoding="utf-8")
