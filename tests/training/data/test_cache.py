"""Arrays in chunks: made once, resumed after a kill, mended where they are damaged, checked without reading all."""

import hashlib
import os
import signal
import subprocess
import sys
import tracemalloc
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from training.data.arrays import save_array

from sweep.training.data import DamagedDataError, cache, checking

ROWS, ROW_BYTES, CHUNKS = 23, 12, 5
HEADER_BYTES = 128


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(cache, "CHUNK_BYTES", 5 * ROW_BYTES + 3)  # five rows


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(0, 256, (ROWS, 3, 4)).astype(np.uint8)


class Source:
    """Answers rows of an array, and remembers which chunks it was asked for."""

    def __init__(self, array):
        self.array, self.asked = array, []

    def __call__(self, first, end):
        self.asked.append(first // 5)
        return self.array[first:end]


def built(path, array, **options):
    """The chunks that had to be made."""
    source = Source(array)
    cache.build(path, array.shape, array.dtype, source, **options)
    return source.asked


def as_numpy_saves(array):
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()


def flip(path, place):
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def chunk_place(chunk):
    """A byte in the middle of a chunk."""
    return HEADER_BYTES + chunk * 5 * ROW_BYTES + 7


def test_the_file_is_what_numpy_saves_and_each_chunk_has_its_sum(tmp_path, array):
    path = tmp_path / "a.npy"
    assert built(path, array) == [0, 1, 2, 3, 4]
    content = path.read_bytes()
    assert content == as_numpy_saves(array)
    ends = [0, *(HEADER_BYTES + 60 * (chunk + 1) for chunk in range(4)), len(content)]
    sums = [hashlib.sha256(content[begin:end]).hexdigest() for begin, end in pairwise(ends)]
    assert (tmp_path / "a.sha256").read_text().split("\n") == sums
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.npy", "a.sha256"]
    assert np.array_equal(checking.mapped(path), array)


@pytest.mark.parametrize("shape", [(1,), (300,), (5, 3, 4), (2, 100)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_any_shape_is_what_numpy_saves(tmp_path, shape, dtype):
    array = np.random.default_rng(1).integers(0, 256, shape).astype(dtype)
    save_array(tmp_path / "a.npy", array)
    assert (tmp_path / "a.npy").read_bytes() == as_numpy_saves(array)
    assert cache.is_intact(tmp_path / "a.npy")


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_damaged_chunk_alone_is_made_again(tmp_path, array, chunk):
    path = tmp_path / "a.npy"
    built(path, array)
    flip(path, chunk_place(chunk))
    assert not checking.verify(path)
    assert built(path, array) == [chunk]
    assert path.read_bytes() == as_numpy_saves(array)


def test_what_was_cut_off_is_made_again(tmp_path, array):
    path = tmp_path / "a.npy"
    built(path, array)
    os.truncate(path, chunk_place(3))
    assert built(path, array) == [3, 4]
    assert path.read_bytes() == as_numpy_saves(array)


def test_a_file_that_has_grown_is_no_longer_intact(tmp_path, array):
    path = tmp_path / "a.npy"
    built(path, array)
    with path.open("ab") as file:
        file.write(b"\0")
    assert not checking.verify(path)
    assert built(path, array) == []
    assert path.read_bytes() == as_numpy_saves(array)


def test_a_build_that_is_killed_goes_on_from_its_last_whole_chunk(tmp_path, array):
    path = tmp_path / "größe ’ a b.npy"
    np.save(tmp_path / "given.npy", array)
    code = f"""
import os, signal, sys
from pathlib import Path
import numpy as np
from sweep.training.data import cache
cache.CHUNK_BYTES = {cache.CHUNK_BYTES}
array = np.load(sys.argv[1])
def rows(first, end):
    if first == 15:
        os.kill(os.getpid(), signal.SIGKILL)
    return array[first:end]
cache.build(Path(sys.argv[2]), array.shape, array.dtype, rows)
"""
    killed = subprocess.run([sys.executable, "-c", code, tmp_path / "given.npy", path], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not path.exists()
    assert built(path, array) == [3, 4]
    assert path.read_bytes() == as_numpy_saves(array)


class StopError(Exception):
    pass


@pytest.fixture
def begun(tmp_path, array):
    """An array of which three chunks are made."""

    def rows(first, end):
        if first == 15:
            raise StopError
        return array[first:end]

    with pytest.raises(StopError):
        cache.build(tmp_path / "a.npy", array.shape, array.dtype, rows)
    return tmp_path / "a.npy"


def test_a_part_that_was_damaged_meanwhile_is_not_trusted(begun, array):
    flip(begun.with_name(".a.npy.part"), chunk_place(1))
    assert built(begun, array) == [1, 3, 4]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"of": 1}', b'{"of": [], "sums": 3}', b"\xff"])
def test_a_part_whose_sums_are_damaged_is_begun_anew(begun, array, content):
    begun.with_name(".a.npy.sums").write_bytes(content)
    assert built(begun, array) == [0, 1, 2, 3, 4]
    assert begun.read_bytes() == as_numpy_saves(array)


def test_a_part_of_another_shape_is_begun_anew(begun, array):
    assert built(begun, array[:20]) == [0, 1, 2, 3]
    assert begun.read_bytes() == as_numpy_saves(array[:20])


def test_sums_that_the_caller_knows_overrule_those_on_disk(tmp_path, array):
    path, other = tmp_path / "a.npy", array.copy()
    built(path, array)
    known = cache.recorded_sums(path)
    other[12] ^= 1
    save_array(path, other)
    assert not checking.is_kept(path, known)
    assert built(path, array, sums=known) == [2]
    assert checking.is_kept(path, known)


def test_no_more_than_some_chunks_are_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "CHUNK_BYTES", 2**20)
    tracemalloc.start()
    try:
        cache.build(
            tmp_path / "a.npy", (40, 2**20), np.dtype(np.uint8), lambda a, b: np.full((b - a, 2**20), 3, np.uint8)
        )
        assert checking.verify(tmp_path / "a.npy")
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


# -- opening -----------------------------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path, array):
    """An array of several chunks, verified on this host; and as a process sees it that has not looked yet."""
    path = tmp_path / "a.npy"
    built(path, array)
    assert checking.verify(path)
    return path


def damage_unseen(path, chunk):
    """As a disk does: neither size nor times change."""
    times = path.stat()
    flip(path, chunk_place(chunk))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_process_reads_one_chunk_of_what_was_verified(large, array, monkeypatch):
    read, compute = [], cache.sum_of
    monkeypatch.setattr(cache, "sum_of", lambda file, *span: (read.append(span), compute(file, *span))[1])
    monkeypatch.setattr(os, "getpid", lambda: 5 * 1000 + 3)
    for _ in range(3):
        assert np.array_equal(checking.mapped(large), array)
    assert read == [(HEADER_BYTES + 180, HEADER_BYTES + 240)]


def test_damage_that_leaves_size_and_times_is_seen_by_the_process_that_reads_the_chunk(large, monkeypatch):
    damage_unseen(large, 3)
    monkeypatch.setattr(os, "getpid", lambda: 2)
    checking.mapped(large)
    checking._checked.clear()
    monkeypatch.setattr(os, "getpid", lambda: 3)
    with pytest.raises(DamagedDataError, match=r"a\.npy' is not what it was"):
        checking.mapped(large)
    assert not checking.is_kept(large, cache.recorded_sums(large))  # other hosts, too, know that they have to mend it
    assert not checking.verify(large)


@pytest.mark.parametrize("how", ["a bit off", "cut", "gone", "sums gone"])
def test_other_damage_is_seen_by_all(large, how, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 0)
    if how == "a bit off":
        flip(large, chunk_place(4))
    elif how == "cut":
        os.truncate(large, chunk_place(4))
    else:
        (large if how == "gone" else large.with_suffix(".sha256")).unlink()
    with pytest.raises(DamagedDataError, match="`sweep launch … --resume`"):
        checking.mapped(large)


def test_what_another_host_verified_is_read_as_a_whole(large, monkeypatch):
    damage_unseen(large, 3)
    monkeypatch.setattr(os, "getpid", lambda: 0)
    monkeypatch.setattr(checking.socket, "gethostname", lambda: "another")
    with pytest.raises(DamagedDataError):
        checking.mapped(large)


def test_a_cache_that_nobody_may_write_to_can_be_used(large, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    before = sorted(large.parent.iterdir())
    with cache.locked(large.parent):
        assert checking.verify(large)
    assert sorted(large.parent.iterdir()) == before
