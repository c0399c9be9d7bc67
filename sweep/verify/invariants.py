"""I1 to I4 between the journal and MLflow, the artifacts that runs claim, the journal as a file (DESIGN, section 5).

In: a `JournalRows` and `Records`, the journal read first. Out: a `Check` each. `at_work`: a driver still delivers, so
MLflow may lag behind the journal, or be ahead of the copy that was read: then only what the journal marks as delivered
is asked for, and nothing is said of what changes.
"""

from collections import Counter, defaultdict
from functools import partial

from sweep.verify.check import Check, some
from sweep.verify.journal import JournalRows, Row
from sweep.verify.mlflow import SWEEP_ID_TAG, Point, Records, Run, UnreachableError
from sweep.verify.outcomes import ENDED

# Outcome -> MLflow's status and the tag `outcome`. KILLED: ended from outside.
STATUS = {
    "completed": "FINISHED",
    "stopped": "KILLED",
    "diverged": "FAILED",
    "failed": "FAILED",
    "cancelled": "KILLED",
    "interrupted": "KILLED",
}
_SWEEP_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
_OPEN = ("RUNNING", "SCHEDULED")
# Column of the journal -> key of the metric.
CURVES = {
    "val_error_pct": "error_pct",
    "train_loss": "train/loss",
    "val_loss": "val/loss",
    "learning_rate": "train/learning_rate",
    "train_time_s": "perf/train_time_s",
    "eval_time_s": "perf/eval_time_s",
}
_ARRIVALS = ("arrivals/trial", "arrivals/rung_epochs", "arrivals/error_pct")
_CLAIM = "sha256."

Stored = dict[tuple[str, int], list[Point]]
"""Key and step -> the points there."""


# -- I1: one run a trial, and it tells the truth -------------------------------------------------------------------


def check_runs(journal: JournalRows, records: Records, at_work: bool, check: Check) -> None:
    _check_sweeps_run(journal, records, at_work, check)
    runs: dict[str, list[Run]] = defaultdict(list)
    for run in records.active:
        if run.kind == "trial":
            runs[run.trial_id].append(run)
    for trial_id in sorted(runs.keys() - journal.trial_of.keys()):
        check.ask(False, f"{trial_id or 'no trial'}: has {_named(runs[trial_id])}, but the sweep has no such trial")
    for trial in journal.trials:
        _check_trials_run(journal, trial, runs[trial["trial_id"]], records, at_work, check)


def _check_sweeps_run(journal: JournalRows, records: Records, at_work: bool, check: Check) -> None:
    sweeps, known = [run for run in records.active if run.kind == "sweep"], journal.meta.get("parent_run_id")
    if not sweeps and (known is None and (at_work or not any(map(journal.has_started, journal.trials)))):
        return  # nothing was delivered yet, or there is nothing to deliver
    deleted = sum(run.kind == "sweep" and not run.is_active for run in records.runs)
    also = f" ({deleted} deleted)" if deleted else ""
    if not check.ask(len(sweeps) == 1, f"the sweep has {len(sweeps)} runs instead of one: {_named(sweeps)}{also}"):
        return
    sweep = sweeps[0]
    if known is not None:
        check.require(sweep.run_id == known, f"{sweep}: the journal calls it {known}")
    told = sweep.tags.get(SWEEP_ID_TAG, "none")
    check.require(told == journal.sweep_id, f"{sweep}: its tag {SWEEP_ID_TAG} is {told}, not {journal.sweep_id}")
    if not at_work and sweep.status not in _OPEN:
        outcome, known = sweep.tags.get("outcome", "none"), journal.num_trials_told
        left = [t for t in journal.trials if t["outcome"] not in ENDED and t["launch_order"] < known]
        truth = _SWEEP_STATUS.get(outcome)
        check.require(
            sweep.status == truth, f"{sweep}: its status is {sweep.status}, its outcome {outcome!r} stands for {truth}"
        )
        check.require(
            not left or sweep.status != "FINISHED",
            f"{sweep}: its status is FINISHED, but {len(left)} trials have not ended",
        )


def _check_trials_run(
    journal: JournalRows, trial: Row, runs: list[Run], records: Records, at_work: bool, check: Check
) -> None:
    trial_id = trial["trial_id"]
    if not journal.has_started(trial):
        if runs and not at_work:
            check.ask(False, f"{trial_id}: has never started, and has {_named(runs)}")
        return
    if not runs and at_work and trial["delivered_outcome"] is None:
        return  # its turn has not come
    if not check.ask(len(runs) == 1, f"{trial_id}: {_how_many(trial, runs, records)}"):
        return
    run = runs[0]
    if trial["run_id"] is not None:
        check.require(run.run_id == trial["run_id"], f"{trial_id}: has run {run.run_id}, the journal {trial['run_id']}")
    if not at_work or trial["delivered_outcome"] == trial["outcome"] in ENDED:
        _check_status(journal, trial, run, check)


