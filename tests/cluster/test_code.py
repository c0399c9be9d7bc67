"""The code that travels to a cluster: this project's as it stands, with its commit, and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from needs import needs

from cluster import code


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A checkout in which `code` believes itself to lie: one commit, and some files that git ignores."""
    needs("git")
    folder = tmp_path / "Müller's checkout"
    for path, text in {
        "sweep/__init__.py": "",
        "sweep/studies/a study.toml": "seed = 1\n",
        "cluster/__init__.py": "",
        "dashboards/page.html": "<p>",
        "tests/test_sweep.py": "",
        "README.md": "read\n",
        ".gitignore": "runs/\n.venv/\n__pycache__/\n*.key\n",
    }.items():
        _write(folder / path, text)
    for arguments in (
        ["init", "--quiet", "."],
        ["add", "."],
        ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "--quiet", "--no-gpg-sign", "-m", "first"],
    ):
        _git(folder, *arguments)
    for path in (".venv/python", "runs/journal.sqlite", "sweep/__pycache__/a.pyc", "sweep/runs/b", "cluster/mine.key"):
        _write(folder / path, "ignored")
    monkeypatch.setattr(code, "home", lambda: folder)
    return folder


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _git(folder: Path, *arguments: str) -> str:
    # Not the repository of a hook or of CI that the variables may name.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


PACKAGED = {"sweep/__init__.py", "sweep/studies/a study.toml", "cluster/__init__.py", "dashboards/page.html"}
NOTE = ".designspace-sweep-commit"


def test_the_packages_travel_with_their_commit(checkout, tmp_path, monkeypatch):
    there = tmp_path / "there"
    there.mkdir()
    code.copy_to(there)
    assert _files(there) == PACKAGED | {NOTE}
    commit = _git(checkout, "rev-parse", "HEAD")
    assert code.git_commit() == commit
    monkeypatch.setattr(code, "home", lambda: there)
    assert code.git_commit() == commit, "also where there is no repository"


def test_changes_travel_and_are_told(checkout, tmp_path, monkeypatch):
    (checkout / "sweep" / "studies" / "a study.toml").write_text("seed = 2\n")
    _write(checkout / "sweep" / "new.py", "# not added yet\n")
    (checkout / "dashboards" / "page.html").unlink()
    there = tmp_path / "there"
    there.mkdir()
    code.copy_to(there)
    assert _files(there) == PACKAGED - {"dashboards/page.html"} | {"sweep/new.py", NOTE}
    assert (there / "sweep" / "studies" / "a study.toml").read_text() == "seed = 2\n"
    marked = _git(checkout, "rev-parse", "HEAD") + "+"
    assert code.git_commit() == marked
    monkeypatch.setattr(code, "home", lambda: there)
    assert code.git_commit() == marked


def test_a_file_that_git_does_not_know_yet_is_a_change(checkout):
    clean = code.git_commit()
    assert clean is not None
    _write(checkout / "sweep" / "new.py", "# travels, so it is a change\n")
    assert code.git_commit() == clean + "+"
    (checkout / "sweep" / "new.py").unlink()
    _write(checkout / "notes.txt", "does not travel\n")
    (checkout / "README.md").write_text("neither does this\n")
    assert code.git_commit() == clean


def test_an_installed_package_travels_without_a_commit(checkout, tmp_path, monkeypatch):
    site_packages = checkout / "site-packages"  # of a virtual environment inside someone's checkout
    for package in code.PACKAGES:
        _write(site_packages / package / "__init__.py", "")
        _write(site_packages / package / "__pycache__" / "a.pyc", "")
    _write(site_packages / "numpy" / "__init__.py", "")
    monkeypatch.setattr(code, "home", lambda: site_packages)
    there = tmp_path / "there"
    there.mkdir()
    assert code.git_commit() is None
    code.copy_to(there)
    assert _files(there) == {f"{package}/__init__.py" for package in code.PACKAGES} | {NOTE}
    monkeypatch.setattr(code, "home", lambda: there)
    assert code.git_commit() is None


def test_what_travelled_runs_by_itself(tmp_path):
    code.copy_to(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    look = (
        "import sweep, cluster, dashboards, sweep.cli\n"
        "from cluster import git_commit, shipped_profiles\n"
        "print(sweep.__file__, cluster.__file__, dashboards.__file__, len(shipped_profiles()), git_commit(), sep='\\n')"
    )

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd="/", env=environment).stdout

    *modules, profiles, commit = run("-c", look).split()
    assert [Path(module).parents[1] for module in modules] == [tmp_path] * 3
    assert int(profiles) >= 6
    assert commit == str(code.git_commit())
    assert run("-m", "sweep", "--version").split()[-1][0].isdigit()
