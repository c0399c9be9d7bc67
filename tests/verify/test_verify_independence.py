"""The checker shares no code with what it checks: of this package it imports itself alone, and no library that runs or
records a sweep."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sweep.verify

ROOM = Path(sweep.verify.__file__).parent
FORBIDDEN = ("cluster", "dashboards", "mlflow", "ray", "torch", "torchvision", "pyarrow", "pydantic")
ALLOWED = {"numpy", "requests", "sqlalchemy"}


def imported(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative imports are not followed here"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", sorted(ROOM.rglob("*.py")), ids=lambda path: path.name)
def test_it_imports_nothing_of_ours(path):
    for name in imported(path):
        package = name.partition(".")[0]
        if package == "sweep":
            assert name == "sweep.verify" or name.startswith("sweep.verify."), f"{path.name} imports {name}"
        else:
            assert package in sys.stdlib_module_names | ALLOWED, f"{path.name} imports {name}"


def test_nothing_else_is_loaded_with_it(tmp_path):
    """Nor by a look at a journal; `importlib` by name would not be seen above."""
    code = (
        "import sys, pkgutil, importlib, sweep.verify\n"
        "names = [found.name for found in pkgutil.walk_packages(sweep.verify.__path__, 'sweep.verify.')]\n"
        "for name in names: importlib.import_module(name)\n"
        "try: sweep.verify.verify('.')\n"
        "except ValueError: pass\n"
        "ours = [m for m in sys.modules if m.startswith('sweep.') and not m.startswith('sweep.verify')]\n"
        f"print(*ours, *sorted(set({FORBIDDEN!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_importing_it_is_cheap(tmp_path):
    """The heavy part of MLflow's database driver comes with its first use."""
    code = "import sys, sweep.verify; print('sqlalchemy' in sys.modules, 'requests' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False", "False"]
