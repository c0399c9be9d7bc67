"""The verbs of `sweep` from Python: launch, judge, report, status, stop, extend, sync, logs; `rerun` is in sweep/rerun.

In: a study (name, path or `Study`) or a run directory. Out: small frozen results that print as JSON; the command
line is a thin coat over them. What a user got wrong raises `ValueError` before anything starts.
"""

import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import Profile, check_cluster, load_profile
from cluster.machine import check_open_files, check_ray_folder
from cluster.profile import LOCAL
from sweep.records import Journal, Tables, find_run, from_journal, write_tables
from sweep.records.journal import CANCELLED, ENDED, FAILED, FILE_NAME, UNFINISHED
from sweep.records.lease import held
from sweep.studies import TRAIN, Study, load_study, study_from_dict

if TYPE_CHECKING:
    from sweep.scheduling.extend import Extended
    from sweep.statistics import Findings, Verdict
    from sweep.studies.study import Match

Watch = Callable[[Path], AbstractContextManager[None]]
Log = Callable[[str], None]

REPORT = "report.html"
"""In the run directory."""


@dataclass(frozen=True)
class Summary:
    """How a sweep ended, or stands. `trials` counts by outcome; `best` is the best that trained to the end; `events`
    counts what happened to it, such as retries; `disk_bytes` what its run directory holds; `looks` how they stand, None
    of a sweep that is judged at its end (sweep/scheduling/standing.py)."""

    run_dir: str
    study: str
    tracking_uri: str
    experiment_id: str | None
    parent_run_id: str | None
    trials: dict[str, int]
    epochs_trained: int
    epochs_if_all_completed: int
    wall_s: float
    best: dict[str, Any] | None
    finished: bool
    report: str | None
    tracking_error: str | None = None
    events: dict[str, int] = field(default_factory=dict)
    disk_bytes: dict[str, int] = field(default_factory=dict)
    looks: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def newest_run() -> Path:
    """The run directory under `runs` whose journal was written last."""
    journals = sorted(Path("runs").glob(f"*/{FILE_NAME}"), key=lambda path: path.stat().st_mtime)
    if not journals:
        raise ValueError(
            "run: there is no sweep under runs; name a run directory, or launch one: sweep launch quickstart"
        )
    return journals[-1].parent.resolve()


def launch(
    study: Study | str | Path,
    *,
    run_dir: str | Path | None = None,
    profile: Profile | str = "laptop",
    resume: bool = False,
    watch: Watch | None = None,
    log: Log | None = None,
) -> Summary:
    """Run a study from its question to its report; `resume` continues what the run directory holds.

    Returns when every trial has ended, or early when asked to stop (Ctrl-C, `sweep stop`): then `finished` is false
    and a later call with `resume` goes on. `watch` is entered with the run directory while trials train, `log` is
    told of each step.
    """
    log = log or (lambda message: None)
    study = study if isinstance(study, Study) else load_study(study)
    profile = profile if isinstance(profile, Profile) else load_profile(profile)
    folder = Path(run_dir or Path("runs") / study.name).absolute()
    started = time.monotonic()
    with _prepared(study, folder, profile, resume, log) as (journal, data):
        _train(journal, study, folder, profile, data, watch or (lambda _: nullcontext()), log)
        return _summary(journal, folder, wall_s=time.monotonic() - started)


@contextmanager
def _prepared(study: Study, folder: Path, profile: Profile, resume: bool, log: Log) -> Iterator[tuple[Journal, Any]]:
    """Everything that can be refused is refused here, before any trial: then the journal, held by this process."""
    from sweep.scheduling import driver
    from sweep.scheduling.population import draw_population
    from sweep.tracking import artifact_root, preflight
    from sweep.training.data import describe
    from sweep.training.objective import load_objective

    _refuse_unless_fitting(study, folder, resume)
    check_open_files()
    if profile.address == LOCAL:
        check_ray_folder()
    if study.objective != TRAIN:
        load_objective(study.objective)
    check_cluster(profile)
    if given := study.tracking.uri or profile.tracking.uri:
        preflight(given)
        artifact_root(given, folder)
    data = driver.prepare_data(study, log)
    log(f"data: {describe(study.data, next(iter(data.values())))}")
    existing = (folder / FILE_NAME).exists()
    population = None if existing else draw_population(study)
    driver.make_run_dir(folder)
    with driver.owned(folder):
        if population is None:
            journal = Journal.open(folder)
            journal.check_whole()
        else:
            journal = driver.create(study, folder, profile, data, population)
            log(f"population: {len(population[0])} networks drawn from {', '.join(study.spaces)}")
        with journal, held(journal, log):
            if population is None:
                journal.set_meta(stop_requested=False)
                counts = journal.counts()
                left = sum(counts[outcome] for outcome in UNFINISHED)
                log(f"resuming {folder}: {left} of {sum(counts.values())} trials left")
            yield journal, data


