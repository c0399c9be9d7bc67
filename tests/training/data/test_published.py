"""MNIST, CIFAR and SVHN as torchvision stores them: tiny, but in the real formats, under sums of our own."""

import gzip
import hashlib
import pickle
import shutil
import struct

import numpy as np
import pytest
import torchvision
from scipy.io import savemat

from sweep.studies import PUBLISHED, Data
from sweep.training.data import find_source, open_split, open_test, prepare, published

NUM = {"train": 40, "test": 12}
FEW = {"num_train": 20, "num_validation": 10}


def pixels(part, shape):
    return np.random.default_rng(len(part)).integers(0, 256, (NUM[part], *shape)).astype(np.uint8)


def labels(part, num_classes=10):
    return np.arange(NUM[part]) % num_classes


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_mnist(root, monkeypatch):
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part, name in (("train", "train"), ("test", "t10k")):
        images = struct.pack(">IIII", 2051, NUM[part], 28, 28) + pixels(part, (28, 28)).tobytes()
        (folder / f"{name}-images-idx3-ubyte").write_bytes(images)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 2049, NUM[part]) + labels(part).astype(np.uint8).tobytes()
        )
    monkeypatch.setattr(published, "MNIST", {path.name: md5(path) for path in sorted(folder.iterdir())})


def write_cifar(root, monkeypatch, reader, key):
    """As its authors did: planes of red, green and blue, pickled by the name that the reader looks for."""
    folder = root / reader.base_folder
    folder.mkdir(parents=True)
    num_classes = 10 if key == "labels" else 100
    for part, listed in (("train", reader.train_list), ("test", reader.test_list)):
        images = pixels(part, (32, 32, 3)).transpose(0, 3, 1, 2).reshape(NUM[part], -1)
        for (name, _), rows in zip(listed, np.array_split(np.arange(NUM[part]), len(listed))):
            content = {"data": images[rows], key: labels(part, num_classes)[rows].tolist()}
            (folder / name).write_bytes(pickle.dumps(content))
    (folder / reader.meta["filename"]).write_bytes(pickle.dumps({reader.meta["key"]: ["a class"]}))
    for attribute in ("train_list", "test_list"):
        listed = [[name, md5(folder / name)] for name, _ in getattr(reader, attribute)]
        monkeypatch.setattr(reader, attribute, listed)
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": md5(folder / reader.meta["filename"])})


def write_svhn(root, monkeypatch):
    root.mkdir(parents=True, exist_ok=True)
    listed = dict(torchvision.datasets.SVHN.split_list)
    for part in NUM:
        digits = np.where(labels(part) == 0, 10, labels(part))  # the file says 10 for the digit 0
        savemat(
            root / f"{part}_32x32.mat", {"X": pixels(part, (32, 32, 3)).transpose(1, 2, 3, 0), "y": digits[:, None]}
        )
        listed[part] = [listed[part][0], f"{part}_32x32.mat", md5(root / f"{part}_32x32.mat")]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", listed)


WRITERS = {
    "mnist": write_mnist,
    "cifar10": lambda root, patch: write_cifar(root, patch, torchvision.datasets.CIFAR10, "labels"),
    "cifar100": lambda root, patch: write_cifar(root, patch, torchvision.datasets.CIFAR100, "fine_labels"),
    "svhn": write_svhn,
}


@pytest.fixture(params=WRITERS)
def name(request):
    return request.param


@pytest.fixture
def root(name, tmp_path, monkeypatch):
    folder = tmp_path / "with space ’"
    WRITERS[name](folder, monkeypatch)
    return folder


