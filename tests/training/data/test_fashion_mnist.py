"""Fashion-MNIST on this machine: found, checked, mapped; what is missing or damaged is named with its remedy."""

import errno
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from training.data.arrays import save_array

from sweep.studies import Data
from sweep.training.data import (
    DamagedDataError,
    DataFiles,
    cache,
    find_source,
    open_split,
    open_test,
    prepare,
    published,
)
from sweep.training.data.published import FASHION_MNIST


@pytest.fixture(scope="module")
def source():
    """Wherever the real files are on this machine."""
    prepare()
    return find_source()


@pytest.fixture
def copy(source, tmp_path):
    """A directory of our own with the four compressed files, to be damaged."""
    folder = tmp_path / "with space ’ and quote"
    folder.mkdir()
    for name in FASHION_MNIST:
        shutil.copy(published._locate(source, "fashion_mnist", name), folder)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return prepare(cache=tmp_path_factory.mktemp("cache"))


def test_arrays_are_the_published_images(files):
    split = open_split(files, num_train=50_000, num_validation=10_000, seed=0)
    assert split.images.shape == (60_000, 28, 28)
    assert split.images.dtype == np.uint8
    assert np.bincount(split.labels).tolist() == [6000] * 10
    assert round(split.mean, 2) == 0.29
    images, labels, index = open_test(files)
    assert np.array_equal(index, np.arange(10_000))
    assert images.shape == (10_000, 28, 28)
    assert np.bincount(labels).tolist() == [1000] * 10


def test_split_is_seeded_disjoint_and_keeps_its_validation_images(files):
    one = open_split(files, num_train=500, num_validation=300, seed=3)
    more = open_split(files, num_train=900, num_validation=300, seed=3)
    other = open_split(files, num_train=500, num_validation=300, seed=4)
    assert not set(one.train) & set(one.validation)
    assert (one.validation == more.validation).all()
    assert (one.train == more.train[:500]).all()
    assert set(one.validation) != set(other.validation)


def test_all_processes_map_the_same_file(files):
    split = open_split(files, num_train=10, num_validation=10, seed=0)
    assert isinstance(split.images, np.memmap)
    split.images[0, 0, 0] ^= 255  # copy-on-write: a slip in one trial is seen by no other
    assert open_split(files, num_train=10, num_validation=10, seed=0).images[0, 0, 0] != split.images[0, 0, 0]


def test_a_second_preparation_uses_the_cache(files, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("built again")

    monkeypatch.setattr(cache, "build", refuse)
    assert prepare(cache=files.train_images.parents[1]) == files


def test_another_resolution_is_another_array(tmp_path):
    files = prepare(cache=tmp_path, resolution=14)
    assert open_test(files)[0].shape == (10_000, 14, 14)


def test_a_given_directory_is_used_and_named(copy, tmp_path):
    assert prepare(Data(path=str(copy)), cache=tmp_path / "cache").source == str(copy)


def test_uncompressed_files_are_read_too(copy, tmp_path):
    for name in FASHION_MNIST:
        (copy / name).write_bytes(gzip.decompress((copy / f"{name}.gz").read_bytes()))
        (copy / f"{name}.gz").unlink()
    assert prepare(Data(path=str(copy)), cache=tmp_path / "cache").source == str(copy)


def test_the_environment_names_a_directory(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEP_DATA_DIR", str(copy))
    assert find_source() == copy


def damage(file, how):
    content = file.read_bytes()
    if how == "missing":
        file.unlink()
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "cut short":
        file.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        file.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    else:  # a valid file with other content
        file.write_bytes(gzip.compress(b"\0" * 60_008))


@pytest.mark.parametrize("how", ["missing", "empty", "cut short", "flipped", "replaced"])
def test_damaged_files_are_refused_with_both_remedies(copy, tmp_path, how):
    damage(copy / "train-labels-idx1-ubyte.gz", how)
    with pytest.raises(ValueError, match="train-labels-idx1-ubyte") as caught:
        prepare(Data(path=str(copy)), cache=tmp_path / "cache")
    assert "dataset-fashion-mnist" in str(caught.value)
    assert "torchvision" in str(caught.value)


def test_a_wrong_directory_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"data\.path = '/nowhere'"):
        prepare(Data(path="/nowhere"), cache=tmp_path)


def test_a_sweep_refuses_a_cut_file_before_any_trial(copy, tmp_path, sweep_cli):
    damage(copy / "t10k-images-idx3-ubyte.gz", "cut short")
    done = sweep_cli("launch", "quickstart", "--run-dir", tmp_path / "run", "--set", f'data.path="{copy}"')
    assert done.returncode == 2
    assert "t10k-images-idx3-ubyte.gz" in done.stderr
    assert "dataset-fashion-mnist" in done.stderr
    assert not (tmp_path / "run").exists()


def test_two_processes_may_build_the_cache_at_once(tmp_path):
    code = f"from pathlib import Path; from sweep.training.data import prepare; prepare(cache=Path({str(tmp_path)!r}))"
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    deadline = time.monotonic() + 120
    assert [process.wait(deadline - time.monotonic()) for process in both] == [0, 0]
    assert open_test(prepare(cache=tmp_path))[0].shape == (10_000, 28, 28)


def arrays(files):
    return files.train_images, files.train_labels, files.test_images, files.test_labels


def contents(files):
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in arrays(files)]


