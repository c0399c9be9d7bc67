"""What the hosts of a cluster share without a file system in common: the images, and the trials' checkpoints.

In: arrays in the driver's cache, and a profile's storage. Out: two small objects that travel to workers. `Images`
answers paths on the host that asks: an array that its own cache lacks comes once through Ray's object store, and all
its trials map that copy. `Stores` opens a trial's checkpoints where the profile says; where it says nothing they lie
with the driver, and an actor there carries them.
"""

import fcntl
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.profile import Storage
from sweep.training import data as images
from sweep.training.data import DataFiles
from sweep.training.store import FolderStore, Store, open_store, store_names


@dataclass(frozen=True)
class _Array:
    """`digest`: SHA-256 of the file. `reference`: the array in Ray's object store."""

    digest: str
    reference: Any


@dataclass(frozen=True)
class Images:
    """`by_name`: paths on the driver's host, by the name of a scale. The test images stay there."""

    by_name: Mapping[str, DataFiles]
    home: str = ""
    arrays: Mapping[Path, _Array] = field(default_factory=dict)

    def files(self, name: str) -> DataFiles:
        """Paths on the host that asks."""
        files = self.by_name[name]
        if not self.arrays or _this_node() == self.home:
            return files
        return replace(
            files,
            train_images=_kept_here(files.train_images, self.arrays),
            train_labels=_kept_here(files.train_labels, self.arrays),
        )


def share_images(by_name: Mapping[str, DataFiles]) -> Images:
    """Put each array into Ray's object store once, for the hosts that lack it."""
    paths = {path for files in by_name.values() for path in (files.train_images, files.train_labels)}
    arrays = {path: _Array(images.recorded_digest(path), ray.put(np.load(path, mmap_mode="r"))) for path in paths}
    return Images(dict(by_name), _this_node(), arrays)


def _this_node() -> str:
    return ray.get_runtime_context().get_node_id()


def _kept_here(path: Path, arrays: Mapping[Path, _Array]) -> Path:
    array = arrays[path]
    return _fetched(path, array.digest, array.reference)


@cache  # a worker trains many trials; one look at the file is enough
def _fetched(path: Path, digest: str, reference: Any) -> Path:
    """The host's own copy, checked; fetched by the first of its processes while the others wait."""
    folder = _writable_cache() / path.parent.name
    folder.mkdir(exist_ok=True)
    here = folder / path.name
    with (folder / f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not images.is_intact(here, digest):
            images.save_array(here, ray.get(reference))
    return here


def _writable_cache() -> Path:
    try:
        folder = images.cache_dir()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:  # a home directory that is read-only, as in a container
        folder = Path(tempfile.gettempdir()) / f"designspace-sweep-{os.geteuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.geteuid():
            raise RuntimeError(f"data: {folder} belongs to another user; set XDG_CACHE_HOME for Ray's hosts") from None
        return folder


# -- checkpoints -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stores:
    """Names stores for any host. `keeper` carries blobs to a folder of the host `home`; None: all reach `place`."""

    place: str
    endpoint: str = ""
    home: str = ""
    keeper: Any = None

    def __call__(self, name: str) -> Store:
        return SharedStore(self, name)

    def names(self) -> list[str]:
        """The stores that hold something, asked where `keeper` is or `place` is reached."""
        return store_names(self.place, self.endpoint)


class SharedStore:
    """A store that may be made on one host and used on another: each operation looks where it is."""

    def __init__(self, stores: Stores, name: str):
        self._stores, self._name = stores, name

    def names(self) -> list[str]:
        return self._do("names")

    def read(self, name: str) -> bytes:
        return self._do("read", name)

    def write(self, name: str, content: bytes) -> None:
        self._do("write", name, content)

    def remove(self, name: str) -> None:
        self._do("remove", name)

    def size(self, name: str) -> int:
        return self._do("size", name)

    def clear(self) -> None:
        self._do("clear")

    def _do(self, operation: str, *arguments: Any) -> Any:
        stores = self._stores
        if stores.keeper is None or _this_node() == stores.home:
            return getattr(_opened(stores.place, self._name, stores.endpoint), operation)(*arguments)
        return ray.get(stores.keeper.do.remote(self._name, operation, *arguments))


@lru_cache(maxsize=64)  # a connection to a bucket is worth keeping
def _opened(place: str, name: str, endpoint: str) -> Store:
    return open_store(place, name, endpoint)


class _Keeper:
    def __init__(self, place: str):
        self._place = Path(place)

    def do(self, name: str, operation: str, *arguments: Any) -> Any:
        return getattr(FolderStore(self._place / name), operation)(*arguments)


def local_stores(folder: Path) -> Stores:
    """For a Ray that is this host alone."""
    return Stores(str(folder))


def share_stores(storage: Storage, folder: Path, sweep_id: str) -> Stores:
    """`folder` is the driver's; `sweep_id` keeps sweeps apart in storage that several use."""
    if storage.checkpoints:
        return Stores(f"{storage.checkpoints.rstrip('/')}/{sweep_id}", storage.endpoint)
    home = _this_node()
    keeper = (
        ray.remote(_Keeper)
        .options(  # type: ignore[attr-defined]
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=3,  # each operation can be done twice
            max_concurrency=4,
            scheduling_strategy=NodeAffinitySchedulingStrategy(home, soft=False),
        )
        .remote(str(folder))
    )
    return Stores(str(folder), home=home, keeper=keeper)
