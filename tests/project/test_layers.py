"""The layers of DESIGN section 3: they hold in the tree, each of their contracts bites, and imports stay light.

The contracts stand in pyproject.toml ([tool.importlinter]). A contract that names no real module, or that a violation
passes, would be worse than none: each one is shown a planted violation in a copy of the tree.
"""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("sweep", "cluster", "dashboards")
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
CONTRACTS = {contract["id"]: contract for contract in CONFIG["contracts"]}


def lint_imports(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_layers_hold():
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_room_stands_in_the_layers():
    named = {module.strip() for layer in CONTRACTS["layers"]["layers"] for module in layer.split("|")}
    rooms = {f"sweep.{path.stem}" for path in (ROOT / "sweep").iterdir() if is_room(path)}
    assert rooms | {"cluster", "dashboards"} == named


def is_room(path: Path) -> bool:
    return (path / "__init__.py").exists() or (path.suffix == ".py" and not path.stem.startswith("__"))


VIOLATIONS = [
    ("layers", "sweep/spaces/__init__.py", "import sweep.records"),  # upwards
    ("layers", "sweep/studies/__init__.py", "import sweep.models"),  # beside
    ("layers", "cluster/__init__.py", "from sweep import spaces"),  # beside, another package
    ("layers", "sweep/records/__init__.py", "def late():\n    from sweep.api import launch"),  # inside a function
    ("layers", "sweep/rerun/__init__.py", "import sweep.cli"),
    ("torch", "sweep/statistics/__init__.py", "import torch"),
    ("torch", "dashboards/__init__.py", "from torchvision import transforms"),
    ("torch", "sweep/tracking/__init__.py", "import sweep.models.planted"),  # by way of another room
    ("ray", "sweep/training/__init__.py", "import ray"),
    ("mlflow", "dashboards/__init__.py", "from mlflow.tracking import MlflowClient"),
    ("verbs", "sweep/cli/runs.py", "import ray"),
    ("verbs", "sweep/api.py", "import mlflow"),
    ("scheduling", "sweep/scheduling/__init__.py", "import mlflow"),
    ("asha", "sweep/scheduling/asha.py", "import time"),
]


@pytest.mark.parametrize(("contract", "file", "code"), VIOLATIONS)
def test_contract_bites(tree: Path, contract: str, file: str, code: str):
    target = tree / file
    planted = tree / "sweep" / "models" / "planted.py"
    before = target.read_text(encoding="utf-8")
    target.write_text(f"{before}\n{code}\n", encoding="utf-8")
    planted.write_text("import torch\n", encoding="utf-8")
    try:
        result = lint_imports(tree, "--contract", contract)
    finally:
        target.write_text(before, encoding="utf-8")
        planted.unlink()
    assert result.returncode == 1, result.stdout + result.stderr
    assert "0 kept, 1 broken" in result.stdout, result.stdout + result.stderr


def test_every_contract_is_shown_a_violation():
    assert {contract for contract, _, _ in VIOLATIONS} == set(CONTRACTS)


IMPORT_ALL = """
import importlib, pkgutil, sys
room = importlib.import_module({module!r})
if {module!r} != "sweep":
    for found in pkgutil.walk_packages(getattr(room, "__path__", []), room.__name__ + "."):
        importlib.import_module(found.name)
"""
HEAVY = ("torch", "torchvision", "ray", "mlflow")


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("sweep", (*HEAVY, "numpy", "pyarrow", "scipy", "matplotlib", "plotly")),
        ("sweep.cli", (*HEAVY, "pyarrow", "scipy", "matplotlib", "plotly")),
        ("sweep.spaces", (*HEAVY, "pyarrow", "scipy", "pydantic", "matplotlib", "plotly")),
        ("sweep.scheduling.asha", (*HEAVY, "numpy")),
        ("sweep.records", HEAVY),
        ("sweep.studies", HEAVY),
        ("sweep.statistics", HEAVY),
        ("sweep.training", ("ray", "mlflow")),
        ("sweep.models", ("ray", "mlflow")),
        ("sweep.tracking", ("torch", "torchvision", "ray")),
        ("dashboards", HEAVY),
        ("cluster", ("torch", "torchvision", "mlflow")),
    ],
)
def test_import_stays_light(module: str, never: tuple[str, ...], tmp_path: Path):
    """What import-linter cannot see: a library that another library brings, or an import by name.

    A room is imported with all its modules, `sweep` alone: it stands above the rooms.
    """
    code = IMPORT_ALL.format(module=module) + f"print(*sorted(set({never!r}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [], f"import {module} loads {result.stdout.strip()}"
