"""A lost journal rebuilt from MLflow alone, so that the sweep outlives its head node (DESIGN, section 5).

In: a tracking URI, the id of the sweep's run, a run directory without a journal. Out: the journal there, from which
`sweep launch STUDY --run-dir DIR --resume` goes on.

MLflow holds a prefix of what decides places at the rungs, with every arrival that came with an epoch it knows
(sweep/tracking/origin.py). The decisions are a function of that sequence: they are taken again, by the rule of the
study (asha.py), and must agree with what became of the trials. What had not been delivered is trained again: an
arrival whose epoch was lost keeps its decision, for later ones were held against it; an arrival that was lost itself
happens anew.

What a recovered journal cannot know: on which host each epoch was trained and in which attempt (the last one's stand
for all), the digests of its checkpoints, and attempts and failures since the last delivery. And nobody can know from
here whether the lost driver is still at work somewhere: end it first, or two will train and deliver.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sweep.records import Journal, TrialRow
from sweep.records.journal import (
    ARRIVALS_DELIVERED,
    CLOSINGS_DELIVERED,
    COMPLETED,
    DIVERGED,
    ENDED,
    FAILED,
    FILE_NAME,
    ORIGIN_DELIVERED,
    PAUSED,
    PENDING,
    RUNNING,
    STOPPED,
    UNFINISHED,
    now_ms,
)
from sweep.scheduling import driver
from sweep.scheduling.asha import CONTINUE, PAUSE, STOP, Place, Rule, next_rung, rule_of
from sweep.scheduling.population import cohorts_of
from sweep.studies import Stopping, Study, study_from_dict
from sweep.tracking import content, strip_credentials
from sweep.tracking.recall import Arrival, Closing, Leave, Recalled, RecalledRun, recall

# Points of an epoch that a divergence lacks, and columns that a journal must have; MLflow takes an epoch's points all
# or none, but a server of another make need not.
_CURVE_OF_A_DIVERGENCE = ("train_loss", "val_loss", "val_error_pct")
_ALWAYS_THERE = ("learning_rate", "train_time_s", "eval_time_s")
_RECENT_S = 120
_UNKNOWN_FAILURE = "it failed; MLflow had not been told of what when the journal was lost"

Row = dict[str, Any]


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
    tables = _rebuild(recalled, warnings)
    driver.make_run_dir(run_dir)
    Journal.restore(run_dir, _meta(recalled, tables), tables).close()
    return Recovered(
        run_dir=str(run_dir),
        trials=len(tables["trials"]),
        unfinished=sum(trial["outcome"] in UNFINISHED for trial in tables["trials"]),
        epochs=len(tables["epochs"]),
        arrivals=len(tables["decisions"]),
        warnings=tuple(warnings),
    )


def _meta(recalled: Recalled, tables: Mapping[str, list[Row]]) -> dict[str, Any]:
    unlike = ("schema_version", content.NUM_TRIALS)
    return {key: value for key, value in recalled.origin.items() if key not in unlike} | {
        "tracking_uri": strip_credentials(recalled.tracking_uri),
        "experiment_id": recalled.experiment_id,
        "parent_run_id": recalled.parent_run_id,
        "recovered_at_ms": now_ms(),
        ARRIVALS_DELIVERED: len(tables["decisions"]),
        CLOSINGS_DELIVERED: len(tables["closings"]),
        ORIGIN_DELIVERED: [recalled.parent_run_id, len(tables["trials"])],
    }


def _rebuild(recalled: Recalled, warnings: list[str]) -> dict[str, list[Row]]:
    """Rows of the journal's tables."""
    study = study_from_dict(recalled.origin["study"])
    population = _population(recalled, warnings)
    log = _Replay(population, study)
    log.play(recalled.arrivals, recalled.closings, recalled.leaves)
    runs = _runs_by_trial(recalled, population, warnings)
    trials: list[Row] = []
    epochs: list[Row] = []
    contradictions: list[str] = []
    for trial in population:
        run = runs.get(trial.trial_id)
        curve = list(_curve(trial.trial_id, run, warnings)) if run else []
        stopping = study.stopping_at(trial.scale)
        row = _trial_row(trial, run, curve, log, stopping)
        contradictions += _contradictions(row, curve, log.judged[trial.trial_id], stopping)
        trials.append(row)
        epochs += curve
    if contradictions:
        raise RuntimeError(
            f"recover: MLflow contradicts itself on {len(contradictions)} counts, so no journal was written: "
            f"{'; '.join(contradictions[:5])}. The sweep was begun at commit {recalled.origin.get('git_commit')}: "
            "if that rule was another one, recover with that version"
        )
    _warn_of_a_living_driver(recalled, epochs, warnings)
    return {
        "trials": trials,
        "epochs": epochs,
        "decisions": log.decisions,
        "promotions": log.promotions,
        "closings": [asdict(closing) for closing in recalled.closings],
    }


