"""What a network begins with in place of fresh weights: those of a smaller one, which it takes over.

In: the directory of an earlier rerun, whose weights must be those that it recorded, or a file of public weights as
`torchvision:regnet_x_400mf=weights.pth`. Out: a `Source`; and for the network that begins from it, its first weights
with their `Origin`. Files are read with `weights_only=True`: reading never runs code. sweep/models/warm_start.py says
which networks can begin from which.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.rerun.choose import Candidate
from sweep.rerun.job import Job
from sweep.rerun.result import Origin
from sweep.rerun.trained import load_trained
from sweep.spaces import ZOO, Architecture, Network, network_from_json
from sweep.spaces.zoo import TORCHVISION_PREFIX
from sweep.studies import derive_seed

OPTION = "--warm-start"


@dataclass(frozen=True)
class Source:
    """Trained weights and the network that they are of."""

    name: str
    architecture: Architecture
    state: dict[str, Any]
    weights_sha256: str


@dataclass(frozen=True)
class Warm:
    """The first weights of a network, and where they are from."""

    state: dict[str, Any]
    origin: Origin


def open_source(text: str) -> Source:
    """Raises `ValueError` where there is nothing, or nothing that a network can begin from."""
    if text.startswith(TORCHVISION_PREFIX):
        return _public(text)
    folder = Path(text).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"{OPTION} = {text!r}: is no directory; name that of an earlier rerun (RUN/rerun/ID), or public weights "
            f"as {TORCHVISION_PREFIX}regnet_x_400mf=weights.pth"
        )
    network, state, digest = load_trained(OPTION, folder)
    return Source(f"rerun {folder.resolve().name}", _growing(text, network), state, digest)


def _public(text: str) -> Source:
    from sweep.models.torchvision import torchvision_weights

    name, equals, file = text.partition("=")
    path = Path(file).expanduser()
    if not equals or not path.is_file():
        raise ValueError(
            f"{OPTION} = {text!r}: {f'{file!r} is no file' if equals else 'names no file'}; write "
            f"{TORCHVISION_PREFIX}regnet_x_400mf=weights.pth, with the file that you downloaded"
        )
    try:
        state = torchvision_weights(name, path)
    except ValueError as error:
        raise ValueError(f"{OPTION}: {error}") from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Source(name, _growing(text, ZOO[name]), state, digest)


def _growing(text: str, network: Network) -> Architecture:
    if not isinstance(network, Architecture):
        raise ValueError(
            f"{OPTION} = {text!r}: is a {type(network).__name__.lower()}, and only networks of convolutions can be "
            "widened or deepened; name another, or leave it out"
        )
    return network


def refuse_misfit(source: Source, candidate: Candidate, *, channels: int, classes: int) -> None:
    """Raises `ValueError` where the network cannot begin from the source: it must be the same, larger."""
    _grown(source, candidate, seed=0, channels=channels, classes=classes)


def warm_state(source: Source, candidate: Candidate, job: Job, channels: int) -> Warm:
    """The weights that the training of `job` begins with; what the source lacks is drawn from the job's own seed."""
    return _grown(source, candidate, seed=derive_seed(job.seed, "weights"), channels=channels, classes=job.num_classes)


def _grown(source: Source, candidate: Candidate, *, seed: int, channels: int, classes: int) -> Warm:
    import torch

    from sweep.models.warm_start import widen_or_deepen

    large = network_from_json(candidate.architecture)
    if not isinstance(large, Architecture):
        raise ValueError(
            f"{OPTION}: {candidate.trial_id} is a {type(large).__name__.lower()}, and only networks of convolutions "
            "can begin from a smaller one; leave it out"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            grown = widen_or_deepen(source.architecture, source.state, large, channels=channels, classes=classes)
        except ValueError as error:
            raise ValueError(f"{OPTION}: {candidate.trial_id} cannot begin from {source.name}: {error}") from error
    origin = Origin(
        source.name, source.architecture.id, source.weights_sha256, grown.num_whole, grown.num_part, grown.num_fresh
    )
    return Warm(grown.state, origin)
