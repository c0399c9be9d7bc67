"""One trial: a network, a recipe and a split go in, a result for each epoch comes out. No Ray, no MLflow.

The loop is plain: a batch is indexed from the mapped images, augmented on the tensor, and one step of the recipe's
optimiser is taken at its schedule's rate. Every epoch draws its order and its augmentation from `(seed, epoch)`, and
every step what its network draws from `(seed, epoch, step)`, so after an epoch nothing random needs to be saved:
weights and the optimiser's state are the whole state. Between two steps of an epoch the state of its generator, its
losses and its seconds so far belong to it. A trial that resumes from either continues bit for bit on a CPU. With a
`Share`, the trial is one of several workers that train the network together (sweep/training/distributed.py).

Whoever runs a trial can have the word between two steps (`pause_s`), to say that it is alive, to save its state, or
to end it: each `Tick` is a place to stop at. What the caller does meanwhile counts to no epoch's time.

Shapes: B batch, C channels, H height, W width.
"""

import math
import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sweep.models import build
from sweep.spaces import Network
from sweep.studies import Recipe, derive_seed
from sweep.training.augment import augment, draw_mixing, mixup
from sweep.training.data import PerChannel, Split
from sweep.training.device import fits, pick_device
from sweep.training.distributed import ALONE, Share
from sweep.training.optimizers import optimizer_of
from sweep.training.results import EpochResult, Tick
from sweep.training.schedule import learning_rate
from sweep.training.stochastic import is_stochastic, seeded

_EVAL_BATCH = 500


class ForeignStateError(ValueError):
    """A state in the middle of an epoch whose steps are not those of this trial."""


@dataclass
class _EpochSoFar:
    """What an epoch has come to between two of its steps. `generator` draws the augmentation of the next one."""

    generator: torch.Generator
    loss_sum: Tensor
    step: int = 0
    train_time_s: float = 0.0


class _Pace:
    """When the caller is due to get the word, and the seconds at work between two looks at the clock."""

    def __init__(self, pause_s: float | None):
        self._pause_s = math.inf if pause_s is None else pause_s
        self.resume()

    def resume(self) -> None:
        """The caller has given the word back."""
        self._resumed_at = self._looked_at = time.monotonic()

    def is_due(self) -> bool:
        return time.monotonic() - self._resumed_at >= self._pause_s

    def lap_s(self) -> float:
        before, self._looked_at = self._looked_at, time.monotonic()
        return self._looked_at - before


