"""The outbox: a thread beside the sweep that keeps MLflow up to date with the journal.

In: a run directory whose journal grows. Out: MLflow's runs, and in the journal's meta where they are
(`tracking_uri` without credentials, `experiment_id`, `parent_run_id`) and how the sweep was closed
(`tracking_close`). The sweep never waits for it and never fails by it: what cannot be delivered stays in the journal
with its mark unset, and is tried again, now or by `deliver` later.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from sweep.records.journal import Journal, LeaseLostError, now_ms
from sweep.records.lease import held
from sweep.tracking.client import TrackingError
from sweep.tracking.content import INTERRUPTED
from sweep.tracking.delivery import Delivery, Progress
from sweep.tracking.preflight import damage, default_tracking_uri, is_sqlite, preflight, sqlite_path, strip_credentials

_MAX_PAUSE_S = 30.0
# A pause follows each pass, at least nine times as long as it delivered: the outbox takes a tenth of a core at most.
_PAUSE_PER_PASS = 9
# Each telling of a trial costs some 40 ms of a core: one that ends within so many intervals is told once.
_UNFINISHED_AFTER = 6
# A database that has just been restarted refuses the first requests of each connection that its server kept.
_CLOSE_PAUSES_S = (0.5, 1.0, 2.0)


class Outbox:
    """Delivers what the journal of `run_dir` holds to MLflow, in batches, off the critical path.

    `experiment`: the study's name. `interval_s`: the shortest pause between two passes; a trial that has not ended is
    told after six of them at the earliest. `token`: of the lease under which the sweep runs. `error`: what the last
    pass failed of, without credentials, or None.
    """

    def __init__(
        self,
        run_dir: Path,
        tracking_uri: str,
        *,
        experiment: str,
        interval_s: float = 5.0,
        token: int | None = None,
    ):
        self.error: str | None = None
        self._run_dir = run_dir
        self._uri = tracking_uri
        self._experiment = experiment
        self._interval_s = interval_s
        self._token = token
        self._closing: dict[str, Any] = {}
        self._until = float("inf")
        self._finished = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    def start(self) -> None:
        """Begin, and take back how an earlier session of this sweep was closed. Returns at once."""
        with Journal.open(self._run_dir, token=self._token) as journal:
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
        `TrackingError` if that was not done within about `timeout_s` seconds, whatever MLflow does meanwhile;
        `deliver` does the rest later.
        """
        with Journal.open(self._run_dir, token=self._token) as journal:
            self._closing = {
                "status": status,
                "note": note,
                "tags": dict(tags),
                "metrics": dict(metrics),
                "artifacts": {name: str(path.absolute()) for name, path in artifacts.items()},
                "ended_at_ms": max(now_ms(), journal.latest_ms()),
            }
            try:
                journal.set_meta(tracking_close=self._closing)
            except sqlite3.OperationalError as error:  # storage is full; what the thread cannot mark is told again
                self.error = _explained(error)
        self._until = time.monotonic() + timeout_s
        self._stop.set()
        self._thread.join(timeout_s)
        if not self._finished:
            raise self._undelivered(self.error or f"no end within {timeout_s:g} s")

    def _undelivered(self, reason: str) -> TrackingError:
        return TrackingError(
            f"tracking: {self.backlog()} results and the end of the sweep are not delivered to "
            f"{strip_credentials(self._uri)} ({reason}); nothing is lost: they are kept in the journal, and "
            f"`sweep sync {self._run_dir}` delivers them once MLflow answers"
        )

    # -- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        # `start` has just opened this journal: what fails here is a fault of ours, and the thread may die of it.
        delivery = Delivery(
            self._run_dir,
            self._uri,
            experiment=self._experiment,
            token=self._token,
            unfinished_after_s=_UNFINISHED_AFTER * self._interval_s,
        )
        try:
            self._keep_up(delivery)
            for pause_s in (*_CLOSE_PAUSES_S, None):
                if self._attempt(delivery, lambda: _finish(delivery, self._closing, until=self._until)):
                    self._finished = True
                    return
                if pause_s is None or time.monotonic() + pause_s > self._until:
                    return
                time.sleep(pause_s)
        except LeaseLostError as error:  # it is another process's to tell MLflow now
            self.error = str(error)
        finally:
            delivery.close()

    def _keep_up(self, delivery: Delivery) -> None:
        num_failures = 0
        while not self._stop.is_set():
            succeeded = self._attempt(delivery, lambda: delivery.open(live=True))
            begun = time.monotonic()
            succeeded = succeeded and self._attempt(delivery, lambda: delivery.deliver(live=True))
            num_failures = 0 if succeeded else num_failures + 1
            pause_s = max(self._interval_s, _PAUSE_PER_PASS * (time.monotonic() - begun))
            self._stop.wait(min(_MAX_PAUSE_S, pause_s * 2**num_failures))

    def _attempt(self, delivery: Delivery, step: Callable[[], object]) -> bool:
        try:
            step()
        except LeaseLostError:
            raise
        except Exception as error:  # the sweep goes on without MLflow; `error` and `close` tell of it
            self.error = _explained(error)
            delivery.doubt()
            return False
        self.error = None
        return True


