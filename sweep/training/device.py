"""The device that a trial trains on, and its share of it: several small networks fit onto one card.

In: `gpus_per_trial`, a fraction of a card. Out: an allocator that keeps to it, and, where a network needs more, an
error that says so instead of one that takes the neighbours' memory first.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fits(images: torch.Tensor, device: torch.device) -> bool:
    """Whether all images may stay on the device: on a card they may take half of its free memory."""
    return device.type == "cpu" or images.nbytes < torch.cuda.mem_get_info(device)[0] / 2


def limit_to_share(gpus_per_trial: float) -> None:
    """Let this process take that fraction of its card's memory and no more; nothing to do without a card."""
    if 0 < gpus_per_trial < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(gpus_per_trial)


@contextmanager
def explained(gpus_per_trial: float) -> Iterator[None]:
    """Turns the allocator's error into a `RuntimeError` with what does not fit and what to change."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        share = f"{gpus_per_trial:g} of a card" if gpus_per_trial else "its device"
        raise RuntimeError(
            f"the trial does not fit into {share} (gpus_per_trial = {gpus_per_trial:g} in the profile): raise it, or "
            f"lower recipe.batch_size in the study. {str(error).splitlines()[0]}"
        ) from error
