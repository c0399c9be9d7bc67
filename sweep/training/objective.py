"""A sweep over a function of the user's own in place of training: `objective = "module:function"` in the study.

In: the function's name; Ray's workers must be able to import it. Out: a trial that calls it once an epoch,

    function(architecture, seed=…, epoch=…)        the network, seed of the trial, epoch counted from 1

and takes from its answer the validation error in percent:

    9.5                                            a number from 0 to 100
    {"val_error_pct": 9.5, "train_loss": 0.4}      the same with losses; `train_loss` and `val_loss` may be missing
    None, NaN, infinity                            the trial has diverged, also where one of a mapping's values is that

Whatever else it answers is an error, and so is what it raises: the trial fails and is tried again as one that trains.
A trial that goes on after an interruption calls the function for the next epoch, perhaps on another host: nothing but
the epoch's number is kept, so the answer should depend on the arguments alone. An epoch is one call, which cannot be
looked into: one that takes longer than the profile's `stall_after_s` counts as stalled.

It serves for rehearsing a sweep (stopping, faults, the way to MLflow) and for objectives that come from elsewhere: a
table of recorded curves, a simulator, a training of another kind.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from typing import Any

from sweep.spaces import Network
from sweep.spaces.loading import load_named
from sweep.training.results import EpochResult, Tick

Objective = Callable[..., Any]
_LOSSES = ("train_loss", "val_loss")


def load_objective(name: str) -> Objective:
    """The function called `module:function`. Raises `ValueError` with the field, the value and the remedy."""
    return load_named("objective", name, "my_package.curves:error_pct")


class ObjectiveTrial:
    """Stands in for a `Trial`: the same surface, and no images."""

    step = 0  # an epoch is one call: there is nothing between two of its steps

    def __init__(self, function: Objective, architecture: Network, *, num_epochs: int, seed: int):
        self._function, self._architecture = function, architecture
        self.num_epochs, self.seed, self.epoch = num_epochs, seed, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]

    def run(self, pause_s: float | None = None) -> Iterator[EpochResult | Tick]:
        """Each epoch from the one after the last to `num_epochs`, or to a divergence; never a `Tick`."""
        while self.epoch < self.num_epochs:
            started = time.monotonic()
            answer = self._function(self._architecture, seed=self.seed, epoch=self.epoch + 1)
            result = self._result(answer, time.monotonic() - started)
            self.epoch += 1
            yield result
            if result.diverged:
                return

    def _result(self, answer: Any, time_s: float) -> EpochResult:
        values = dict(answer) if isinstance(answer, Mapping) else {"val_error_pct": answer}
        if "val_error_pct" not in values:
            raise self._error(ValueError, answer, "it lacks 'val_error_pct'")
        if unknown := sorted(map(str, values.keys() - {"val_error_pct", *_LOSSES})):
            raise self._error(ValueError, answer, f"{', '.join(unknown)} is not known beside {', '.join(_LOSSES)}")
        figures = {key: self._number(value, answer) for key, value in values.items()}
        error_pct, diverged = figures["val_error_pct"], not all(map(math.isfinite, figures.values()))
        if not diverged and not 0 <= error_pct <= 100:
            raise self._error(ValueError, answer, "an error in percent lies between 0 and 100")
        return EpochResult(
            epoch=self.epoch + 1,
            train_loss=figures.get("train_loss", math.nan),
            val_loss=figures.get("val_loss", math.nan),
            val_error_pct=math.nan if diverged else error_pct,
            learning_rate=0.0,
            train_time_s=time_s,
            eval_time_s=0.0,
            diverged=diverged,
        )

    def _number(self, value: Any, answer: Any) -> float:
        """NaN for None."""
        if value is None:
            return math.nan
        if isinstance(value, bool) or not isinstance(value, Real):
            raise self._error(TypeError, answer, f"a {type(value).__name__} is no number")
        return float(value)

    def _error(self, kind: type[Exception], answer: Any, why: str) -> Exception:
        function = self._function
        name = f"{function.__module__}:{getattr(function, '__qualname__', type(function).__name__)}"
        return kind(
            f"objective = {name!r}: answered {answer!r:.200} for epoch {self.epoch + 1}, but {why}; let it "
            "answer the validation error in percent, or a mapping with val_error_pct"
        )