def _explained(error: Exception) -> str:
    return strip_credentials(f"{type(error).__name__}: {error}")[:500]


def _finish(
    delivery: Delivery,
    closing: Mapping[str, Any],
    *,
    until: float = float("inf"),
    progress: Progress = lambda *_: None,
) -> int:
    delivery.open(live=False)
    delivered = delivery.finish(closing, until=until, progress=progress)
    delivery.journal.set_meta(tracking_close={**closing, "delivered": True})
    return delivered


# -- later ---------------------------------------------------------------------------------------------------------


def deliver(
    run_dir: Path,
    tracking_uri: str = "",
    *,
    log: Callable[[str], None] = lambda message: None,
    progress: Progress = lambda *_: None,
) -> int:
    """Make MLflow hold what the journal of a sweep holds; answers the number of epochs and outcomes that it was told.

    `tracking_uri`: another place than the sweep's own, or its own where that held credentials, which the journal does
    not keep. A sweep that was killed before it could be closed is closed as interrupted. What MLflow has lost, because
    its database is gone, another one or set back to an older copy, is told again. `progress` is called with the number
    of trials that are done and the number of all.

    Raises `ValueError` if another process owns the sweep or its journal is damaged, `TrackingError` if MLflow cannot be
    told.
    """
    with Journal.open(run_dir) as journal:
        journal.check_whole()
        with held(journal, log) as token:
            meta = journal.meta()
            uri = tracking_uri or meta.get("tracking_uri") or default_tracking_uri(run_dir)
            try:
                return _deliver_anew(run_dir, uri, meta, token, progress)
            except LeaseLostError:
                raise
            except Exception as error:
                raise TrackingError(
                    f"tracking: {journal.num_undelivered()} results are not delivered to {strip_credentials(uri)} "
                    f"({strip_credentials(str(error))[:500]}); they are kept in the journal: once that is mended, "
                    f"`sweep sync {run_dir}` goes on"
                ) from error


def _deliver_anew(run_dir: Path, uri: str, meta: Mapping[str, Any], token: int, progress: Progress) -> int:
    preflight(uri)
    if is_sqlite(uri) and sqlite_path(uri).exists() and (found := damage(sqlite_path(uri), thorough=True)):
        raise TrackingError(found)
    delivery = Delivery(run_dir, uri, experiment=meta["study"]["name"], token=token)
    try:
        closing = meta.get("tracking_close") or _closed_by_kill(delivery.journal)
        if closing["status"] == "finished" and not delivery.journal.is_finished():  # it was extended since
            closing = closing | {"status": INTERRUPTED}
        delivery.open(live=False)
        delivery.compare()
        if closing.get("delivered") and not delivery.has_news():
            return 0
        return _finish(delivery, closing, progress=progress)
    finally:
        delivery.close()


def _closed_by_kill(journal: Journal) -> dict[str, Any]:
    return {
        "status": INTERRUPTED, "note": "", "tags": {}, "metrics": {}, "artifacts": {},
        "ended_at_ms": max(now_ms(), journal.latest_ms()),
    }  # fmt: skip
