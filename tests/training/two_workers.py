"""Training in one or two processes that gloo joins, without Ray; the processes are spawned, so this is no test file."""

import multiprocessing
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from sweep.spaces import Architecture
from sweep.studies import Recipe
from sweep.training import trial as trial_module
from sweep.training.data import Split
from sweep.training.distributed import Share
from sweep.training.trial import Trial


def train(
    folder: Path, num_workers: int, network: Architecture, split: Split, **recipes: Recipe
) -> list[dict[str, Any]]:
    """What each worker ends with, by rank: the losses and the network's state by the names of the recipes.

    From the one that is called "double" on, in this order, they train in double precision.
    """
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_work, args=(folder, rank, num_workers, network, split, recipes))
        for rank in range(num_workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * num_workers
    return [torch.load(folder / f"{num_workers}-{rank}.pt", weights_only=True) for rank in range(num_workers)]


def _work(
    folder: Path, rank: int, num_workers: int, network: Architecture, split: Split, recipes: dict[str, Recipe]
) -> None:
    if num_workers > 1:
        rendezvous = f"file://{folder}/rendezvous"
        distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=num_workers)
    ends: dict[str, Any] = {}
    for name, recipe in recipes.items():
        if name == "double":
            _compute_in_double_precision()  # for the rest of the process
        trial = Trial(network, recipe, split, num_epochs=2, seed=1, share=Share(rank, num_workers))
        losses = [result.train_loss for result in trial.run()]
        ends[name] = {"losses": losses, "network": trial.network.state_dict()}
    torch.save(ends, folder / f"{num_workers}-{rank}.pt")
    if num_workers > 1:
        distributed.barrier()
        distributed.destroy_process_group()


def _compute_in_double_precision() -> None:
    """In which rounding has no time to grow: what is left of a difference is a difference of the method."""
    build, normalised = trial_module.build, Trial.normalised
    trial_module.build = lambda *args, **options: build(*args, **options).double()
    Trial.normalised = lambda self, images: normalised(self, images).double()  # type: ignore[method-assign]
    torch.Tensor.float = lambda self: self.double()  # type: ignore[method-assign, assignment]
