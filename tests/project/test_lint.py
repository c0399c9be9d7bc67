"""`make lint` is clean: ruff's rules and format, the types, the layers."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_lint():
    command = ["bash", ROOT / ".ci" / "lint.sh", Path(sys.executable).parent]
    result = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stdout + result.stderr


def test_make_lint_and_ci_call_the_same_files():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "bash .ci/lint.sh" in makefile
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