def _population(recalled: Recalled, warnings: list[str]) -> list[TrialRow]:
    """In launch order. Trials beyond those that the meta knows are of an extension that was cut short on its way to
    MLflow: nothing was told of them yet."""
    num_trials = recalled.origin.get(content.NUM_TRIALS, len(recalled.population))
    if num_trials < len(recalled.population):
        warnings.append(
            f"the last `sweep extend`, by {len(recalled.population) - num_trials} trials, had not reached MLflow; "
            "repeat it once the sweep goes on"
        )
    return recalled.population[:num_trials]


# -- the decisions, taken again ------------------------------------------------------------------------------------


@dataclass
class _Replay:
    """What decided places, in its order, through the rule once more.

    `judged`: trial -> rung -> its decision, as it stands in the end. `lost_at_ms`: when a place was. `left`: trials
    that failed or were cancelled, as far as the log has them; `audited`: those that the lottery keeps on.
    """

    population: list[TrialRow]
    study: Study
    decisions: list[Row] = field(default_factory=list)
    promotions: list[Row] = field(default_factory=list)
    judged: dict[str, dict[int, Row]] = field(default_factory=lambda: defaultdict(dict))
    lost_at_ms: dict[Place, int] = field(default_factory=dict)
    left: dict[str, Leave] = field(default_factory=dict)
    audited: set[str] = field(default_factory=set)

    def play(self, arrivals: list[Arrival], closings: Iterable[Closing], leaves: Iterable[Leave]) -> None:
        rule = self._rule()
        by_order = {trial.launch_order: trial for trial in self.population}
        # What came between two arrivals, in the order of its time.
        between: dict[int, list[tuple[int, Closing | Leave]]] = defaultdict(list)
        for closing in closings:
            between[closing.after_arrival].append((closing.closed_at_ms, closing))
        for leave in leaves:  # of a log that was cut short, one may count arrivals that are lost
            between[min(leave.after_arrival, len(arrivals))].append((leave.left_at_ms, leave))
        self._between(rule, 0, between[0], by_order)
        for number, arrival in enumerate(arrivals, start=1):
            if arrival.number != number or arrival.launch_order not in by_order:
                raise self._broken(number)
            self._arrive(rule, arrival, by_order[arrival.launch_order])
            self._between(rule, number, between[number], by_order)
        if max(between) > len(arrivals):
            raise self._broken(len(arrivals) + 1)

    def _rule(self) -> Rule:
        stopping = self.study.stopping
        return rule_of(stopping.method, stopping.reduction_factor, cohorts_of(self.study, map(vars, self.population)))

    @staticmethod
    def _broken(number: int) -> RuntimeError:
        return RuntimeError(
            f"recover: the log of arrivals in MLflow is broken at number {number}, so no journal was written; "
            "restore its database from a backup, or launch the study anew"
        )

    def _arrive(self, rule: Rule, arrival: Arrival, trial: TrialRow) -> None:
        judgement = rule.arrive(trial.cohort, arrival.rung_epochs, trial.trial_id, arrival.error_pct)
        if trial.audited or (judgement.among_worst and trial.audited_if_worst):
            self.audited.add(trial.trial_id)
        is_audited = trial.trial_id in self.audited
        actions = {True: STOP, False: CONTINUE, None: PAUSE}
        row = {
            "arrival": arrival.number,
            "trial_id": trial.trial_id,
            "cohort": trial.cohort,
            "rung_epochs": arrival.rung_epochs,
            "error_pct": arrival.error_pct,
            "cutoff_pct": judgement.cutoff_pct if content.is_finite(judgement.cutoff_pct) else None,
            "would_stop": judgement.would_stop,
            "among_worst": judgement.among_worst,
            "audited": is_audited,
            "decision": CONTINUE if is_audited else actions[judgement.would_stop],
            "decided_at_ms": arrival.decided_at_ms,
        }
        self.decisions.append(row)
        self.judged[trial.trial_id][arrival.rung_epochs] = row
        self._place(judgement.earned, judgement.lost, arrival.number, arrival.decided_at_ms)
        if arrival.error_pct is None:  # it diverged, and will not arrive anywhere any more
            left = rule.leave(trial.cohort, trial.trial_id)
            self._place(left.earned, left.lost, arrival.number, arrival.decided_at_ms)

    def _between(
        self, rule: Rule, number: int, some: list[tuple[int, Closing | Leave]], by_order: Mapping[int, TrialRow]
    ) -> None:
        for moment, what in sorted(some, key=lambda item: item[0]):
            if isinstance(what, Closing):
                self._place((), rule.close(), number, moment)
            elif what.launch_order in by_order:
                trial = by_order[what.launch_order]
                self.left[trial.trial_id] = what
                left = rule.leave(trial.cohort, trial.trial_id)
                self._place(left.earned, left.lost, number, moment)

    def _place(self, earned: Iterable[Place], lost: Iterable[Place], after_arrival: int, moment: int) -> None:
        for rung, trial_id in earned:
            self.judged[trial_id][rung]["would_stop"] = False
            self.promotions.append(
                {
                    "trial_id": trial_id,
                    "rung_epochs": rung,
                    "after_arrival": after_arrival,
                    "promoted_at_ms": moment,
                }
            )
        for rung, trial_id in lost:
            self.judged[trial_id][rung]["would_stop"] = True
            self.lost_at_ms[rung, trial_id] = moment


