"""A Ray to train on: one of this process's own, or a cluster that stands.

In: a profile. Out: a connection for the length of a `with`, and how many trials fit at once. A Ray of our own ends
with the `with`; a cluster stays, and gets this project's code for the workers, unless a Ray job brought it already.
"""

import logging
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import code
from cluster.keys import ensure_token, in_environment, ray_environment, require_token, token_file
from cluster.node import QUIET
from cluster.profile import AUTO, LOCAL, Profile, check_answers

_QUIET = QUIET | {
    "RAY_AIR_NEW_OUTPUT": "0",  # its other output engine prints a box even when told to be silent
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    # A snapshot of the experiment is of no use to us and costs driver time with each trial.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
}
_OBJECT_STORE_BYTES = 200_000_000
_WORKER_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Slots:
    """How many trials run at once, what each occupies, and over how many hosts."""

    concurrent: int
    cpus_per_trial: float
    gpus_per_trial: float
    num_nodes: int = 1


@contextmanager
def ray_session(profile: Profile, run_dir: Path) -> Iterator[Slots]:
    """Raises `ValueError` where the cluster does not answer, wants another token, or no trial fits on any host."""
    os.environ.update({key: value for key, value in _QUIET.items() if key not in os.environ})
    with _local(profile, run_dir) if profile.address == LOCAL else _cluster(profile):
        import ray

        try:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            yield slots(profile, nodes)
        finally:
            try:
                ray.shutdown()
            except KeyboardInterrupt:
                ray.shutdown()  # left half done, it would complain when Python ends
                raise


@contextmanager
def _local(profile: Profile, run_dir: Path) -> Iterator[None]:
    """Ray listens on every address of the machine, so its ports want a token: no one else there or on the network
    can run code through them (CVE-2023-48022). It is this session's own, for this user alone."""
    token = run_dir / ".ray-token"
    token.unlink(missing_ok=True)
    with in_environment(ray_environment(ensure_token(token))):
        import ray

        try:
            ray.init(
                address=LOCAL,
                num_cpus=profile.num_cpus or None,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=_OBJECT_STORE_BYTES,
                runtime_env={
                    # Ray hands it to a shell: a path with a space or a quote must come quoted.
                    "py_executable": shlex.quote(sys.executable),
                    "env_vars": _WORKER_ENVIRONMENT,
                },
            )
            yield
        finally:
            token.unlink(missing_ok=True)


def check_cluster(profile: Profile) -> tuple[str, Path]:
    """The address of a profile's Ray and the file of its token, "" and no file's for a Ray of one's own.

    Raises `ValueError` where nothing answers there, this host has no token, or certificates are missing.
    """
    if profile.address == LOCAL:
        return "", Path()
    # Within a job it is the one that the cluster's own hosts know.
    address = os.environ.get("RAY_ADDRESS", AUTO) if _in_ray_job() else profile.address
    if address != AUTO:
        check_answers(address, f"--on {profile.name}: address")
    token = require_token(token_file(profile.security.token_path))
    ray_environment(token, profile.security.tls_dir)
    return address, token


@contextmanager
def _cluster(profile: Profile) -> Iterator[None]:
    address, token = check_cluster(profile)
    with in_environment(ray_environment(token, profile.security.tls_dir)), tempfile.TemporaryDirectory() as folder:
        import ray

        environment: dict[str, Any] = {"env_vars": _WORKER_ENVIRONMENT}
        if not _in_ray_job():
            code.copy_to(Path(folder))
            environment["working_dir"] = folder
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=environment)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"profile {profile.name!r}: address = {address!r} does not let us in ({_first_line(error)}); this host "
                "must be one of the cluster's (elsewhere use `sweep submit`), with its token "
                f"({token}) and, if it wants TLS, its certificates"
            ) from error
        yield


def _in_ray_job() -> bool:
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]


def slots(profile: Profile, nodes: list[Mapping[str, float]]) -> Slots:
    """How many trials fit: a trial lies on one host, and a fraction of a card on one card.

    `nodes`: what each host offers, as Ray counts it. Raises `ValueError` where none fits.
    """
    gpus_per_trial = profile.gpus_per_trial
    if gpus_per_trial == "auto":
        gpus_per_trial = float(any(node.get("GPU", 0) for node in nodes))
    concurrent = sum(_fitting(node, profile.cpus_per_trial, gpus_per_trial) for node in nodes)
    if concurrent < 1:
        offers = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes) or "none"
        raise ValueError(
            f"profile {profile.name!r}: cpus_per_trial = {profile.cpus_per_trial:g} and gpus_per_trial = "
            f"{gpus_per_trial:g} do not fit any host ({offers}); lower them"
        )
    return Slots(concurrent, profile.cpus_per_trial, gpus_per_trial, len(nodes))


def _fitting(node: Mapping[str, float], cpus_per_trial: float, gpus_per_trial: float) -> int:
    fitting = int(node.get("CPU", 0) / cpus_per_trial)
    if gpus_per_trial >= 1:
        return min(fitting, int(node.get("GPU", 0) / gpus_per_trial))
    if gpus_per_trial > 0:
        return min(fitting, int(node.get("GPU", 0)) * int(1 / gpus_per_trial))
    return fitting
