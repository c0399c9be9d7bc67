"""What a trial yields: a result after each epoch, and a sign of life between two of its steps. No torch here."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class EpochResult:
    """One epoch. Losses in nats (training: with label smoothing and mixup), times in seconds.

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


@dataclass(frozen=True)
class Tick:
    """Training is under way: `step` steps of `epoch` are done; all of them, while the epoch is being judged."""

    epoch: int
    step: int
    steps_per_epoch: int