def _refuse_unless_fitting(study: Study, folder: Path, resume: bool) -> None:
    """A run directory is fresh, or it holds this very study and we are to resume it."""
    if not (folder / FILE_NAME).exists():
        of_a_sweep = (f"{FILE_NAME}-wal", ".journal-commits", "trials.parquet", "mlflow.db", "checkpoints", "logs")
        remains = [name for name in of_a_sweep if (folder / name).exists()]
        if remains:
            raise ValueError(
                f"--run-dir: {str(folder)!r} holds {', '.join(remains)} of a sweep but not its journal; "
                "restore journal.sqlite from a copy, or choose another directory"
            )
        return
    if not resume:
        raise ValueError(
            f"--run-dir: {str(folder)!r} holds a sweep already; add --resume to go on with it, "
            "or choose another directory"
        )
    with Journal.open(folder, read_only=True) as journal:
        recorded = study_from_dict(journal.get("study"))
    if recorded.hash != study.hash:
        changed = ", ".join(_differences(recorded.to_dict(), study.to_dict()))
        raise ValueError(
            f"--resume: the study differs from the one in {str(folder)!r} in {changed}; "
            "launch the changed study into another run directory"
        )


def _differences(old: Any, new: Any, at: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old | new):
            yield from _differences(old.get(key), new.get(key), f"{at}.{key}" if at else key)
    elif old != new:
        yield f"{at} ({old!r} became {new!r})"


def _tracking_uri(study: Study, profile_uri: str, recorded: str | None, folder: Path) -> str:
    """Where the study says, else the profile; else the server that has the sweep already; else the run directory."""
    from sweep.tracking import default_tracking_uri

    server = recorded if recorded and recorded.startswith("http") else ""
    return study.tracking.uri or profile_uri or server or default_tracking_uri(folder)


def _train(journal: Journal, study: Study, folder: Path, profile: Profile, data: Any, watch: Watch, log: Log) -> None:
    """Train what is unfinished, then judge, report and deliver, whatever happened to the training."""
    from sweep.scheduling import driver
    from sweep.scheduling.supervisor import StopSwitch, stop_on_signals, supervise, when_there_is_room
    from sweep.tracking import Outbox

    switch = StopSwitch(journal)
    journal.blocked = _patience(switch, log)
    uri = _tracking_uri(study, profile.tracking.uri, journal.get("tracking_uri"), folder)
    interval_s = profile.tracking.interval_s
    outbox = Outbox(folder, uri, experiment=study.name, interval_s=interval_s, token=journal.token)
    outbox.start()
    error: BaseException | None = None
    with stop_on_signals(switch):
        try:
            if not journal.is_finished() or journal.has_open_places():
                log("starting Ray")
                with watch(folder):
                    supervise(journal, profile, data, lambda: driver.prepare_data(study, log), switch, log)
                if switch.aborted:  # and what was raised then has been swallowed on its way
                    raise KeyboardInterrupt
            finished = journal.is_finished()
            artifacts, note = {}, ""
            if finished:
                artifacts, note = when_there_is_room(lambda: _conclude(journal, folder, log), folder, switch, log)
        except BaseException as raised:  # delivered first, then raised: no run may be left RUNNING
            error, finished, artifacts, note = raised, False, {}, ""
        log("delivering to MLflow")
        try:
            outbox.close(
                status="finished" if finished else "interrupted" if _is_request(error) else "failed",
                artifacts=artifacts,
                note=note,
                timeout_s=3 if isinstance(error, KeyboardInterrupt) else _delivery_s(journal),
            )
            journal.set_meta(tracking_error=None)
        except RuntimeError as undelivered:
            # The sweep itself is whole: what is left stays marked in the journal, for `sweep sync` or a resume.
            journal.set_meta(tracking_error=str(undelivered))
            log(f"warning: {undelivered}")
    if error is not None:
        raise error


def _delivery_s(journal: Journal) -> float:
    """How long MLflow has for the end of a sweep: where it ended early, it is told of many trials at once."""
    return 60 + 0.1 * journal.num_never_begun(CANCELLED)


def _patience(switch: Any, log: Log) -> Callable[[str], None]:
    """What a write of this process does that finds no room: say so, now and then, until it is asked to stop."""
    said_s = -60.0

    def blocked(reason: str) -> None:
        nonlocal said_s
        if switch.requested:
            raise OSError(errno.ENOSPC, reason)
        if time.monotonic() - said_s >= 60:
            said_s = time.monotonic()
            log(f"waiting: {reason}; free some room, and the sweep goes on by itself")

    return blocked