# -- the trials ----------------------------------------------------------------------------------------------------


def _runs_by_trial(recalled: Recalled, population: list[TrialRow], warnings: list[str]) -> dict[str, RecalledRun]:
    """A run that was created and told nothing, beside another of its trial, is of a request whose answer was lost."""
    known = {trial.trial_id for trial in population}
    seen: set[str] = set()
    runs: list[RecalledRun] = []
    for run in sorted(recalled.runs, key=lambda run: run.is_empty):
        if run.trial_id in seen and run.is_empty and run.tags.get("outcome") == RUNNING:
            warnings.append(f"{run.trial_id}: its run {run.run_id} holds nothing and is left out; it has another one")
        else:
            runs.append(run)
        seen.add(run.trial_id)
    counts = Counter(run.trial_id for run in runs)
    wrong = [trial_id for trial_id, count in counts.items() if count > 1 or trial_id not in known]
    if wrong:
        raise RuntimeError(
            f"recover: below {recalled.parent_run_id!r} stand two runs of one trial, or runs of a trial that the sweep "
            f"does not have ({', '.join(sorted(wrong)[:5])}); delete those that are not its own in MLflow"
        )
    return {run.trial_id: run for run in runs}


def _curve(trial_id: str, run: RecalledRun, warnings: list[str]) -> Iterator[Row]:
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


def _trial_row(trial: TrialRow, run: RecalledRun | None, curve: list[Row], log: _Replay, stopping: Stopping) -> Row:
    outcome = _outcome(trial, run, curve, log, stopping)
    row = asdict(trial) | {
        "outcome": outcome,
        "failure": (run and run.failure) or _UNKNOWN_FAILURE if outcome == FAILED else None,
        "ended_at_ms": _ended_at_ms(trial, run, outcome, curve, log),
    }
    if run is None:
        return row
    counted = {name: int(run.tags[name]) for name in content.COUNTED if name in run.tags}
    return (
        row
        | counted
        | {
            "attempts": _attempts(run),
            "failure_kind": run.tags.get("failure_kind") if outcome == FAILED else None,
            "started_at_ms": run.started_at_ms if _attempts(run) else None,
            "run_id": run.run_id,
            "delivered_outcome": _delivered_outcome(run),
        }
    )


def _outcome(trial: TrialRow, run: RecalledRun | None, curve: list[Row], log: _Replay, stopping: Stopping) -> str:
    """What MLflow says; where the end had not been delivered, what the log or the last epoch says."""
    told = run.tags.get("outcome", RUNNING) if run else PENDING
    if told in ENDED:
        return told
    if trial.trial_id in log.left:
        return log.left[trial.trial_id].outcome
    if run is None:
        return PENDING
    shown = _outcome_by_curve(trial, curve, log, stopping)
    # Of an end that was told in part only, the tags are missing: what has no other reason was a failure.
    return shown if shown in ENDED else FAILED if run.has_ended else shown


