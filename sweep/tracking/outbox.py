"""The outbox: a thread beside the sweep that keeps MLflow up to date with the journal.

In: a run directory whose journal grows. Out: MLflow's runs, and in the journal's meta where they are
(`tracking_uri` without credentials, `experiment_id`, `parent_run_id`) and how the sweep was closed
(`tracking_close`). The sweep never waits for it and never fails by it: what cannot be delivered stays in the journal
with its mark unset, and is tried again, now or by `deliver` later.
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from sweep.records.journal import Journal, now_ms
from sweep.tracking.content import INTERRUPTED
from sweep.tracking.delivery import Delivery, TrackingError
from sweep.tracking.preflight import default_tracking_uri, strip_credentials

_MAX_PAUSE_S = 30.0
# A pass is followed by a pause of at least nine times its length: the outbox takes a tenth of a core at most.
_PAUSE_PER_PASS = 9
_CLOSE_ATTEMPTS = 2


class Outbox:
    """Delivers what the journal of `run_dir` holds to MLflow, in batches, off the critical path.

    `experiment`: the study's name. `interval_s`: the shortest pause between two passes. `error`: what the last
    pass failed of, without credentials, or None.
    """

    def __init__(self, run_dir: Path, tracking_uri: str, *, experiment: str, interval_s: float = 1.0):
        self.error: str | None = None
        self._run_dir = run_dir
        self._uri = tracking_uri
        self._experiment = experiment
        self._interval_s = interval_s
        self._closing: dict[str, Any] = {}
        self._until = float("inf")
        self._finished = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    def start(self) -> None:
        """Begin, and take back how an earlier session of this sweep was closed. Returns at once."""
        with Journal.open(self._run_dir) as journal:
            journal.set_meta(tracking_uri=strip_credentials(self._uri), tracking_close=None)
        self._thread.start()

    def backlog(self) -> int:
        """Number of epochs and outcomes that MLflow has not been told."""
        with Journal.open(self._run_dir, read_only=True) as journal:
            return journal.num_undelivered()

    def close(
        self,
        *,
        status: Literal["finished", "interrupted", "failed"],
        artifacts: Mapping[str, Path] = {},
        note: str = "",
        tags: Mapping[str, str] = {},
        metrics: Mapping[str, float] = {},
        timeout_s: float = 60.0,
    ) -> None:
        """Deliver everything left and end every run.

        `artifacts`: path in the sweep's run -> local file; `note`: Markdown put below the study's question; `tags` and
        `metrics` go to the sweep's run. Trials that have not ended are ended as interrupted. Raises
        `TrackingError` if that was not done within about `timeout_s` seconds; `deliver` does the rest later.
        """
        self._closing = {
            "status": status,
            "note": note,
            "tags": dict(tags),
            "metrics": dict(metrics),
            "artifacts": {name: str(path.absolute()) for name, path in artifacts.items()},
            "ended_at_ms": now_ms(),
        }
        with Journal.open(self._run_dir) as journal:
            journal.set_meta(tracking_close=self._closing)
        self._until = time.monotonic() + timeout_s
        self._stop.set()
        self._thread.join(timeout_s)
        if not self._finished:
            raise self._undelivered(self.error or f"no end within {timeout_s:g} s")

    def _undelivered(self, reason: str) -> TrackingError:
        return TrackingError(
            f"tracking: {self.backlog()} results and the end of the sweep are not delivered to "
            f"{strip_credentials(self._uri)} ({reason}); nothing is lost: they are kept in the journal, and "
            "the same `sweep launch` with --resume delivers them once MLflow answers"
        )

    # -- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        # `start` has just opened this journal: what fails here is a fault of ours, and the thread may die of it.
        delivery = Delivery(self._run_dir, self._uri, experiment=self._experiment)
        try:
            self._keep_up(delivery)
            for attempt in range(1, _CLOSE_ATTEMPTS + 1):
                if self._attempt(lambda: _finish(delivery, self._closing, until=self._until)):
                    self._finished = True
                    return
                if time.monotonic() + attempt > self._until:
                    return
                time.sleep(attempt)
        finally:
            delivery.close()

    def _keep_up(self, delivery: Delivery) -> None:
        num_failures = 0
        while not self._stop.is_set():
            begun = time.monotonic()
            succeeded = self._attempt(lambda: self._pass(delivery))
            num_failures = 0 if succeeded else num_failures + 1
            pause_s = max(self._interval_s, _PAUSE_PER_PASS * (time.monotonic() - begun))
            self._stop.wait(min(_MAX_PAUSE_S, pause_s * 2**num_failures))

    def _pass(self, delivery: Delivery) -> int:
        delivery.open(live=True)
        return delivery.deliver(live=True)

    def _attempt(self, step: Callable[[], object]) -> bool:
        try:
            step()
        except Exception as error:  # the sweep goes on without MLflow; `error` and `close` tell of it
            self.error = strip_credentials(f"{type(error).__name__}: {error}")[:500]
            return False
        self.error = None
        return True


def _finish(delivery: Delivery, closing: Mapping[str, Any], *, until: float = float("inf")) -> int:
    delivery.open(live=False)
    delivered = delivery.finish(closing, until=until)
    delivery.journal.set_meta(tracking_close={**closing, "delivered": True})
    return delivered


def deliver(run_dir: Path, tracking_uri: str = "") -> int:
    """Deliver what a sweep that no longer runs has left; answers the number of epochs and outcomes.

    `tracking_uri`: needed where the sweep's own held credentials, which the journal does not keep. A sweep that was
    killed before it could be closed is closed as interrupted. Raises `TrackingError` if MLflow cannot be told.
    """
    with Journal.open(run_dir) as journal:
        meta = journal.meta()
        backlog = journal.num_undelivered()
    closing = meta.get("tracking_close") or _closed_by_kill()
    if backlog == 0 and closing.get("delivered"):
        return 0
    uri = tracking_uri or meta.get("tracking_uri") or default_tracking_uri(run_dir)
    delivery = Delivery(run_dir, uri, experiment=meta["study"]["name"])
    try:
        return _finish(delivery, closing)
    except Exception as error:
        raise TrackingError(
            f"tracking: {backlog} results are not delivered to {strip_credentials(uri)} "
            f"({strip_credentials(str(error))}); they are kept in the journal: try again once MLflow answers"
        ) from error
    finally:
        delivery.close()


def _closed_by_kill() -> dict[str, Any]:
    return {
        "status": INTERRUPTED, "note": "", "tags": {}, "metrics": {}, "artifacts": {}, "ended_at_ms": now_ms(),
    }  # fmt: skip
