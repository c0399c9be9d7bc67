"""A lost journal rebuilt from MLflow alone, so that the sweep outlives its head node (DESIGN, section 5).

In: a tracking URI, the id of the sweep's run, a run directory without a journal. Out: the journal there, from which
`sweep launch STUDY --run-dir DIR --resume` goes on.

MLflow holds a prefix of the arrivals at the rungs, with every arrival that came with an epoch it knows
(sweep/tracking/delivery.py). The decisions are a function of that sequence: they are taken again, by `asha.py`, and
must agree with what became of the trials. What had not been delivered is trained again: an arrival whose epoch was
lost keeps its decision, for later ones were held against it; an arrival that was lost itself happens anew.

What a recovered journal cannot know: on which host each epoch was trained and in which attempt (the last one's
stand for all), attempts since the last delivery, and more than the first 5,000 characters of a failure. And nobody
can know from here whether the lost driver is still at work somewhere: end it first, or two will train and deliver.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweep.records import Journal, TrialRow
from sweep.records.journal import (
    ARRIVALS_DELIVERED,
    COMPLETED,
    DIVERGED,
    ENDED,
    FAILED,
    FILE_NAME,
    ORIGIN_DELIVERED,
    PENDING,
    RUNNING,
    STOPPED,
    now_ms,
)
from sweep.scheduling import driver
from sweep.scheduling.asha import CONTINUE, STOP, Asha, next_rung
from sweep.studies import Stopping, study_from_dict
from sweep.tracking import content, strip_credentials
from sweep.tracking.recall import Arrival, Recalled, RecalledRun, recall

# Points of an epoch that a divergence lacks, and columns that a journal must have; MLflow takes an epoch's points all
# or none, but a server of another make need not.
_CURVE_OF_A_DIVERGENCE = ("train_loss", "val_loss", "val_error_pct")
_ALWAYS_THERE = ("learning_rate", "train_time_s", "eval_time_s")
_RECENT_S = 120


@dataclass(frozen=True)
class Recovered:
    """`unfinished` trials are left to train. `warnings`: what was found amiss and mended, a sentence each."""

    run_dir: str
    trials: int
    unfinished: int
    epochs: int
    arrivals: int
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def recover(tracking_uri: str, parent_run_id: str, run_dir: Path) -> Recovered:
    """Write the journal of `run_dir` as MLflow remembers it, whole or not at all.

    Raises `ValueError` if the directory holds a journal already or MLflow does not know such a sweep, `RuntimeError`
    if it cannot be read to the end or contradicts itself.
    """
    if (run_dir / FILE_NAME).exists():
        raise ValueError(
            f"--run-dir: {str(run_dir)!r} holds a journal already; go on with it by `sweep launch --resume`, "
            "or choose another directory"
        )
    recalled = recall(tracking_uri, parent_run_id)
    warnings: list[str] = []
    trials, epochs, decisions = _rebuild(recalled, warnings)
    driver.make_run_dir(run_dir)
    with driver.owned(run_dir):
        Journal.restore(run_dir, _meta(recalled), trials, epochs, decisions).close()
    return Recovered(
        run_dir=str(run_dir),
        trials=len(trials),
        unfinished=sum(trial["outcome"] in (PENDING, RUNNING) for trial in trials),
        epochs=len(epochs),
        arrivals=len(decisions),
        warnings=tuple(warnings),
    )


def _meta(recalled: Recalled) -> dict[str, Any]:
    known = {key: value for key, value in recalled.origin.items() if key != "schema_version"}
    return known | {
        "tracking_uri": strip_credentials(recalled.tracking_uri),
        "experiment_id": recalled.experiment_id,
        "parent_run_id": recalled.parent_run_id,
        "recovered_at_ms": now_ms(),
        ARRIVALS_DELIVERED: len(recalled.arrivals),
        ORIGIN_DELIVERED: recalled.parent_run_id,
    }


Rows = list[dict[str, Any]]


def _rebuild(recalled: Recalled, warnings: list[str]) -> tuple[Rows, Rows, Rows]:
    """Rows of trials, epochs and decisions."""
    stopping = study_from_dict(recalled.origin["study"]).stopping
    by_order = {trial.launch_order: trial for trial in recalled.population}
    decisions = list(_replay(recalled.arrivals, by_order, stopping))
    judgements: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for decision in decisions:
        judgements[decision["trial_id"]][decision["rung_epochs"]] = decision
    runs = _runs_by_trial(recalled)
    trials: Rows = []
    epochs: Rows = []
    contradictions: list[str] = []
    for trial in recalled.population:
        run = runs.get(trial.trial_id)
        curve = list(_curve(trial.trial_id, run, warnings)) if run else []
        judged = judgements[trial.trial_id]
        row = _trial_row(trial, run, curve, judged, stopping)
        contradictions += _contradictions(row, run, curve, judged, stopping)
        trials.append(row)
        epochs += curve
    if contradictions:
        raise RuntimeError(
            f"recover: MLflow contradicts itself on {len(contradictions)} counts, so no journal was written: "
            f"{'; '.join(contradictions[:5])}. The sweep was begun at commit {recalled.origin.get('git_commit')}: "
            "if that rule was another one, recover with that version"
        )
    _warn_of_a_living_driver(recalled, epochs, warnings)
    return trials, epochs, decisions


def _replay(arrivals: list[Arrival], by_order: dict[int, TrialRow], stopping: Stopping) -> Iterator[dict[str, Any]]:
    """The decisions on the arrivals, taken again in their order."""
    asha = Asha(stopping.reduction_factor)
    for expected, arrival in enumerate(arrivals, start=1):
        if arrival.number != expected or arrival.launch_order not in by_order:
            raise RuntimeError(
                f"recover: the log of arrivals in MLflow is broken at number {expected}, so no journal was written; "
                "restore its database from a backup, or launch the study anew"
            )
        trial = by_order[arrival.launch_order]
        judgement = asha.arrive(trial.cohort, arrival.rung_epochs, arrival.error_pct)
        yield {
            "arrival": arrival.number,
            "trial_id": trial.trial_id,
            "cohort": trial.cohort,
            "rung_epochs": arrival.rung_epochs,
            "error_pct": arrival.error_pct,
            "cutoff_pct": judgement.cutoff_pct if content.is_finite(judgement.cutoff_pct) else None,
            "would_stop": judgement.would_stop,
            "audited": trial.audited,
            "decision": STOP if judgement.would_stop and not trial.audited else CONTINUE,
            "decided_at_ms": arrival.decided_at_ms,
        }


def _runs_by_trial(recalled: Recalled) -> dict[str, RecalledRun]:
    known = {trial.trial_id for trial in recalled.population}
    counts = Counter(run.trial_id for run in recalled.runs)
    wrong = [trial_id for trial_id, count in counts.items() if count > 1 or trial_id not in known]
    if wrong:
        raise RuntimeError(
            f"recover: below {recalled.parent_run_id!r} stand two runs of one trial, or runs of a trial that the sweep "
            f"does not have ({', '.join(sorted(wrong)[:5])}); delete those that are not its own in MLflow"
        )
    return {run.trial_id: run for run in recalled.runs}


def _curve(trial_id: str, run: RecalledRun, warnings: list[str]) -> Iterator[dict[str, Any]]:
    """The epochs that MLflow knows, in order; each keeps its time, so that it is never stored there a second time."""
    for epoch, values in sorted(run.epochs.items()):
        missing = [name for name in _ALWAYS_THERE if name not in values]
        if missing:
            warnings.append(f"{trial_id}: epoch {epoch} lacks {', '.join(missing)} in MLflow; taken as 0")
        yield {
            "trial_id": trial_id,
            "epoch": epoch,
            **dict.fromkeys(_CURVE_OF_A_DIVERGENCE),
            **dict.fromkeys(_ALWAYS_THERE, 0.0),
            **values,
            "host": run.tags.get(content.HOST_TAG, "unknown"),
            "attempt": _attempts(run),
            "delivered": 1,
        }


def _attempts(run: RecalledRun) -> int:
    return int(run.tags.get(content.ATTEMPTS_TAG, 1))


def _trial_row(
    trial: TrialRow, run: RecalledRun | None, curve: Rows, judged: dict[int, dict[str, Any]], stopping: Stopping
) -> dict[str, Any]:
    if run is None:
        return asdict(trial) | {"outcome": PENDING}
    outcome = _outcome(run, curve, judged, stopping)
    return asdict(trial) | {
        "outcome": outcome,
        "attempts": _attempts(run),
        "failure": run.tags.get("failure") if outcome == FAILED else None,
        "started_at_ms": run.started_at_ms,
        "ended_at_ms": _ended_at_ms(run, outcome, curve),
        "run_id": run.run_id,
        "delivered_outcome": _delivered_outcome(run),
    }


def _outcome(run: RecalledRun, curve: Rows, judged: dict[int, dict[str, Any]], stopping: Stopping) -> str:
    """What MLflow says, or what its last epoch says where the end had not been delivered."""
    told = run.tags.get("outcome", RUNNING)
    if told in ENDED:
        return told
    if not curve:
        return RUNNING
    last = curve[-1]
    if last["val_error_pct"] is None:
        return DIVERGED
    if last["epoch"] >= stopping.max_epochs:
        return COMPLETED
    decision = judged.get(last["epoch"])
    return STOPPED if decision is not None and decision["decision"] == STOP else RUNNING


def _ended_at_ms(run: RecalledRun, outcome: str, curve: Rows) -> int | None:
    if outcome not in ENDED:
        return None
    if run.tags.get("outcome") == outcome and run.ended_at_ms is not None:
        return run.ended_at_ms
    return curve[-1]["recorded_at_ms"] if curve else run.started_at_ms


def _delivered_outcome(run: RecalledRun) -> str | None:
    """None where the run holds no more than its name: its facts were not delivered. An outcome that is not yet the
    run's status counts as not delivered, so that the status follows."""
    if content.ATTEMPTS_TAG not in run.tags:
        return None
    told = run.tags.get("outcome", RUNNING)
    return told if content.RUN_STATUS.get(told) == run.status else RUNNING