class Trial:
    """Trains one architecture. `seed` sets the initial weights and, with the epoch, order and augmentation.

    Every batch of an epoch, the last one too, must hold an image for each worker.
    """

    def __init__(
        self,
        architecture: Network,
        recipe: Recipe,
        split: Split,
        *,
        num_epochs: int,
        seed: int,
        num_classes: int = 10,
        device: torch.device | None = None,
        share: Share = ALONE,
    ):
        self.recipe, self.split, self.num_epochs, self.seed, self.share = recipe, split, num_epochs, seed, share
        assert share.num_workers <= recipe.smallest_batch(len(split.train))
        self.device = device or pick_device()
        if self.device.type == "cpu":
            # More threads than a trial's one core make a step up to thirty times slower beside a busy neighbour.
            torch.set_num_threads(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "weights"))
            resolution = split.images.shape[1]
            network = build(architecture, resolution=resolution, channels=split.num_channels, classes=num_classes)
        network = network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = share.synchronised(network, self.device)
        self._replica = share.replica(self.network, self.device)
        self.optimizer = optimizer_of(recipe, self.network.parameters())
        self._num_classes, self._is_stochastic = num_classes, is_stochastic(self.network)
        self.epoch = 0
        self._so_far: _EpochSoFar | None = None
        self._images = torch.from_numpy(split.images)
        self._labels = torch.from_numpy(split.labels.astype(np.int64)).to(self.device)  # of 16 bits, torch indexes few
        if fits(self._images, self.device):  # resident: copied once, augmented there; else each batch is brought there
            self._images = self._images.to(self.device)
        self._mean, self._std = (_per_channel(value, self.device) for value in (split.mean, split.std))

    @property
    def steps_per_epoch(self) -> int:
        return self.recipe.num_steps(len(self.split.train))

    @property
    def step(self) -> int:
        """Steps done of the epoch after `epoch`."""
        return self._so_far.step if self._so_far else 0

    def state_dict(self) -> dict[str, Any]:
        """All that the rest depends on, at a `Tick` too; tensors and plain numbers only, for `weights_only=True`."""
        state: dict[str, Any] = {
            "epoch": self.epoch,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        if self._so_far:
            assert self.share.num_workers == 1  # each of several has a sum of losses of its own
            state["so_far"] = {
                **vars(self._so_far),
                "generator": self._so_far.generator.get_state(),
                "batch_size": self.recipe.batch_size,
                "device": self.device.type,
            }
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises `ForeignStateError`, before anything is changed, where the steps of an epoch begun do not fit."""
        so_far = self._load_epoch_so_far(dict(state["so_far"])) if "so_far" in state else None
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self._so_far = state["epoch"], so_far

    def _load_epoch_so_far(self, saved: dict[str, Any]) -> _EpochSoFar:
        theirs = f"batches of {saved.pop('batch_size')} on {saved.pop('device')}"
        ours = f"batches of {self.recipe.batch_size} on {self.device.type}"
        if theirs != ours:  # another order of images, or another kind of generator
            raise ForeignStateError(f"its epoch began with {theirs} and cannot go on with {ours}")
        generator = torch.Generator(self.device)
        generator.set_state(saved.pop("generator").cpu())
        return _EpochSoFar(generator, saved.pop("loss_sum").to(self.device, copy=True), **saved)

    def run(self, pause_s: float | None = None) -> Iterator[EpochResult | Tick]:
        """Train from where the state stands to `num_epochs`, yielding each epoch; a divergence is the last.

        With `pause_s`, also a `Tick` between two steps as soon as that many seconds have passed since the last time.
        """
        pace = _Pace(pause_s)
        while self.epoch < self.num_epochs:
            generator, batches = self._draw(self.epoch + 1)
            so_far = self._so_far = self._so_far or _EpochSoFar(generator, torch.zeros((), device=self.device))
            train_loss = yield from self._train_epoch(batches, so_far, pace)
            train_time_s = so_far.train_time_s + pace.lap_s()
            val_loss, val_error_pct, eval_time_s = yield from self._judge_epoch(train_loss, pace)
            diverged = not math.isfinite(train_loss) or (len(self.split.validation) > 0 and not math.isfinite(val_loss))
            self.epoch, self._so_far = self.epoch + 1, None
            yield EpochResult(
                epoch=self.epoch,
                train_loss=train_loss,
                val_loss=val_loss,
                val_error_pct=math.nan if diverged else val_error_pct,
                learning_rate=self.learning_rate(self.epoch * self.steps_per_epoch - 1),
                train_time_s=train_time_s,
                eval_time_s=eval_time_s,
                diverged=diverged,
            )
            pace.resume()
            if diverged:
                return

    def _draw(self, epoch: int) -> tuple[torch.Generator, tuple[Tensor, ...]]:
        """The epoch's generator, and the batches of indices that it draws before anything else."""
        generator = torch.Generator(self.device).manual_seed(derive_seed(self.seed, "epoch", epoch))
        order = torch.randperm(len(self.split.train), generator=generator, device=self.device)
        train = torch.from_numpy(self.split.train).to(self.device)[order]
        return generator, train.split(self.recipe.batch_size)[: self.steps_per_epoch]

    def learning_rate(self, step: int) -> float:
        """At a step counted from 0 over all epochs."""
        return learning_rate(self.recipe, step, self.num_epochs * self.steps_per_epoch)

    def _train_epoch(
        self, batches: tuple[Tensor, ...], so_far: _EpochSoFar, pace: _Pace
    ) -> Generator[Tick, None, float]:
        """Mean training loss of the epoch; NaN as soon as a step's loss is not finite."""
        self.network.train()
        first_step = self.epoch * self.steps_per_epoch
        for step in range(so_far.step, self.steps_per_epoch):
            index = batches[step]
            x_BCHW, target = self._batch(index, so_far.generator, step)
            with self._drawing(step), self.autocast():
                logits = self._replica(x_BCHW)
            loss = self.share.weight(len(index)) * functional.cross_entropy(
                logits.float(), target, label_smoothing=self.recipe.label_smoothing
            )
            # On a GPU the check waits for the device: every 20 steps is soon enough there.
            if (self.device.type == "cpu" or step % 20 == 19) and not math.isfinite(self.share.mean(loss).item()):
                return math.nan
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step(self.learning_rate(first_step + step))
            so_far.loss_sum.add_(loss.detach(), alpha=len(index) / self.recipe.batch_size)
            so_far.step = step + 1
            so_far.train_time_s += pace.lap_s()
            yield from self._tick(pace)
        num_batches = sum(map(len, batches)) / self.recipe.batch_size  # a short one counts less
        mean = self.share.mean(so_far.loss_sum).item() / num_batches
        return mean if math.isfinite(mean) else math.nan

    def _batch(self, index: Tensor, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        """This worker's images of a batch, augmented, and their targets: labels, or probabilities after mixup."""
        recipe, part = self.recipe, self.share.part(len(index))
        images_BCHW, labels_B = self.normalised(self._images[index.to(self._images.device)]), self._labels[index]
        if not recipe.mixup:
            return augment(images_BCHW, recipe, generator, part), labels_B[part]
        x_BCHW = augment(images_BCHW, recipe, generator)
        own = draw_mixing(recipe.mixup, derive_seed(self.seed, "mixup", self.epoch + 1, step))
        return mixup(x_BCHW, labels_B, self._num_classes, own, generator, part)

    def _drawing(self, step: int) -> AbstractContextManager[None]:
        """Around a forward pass: what the network draws in it. Workers draw each for its own part of the batch."""
        if not self._is_stochastic:
            return nullcontext()
        return seeded(self.device, derive_seed(self.seed, "dropout", self.epoch + 1, step, self.share.rank))

    def _judge_epoch(self, train_loss: float, pace: _Pace) -> Generator[Tick, None, tuple[float, float, float]]:
        """Validation loss, error in percent and seconds. A state saved on the way has this begin anew."""
        loss, error_pct, time_s, num = math.nan, math.nan, 0.0, len(self.split.validation)
        if num == 0 or not math.isfinite(train_loss):
            return loss, error_pct, time_s
        for loss_sum, num_wrong in running_sums(self, self._images, self._labels, self.split.validation):
            loss, error_pct = loss_sum / num, 100 * num_wrong / num
            time_s += pace.lap_s()
            yield from self._tick(pace)
        return loss, error_pct, time_s

    def _tick(self, pace: _Pace) -> Iterator[Tick]:
        if pace.is_due():
            yield Tick(self.epoch + 1, self.step, self.steps_per_epoch)
            pace.resume()

    def normalised(self, images: Tensor) -> Tensor:
        """uint8 (B, H, W) or (B, H, W, C) to zero mean and unit deviation (B, C, H, W) on the device, channels last."""
        images_BCHW = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
        x_BCHW = images_BCHW.to(self.device).to(torch.float32).div_(255).sub_(self._mean).div_(self._std)
        return x_BCHW.contiguous(memory_format=torch.channels_last)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.recipe.precision == "bf16")


def _per_channel(value: PerChannel, device: torch.device) -> float | Tensor:
    return torch.tensor(value, device=device)[:, None, None] if isinstance(value, tuple) else value


def logits_of(trial: Trial, images: Tensor, index: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
    """Of the images at `index`, chunk by chunk: its part of `index`, and logits (chunk, classes) on the device."""
    trial.network.eval()
    for chunk in torch.from_numpy(index).split(_EVAL_BATCH):
        with torch.inference_mode(), trial.autocast():
            logits = trial.network(trial.normalised(images[chunk.to(images.device)])).float()
        yield chunk, logits


def running_sums(trial: Trial, images: Tensor, labels: Tensor, index: np.ndarray) -> Iterator[tuple[float, int]]:
    """Cross-entropy and wrong answers summed over the images at `index`, as they stand after each chunk of them."""
    loss, wrong = 0.0, 0
    for chunk, logits in logits_of(trial, images, index):
        target = labels[chunk.to(labels.device)].to(trial.device).long()
        loss += functional.cross_entropy(logits, target, reduction="sum").item()
        wrong += int((logits.argmax(1) != target).sum())
        yield loss, wrong
