"""A look at each host of a cluster before anything starts: the same packages, and the checkpoints within reach.

In: the stores of a sweep, with Ray connected. Out: nothing, or a `ValueError` that names the host and the remedy.
Trials of one comparison must be trained by the same torch (DESIGN, section 4), and a trial whose host dies can go on
only where its checkpoints can be read.
"""

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweep.scheduling.sharing import Stores

_PACKAGES = ("torch", "torchvision", "numpy", "pyarrow")
_ANSWER_TIMEOUT_S = 180
_ROOM = "examination"


def examine_hosts(stores: Stores) -> None:
    nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    here = _versions()
    try:
        for node_id, found in _ask_each(nodes, _write, stores).items():
            for package, wanted in here.items():
                if found[package] != wanted:
                    raise ValueError(
                        f"host {nodes[node_id]}: has {package} {found[package] or 'not at all'}, the driver {wanted}; "
                        "trials would not compare; install the same there"
                    )
        for node_id, names in _ask_each(nodes, _read, stores).items():
            if lost := [nodes[other] for other in nodes if other not in names]:
                raise ValueError(
                    f"storage.checkpoints = {stores.place!r}: host {nodes[node_id]} does not see what "
                    f"{', '.join(lost)} wrote there; name a folder that all hosts mount, a bucket, or leave it empty"
                )
    finally:
        with suppress(OSError):  # where it cannot be reached, that has been said
            stores(_ROOM).clear()


def _ask_each(nodes: dict[str, str], question: Any, stores: Stores) -> dict[str, Any]:
    """The answer of each host, by its node's id."""
    task = ray.remote(question)
    asked = {
        node_id: task.options(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)
        ).remote(stores, node_id)
        for node_id in nodes
    }
    answers = {}
    for node_id, reference in asked.items():
        try:
            answers[node_id] = ray.get(reference, timeout=_ANSWER_TIMEOUT_S)
        except ray.exceptions.GetTimeoutError as error:
            raise ValueError(
                f"host {nodes[node_id]}: did not answer within {_ANSWER_TIMEOUT_S} s; look at Ray's logs there, or "
                "take it out of the cluster"
            ) from error
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1][:300]
            raise ValueError(
                f"host {nodes[node_id]}: cannot take part ({reason}); mend that, or take it out of the cluster"
            ) from error
    return answers


def _write(stores: Stores, node_id: str) -> dict[str, str]:
    stores(_ROOM).write(node_id, b"seen")
    return _versions()


def _read(stores: Stores, node_id: str) -> list[str]:
    return stores(_ROOM).names()


def _versions() -> dict[str, str]:
    return {"python": ".".join(platform.python_version_tuple()[:2])} | {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