def _contradictions(
    row: dict[str, Any], run: RecalledRun | None, curve: Rows, judged: dict[int, dict[str, Any]], stopping: Stopping
) -> Iterator[str]:
    """Where the decisions taken again, the log of arrivals and the outcomes told do not fit each other."""
    trial_id, outcome = row["trial_id"], row["outcome"]
    numbers = [epoch["epoch"] for epoch in curve]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"{trial_id} has the epochs {numbers} and none between"
        return
    for epoch in curve:
        diverged = epoch["val_error_pct"] is None
        rung = next_rung(stopping.rungs, epoch["epoch"]) if diverged else epoch["epoch"]
        if rung not in stopping.rungs:
            continue
        decision = judged.get(rung)
        if decision is None:
            yield f"{trial_id} has passed the rung of {rung} epochs, which the log of arrivals does not know"
        elif decision["error_pct"] != epoch["val_error_pct"] and _came_with(epoch, decision):
            yield (
                f"{trial_id} arrived at {rung} epochs with error {decision['error_pct']}, "
                f"but its curve has {epoch['val_error_pct']}"
            )
        elif decision["decision"] == STOP and epoch["epoch"] < numbers[-1]:
            yield f"{trial_id} trained on after the rung of {rung} epochs, where the rule stops it"
    last = judged.get(numbers[-1]) if numbers else None
    if outcome == STOPPED and (last is None or last["decision"] != STOP):
        yield f"{trial_id} was stopped after {len(numbers)} epochs, where the rule lets it go on"
    if outcome == COMPLETED and len(numbers) < stopping.max_epochs:
        yield f"{trial_id} is said to be completed after {len(numbers)} of {stopping.max_epochs} epochs"


def _came_with(epoch: dict[str, Any], decision: dict[str, Any]) -> bool:
    """Both were committed at one moment. Else the epoch was lost by an earlier recovery and trained again: the
    decision was kept, and the error need not be the same one."""
    return epoch["recorded_at_ms"] == decision["decided_at_ms"]


def _warn_of_a_living_driver(recalled: Recalled, epochs: Rows, warnings: list[str]) -> None:
    newest = max((epoch["recorded_at_ms"] for epoch in epochs), default=0)
    age_s = (now_ms() - newest) / 1000
    if recalled.status == content.RUN_STATUS[RUNNING] and age_s < _RECENT_S:
        warnings.append(
            f"MLflow had news of this sweep {max(age_s, 0):.0f} s ago; "
            "be sure that its old driver is gone before you resume"
        )
