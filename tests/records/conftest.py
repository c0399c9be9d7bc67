"""`tmp_path` in memory, where the system has room for it there; `small_disk`, a folder that can be made full."""

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from needs import do_without
from records.rows import memory_folder


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    with memory_folder(tmp_path) as folder:
        yield folder


class SmallFileSystem:
    """A file system of its own, with room for a small journal and little more."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        with self._filler.open("ab", buffering=0) as filler:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while filler.write(bytes(size)):
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)


class SizeLimit:
    """No file of this process may grow beyond what the journal's log has already."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        log = self.folder / "journal.sqlite-wal"
        size = log.stat().st_size if log.exists() else 0
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, self._limits[1]))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)


Disk = SmallFileSystem | SizeLimit


@pytest.fixture(params=["file system", "size limit"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "size limit":
        disk: Disk = SizeLimit(folder)
        yield disk
        disk.free()
        return
    if os.geteuid() != 0:
        do_without("only root may mount a small file system; the size limit stands for it")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        do_without(f"no small file system could be mounted: {mounted.stderr.decode().strip()}")
    yield SmallFileSystem(folder)
    subprocess.run(["umount", "--lazy", folder], check=True)
