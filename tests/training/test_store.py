"""Stores: the same operations in a folder and in a bucket, whose keys come from the environment."""

import subprocess
import sys
import time

import pytest
import requests
from pyarrow import fs

from sweep.training.store import BucketStore, FolderStore, open_store, store_names

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def bucket():
    """A server of the protocol on loopback, and a bucket there."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        code = (
            "from moto.server import ThreadedMotoServer as S; s = S(port=0, verbose=False); s.start();"
            "print(s.get_host_and_port()[1], flush=True); import sys; sys.stdin.read()"
        )
        server = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        endpoint = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        for _ in range(100):
            if requests.get(endpoint, timeout=5).ok:
                break
            time.sleep(0.1)
        fs.S3FileSystem(
            endpoint_override=endpoint.removeprefix("http://"), scheme="http", allow_bucket_creation=True
        ).create_dir("sweeps")
        yield endpoint
        server.stdin.close()
        server.wait(10)
        server.stdout.close()


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    """Where stores of a test lie: opens one by its name."""
    if request.param == "folder":
        return lambda name: open_store(str(tmp_path), name)
    endpoint = request.getfixturevalue("bucket")
    return lambda name: open_store("s3://sweeps/some prefix", f"{request.node.name}/{name}", endpoint)


def test_the_kind_follows_from_the_place(bucket, tmp_path):
    assert isinstance(open_store(str(tmp_path), "a"), FolderStore)
    assert isinstance(open_store("s3://sweeps", "a", bucket), BucketStore)


def test_what_was_written_is_read_and_listed(place):
    store = place("a")
    assert store.names() == []
    store.write("two", b"\0" * 100_000)
    store.write("one", b"1")
    store.write("one", b"one")
    assert store.names() == ["one", "two"]
    assert store.read("one") == b"one"
    assert store.read("two") == b"\0" * 100_000
    assert [store.size(name) for name in store.names()] == [3, 100_000]


def test_stores_are_apart(place):
    place("a").write("one", b"1")
    place("b").write("one", b"2")
    place("a").clear()
    assert place("a").names() == []
    assert place("b").read("one") == b"2"


def test_clearing_a_bucket_leaves_no_empty_folder(bucket):
    store = open_store("s3://sweeps/cleared", "a", bucket)
    store.write("one", b"1")
    store.remove("one")
    store.write("two", b"2")
    store.clear()
    files = fs.S3FileSystem(endpoint_override=bucket.removeprefix("http://"), scheme="http")
    left = files.get_file_info(fs.FileSelector("sweeps", recursive=True))
    assert [info.path for info in left if "cleared/a" in info.path] == []


def test_removing_what_is_not_there_is_no_error(place):
    store = place("a")
    store.remove("nothing")
    store.clear()
    store.write("one", b"1")
    store.remove("one")
    store.remove("one")
    assert store.names() == []


def test_a_name_that_is_missing_raises(place):
    with pytest.raises(FileNotFoundError):
        place("a").read("nothing")
    with pytest.raises(FileNotFoundError):
        place("a").size("nothing")


@pytest.mark.parametrize("where", ["folder", "s3://sweeps/names of stores"])
def test_the_stores_of_a_place_are_listed(bucket, tmp_path, where):
    where, endpoint = (where, bucket) if where.startswith("s3://") else (str(tmp_path / where), "")
    assert store_names(where, endpoint) == []
    for name in ("b", "a"):
        open_store(where, name, endpoint).write("one", b"1")
    assert store_names(where, endpoint) == ["a", "b"]
    open_store(where, "a", endpoint).clear()
    assert store_names(where, endpoint) == ["b"]