def _outcome_by_curve(trial: TrialRow, curve: list[Row], log: _Replay, stopping: Stopping) -> str:
    if not curve:
        return RUNNING
    last = curve[-1]
    if last["val_error_pct"] is None:
        return DIVERGED
    if last["epoch"] >= stopping.max_epochs:
        return COMPLETED
    decision = log.judged[trial.trial_id].get(last["epoch"])
    if decision is None or decision["audited"] or decision["would_stop"] is False:
        return RUNNING
    return STOPPED if decision["would_stop"] else PAUSED


def _ended_at_ms(trial: TrialRow, run: RecalledRun | None, outcome: str, curve: list[Row], log: _Replay) -> int | None:
    if outcome not in ENDED:
        return None
    if run is not None and run.ended_at_ms is not None and (run.has_ended or run.tags.get("outcome") == outcome):
        return run.ended_at_ms
    if trial.trial_id in log.left:
        return log.left[trial.trial_id].left_at_ms
    assert run is not None
    last = curve[-1] if curve else {"recorded_at_ms": run.started_at_ms, "epoch": 0}
    return max(last["recorded_at_ms"], log.lost_at_ms.get((last["epoch"], trial.trial_id), 0))


def _delivered_outcome(run: RecalledRun) -> str | None:
    """None where the run holds no more than its name: its facts were not delivered. An outcome that is not yet the
    run's status counts as not delivered, so that the status follows."""
    if content.ATTEMPTS_TAG not in run.tags:
        return None
    told = run.tags.get("outcome", RUNNING)
    return told if content.RUN_STATUS.get(told) == run.status else RUNNING


# -- what does not fit ---------------------------------------------------------------------------------------------


def _contradictions(row: Row, curve: list[Row], judged: Mapping[int, Row], stopping: Stopping) -> Iterator[str]:
    """Where the decisions taken again, the log of arrivals and the outcomes told do not fit each other."""
    trial_id, outcome = row["trial_id"], row["outcome"]
    numbers = [epoch["epoch"] for epoch in curve]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"{trial_id} has the epochs {numbers} and none between"
        return
    for epoch in curve:
        diverged = epoch["val_error_pct"] is None
        rung = next_rung(stopping.rungs, epoch["epoch"]) if diverged else epoch["epoch"]
        if rung in stopping.rungs:
            yield from _contradictions_at(rung, epoch, judged.get(rung), is_last=epoch["epoch"] == numbers[-1])
    last = judged.get(numbers[-1]) if numbers else None
    if outcome == STOPPED and (last is None or last["audited"] or not last["would_stop"]):
        yield f"{trial_id} was stopped after {len(numbers)} epochs, where the rule lets it go on"
    if outcome == COMPLETED and len(numbers) < stopping.max_epochs:
        yield f"{trial_id} is said to be completed after {len(numbers)} of {stopping.max_epochs} epochs"


def _contradictions_at(rung: int, epoch: Row, decision: Row | None, *, is_last: bool) -> Iterator[str]:
    trial_id = epoch["trial_id"]
    if decision is None:
        yield f"{trial_id} has passed the rung of {rung} epochs, which the log of arrivals does not know"
    elif decision["error_pct"] != epoch["val_error_pct"] and _came_with(epoch, decision):
        yield (
            f"{trial_id} arrived at {rung} epochs with error {decision['error_pct']}, "
            f"but its curve has {epoch['val_error_pct']}"
        )
    elif not is_last and not decision["audited"] and decision["would_stop"] is not False:
        why = "the rule stops it" if decision["would_stop"] else "it has not earned its place"
        yield f"{trial_id} trained on after the rung of {rung} epochs, where {why}"


def _came_with(epoch: Row, decision: Row) -> bool:
    """Both were committed at one moment. Else the epoch was lost by an earlier recovery and trained again: the
    decision was kept, and the error need not be the same one."""
    return epoch["recorded_at_ms"] == decision["decided_at_ms"]


def _warn_of_a_living_driver(recalled: Recalled, epochs: list[Row], warnings: list[str]) -> None:
    newest = max((epoch["recorded_at_ms"] for epoch in epochs), default=0)
    age_s = (now_ms() - newest) / 1000
    if recalled.status == content.RUN_STATUS[RUNNING] and age_s < _RECENT_S:
        warnings.append(
            f"MLflow had news of this sweep {max(age_s, 0):.0f} s ago; "
            "be sure that its old driver is gone before you resume"
        )
