"""Ray Tune around the conductor: what it offers to train, what it hears, and how a worker that hangs is ended.

In: a `Conductor`. Out: the parts that a `Tuner` takes. Tune's trials are the conductor's stretches: it starts them,
moves them between hosts and hands their reports on; its own retries, states and schedulers are not used.
"""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import GetTimeoutError, RayError
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweep.scheduling.conductor import MACHINE, MEMORY, Conductor, Nothing
from sweep.scheduling.memory import num_oom_kills
from sweep.scheduling.worker import to_config

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_DRAIN_S = 30.0
_ASK_S = 10.0


class RayGoneError(RuntimeError):
    """No host of the Ray is left; the trials are not to blame."""


def trial_id_of(trial: Any) -> str:
    return trial.config["stretch"]["trial_id"]


class Feed(Searcher):
    """Offers the conductor's stretches, one when a slot is free. `alive`: see `ConductorCallback`."""

    def __init__(self, conductor: Conductor, alive: Callable[[], None]):
        super().__init__(metric=None, mode=None)
        self._conductor, self._alive = conductor, alive

    def suggest(self, trial_id: str) -> Any:
        self._alive()  # Tune asks once a second, and does nothing else, while no trial runs
        stretch = self._conductor.next_stretch()
        if isinstance(stretch, Nothing):
            return Searcher.FINISHED if stretch is Nothing.LEFT else None
        return to_config(stretch)

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None: ...

    # Tune writes the state of a search down; ours is the journal.
    def __getstate__(self) -> dict[str, Any]:
        return {}

    def get_state(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None: ...


class ConductorScheduler(FIFOScheduler):
    """Hands on what is reported, and how trials fail."""

    def __init__(self, conductor: Conductor):
        super().__init__()
        self._conductor = conductor

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its scheduler into a state that we never read back; a journal cannot and need not be in it.
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        goes_on = self._conductor.report(trial_id_of(trial), result)
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        if not any(node["Alive"] for node in ray.nodes()):
            raise RayGoneError("Ray has died: none of its hosts is left")
        # Tune has written what it knows of the error into this file.
        error = Path(trial.error_file or "")
        text = error.read_text(errors="replace") if error.is_file() else "the worker died without an error"
        kind = MEMORY if self._memory_ran_out(trial) else MACHINE
        self._conductor.failed(trial_id_of(trial), kind, _COLOURS.sub("", text))

    def _memory_ran_out(self, trial: Any) -> bool:
        """Whether the kernel has ended processes of the trial's host for want of memory since it began there."""
        where = self._conductor.where(trial_id_of(trial))
        if not where:
            return False
        now = _on_node(where["node_id"], num_oom_kills)
        return now is not None and now > where["oom_kills"]


class ConductorCallback(tune.Callback):
    """Tells the conductor of starts, and ends the workers of trials that have gone silent.

    `alive` is called again and again for as long as Tune goes round.
    """

    def __init__(self, conductor: Conductor, alive: Callable[[], None]):
        self._conductor, self._alive = conductor, alive

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._conductor.started(trial_id_of(trial))

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict[str, Any], **info: Any) -> None:
        result.pop("log", None)  # Tune keeps each trial's last result in memory, for as long as it lasts
        result.pop("traceback", None)

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        self._alive()
        self._conductor.poll()
        for trial_id, where in self._conductor.silent():
            actor = next((t.temporary_state.ray_actor for t in trials if t.status == "RUNNING"
                          and trial_id_of(t) == trial_id), None)  # fmt: skip
            end_worker(actor, where)


class StopWhenDrained(tune.Stopper):
    """Ends the Tune run where a sweep that was asked to stop has not done so by itself: a worker may hang."""

    def __init__(self, conductor: Conductor):
        self._conductor = conductor
        self._deadline_s: float | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if not self._conductor.draining:
            return False
        self._deadline_s = self._deadline_s or time.monotonic() + _DRAIN_S
        return time.monotonic() > self._deadline_s

    def __getstate__(self) -> dict[str, Any]:
        return {}


def end_worker(actor: Any, where: dict[str, Any]) -> None:
    """Ray asks a worker to end, which one that was stopped by a signal does not hear: its host's kernel comes first."""
    if where:
        _on_node(where["node_id"], _kill, where["pid"])
    if actor is not None:
        ray.kill(actor)


def _on_node(node_id: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function answers on a host; None if the host does not answer."""
    if node_id == ray.get_runtime_context().get_node_id():
        return function(*arguments)
    try:
        strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
        task = ray.remote(function).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)  # type: ignore[attr-defined]
        return ray.get(task.remote(*arguments), timeout=_ASK_S)
    except (RayError, GetTimeoutError):
        return None


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
