"""What `.ci/setup.sh` does on a bare machine, played with stand-ins for python3, apt-get, dpkg-deb and id.

Each test copies the script into a folder with an awkward name; the stand-ins note in `calls` how they were called.
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("python3", "python3.14", "python3.13", "python3.12", "python3.11")
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

PYTHON = """#!/bin/sh
echo "python $*" >>"$CALLS"
case "$*" in
*ensurepip,*) [ "$ENSUREPIP" = yes ] || [ -e "$CALLS.venv-package" ] ;;
*"< (3, 11)"*) [ "$VERSION" != 3.9 ] ;;
*print*) echo "$VERSION" ;;
*"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
*"pip install"*) [ "$PIP" = works ] || { echo 'pip: no space left'; exit 1; } ;;
esac
"""
APT_GET = """#!/bin/sh
echo "apt-get $*" >>"$CALLS"
[ "$APT" = works ] || { echo 'E: no network' >&2; exit 100; }
case "$*" in
*python*-venv) touch "$CALLS.venv-package" ;;
*download*) touch dataset-fashion-mnist_1_all.deb ;;
*install*dataset-fashion-mnist) mkdir -p "$SYSTEM" && for file in $FILES; do echo data >"$SYSTEM/$file.gz"; done ;;
esac
"""
DPKG_DEB = """#!/bin/sh
mkdir -p "$3$SYSTEM" && for file in $FILES; do echo data >"$3$SYSTEM/$file.gz"; done
"""
ID = """#!/bin/sh
echo "$USER_ID"
"""

Setup = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    folder = tmp_path / 'it\'s a "bare" machine, ü'
    (folder / ".ci").mkdir(parents=True)
    script = (ROOT / ".ci" / "setup.sh").read_text(encoding="utf-8")
    assert "system_data=/usr/share/datasets/fashion-mnist\n" in script
    hidden = script.replace("system_data=/usr/share/datasets/fashion-mnist\n", 'system_data="$SYSTEM"\n')
    (folder / ".ci" / "setup.sh").write_text(hidden, encoding="utf-8")
    (folder / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    tools = folder / "tools"
    tools.mkdir()
    for name, text in {**dict.fromkeys(PYTHONS, PYTHON), "apt-get": APT_GET, "dpkg-deb": DPKG_DEB, "id": ID}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    return folder


@pytest.fixture
def setup(machine: Path, tmp_path: Path) -> Setup:
    def run(what: str = "base", **settings: str) -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": f"{machine / 'tools'}:{os.environ['PATH']}",
            "CALLS": str(machine / "calls"),
            "SYSTEM": str(tmp_path / "system"),
            "XDG_CACHE_HOME": str(machine / "cache"),
            "FILES": " ".join(FILES),
            **{"VERSION": "3.12", "ENSUREPIP": "yes", "APT": "works", "PIP": "works", "USER_ID": "1000"},
            **settings,
        }
        command = ["bash", machine / ".ci" / "setup.sh", what]
        return subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, timeout=60)

    return run


def calls(machine: Path, word: str) -> list[str]:
    return [line for line in (machine / "calls").read_text().splitlines() if word in line]


def cached(machine: Path) -> set[str]:
    folder = machine / "cache" / "designspace-sweep" / "fashion-mnist"
    return {path.name for path in folder.iterdir()}


def test_user_gets_everything_without_root(setup: Setup, machine: Path):
    result = setup()
    assert result.returncode == 0, result.stderr
    assert cached(machine) == {f"{name}.gz" for name in FILES}
    assert "Dir::State=" in calls(machine, "download")[0]
    assert not calls(machine, "apt-get install")
    assert calls(machine, "pip install")[0].endswith("--editable .")


def test_root_installs_the_data_package(setup: Setup, machine: Path, tmp_path: Path):
    result = setup(USER_ID="0")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "system" / f"{FILES[0]}.gz").exists()
    assert not (machine / "cache").exists()


def test_second_run_does_nothing_again(setup: Setup, machine: Path):
    setup("dev")
    (machine / "calls").unlink()
    for what in ("dev", "base"):
        result = setup(what)
        assert result.returncode == 0, result.stderr
    assert calls(machine, "pip install") == calls(machine, "apt-get") == calls(machine, "-m venv") == []


def test_packages_follow_pyproject(setup: Setup, machine: Path):
    setup("base")
    setup("dev")
    (machine / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    setup("dev")
    installed = [line.rpartition(" ")[2] for line in calls(machine, "pip install")]
    assert installed == [".", ".[dev]", ".[dev]"]


def test_interrupted_installation_is_taken_up_again(setup: Setup, machine: Path):
    failed = setup(PIP="fails")
    assert failed.returncode == 1
    assert "pip: no space left" in failed.stderr
    assert "run again" in failed.stderr
    assert setup().returncode == 0
    assert len(calls(machine, "pip install")) == 2


def test_moved_folder_gets_a_new_environment(setup: Setup, machine: Path):
    setup()
    (machine / ".venv" / ".root").write_text("/somewhere/else\n")
    setup()
    assert len(calls(machine, "-m venv --clear")) == 2


def test_environment_of_another_folder_is_never_cleared(setup: Setup, machine: Path, tmp_path: Path):
    setup()
    (machine / ".venv").rename(tmp_path / "other")
    (tmp_path / "other" / ".root").write_text("/somewhere/else\n")
    (machine / ".venv").symlink_to(tmp_path / "other")
    result = setup()
    assert result.returncode == 1
    assert "Remove the link" in result.stderr
    assert (tmp_path / "other" / "bin" / "python").exists()


def test_old_python_is_named_with_the_remedy(setup: Setup, machine: Path):
    result = setup(VERSION="3.9")
    assert result.returncode == 1
    assert "Python 3.11 or newer is needed" in result.stderr
    assert "found python3 (3.9)" in result.stderr
    assert "apt-get install python3" in result.stderr
    assert not (machine / ".venv").exists()


def test_chosen_python_is_not_replaced_in_silence(setup: Setup):
    result = setup(PYTHON="/no/such/python")
    assert result.returncode == 1
    assert "looked for /no/such/python; found none" in result.stderr


def test_missing_ensurepip_is_installed_by_root(setup: Setup, machine: Path):
    result = setup(ENSUREPIP="no", USER_ID="0")
    assert result.returncode == 0, result.stderr
    assert calls(machine, "install")[0].endswith("python3.12-venv")


def test_missing_ensurepip_tells_a_user_what_to_ask_for(setup: Setup):
    result = setup(ENSUREPIP="no")
    assert result.returncode == 1
    assert "sudo apt-get install python3.12-venv" in result.stderr


@pytest.mark.parametrize("user_id", ["0", "1000"])
def test_archive_out_of_reach_leaves_the_data_to_sweep(setup: Setup, user_id: str):
    result = setup(APT="fails", USER_ID=user_id)
    assert result.returncode == 0, result.stderr
    assert "sweep downloads Fashion-MNIST" in result.stderr


def test_own_data_folder_is_respected(setup: Setup, machine: Path):
    result = setup(SWEEP_DATA_DIR="/my/data")
    assert result.returncode == 0, result.stderr
    assert calls(machine, "apt-get") == []
