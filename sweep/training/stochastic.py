"""Networks that draw numbers while they train: dropout, stochastic depth.

Such modules draw from the generator of the process, which trials share. So each step draws from a seed of its own, and
leaves the generator as it was: a trial is the same whatever else the process does, and goes on bit for bit.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def is_stochastic(network: nn.Module) -> bool:
    """Whether a module of it is torch's dropout, or says so of itself by an attribute `is_stochastic`."""
    return any(isinstance(one, _DROPOUT) or getattr(one, "is_stochastic", False) for one in network.modules())


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Within it, what is drawn on the CPU and on `device` without a generator comes from `seed`."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
