"""This project's own code: its commit, and the copy of it that travels to a cluster.

A study that is submitted runs this code, not what happens to be installed on the hosts. From a checkout the packages'
files go, as they stand, but for what git ignores; from an installed wheel its packages.
"""

import shutil
import subprocess
from pathlib import Path

PACKAGES = ("sweep", "cluster", "dashboards")
_COMMIT_FILE = ".designspace-sweep-commit"


def home() -> Path:
    """The folder that holds the packages."""
    return Path(__file__).resolve().parents[1]


def git_commit() -> str | None:
    """The commit of this project's own checkout, "+" where the packages differ from it; None from a wheel."""
    travelled = home() / _COMMIT_FILE
    if travelled.is_file():
        return travelled.read_text().strip() or None
    top, commit, changes = (
        _git("rev-parse", "--show-toplevel"), _git("rev-parse", "HEAD"),
        _git("status", "--porcelain", "--untracked-files=normal", "--", *PACKAGES),
    )  # fmt: skip
    if top is None or commit is None or Path(top) != home():
        return None  # a checkout of something else in which this package happens to be installed
    return commit + ("+" if changes else "")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(home()), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def copy_to(folder: Path) -> None:
    """Put the packages and a note of their commit into `folder`, from which `python -m sweep` then runs."""
    commit = git_commit()
    for path in _files(in_checkout=commit is not None):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(home() / path, target)
    (folder / _COMMIT_FILE).write_text(commit or "")


def _files(*, in_checkout: bool) -> list[Path]:
    if in_checkout and (listed := _git("ls-files", "-z", "--cached", "--others", "--exclude-standard", *PACKAGES)):
        return [Path(name) for name in listed.split("\0") if name and (home() / name).is_file()]
    found = (path for package in PACKAGES for path in (home() / package).rglob("*"))
    return [path.relative_to(home()) for path in found if path.is_file() and "__pycache__" not in path.parts]
