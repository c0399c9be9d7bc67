"""What all tests share: a quiet environment, the command line as a subprocess, and no process left behind.

The environment is set when pytest reads this file, before any test imports torch, Ray or MLflow. It also carries a
mark that every process started by the tests inherits, so that the last fixture finds its own and no one else's.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]
MARK = "SWEEP_TEST_SESSION"
_ONE_PROCESS = ("sweeps", "rerun")
GRACE_S = 15.0
"""Ray's processes end by themselves within about 3 s of their driver, however it ended."""

for _name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"):
    os.environ.pop(_name, None)
# Hundreds of processes would each compile the project anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ |= {
    MARK: uuid.uuid4().hex,
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "MPLBACKEND": "Agg",
}


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For `pytest -n`: what shares a costly fixture of the session runs in one process, else each file does."""
    for item in items:
        path = item.path.relative_to(ROOT / "tests")
        name = path.parts[0] if path.parts[0] in _ONE_PROCESS else str(path)
        name = item.name if path.name in ("test_mixed.py", "test_studies.py") else name  # long ones
        item.add_marker(pytest.mark.xdist_group(name))


def _is_ours(process: psutil.Process) -> bool:
    try:
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        if "multiprocessing.resource_tracker" in " ".join(process.cmdline()):
            return False  # Python's own, and it ends with pytest
        return process.environ().get(MARK) == os.environ[MARK]
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _started_here() -> list[psutil.Process]:
    """Processes that carry this session's mark, also those whose parent was killed."""
    return [process for process in psutil.process_iter() if _is_ours(process)]


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid}: {' '.join(process.cmdline())[:150]}"
    except psutil.NoSuchProcess:
        return f"{process.pid}: (ended meanwhile)"


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue  # it ended between the look and the kill


@pytest.fixture(scope="session", autouse=True)
def ray_folder() -> Iterator[Path]:
    """Where Ray keeps sockets and logs: a short path of this session's own (a socket's path ends at 107 bytes)."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    os.environ["RAY_TMPDIR"] = str(folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)  # Ray's last processes may still be writing


@pytest.fixture(scope="session", autouse=True)
def no_process_left(ray_folder: Path) -> Iterator[None]:
    """Fails the session when a process that a test started outlives it by `GRACE_S`, and ends that process."""
    yield
    deadline = time.monotonic() + GRACE_S
    while (left := _started_here()) and time.monotonic() < deadline:
        time.sleep(0.2)
    described = "\n".join(map(_describe, left))
    _kill(left)
    assert not left, f"the tests left these processes behind (ended now):\n{described}"


@pytest.fixture(scope="session")
def sweep_cli(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`sweep_cli(*args, env=None, cwd=None, timeout=120)` runs `python -m sweep` and returns its code and outputs.

    `env` is laid over the environment; `cwd` is a folder of the session's own unless given. Past `timeout` seconds the
    command and all its children are killed, and the test fails with what they had printed.
    """
    own_folder = tmp_path_factory.mktemp("cwd")

    def run(
        *args: object, env: dict[str, str] | None = None, cwd: Path | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sweep", *map(str, args)]
        process = subprocess.Popen(
            command,
            cwd=cwd or own_folder,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _kill([*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)])
            stdout, stderr = process.communicate()
            pytest.fail(f"{command} ran longer than {timeout} s\nstdout:\n{stdout}\nstderr:\n{stderr}")
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)

    return run
