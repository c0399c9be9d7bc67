"""Fashion-MNIST on this machine: found, checked, mapped; what is missing or damaged is named with both remedies."""

import gzip
import hashlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from sweep.training import data
from sweep.training.data import FASHION_MNIST, find_source, open_split, open_test, prepare


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
        shutil.copy(data._locate(source, name), folder)
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
    images, labels = open_test(files)
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
    def refuse(*_):
        raise AssertionError("built again")

    monkeypatch.setattr(data, "_build_arrays", refuse)
    assert prepare(cache=files.train_images.parents[1]) == files


def test_a_damaged_cache_is_built_again(tmp_path):
    files = prepare(cache=tmp_path)
    digest = hashlib.sha256(files.test_labels.read_bytes()).hexdigest()
    with files.test_labels.open("r+b") as file:
        file.seek(500)
        file.write(b"\xff")
    prepare(cache=tmp_path)
    assert hashlib.sha256(files.test_labels.read_bytes()).hexdigest() == digest


def test_another_resolution_is_another_array(tmp_path):
    files = prepare(cache=tmp_path, resolution=14)
    assert open_test(files)[0].shape == (10_000, 14, 14)


def test_a_given_directory_is_used_and_named(copy, tmp_path):
    assert prepare(path=str(copy), cache=tmp_path / "cache").source == str(copy)


def test_uncompressed_files_are_read_too(copy, tmp_path):
    for name in FASHION_MNIST:
        (copy / name).write_bytes(gzip.decompress((copy / f"{name}.gz").read_bytes()))
        (copy / f"{name}.gz").unlink()
    assert prepare(path=str(copy), cache=tmp_path / "cache").source == str(copy)


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
        prepare(path=str(copy), cache=tmp_path / "cache")
    assert "dataset-fashion-mnist" in str(caught.value)
    assert "torchvision" in str(caught.value)


def test_a_wrong_directory_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"data\.path = '/nowhere'"):
        prepare(path="/nowhere", cache=tmp_path)


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
