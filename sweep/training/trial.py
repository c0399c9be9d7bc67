"""One trial: a network, a recipe and a split go in, a result for each epoch comes out. No Ray, no MLflow.

The loop is plain: a batch is indexed from the mapped images, augmented on the tensor, and one SGD step is taken
under a linear warm-up and a cosine over all epochs. Every epoch draws its order and its augmentation from
`(seed, epoch)`, so nothing random needs to be saved: weights and momentum after epoch k are the whole state, and a
trial that resumes from them continues bit for bit on a CPU. With a `Share`, the trial is one of several workers that
train the network together (sweep/training/distributed.py).

Shapes: B batch, C channels, H height, W width.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sweep.models import build
from sweep.spaces import Architecture
from sweep.studies import Recipe, derive_seed
from sweep.training.data import Split
from sweep.training.device import pick_device
from sweep.training.distributed import ALONE, Share

_EVAL_BATCH = 500


@dataclass(frozen=True)
class EpochResult:
    """One epoch. Losses in nats (training: with label smoothing), times in seconds.

    `diverged`: a loss was not finite, training ended at that step and the figures are NaN.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_error_pct: float
    learning_rate: float
    train_time_s: float
    eval_time_s: float
    diverged: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Trial:
    """Trains one architecture. `seed` sets the initial weights and, with the epoch, order and augmentation."""

    def __init__(
        self,
        architecture: Architecture,
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
        self.device = device or pick_device()
        if self.device.type == "cpu":
            # More threads than a trial's one core make a step up to thirty times slower beside a busy neighbour.
            torch.set_num_threads(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "weights"))
            network = build(architecture, channels=1, classes=num_classes)
        network = network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = share.synchronised(network, self.device)
        self._replica = share.replica(self.network, self.device)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov and recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
            foreach=True,
        )
        self.epoch = 0
        self._images = torch.from_numpy(split.images)
        self._labels = torch.from_numpy(split.labels)
        if self.device.type == "cuda":  # resident: copied once, augmented there
            self._images, self._labels = self._images.to(self.device), self._labels.to(self.device)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.split.train) // self.recipe.batch_size

    def state_dict(self) -> dict[str, Any]:
        """All that later epochs depend on; tensors and plain numbers only, for `torch.load(weights_only=True)`."""
        return {
            "epoch": self.epoch,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])

    def run(self) -> Iterator[EpochResult]:
        """Train from the epoch after the last one to `num_epochs`, yielding each; a divergence is the last."""
        while self.epoch < self.num_epochs:
            result = self._run_epoch(self.epoch + 1)
            self.epoch += 1
            yield result
            if result.diverged:
                return

    def _run_epoch(self, epoch: int) -> EpochResult:
        started = time.perf_counter()
        train_loss = self._train_epoch(epoch)
        trained = time.perf_counter()
        val_loss, val_error_pct = math.nan, math.nan
        if math.isfinite(train_loss) and len(self.split.validation):
            val_loss, val_error_pct = evaluate(self, self._images, self._labels, self.split.validation)
        diverged = not math.isfinite(train_loss) or (len(self.split.validation) > 0 and not math.isfinite(val_loss))
        return EpochResult(
            epoch=epoch,
            train_loss=train_loss,
            val_loss=val_loss,
            val_error_pct=math.nan if diverged else val_error_pct,
            learning_rate=self.learning_rate(epoch * self.steps_per_epoch - 1),
            train_time_s=trained - started,
            eval_time_s=time.perf_counter() - trained,
            diverged=diverged,
        )

    def learning_rate(self, step: int) -> float:
        """At a step counted from 0 over all epochs: linear warm-up, times a cosine that ends at zero."""
        total = self.num_epochs * self.steps_per_epoch
        warmup = min(1.0, (step + 1) / self.recipe.warmup_steps) if self.recipe.warmup_steps else 1.0
        return self.recipe.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * step / total))

    def _train_epoch(self, epoch: int) -> float:
        """Mean training loss of the epoch; NaN as soon as a step's loss is not finite."""
        generator = torch.Generator(self.device).manual_seed(derive_seed(self.seed, "epoch", epoch))
        order = torch.randperm(len(self.split.train), generator=generator, device=self.device)
        train = torch.from_numpy(self.split.train).to(self.device)[order]
        self.network.train()
        total = torch.zeros((), device=self.device)
        first_step = (epoch - 1) * self.steps_per_epoch
        for step, index in enumerate(train.split(self.recipe.batch_size)[: self.steps_per_epoch]):
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(first_step + step)
            part = self.share.part(len(index))
            x_BCHW = augment(self.normalised(self._images[index]), self.recipe, generator, part)
            with self.autocast():
                logits = self._replica(x_BCHW)
            loss = self.share.weight(len(index)) * functional.cross_entropy(
                logits.float(), self._labels[index[part]].long(), label_smoothing=self.recipe.label_smoothing
            )
            # On a GPU the check waits for the device: every 20 steps is soon enough there.
            if (self.device.type == "cpu" or step % 20 == 19) and not math.isfinite(self.share.mean(loss).item()):
                return math.nan
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
        mean = self.share.mean(total).item() / self.steps_per_epoch
        return mean if math.isfinite(mean) else math.nan

    def normalised(self, images_BHW: Tensor) -> Tensor:
        """uint8 (B, H, W) to zero mean and unit deviation (B, 1, H, W), channels last."""
        x_BCHW = images_BHW.unsqueeze(1).to(torch.float32).div_(255).sub_(self.split.mean).div_(self.split.std)
        return x_BCHW.contiguous(memory_format=torch.channels_last)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.recipe.precision == "bf16")


def augment(x_BCHW: Tensor, recipe: Recipe, generator: torch.Generator, part: slice = slice(None)) -> Tensor:
    """Each image flipped with probability one half and shifted by up to `crop_padding` pixels, by one gather.

    Answers the images of `part`, moved as they are in the whole batch.
    """
    B, _, H, W = x_BCHW.shape
    padding, device = recipe.crop_padding, x_BCHW.device
    columns = torch.arange(W, device=device).expand(B, W)
    if recipe.flip:
        flipped = torch.rand(B, 1, generator=generator, device=device) < 0.5
        columns = torch.where(flipped, W - 1 - columns, columns)
    if padding == 0 and not recipe.flip:
        return x_BCHW[part]
    rows = torch.arange(H, device=device).expand(B, H)
    if padding:
        shift = torch.randint(2 * padding + 1, (2, B, 1), generator=generator, device=device)
        rows, columns = rows + shift[0], columns + shift[1]
        # The border is the black of the normalised image, which is its smallest value.
        x_BCHW = functional.pad(x_BCHW, (padding,) * 4, value=x_BCHW.min().item())
    image = torch.arange(B, device=device)[part, None, None]
    x_BHWC = x_BCHW.permute(0, 2, 3, 1)[image, rows[part, :, None], columns[part, None, :]]
    return x_BHWC.permute(0, 3, 1, 2)


@torch.inference_mode()
def evaluate(trial: Trial, images: Tensor, labels: Tensor, index: np.ndarray) -> tuple[float, float]:
    """Mean cross-entropy in nats and error in percent over the images at `index`."""
    trial.network.eval()
    loss, wrong = 0.0, 0
    for chunk in torch.from_numpy(index).to(images.device).split(_EVAL_BATCH):
        with trial.autocast():
            logits = trial.network(trial.normalised(images[chunk])).float()
        target = labels[chunk].long()
        loss += functional.cross_entropy(logits, target, reduction="sum").item()
        wrong += int((logits.argmax(1) != target).sum())
    return loss / len(index), 100 * wrong / len(index)