@pytest.fixture(scope="module")
def own_files(tmp_path_factory):
    """Files to be damaged; each test leaves them whole again."""
    return prepare(cache=tmp_path_factory.mktemp("own"))


def mend(files):
    prepare(cache=files.train_images.parents[1])


def cut(path, share):
    os.truncate(path, int(share * path.stat().st_size))


def flip_a_bit(path, share):
    with path.open("r+b") as file:
        file.seek(int(share * path.stat().st_size))
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


def sum_of(path):
    return path.with_suffix(".sha256")


@pytest.mark.parametrize("share", [0, *np.random.default_rng(0).random(8).round(3).tolist(), 0.999])
def test_arrays_cut_short_are_built_again(own_files, share):
    before = contents(own_files)
    for path in arrays(own_files):
        cut(path, share)
    mend(own_files)
    assert contents(own_files) == before


@pytest.mark.parametrize("damage", ["a bit off", "gone", "sum gone", "sum cut", "sum empty", "sum no text"])
def test_whatever_is_damaged_is_built_again(own_files, damage):
    before = contents(own_files)
    for path, share in zip(arrays(own_files), (0.0001, 0.3, 0.7, 0.999)):
        if damage == "a bit off":
            flip_a_bit(path, share)
        elif damage == "gone":
            path.unlink()
        elif damage == "sum gone":
            sum_of(path).unlink()
        elif damage == "sum cut":
            cut(sum_of(path), share)
        else:
            sum_of(path).write_bytes(b"" if damage == "sum empty" else b"\xff\xfe")
    mend(own_files)
    assert contents(own_files) == before
    assert [sum_of(path).read_text() for path in arrays(own_files)] == before


def test_a_preparation_that_is_interrupted_leaves_nothing_half_written(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space left"):
            save_array(tmp_path / "a.npy", np.zeros(9))
    assert list(tmp_path.iterdir()) == []
    save_array(tmp_path / "a.npy", np.zeros(9))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "a.sha256"]


# -- damage between the preparation and a trial ----------------------------------------------------------------


@pytest.fixture
def few(tmp_path):
    """Arrays of a hundred images, which cost nothing to write."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{name}.npy" for name in ("train-images", "train-labels", "test-images", "test-labels")]
    for path, shape in zip(paths, [(100, 12, 12), (100,)] * 2):
        save_array(path, rng.integers(0, 10, shape).astype(np.uint8))
    return DataFiles(*paths, source="made up", digest="")


def open_few(files):
    return open_split(files, num_train=50, num_validation=50, seed=0)


@pytest.fixture
def hashed(monkeypatch):
    """The names of the files whose sum is computed."""
    names, compute = [], cache.sum_of
    monkeypatch.setattr(
        cache, "sum_of", lambda file, *span: (names.append(Path(file.name).stem), compute(file, *span))[1]
    )
    return names


def test_a_process_computes_each_sum_once(few, hashed):
    for _ in range(3):
        open_few(few)
    assert hashed == ["train-images", "train-labels"]
    open_test(few)
    assert hashed == ["train-images", "train-labels", "test-images", "test-labels"]


@pytest.mark.parametrize("has_looked", [False, True], ids=["at first sight", "looked at before"])
@pytest.mark.parametrize("how", ["cut", "a bit off", "gone", "empty"])
@pytest.mark.parametrize("which", ["train_images", "train_labels"])
def test_damage_since_the_preparation_is_named_with_its_remedy(few, which, how, has_looked):
    if has_looked:
        open_few(few)
    path = getattr(few, which)
    if how == "gone":
        path.unlink()
    elif how == "a bit off":
        flip_a_bit(path, 0.9)
    else:
        cut(path, 0.5 if how == "cut" else 0)
    for _ in range(2):  # it does not forget
        with pytest.raises(DamagedDataError, match=rf"{path.name}' is not what it was .*`sweep launch … --resume`"):
            open_few(few)


@pytest.mark.parametrize("how", ["gone", "empty", "no text"])
def test_an_array_without_its_sum_is_trusted_by_those_alone_who_looked_before(few, how):
    path = few.train_labels
    sum_of(path).unlink() if how == "gone" else sum_of(path).write_bytes(b"" if how == "empty" else b"\xff")
    with pytest.raises(DamagedDataError, match=r"train-labels\.(sha256 is gone|npy' is not what it was)"):
        open_few(few)
    save_array(path, np.load(path))
    open_few(few)
    sum_of(path).unlink()
    open_few(few)


def test_a_file_put_in_its_place_is_looked_at_even_if_it_pretends_to_be_the_same(few, hashed):
    open_few(few)
    path, times = few.train_labels, few.train_labels.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    flip_a_bit(other, 0.9)
    other.replace(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(DamagedDataError, match="train-labels"):
        open_few(few)


def test_what_was_mended_is_opened_again(few, hashed):
    flip_a_bit(few.train_labels, 0.9)
    with pytest.raises(DamagedDataError):
        open_few(few)
    flip_a_bit(few.train_labels, 0.9)
    open_few(few)
    assert hashed.count("train-labels") == 2


def test_other_trouble_is_not_taken_for_damage(few, monkeypatch):
    def fail(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(cache, "sum_of", fail)
    with pytest.raises(OSError, match="Too many open files"):
        open_few(few)