def _how_many(trial: Row, runs: list[Run], records: Records) -> str:
    if runs:
        return f"has {len(runs)} runs instead of one: {_named(runs)}"
    deleted = [run for run in records.runs if run.trial_id == trial["trial_id"] and not run.is_active]
    why = f"; {_named(deleted)} was deleted" if deleted else ""
    why = why or ("" if trial["delivered_outcome"] else "; the journal knows that it was not delivered: sweep sync RUN")
    return f"is {trial['outcome']}, and has no run{why}"


def _check_status(journal: JournalRows, trial: Row, run: Run, check: Check) -> None:
    outcome = trial["outcome"] if trial["outcome"] in ENDED else "interrupted"
    told = run.tags.get("outcome", "none")
    if run.status not in _OPEN:  # else I2 says so
        check.require(
            run.status == STATUS[outcome],
            f"{run}: its status is {run.status}, and the trial is {trial['outcome']}: {STATUS[outcome]}",
        )
        check.require(told == outcome, f"{run}: its tag outcome is {told!r}, and the trial is {outcome}")
    rung, last = run.tags.get("rung", "none"), journal.last_epoch(trial["trial_id"])
    check.require(rung == str(last), f"{run}: its tag rung is {rung}, and the trial has {last} epochs")
    attempts = run.tags.get("attempts", "none")
    check.require(
        outcome == "interrupted" or attempts == str(trial["attempts"]),
        f"{run}: its tag attempts is {attempts}, and the trial had {trial['attempts']}",
    )


def _named(runs: list[Run]) -> str:
    return f"run {some(run.run_id for run in runs)}" if runs else "none"


# -- I2 and I3 -----------------------------------------------------------------------------------------------------


def check_none_running(records: Records, at_work: bool, check: Check) -> None:
    for run in records.active:
        check.ask(at_work or run.status not in _OPEN, f"{run}: is {run.status}, and no driver is at work")


def check_no_point_twice(records: Records, check: Check) -> None:
    for run in records.active:
        for (key, step), points in by_step(run).items():
            check.ask(len(points) == 1, partial(_doubled, run, key, step, points))


def _doubled(run: Run, key: str, step: int, points: list[Point]) -> str:
    return f"{run}: {key} at step {step} is stored {len(points)} times: {_shown(points)}"


def _shown(points: list[Point]) -> str:
    return ", ".join("NaN" if point.is_nan else f"{point.value} at {point.timestamp_ms} ms" for point in points)


def by_step(run: Run) -> Stored:
    found: Stored = defaultdict(list)
    for point in run.points:
        found[point.key, point.step].append(point)
    return found


# -- I4: all that is committed is there, and nothing else ------------------------------------------------------------


def check_points(journal: JournalRows, records: Records, at_work: bool, check: Check) -> None:
    # Of several, which I1 tells of, the fullest.
    fullest = sorted((run for run in records.active if run.kind == "trial"), key=lambda run: len(run.points))
    runs = {run.trial_id: run for run in fullest}
    for trial in journal.trials:
        curve, run = journal.curves[trial["trial_id"]], runs.get(trial["trial_id"])
        asked = [row for row in curve if row["delivered"] or not at_work]
        if run is None:
            check.ask(not asked, f"{trial['trial_id']}: its {len(asked)} epochs are nowhere, for it has no run")
            continue
        stored = by_step(run)
        for row in asked:
            _check_epoch(row, stored, run, check)
        if not at_work:
            _refuse_others(stored, tuple(CURVES.values()), {row["epoch"] for row in curve}, run, "epoch", check)
        if trial["delivered_outcome"] is not None or (journal.has_started(trial) and not at_work):
            _check_facts(journal, trial, stored, run, check)
    _check_arrivals(journal, records, at_work, check)


def _check_epoch(row: Row, stored: Stored, run: Run, check: Check) -> None:
    for column, key in CURVES.items():
        _check_point(stored, key, row["epoch"], row[column], row["recorded_at_ms"], run, check)


def _check_point(
    stored: Stored, key: str, step: int, value: float | None, timestamp_ms: int | None, run: Run, check: Check
) -> None:
    """`value` None: nothing may be there. Doubled points are I3's: here one of them has to be right."""
    points = stored.get((key, step), [])
    right = not points
    if value is not None:
        right = any(p.value == value and p.timestamp_ms == timestamp_ms and not p.is_nan for p in points)
    check.ask(right, partial(_unlike, run, key, step, points, value, timestamp_ms))


def _unlike(run: Run, key: str, step: int, points: list[Point], value: float | None, timestamp_ms: int | None) -> str:
    where = f"{run}: {key} at step {step} is"
    if value is None:
        return f"{where} {_shown(points)}, and the journal has no finite value there"
    if not points:
        return f"{where} missing; the journal has {value}"
    return f"{where} {_shown(points)}, and the journal has {value} at {timestamp_ms} ms"


