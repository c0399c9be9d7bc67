"""`needs("slurmctld", "munged")`: the paths of programs that a test cannot do without.

A program that is missing skips the test and says what would bring it. Where SWEEP_REQUIRE_ALL is set, as in .ci/run, it
fails the test instead: a skipped test must not pass for a passed one.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

PACKAGES = {
    "ip": "iproute2",
    "setpriv": "util-linux",
    "curl": "curl",
    "pg_isready": "postgresql-client",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "runuser": "util-linux",
    "initdb": "postgresql",
    "postgres": "postgresql",
    "pg_ctl": "postgresql",
    "psql": "postgresql-client",
    "munged": "munge",
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "sbatch": "slurm-wlm",
    "srun": "slurm-wlm",
    "scontrol": "slurm-wlm",
    "scancel": "slurm-wlm",
    "sinfo": "slurm-wlm",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "shellcheck": "shellcheck",
    "openssl": "openssl",
    "ps": "procps",
}
"""Program -> the Debian package that brings it."""


def find_program(name: str) -> Path | None:
    """Also where PATH does not lead: beside this Python, among the administrator's programs, in PostgreSQL's folder."""
    postgres = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name))
    folders = [Path(sys.executable).parent, *postgres, Path("/usr/sbin"), Path("/sbin")]
    found = shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")]))
    return Path(found) if found else None


def needs(*programs: str, root: bool = False) -> dict[str, Path]:
    """Program -> its path; skips (or fails) the test if one is missing, or if it needs root and is not root."""
    found = {name: find_program(name) for name in programs}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        packages = sorted({PACKAGES.get(name, name) for name in missing})
        do_without(f"missing: {', '.join(missing)}; install: {' '.join(packages)} (.ci/setup.sh dev does, as root)")
    if root and os.geteuid() != 0:
        do_without("this test needs root (network namespaces, services of their own user)")
    return {name: path for name, path in found.items() if path is not None}


def do_without(reason: str) -> NoReturn:
    """Skip the test, or fail it where every test must run."""
    if os.environ.get("SWEEP_REQUIRE_ALL"):
        pytest.fail(f"{reason} (SWEEP_REQUIRE_ALL is set)", pytrace=False)
    pytest.skip(reason)
