"""The pages beside what is deployed: a page long, and true: commands are understood, files that they name exist."""

import re
import subprocess
from pathlib import Path

import pytest
from commands import complaint, shell_blocks, simple_commands
from needs import PACKAGES, needs

from cluster import load_profile, shipped_profiles

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["docker/README.md", "cluster/kuberay/README.md", "cluster/slurm/README.md", "cluster/aws/README.md"]
SCRIPTS = [
    *sorted((ROOT / "docker").glob("*.sh")), *sorted((ROOT / ".ci").glob("*.sh")), ROOT / ".ci" / "run",
    ROOT / "cluster" / "slurm" / "sweep.sbatch",
]  # fmt: skip
A_PAGE = 66
LATER = ("docker/data", "docker/secrets", "docker/.env")
"""What init.sh and the services make."""


@pytest.mark.parametrize("page", PAGES)
def test_a_readme_is_one_page(page: str):
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= A_PAGE
    assert [line for line in lines if len(line) > 140] == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_understood(page: str):
    found = list(simple_commands(shell_blocks((ROOT / page).read_text(encoding="utf-8"))))
    commands = [words[1:] for words in found if words[0] == "sweep"]
    assert commands or any("sweep.sbatch" in " ".join(words) for words in found), "shows no command of this project"
    assert {" ".join(words): said for words in commands if (said := complaint(words))} == {}


def test_complaint_sees_what_is_wrong():
    for wrong in (
        ["no-such-verb"],
        ["submit", "quickstart"],
        ["cluster", "up", "--port", "x"],
        ["cluster"],
        ["attach"],
    ):
        assert complaint(wrong), wrong
    assert complaint(["cluster", "up", "--port", "6379"]) is None


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/.~-])((?:docker|cluster|tests|\.ci)/[\w./-]*\w)", text)
    assert [path for path in named if not path.startswith(LATER) and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", ["slurm", "kuberay", "aws", "compose"])
def test_profiles_ship_and_load(name: str):
    profile = load_profile(shipped_profiles()[name])
    assert (profile.name, profile.address) == (name, "auto")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_pass_shellcheck(script: Path):
    program = needs("shellcheck")["shellcheck"]
    answer = subprocess.run([program, "--severity=warning", script], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stdout


# ---- .ci/setup.sh dev ------------------------------------------------------------------------------------------
def ensure_programs(*, root: bool, installed: bool = False) -> str:
    """What the step says and installs, with stand-ins for what looks at the machine and changes it."""
    functions = (ROOT / ".ci" / "setup.sh").read_text(encoding="utf-8").partition('\ncase "${1:-}" in')[0]
    functions = functions.replace('cd "$(dirname "${BASH_SOURCE[0]}")/.."', f'cd "{ROOT}"')
    stand_ins = f"""
        has() {{ [ "$1" = apt-get ] || {str(installed).lower()}; }}
        is_root() {{ {str(root).lower()}; }}
        apt_install() {{ echo "apt: $*"; }}
        step() {{ echo "$*"; }}
        ensure_programs
    """
    answer = subprocess.run(["bash", "-c", functions + stand_ins], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_root_gets_every_package_that_a_test_can_miss():
    assert set(ensure_programs(root=True).split()) == {"apt:", *PACKAGES.values()}


def test_a_user_is_told_what_is_missing():
    said = ensure_programs(root=False)
    assert "apt:" not in said
    assert "sudo apt-get install" in said
    assert [package for package in PACKAGES.values() if package not in said] == []


def test_what_is_installed_is_left_alone():
    assert ensure_programs(root=True, installed=True) == "programs of the tests: installed already\n"