def _is_request(error: BaseException | None) -> bool:
    return error is None or isinstance(error, KeyboardInterrupt)


def _conclude(journal: Journal, folder: Path, log: Log) -> tuple[dict[str, Path], str]:
    """Take the looks that are due; write tables, findings, report and figure: the artifacts of the parent run, and its
    note."""
    from dashboards.note import findings_note
    from sweep.scheduling.looks import Looks
    from sweep.scheduling.standing import standing, told

    Looks(journal, log).take_due()
    tables = from_journal(journal)
    write_tables(tables, folder)
    findings = _write_findings(tables, folder)
    _write_whole(folder / "study.json", json.dumps(tables.metadata["study"], indent=1))
    names = ("study.json", "architectures.parquet", "trials.parquet", "epochs.parquet", "verdicts.json",
             "findings.json", REPORT, "summary.png")  # fmt: skip
    looks = standing(journal)
    return {name: folder / name for name in names}, findings_note(findings, told(looks) if looks else "")


def judge(run: str | Path) -> "list[Verdict]":
    """Judge each rule of a sweep, finished or not, from its journal."""
    from sweep.statistics import judge_study

    folder = find_run(run)
    with Journal.open(folder, read_only=True) as journal:
        return judge_study(from_journal(journal))


def find(run: str | Path) -> "Findings":
    """All that a sweep says, finished or not: its verdicts at each budget, and what its spaces are like."""
    from sweep.statistics import find_in_tables

    folder = find_run(run)
    with Journal.open(folder, read_only=True) as journal:
        return find_in_tables(from_journal(journal))


def judge_curves(
    path: str | Path,
    *,
    pairs: Sequence[str] = (),
    margin_pct: float = 0.5,
    confidence: float = 0.95,
    num_bootstrap: int = 10_000,
    seed: int = 0,
    match: "Match" = "none",
    num_classes: int = 10,
) -> "Findings":
    """All that learning curves from anywhere say (sweep/statistics/reading.py tells the columns of the Parquet file).

    `pairs` as "WITHOUT:WITH"; without any those that differ by a rule, of spaces that ship, or the only two.
    """
    from sweep.statistics import Terms, find_in_cohorts, pairs_of, read_curves

    terms = Terms(margin_pct, confidence, num_bootstrap, seed, match)
    cohorts = read_curves(path, num_classes=num_classes)
    return find_in_cohorts(cohorts, pairs_of(cohorts, pairs), terms)


def report(run: str | Path) -> Path:
    """Write tables, verdicts and report of a sweep into its run directory; answers the report's path."""
    folder = find_run(run)
    with Journal.open(folder, read_only=True) as journal:
        tables = from_journal(journal)
    write_tables(tables, folder)
    _write_findings(tables, folder)
    return folder / REPORT


def _write_findings(tables: Tables, folder: Path) -> "Findings":
    """Findings, verdicts, report and figure, into the run directory."""
    from dashboards.figures import summary_png
    from dashboards.report import write_report
    from sweep.rerun.result import read_results
    from sweep.statistics import find_in_tables

    findings = find_in_tables(tables)
    at_rungs = findings.at_rungs
    _write_whole(folder / "verdicts.json", json.dumps([verdict.to_dict() for verdict in at_rungs], indent=1))
    _write_whole(folder / "findings.json", json.dumps(findings.to_dict(), indent=1))
    summary_png(tables, at_rungs, folder / "summary.png")
    write_report(tables, findings, folder / REPORT, reruns=read_results(folder))
    return findings


