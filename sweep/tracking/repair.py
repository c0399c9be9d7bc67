"""What MLflow holds of a sweep and should not, or should and does not: looked for, and set right.

In: a journal and the sweep's run. Out: marks of the journal taken back, so that the next delivery tells it again; and
runs that nobody owns ended and deleted. Both come of what happens to servers: a database set back to an older copy, a
run deleted by hand, a request that was given up and yet carried out later.
"""

from collections.abc import Iterable
from typing import Any

from sweep.records.journal import ARRIVALS_DELIVERED, CLOSINGS_DELIVERED, ORIGIN_DELIVERED, Journal
from sweep.tracking import content
from sweep.tracking.client import runs_below
from sweep.tracking.content import INTERRUPTED
from sweep.tracking.origin import num_trials_of

_ROWS_AT_ONCE = 5000


def forget_what_differs(client: Any, journal: Journal, experiment_id: str, parent_id: str) -> None:
    """Compare each run with what the journal says it was told; asks for a thousand runs at a time."""
    sought = f"{content.trials_filter(parent_id)} AND tags.kind = 'trial'"
    told = {run.info.run_id: _told(run) for run in runs_below(client, experiment_id, sought)}
    known = len(client.get_metric_history(parent_id, content.ARRIVAL_TRIAL))
    is_older = known < journal.get(ARRIVALS_DELIVERED, 0)
    last_epochs, with_news = journal.last_epochs(), {row["trial_id"] for row in journal.undelivered_trials(live=False)}
    for first in range(0, num_trials_of(journal), _ROWS_AT_ONCE):
        where = f"run_id IS NOT NULL AND launch_order >= {first} AND launch_order < {first + _ROWS_AT_ONCE}"
        for trial in journal.trials(where):
            trial_id, outcome, found = trial["trial_id"], trial["delivered_outcome"], told.get(trial["run_id"])
            expected = content.RUN_STATUS.get(outcome), outcome, str(last_epochs.get(trial_id, 0))
            if found is None or (trial_id not in with_news and found != expected):
                journal.forget_trial_delivery(trial_id, run_is_gone=found is None)
                is_older = True
    if is_older:
        journal.set_meta(**{ARRIVALS_DELIVERED: 0, CLOSINGS_DELIVERED: 0, ORIGIN_DELIVERED: None})


def _told(run: Any) -> tuple[str, str | None, str | None]:
    return run.info.status, run.data.tags.get("outcome"), run.data.tags.get("rung")


def end_strays(client: Any, runs: Iterable[Any], *, ended_at_ms: int) -> None:
    """Runs of nobody: they no longer say whose they are, are ended, and deleted (MLflow keeps them in its bin)."""
    for run in runs:
        run_id = run.info.run_id
        for tag in (content.TRIAL_ID_TAG, content.SWEEP_ID_TAG):
            if tag in run.data.tags:
                client.delete_tag(run_id, tag)
        client.set_terminated(run_id, content.RUN_STATUS[INTERRUPTED], ended_at_ms)
        client.set_tag(run_id, "outcome", INTERRUPTED)
        client.delete_run(run_id)
