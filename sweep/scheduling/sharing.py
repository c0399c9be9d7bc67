"""What the hosts of a cluster share without a file system in common: the images, and the trials' checkpoints.

In: arrays in the driver's cache, and a profile's storage. Out: two small objects that travel to workers. `Images`
answers paths on the host that asks: an array that its own cache lacks comes from the driver's host once, a chunk at a
time, and all its trials map that copy. `Stores` opens a trial's checkpoints where the profile says; where it says
nothing they lie with the driver, and an actor there carries them.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.profile import Storage
from sweep.training.data import DataFiles
from sweep.training.data import cache as images
from sweep.training.data.cache import Layout
from sweep.training.data.checking import is_kept, verify
from sweep.training.store import FolderStore, Store, open_store, store_names


@dataclass(frozen=True)
class _Array:
    """What a host must have: an array of this layout, whose chunks have these sums."""

    layout: Layout
    sums: tuple[str, ...]


@dataclass(frozen=True)
class Images:
    """`by_name`: paths on the driver's host `home`, by the name of a scale. `reader` reads there for other hosts. The
    test images stay there."""

    by_name: Mapping[str, DataFiles]
    home: str = ""
    arrays: Mapping[Path, _Array] = field(default_factory=dict)
    reader: Any = None

    def files(self, name: str) -> DataFiles:
        """Paths on the host that asks."""
        files = self.by_name[name]
        if not self.arrays or _this_node() == self.home:
            return files
        return replace(
            files, train_images=self._kept_here(files.train_images), train_labels=self._kept_here(files.train_labels)
        )

    def _kept_here(self, path: Path) -> Path:
        array = self.arrays[path]
        key = path, array.sums
        if key not in _kept:  # a worker trains many trials; one look at the file is enough
            _kept[key] = _fetched(path, array, self.reader)
        return _kept[key]


_kept: dict[tuple[Path, tuple[str, ...]], Path] = {}


def share_images(by_name: Mapping[str, DataFiles]) -> Images:
    """The arrays as any host reaches them."""
    paths = {path for files in by_name.values() for path in (files.train_images, files.train_labels)}
    arrays = {path: _Array(Layout.of(path), images.recorded_sums(path)) for path in paths}
    return Images(dict(by_name), _this_node(), arrays, _on_this_node(_Reader))


def _this_node() -> str:
    return ray.get_runtime_context().get_node_id()


def _on_this_node(kind: type, *arguments: Any) -> Any:
    """An actor that stays on this host."""
    return (
        ray.remote(kind)
        .options(  # type: ignore[attr-defined]
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=3,  # each operation can be done twice
            max_concurrency=4,
            scheduling_strategy=NodeAffinitySchedulingStrategy(_this_node(), soft=False),
        )
        .remote(*arguments)
    )


class _Reader:
    def rows(self, path: Path, first: int, end: int) -> np.ndarray:
        return np.load(path, mmap_mode="r")[first:end]


def _fetched(path: Path, array: _Array, reader: Any) -> Path:
    """The host's own copy, checked; fetched chunk by chunk by the first of its processes while the others wait."""
    folder = _writable_cache() / path.parent.name
    here = folder / path.name
    with images.locked(folder):
        if not is_kept(here, array.sums):
            images.build(
                here,
                array.layout.shape,
                array.layout.dtype,
                lambda first, end: ray.get(reader.rows.remote(path, first, end)),
                sums=array.sums,
            )
            verify(here)
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
    return Stores(str(folder), home=_this_node(), keeper=_on_this_node(_Keeper, str(folder)))
