"""What this machine has for a sweep, and the remedy for what it lacks. Starts nothing, downloads nothing."""

import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cluster.machine import OPEN_FILES_NEEDED, max_open_files, num_cores


@dataclass(frozen=True)
class Check:
    """`found` says what is there; `remedy` what to do where it is not `ok`."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


def examine() -> list[Check]:
    packages = ("torch", "torchvision", "ray", "mlflow", "numpy", "scipy", "pyarrow")
    return [
        Check("Python", sys.version_info >= (3, 11), platform.python_version(), "install Python 3.11 or newer"),
        *map(_package, packages),
        _gpu(),
        Check("CPU cores", True, str(num_cores())),
        _open_files(),
        _data(),
        _other_data(),
        _disk(),
    ]


def _package(name: str) -> Check:
    try:
        return Check(name, True, version(name))
    except PackageNotFoundError:
        return Check(name, False, "not installed", f"pip install {name}")


def _gpu() -> Check:
    try:
        import torch
    except ImportError as error:
        return Check("GPU", False, f"torch does not import: {error}", "reinstall torch")
    if not torch.cuda.is_available():
        return Check("GPU", True, "none; trials train on CPU cores, one each")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Check("GPU", True, ", ".join(names))


def _open_files() -> Check:
    found = max_open_files()
    return Check("open files", found >= OPEN_FILES_NEEDED, f"{found} at most", f"ulimit -n {OPEN_FILES_NEEDED}")


def _data() -> Check:
    from sweep.training.data import find_source, prepare

    try:
        source = find_source()
        if source is None:
            return Check("Fashion-MNIST", True, "not here yet; torchvision downloads it at the first launch")
        prepare()
    except ValueError as error:
        return Check("Fashion-MNIST", False, str(error).split(";")[0], str(error).split("; ", 1)[-1])
    return Check("Fashion-MNIST", True, f"in {source}, checksums right")


def _other_data() -> Check:
    """Published data sets beside Fashion-MNIST; their checksums are compared when a study asks for one."""
    from sweep.studies import PUBLISHED, Data
    from sweep.training.data import find_source

    names = [name for name in PUBLISHED if name != "fashion_mnist"]
    try:
        found = {name: find_source(Data.model_validate({"name": name})) for name in names}
    except ValueError as error:
        return Check("other data sets", False, str(error).split(";")[0], str(error).split("; ", 1)[-1])
    here = [f"{name} in {source}" for name, source in found.items() if source]
    return Check("other data sets", True, ", ".join(here) or "none yet; torchvision downloads what a study asks for")


def _disk() -> Check:
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    return Check("disk", free_gb > 2, f"{free_gb:.0f} GB free here", "free some space: a sweep needs about 1 GB")