def _write_whole(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def status(run: str | Path) -> Summary:
    """How a sweep stands, read from its journal; nothing is started or changed."""
    folder = find_run(run)
    with Journal.open(folder, read_only=True) as journal:
        return _summary(journal, folder, wall_s=_wall_s(journal))


def _wall_s(journal: Journal) -> float:
    first, last = journal.time_span_ms()
    return (last - first) / 1000 if first is not None and last is not None else 0.0


def _summary(journal: Journal, folder: Path, *, wall_s: float) -> Summary:
    from sweep.scheduling.standing import standing

    meta = journal.meta()
    study = study_from_dict(meta["study"])
    counts = journal.counts()
    report_path = folder / REPORT
    return Summary(
        run_dir=str(folder),
        study=study.name,
        tracking_uri=meta.get("tracking_uri")
        or _tracking_uri(study, meta.get("profile", {}).get("tracking", {}).get("uri", ""), None, folder),
        experiment_id=meta.get("experiment_id"),
        parent_run_id=meta.get("parent_run_id"),
        trials={outcome: counts[outcome] for outcome in (*ENDED, *UNFINISHED)},
        epochs_trained=journal.num_epochs(),
        epochs_if_all_completed=sum(
            num * study.stopping_at(scale).max_epochs for scale, num in journal.counts_by_scale().items()
        ),
        wall_s=round(wall_s, 1),
        best=_best(journal),
        finished=journal.is_finished(),
        report=str(report_path) if report_path.exists() else None,
        tracking_error=meta.get("tracking_error"),
        events=journal.num_events(),
        disk_bytes=_disk_bytes(folder),
        looks=standing(journal),
    )


def _disk_bytes(folder: Path) -> dict[str, int]:
    """What lies in a run directory, by what it is for."""
    sizes = dict.fromkeys(("checkpoints", "journal", "mlflow", "other"), 0)
    for path in folder.rglob("*"):
        top = path.relative_to(folder).parts[0]
        known = {"checkpoints": "checkpoints", "mlflow.db": "mlflow", "mlartifacts": "mlflow"}.get(top, "other")
        with suppress(OSError):  # what is cleared away meanwhile
            sizes["journal" if top.startswith(FILE_NAME) else known] += path.lstat().st_size if path.is_file() else 0
    return sizes


def _best(journal: Journal) -> dict[str, Any] | None:
    row = journal.best_completed()
    if row is None:
        return None
    return {
        "architecture_id": row["architecture_id"],
        "trial_id": row["trial_id"],
        "space": row["space"],
        "error_pct": row["val_error_pct"],
        "epochs": row["epoch"],
    }


def stop(run: str | Path, trial: str | None = None) -> Path:
    """Ask the driver of a sweep to end so that it can be resumed, or to end one trial of it for good.

    It notices within a second, and a trial in training within some more. Raises `ValueError` for a trial that the
    sweep does not have, or that has ended.
    """
    folder = find_run(run)
    with Journal.open(folder) as journal:
        if trial is None:
            journal.set_meta(stop_requested=True)
            return folder
        row = _trial(journal, trial)
        if row["outcome"] in ENDED:
            raise ValueError(f"--trial {trial!r}: has ended already ({row['outcome']}); there is nothing to stop")
        journal.ask_to_cancel(trial)
    return folder


def _trial(journal: Journal, trial_id: str) -> Any:
    row = journal.trial(trial_id)
    if row is None:
        known = [row["trial_id"] for row in journal.trials()]
        near = get_close_matches(trial_id, known, n=3)
        hint = (
            f"did you mean {', '.join(near)}?"
            if near
            else f"they are called like {known[0]}"
            if known
            else "it has none"
        )
        raise ValueError(f"trial {trial_id!r}: is not one of this sweep; {hint}")
    return row


def extend(run: str | Path, *, trials: int | None = None, spaces: tuple[str, ...] | None = None) -> "Extended":
    """Add networks to a sweep, running or not; what is there stays as it is."""
    from sweep.scheduling.extend import extend as add

    return add(find_run(run), trials=trials, spaces=spaces)


def sync(run: str | Path, tracking_uri: str = "") -> int:
    """Deliver to MLflow what a sweep that no longer runs has left; answers the number of epochs and outcomes."""
    from sweep.tracking import deliver

    folder = find_run(run)
    delivered = deliver(folder, tracking_uri)
    with Journal.open(folder) as journal:
        journal.set_meta(tracking_error=None)
    return delivered


def logs(run: str | Path, trial: str | None = None) -> str:
    """What a trial printed and what happened to it; without a trial, what happened to the sweep, a line an event."""
    from sweep.scheduling.logs import log_path

    folder = find_run(run)
    with Journal.open(folder, read_only=True) as journal:
        if trial is None:
            return "".join(map(_event_line, journal.events()))
        row = _trial(journal, trial)
    path = log_path(folder, trial)
    if path.is_file():
        return path.read_text(encoding="utf-8", errors="replace")
    return f"{trial} is {row['outcome']} and has no log\n"


def _event_line(row: Any) -> str:
    moment = datetime.fromtimestamp(row["at_ms"] / 1000, UTC)
    about = f" {row['trial_id']}" if row["trial_id"] else ""
    return f"{moment:%Y-%m-%d %H:%M:%S} {row['kind']}{about}: {row['message']}\n"


def failures(run: str | Path) -> list[dict[str, str]]:
    """The trials that failed for good, each with the kind of its failure and its last traceback."""
    with Journal.open(find_run(run), read_only=True) as journal:
        return [
            {"trial_id": row["trial_id"], "kind": row["failure_kind"], "failure": row["failure"]}
            for row in journal.trials(f"outcome = '{FAILED}'")
        ]
