"""A clone in a folder with spaces, quotes and accents: Ray's workers must start there too.

Ray starts each worker with a line of shell in which it does not quote the path of Python: unless the driver does,
workers never come up, and the sweep waits for minutes.
"""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

CODE = """
import sys
from pathlib import Path
import ray
from cluster import load_profile, ray_session

with ray_session(load_profile("laptop"), Path.cwd()):
    print(ray.get(ray.remote(num_cpus=1)(lambda: sys.executable).remote(), timeout=60))
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A virtual environment of its own that sees this one's packages."""
    folder = tmp_path / 'it\'s a "clone", ü'
    venv.create(folder, symlinks=True)
    own_packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
    link = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    (Path(own_packages) / "packages.pth").write_text(link, encoding="utf-8")
    return folder / "bin" / "python"


def test_workers_start_from_an_awkward_path(python: Path, tmp_path: Path):
    assert Path(sys.executable) != python
    result = subprocess.run([python, "-c", CODE], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.strip() == str(python)