def _refuse_others(stored: Stored, keys: tuple[str, ...], steps: set[int], run: Run, what: str, check: Check) -> None:
    for key, step in sorted(stored):
        if key in keys:
            check.require(step in steps, f"{run}: {key} is stored at step {step}, and the journal has no such {what}")


def _check_facts(journal: JournalRows, trial: Row, stored: Stored, run: Run, check: Check) -> None:
    """The network's numbers, at step 0 and the moment of its first start; at its end how far it came."""
    begun_at_ms = trial["started_at_ms"] or trial["ended_at_ms"]
    for column in ("flops", "params", "activations"):
        _check_point(stored, f"{column}_m", 0, trial[column] / 1e6, begun_at_ms, run, check)
    if trial["delivered_outcome"] == trial["outcome"] in ENDED:
        last = float(journal.last_epoch(trial["trial_id"]))
        _check_point(stored, "epochs_trained", 0, last, trial["ended_at_ms"], run, check)


def _check_arrivals(journal: JournalRows, records: Records, at_work: bool, check: Check) -> None:
    """The log of arrivals that a lost journal is rebuilt from, in the sweep's run."""
    known = journal.meta.get("arrivals_delivered", 0) if at_work else len(journal.decisions)
    asked = [row for row in journal.decisions if not at_work or row["arrival"] <= known]
    sweeps = sorted((run for run in records.active if run.kind == "sweep"), key=lambda run: -len(run.points))
    if not sweeps:
        check.ask(not asked, f"the sweep: its {len(asked)} arrivals at rungs are nowhere, for it has no run")
    for run in sweeps[:1]:
        stored = by_step(run)
        for row in asked:
            trial = journal.trial_of.get(row["trial_id"])
            order = float(trial["launch_order"]) if trial else None
            values = (order, float(row["rung_epochs"]), row["error_pct"])
            for key, value in zip(_ARRIVALS, values, strict=True):
                _check_point(stored, key, row["arrival"], value, row["decided_at_ms"], run, check)
        if not at_work:
            _refuse_others(stored, _ARRIVALS, {row["arrival"] for row in asked}, run, "arrival", check)


# -- artifacts, and the journal as a file ------------------------------------------------------------------------------


def check_artifacts(records: Records, check: Check) -> None:
    """Each claim (a tag `sha256.` and the artifact's path) has its file. A file without a claim may be half there."""
    unknown: Counter[str] = Counter()
    for run in records.active:
        for tag, claimed in sorted(run.tags.items()):
            if tag.startswith(_CLAIM):
                try:
                    found = records.sha256(run, tag.removeprefix(_CLAIM))
                except UnreachableError as error:
                    unknown[str(error)] += 1
                else:
                    check.ask(found == claimed, f"{run}: {_damage(tag.removeprefix(_CLAIM), claimed, found)}")
    if unknown:
        check.not_checked.append(f"{unknown.total()} artifacts: {some(unknown, limit=1)}")


def _damage(path: str, claimed: str, found: str | None) -> str:
    if found is None:
        return f"claims the artifact {path}, and there is none"
    return f"claims the artifact {path} with SHA-256 {claimed[:12]}…, and it has {found[:12]}…"


def check_file(journal: JournalRows, check: Check) -> None:
    """That it is intact was seen when it was read. Here: it has lost no commit, its order of time is whole, and no row
    of it speaks of a trial that it does not have."""
    check.ask(
        journal.commits >= journal.marked_commits,
        f"the journal knows {journal.commits} commits, and {journal.marked_commits} were made in this directory: the "
        "last ones are lost",
    )
    moments = [row["recorded_at_ms"] for row in journal.epochs]
    if not journal.is_recovered:  # else what was lost may have been later
        moments += [row["decided_at_ms"] for row in journal.decisions]
        moments += [row["promoted_at_ms"] for row in journal.promotions]
        moments += [row["closed_at_ms"] for row in journal.closings]
        moments += [trial["ended_at_ms"] or 0 for trial in journal.trials]
    latest_ms = max(moments, default=0)
    check.ask(
        journal.latest_ms >= latest_ms,
        f"the journal's latest moment is {journal.latest_ms} ms, and something happened at {latest_ms} ms",
    )
    for table in ("epochs", "decisions", "promotions"):
        strangers = {row["trial_id"] for row in getattr(journal, table)} - journal.trial_of.keys()
        check.ask(not strangers, f"the table {table} speaks of {some(strangers)}, which the table of trials lacks")
    for trial_id, curve in journal.curves.items():
        moments = [row["recorded_at_ms"] for row in curve]
        check.ask(moments == sorted(moments), f"{trial_id}: its epochs were recorded at {moments} ms, out of order")
