"""What hosts share: on one host here, which stands for another one too (tests/end_to_end has real ones)."""

import os
from dataclasses import replace

import numpy as np
import pytest
import ray
from training.data.arrays import save_array

from cluster import Profile, ray_session
from cluster.profile import Storage
from sweep.scheduling import hosts, sharing
from sweep.training.data import DataFiles, cache


@pytest.fixture(scope="module", autouse=True)
def connected(tmp_path_factory):
    with ray_session(Profile(name="here", num_cpus=1), tmp_path_factory.mktemp("run")):
        yield


@pytest.fixture
def files(tmp_path):
    """A data set in the driver's cache."""
    folder = tmp_path / "driver" / "set-1"
    for name in ("train-images", "train-labels"):
        save_array(folder / f"{name}.npy", np.arange(60, dtype=np.uint8).reshape(15, 4))
    absent = folder / "test.npy"
    return DataFiles(folder / "train-images.npy", folder / "train-labels.npy", absent, absent, "here", "1")


def as_on_another_host(shared):
    return replace(shared, home="another host")


def test_the_drivers_host_maps_its_own_files(files):
    assert sharing.share_images({"small": files}).files("small") == files


def test_another_host_fetches_each_array_once(files, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    shared = as_on_another_host(sharing.share_images({"small": files}))
    here = shared.files("small")
    assert here.train_images == tmp_path / "other" / "designspace-sweep" / "set-1" / "train-images.npy"
    assert np.array_equal(np.load(here.train_images), np.load(files.train_images))
    written = os.stat(here.train_images).st_mtime_ns
    sharing._kept.clear()  # as another process of that host
    shared.files("small")
    assert os.stat(here.train_images).st_mtime_ns == written

    here.train_images.write_bytes(b"damaged")
    sharing._kept.clear()
    shared.files("small")
    assert np.array_equal(np.load(here.train_images), np.load(files.train_images))


def test_another_host_mends_the_chunk_that_is_damaged(files, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    monkeypatch.setattr(cache, "CHUNK_BYTES", 16)  # four rows
    for path in (files.train_images, files.train_labels):
        save_array(path, np.load(path))
    shared = as_on_another_host(sharing.share_images({"small": files}))
    here = shared.files("small")
    assert len(cache.recorded_sums(here.train_images)) == 4
    with here.train_images.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"?")
    sharing._kept.clear()
    written, write = [], cache._write
    monkeypatch.setattr(
        cache, "_write", lambda file, layout, chunk, rows: written.append(chunk) or write(file, layout, chunk, rows)
    )
    shared.files("small")
    assert written == [3]
    assert np.array_equal(np.load(here.train_images), np.load(files.train_images))


def test_a_host_whose_home_is_read_only_keeps_them_among_its_temporary_files(files, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nothing")
    monkeypatch.setattr(sharing.tempfile, "gettempdir", lambda: str(tmp_path))
    sharing._kept.clear()
    here = as_on_another_host(sharing.share_images({"small": files})).files("small")
    assert here.train_labels.is_relative_to(tmp_path / f"designspace-sweep-{os.geteuid()}")
    assert (tmp_path / f"designspace-sweep-{os.geteuid()}").stat().st_mode & 0o077 == 0


def test_checkpoints_are_carried_to_the_driver(tmp_path):
    stores = sharing.share_stores(Storage(), tmp_path, "sweep-1")
    far = sharing.Stores(stores.place, home="another host", keeper=stores.keeper)("trial")
    assert far.names() == []
    far.write("one", b"\0" * 1_000_000)
    far.write("two", b"2")
    assert far.names() == stores("trial").names() == ["one", "two"]
    assert far.read("one") == b"\0" * 1_000_000
    far.remove("one")
    assert (tmp_path / "trial" / "two").read_bytes() == b"2"
    far.clear()
    assert not (tmp_path / "trial").exists()


def test_a_store_may_be_made_on_the_drivers_host_and_used_on_another(tmp_path, monkeypatch):
    made_here = sharing.share_stores(Storage(), tmp_path, "sweep-1")("trial")
    monkeypatch.setattr(sharing, "_this_node", lambda: "another host")
    monkeypatch.setattr(sharing, "open_store", None)  # nothing of this host's own is touched
    made_here.write("one", b"1")
    assert (tmp_path / "trial" / "one").read_bytes() == b"1"


def test_named_storage_keeps_sweeps_apart(tmp_path):
    stores = sharing.share_stores(Storage(checkpoints=f"{tmp_path}/"), tmp_path / "driver", "sweep-1")
    assert stores.keeper is None
    stores("trial").write("one", b"1")
    assert (tmp_path / "sweep-1" / "trial" / "one").read_bytes() == b"1"


def test_hosts_of_one_kind_may_take_part_and_nothing_is_left_of_the_look(tmp_path):
    hosts.examine_hosts(sharing.local_stores(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_host_with_another_torch_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(hosts, "_versions", lambda: {"torch": "1.0"})  # the driver's: hosts import their own
    with pytest.raises(ValueError, match=rf"host {os.uname().nodename}: has torch .*the driver 1\.0.*install the same"):
        hosts.examine_hosts(sharing.local_stores(tmp_path))


def test_a_bucket_that_does_not_answer_is_named():
    with pytest.raises(ValueError, match=rf"host {os.uname().nodename}: cannot take part"):
        hosts.examine_hosts(sharing.Stores("s3://bucket/prefix", endpoint="http://127.0.0.1:1"))


def test_storage_that_cannot_be_written_is_named():
    with pytest.raises(ValueError, match=r"cannot take part .*nothing"):
        hosts.examine_hosts(sharing.Stores("/proc/nothing"))
    assert ray.is_initialized()