def a_file_of(root):
    return max((path for path in root.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_arrays_are_those_of_the_files(name, root, tmp_path):
    known = PUBLISHED[name]
    side = 28 if known.num_channels == 1 else 32
    files = prepare(Data(name=name, path=str(root), **FEW), resolution=side, cache=tmp_path / "cache")
    split = open_split(files, seed=0, **FEW)
    shape = (side, side) if known.num_channels == 1 else (side, side, 3)
    assert np.array_equal(split.images, pixels("train", shape))
    assert np.array_equal(split.labels, labels("train", known.num_classes))
    assert split.labels.dtype == np.uint8
    assert split.num_channels == known.num_channels
    images, test_labels, index = open_test(files)
    assert np.array_equal(images, pixels("test", shape))
    assert np.array_equal(test_labels, labels("test", known.num_classes))
    assert index.tolist() == list(range(12))
    assert files.source == str(root)


def test_colour_is_resized_channel_by_channel(tmp_path, monkeypatch):
    write_svhn(tmp_path, monkeypatch)
    files = prepare(Data(name="svhn", path=str(tmp_path), **FEW), resolution=16, cache=tmp_path / "cache")
    images = open_test(files)[0]
    assert images.shape == (12, 16, 16, 3)
    means = pixels("test", (32, 32, 3)).mean((1, 2))
    assert np.abs(images.mean((1, 2)) - means).max() < 8


def test_the_statistics_are_those_of_each_channel(tmp_path, monkeypatch):
    write_svhn(tmp_path, monkeypatch)
    files = prepare(Data(name="svhn", path=str(tmp_path), **FEW), resolution=32, cache=tmp_path / "cache")
    split = open_split(files, seed=1, **FEW)
    chosen = pixels("train", (32, 32, 3))[split.train] / 255
    assert split.mean == pytest.approx(tuple(chosen.mean((0, 1, 2))), abs=1e-12)
    assert split.std == pytest.approx(tuple(chosen.std((0, 1, 2))), abs=1e-12)


@pytest.mark.parametrize("how", ["missing", "cut"])
def test_what_is_missing_or_damaged_is_named_with_the_remedies(name, root, tmp_path, how):
    path = a_file_of(root)
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=path.name) as caught:
        prepare(Data(name=name, path=str(root), **FEW), cache=tmp_path / "cache")
    assert PUBLISHED[name].title in str(caught.value)
    assert "let torchvision download" in str(caught.value)


def test_a_pickle_without_the_published_sum_is_not_read(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch, torchvision.datasets.CIFAR10, "labels")
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="data_batch_1"):
        prepare(Data(name="cifar10", path=str(tmp_path), **FEW), cache=tmp_path / "cache")
    assert not (tmp_path / "pwned").exists()


def test_what_torchvision_downloaded_is_found_in_the_cache(name, root, tmp_path, monkeypatch):
    monkeypatch.delenv("SWEEP_DATA_DIR", raising=False)
    cache = tmp_path / "cache"
    assert find_source(Data(name=name, **FEW), cache) is None
    shutil.copytree(root, cache / name)
    assert find_source(Data(name=name, **FEW), cache) == cache / name


def test_without_the_internet_the_download_says_what_to_do(name, tmp_path, monkeypatch):
    def away(*_, **__):
        raise OSError("no network")

    monkeypatch.delenv("SWEEP_DATA_DIR", raising=False)
    monkeypatch.setattr("urllib.request.urlopen", away)
    with pytest.raises(ValueError, match=f"{PUBLISHED[name].title} is not on this machine and could not be downloaded"):
        prepare(Data(name=name, **FEW), cache=tmp_path)


def test_mnist_is_read_compressed_too_and_is_not_taken_for_fashion_mnist(tmp_path, monkeypatch):
    write_mnist(tmp_path, monkeypatch)
    folder = tmp_path / "MNIST" / "raw"
    for path in list(folder.iterdir()):
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    prepare(Data(name="mnist", path=str(folder), **FEW), cache=tmp_path / "cache")
    with pytest.raises(ValueError, match="its SHA-256 is not the published one"):
        prepare(Data(path=str(folder)), cache=tmp_path / "cache")


def test_the_published_sizes_leave_room_for_validation():
    for name, known in PUBLISHED.items():
        data = Data(name=name)
        assert data.num_train + data.num_validation == known.num_images
        assert (data.num_classes, data.num_channels) == (known.num_classes, known.num_channels)
