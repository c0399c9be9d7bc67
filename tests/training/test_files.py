"""Files are whole or not there: on a full disk, after a kill, and beside whoever else writes."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sweep.training.files import written_whole
from sweep.training.store import FolderStore, is_full

DRAFT = ".draft.{host}.{pid}.0"


def write(path, content=b"new"):
    with written_whole(path) as file:
        file.write(content)


def test_file_and_folder_are_flushed_before_and_after_the_rename(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace

    def logged_fsync(handle):
        done.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name.split(".")[:2])
        fsync(handle)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append(["replace"]), replace(*paths)))
    write(tmp_path / "new" / "folder" / "file")
    names_of_folders = [[tmp_path.name], ["new"]]
    assert done == [*names_of_folders, ["", "draft"], ["replace"], ["folder"]]


@pytest.mark.parametrize("fails", ["write", "fsync", "replace"])
def test_what_fails_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch, fails):
    write(tmp_path / "file", b"old")
    full = OSError(errno.ENOSPC, "no space left on device")

    def fail(*arguments):
        raise full

    with monkeypatch.context() as patch:
        if fails != "write":
            patch.setattr(os, fails, fail)
        with pytest.raises(OSError) as caught, written_whole(tmp_path / "file") as file:
            fail() if fails == "write" else file.write(b"new")
    assert caught.value is full
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


FULL_DISK = """
import sys
from pathlib import Path
from sweep.training.store import FolderStore, is_full
store = FolderStore(Path(sys.argv[1]) / "trial")
store.write("first", b"1" * 400_000)
try:
    store.write("second", b"2" * 900_000)
except OSError as error:
    assert is_full(error), error
else:
    raise AssertionError("it fitted")
assert [path.name for path in store.folder.iterdir()] == ["first"]
store.write("third", b"3" * 400_000)  # what failed takes no room
import torch
try:
    torch.save(torch.zeros(200_000), Path(sys.argv[1]) / "by torch itself")
except Exception as error:
    assert is_full(error), repr(error)
else:
    raise AssertionError("it fitted")
print("done")
"""


def test_a_disk_that_is_really_full(tmp_path):
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a small disk of their own")
    mounted = 'mount -t tmpfs -o size=1m none "$1" && shift && exec "$@"'
    command = [*namespace, "sh", "-c", mounted, "sh", tmp_path, sys.executable, "-c", FULL_DISK, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout == "done\n", done.stderr


def test_drafts_of_dead_processes_go_and_no_others(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    stale = tmp_path / DRAFT.format(host=socket.gethostname(), pid=dead.pid)
    others = [
        tmp_path / DRAFT.format(host=socket.gethostname(), pid=os.getpid()),
        tmp_path / DRAFT.format(host="another-host", pid=dead.pid),
        tmp_path / ".hidden",
    ]
    for path in (stale, *others):
        path.touch()
    write(tmp_path / "file")
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "file"])


ENDLESS = """
import sys
from pathlib import Path
from sweep.training.store import FolderStore
store = FolderStore(Path(sys.argv[1]))
print("begun", flush=True)
for number in range(10**9):
    store.write(f"blob-{number % 3}", bytes([number % 256]) * 500_000)
"""


@pytest.mark.parametrize("after_s", [0.05, 0.11, 0.23])
def test_a_kill_leaves_whole_files_and_the_next_writer_tidies_up(tmp_path, after_s):
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    store = FolderStore(tmp_path)
    for name in store.names():
        content = store.read(name)
        assert content == content[:1] * 500_000
    store.write("next", b"")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_threads_of_one_process_write_beside_each_other(tmp_path):
    def work(number):
        for _ in range(20):
            write(tmp_path / "file", bytes([number]) * 100_000)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = (tmp_path / "file").read_bytes()
    assert content == content[:1] * 100_000
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def caused(error, cause, by="__cause__"):
    setattr(error, by, cause)
    return error


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EROFS, "Read-only file system"),
        caused(ValueError("outer"), caused(KeyError("inner"), FULL)),
        caused(Exception("of a Ray task"), FULL, by="cause"),
        caused(RuntimeError("the states of the trial cannot be reached"), caused(Exception("task"), FULL, by="cause")),
        RuntimeError("[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file data/3"),
        RuntimeError("write: No space left on device"),
    ],
    ids=repr,
)
def test_what_says_that_storage_is_full(error):
    assert is_full(error)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EACCES, "Permission denied"),
        OSError("No space left on device"),  # without a number it is somebody else's words
        RuntimeError("out of memory"),
        ValueError("No space left"),
        caused(ValueError("itself"), None, by="cause"),
        caused(ValueError("words"), "No space left", by="cause"),
    ],
    ids=repr,
)
def test_what_does_not(error):
    assert not is_full(error)


def test_a_circle_of_causes_has_an_end():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert not is_full(first)


def test_an_error_that_comes_back_from_a_ray_task():
    from ray.exceptions import RayTaskError

    assert is_full(RayTaskError("write", "its traceback", FULL))
    assert is_full(RayTaskError("write", "its traceback", FULL).as_instanceof_cause())
    assert not is_full(RayTaskError("write", "its traceback", KeyError("name")))
