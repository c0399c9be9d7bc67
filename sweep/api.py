"""The verbs of `sweep` from Python: launch, judge, report, status, stop; `rerun` is in sweep/rerun.

In: a study (name, path or `Study`) or a run directory. Out: small frozen results that print as JSON; the command
line is a thin coat over them. What a user got wrong raises `ValueError` before anything starts.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import Profile, check_cluster, load_profile, ray_session
from sweep.records import Journal, Tables, find_run, from_journal, write_tables
from sweep.records.journal import ENDED, FAILED, FILE_NAME, PENDING, RUNNING
from sweep.studies import Study, load_study, study_from_dict

if TYPE_CHECKING:
    from sweep.statistics import Verdict

Watch = Callable[[Path], AbstractContextManager[None]]
Log = Callable[[str], None]


@dataclass(frozen=True)
class Summary:
    """How a sweep ended, or stands. `trials` counts by outcome; `best` is the best that trained to the end."""

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
    from sweep.tracking import preflight

    _refuse_unless_fitting(study, folder, resume)
    check_cluster(profile)
    if given := study.tracking.uri or profile.tracking.uri:
        preflight(given)
    data = driver.prepare_data(study)
    log(f"data: Fashion-MNIST from {next(iter(data.values())).source}, checksums right")
    existing = (folder / FILE_NAME).exists()
    population = None if existing else draw_population(study)
    driver.make_run_dir(folder)
    with driver.owned(folder):
        if population is None:
            journal = Journal.open(folder)
            journal.set_meta(stop_requested=False)
            counts = journal.counts()
            left = counts[PENDING] + counts[RUNNING]
            log(f"resuming {folder}: {left} of {sum(counts.values())} trials left")
        else:
            journal = driver.create(study, folder, profile, data, population)
            log(f"population: {len(population[0])} networks drawn from {', '.join(study.spaces)}")
        with journal:
            yield journal, data


def _refuse_unless_fitting(study: Study, folder: Path, resume: bool) -> None:
    """A run directory is fresh, or it holds this very study and we are to resume it."""
    if not (folder / FILE_NAME).exists():
        remains = [name for name in ("trials.parquet", "mlflow.db", "checkpoints") if (folder / name).exists()]
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
    from sweep.tracking import Outbox

    switch = driver.StopSwitch(journal)
    uri = _tracking_uri(study, profile.tracking.uri, journal.get("tracking_uri"), folder)
    outbox = Outbox(folder, uri, experiment=study.name)
    outbox.start()
    error: BaseException | None = None
    try:
        if journal.unfinished():
            log("starting Ray")
            with _stop_on_signals(switch) as listen, ray_session(profile, folder) as slots:
                listen()  # again: Ray has installed handlers of its own, which would abort the process at a SIGTERM
                where = f" on {slots.num_nodes} hosts" if slots.num_nodes > 1 else ""
                log(f"training, {slots.concurrent} trials at a time{where}")
                with watch(folder):
                    driver.run(journal, study, folder, profile, data, slots, switch)
            if switch.aborted:  # and what was raised then has been swallowed on its way
                raise KeyboardInterrupt
        finished = not journal.unfinished()
        artifacts = _conclude(journal, folder) if finished else {}
    except BaseException as raised:  # delivered first, then raised: no run may be left RUNNING
        error, finished, artifacts = raised, False, {}
    log("delivering to MLflow")
    try:
        outbox.close(
            status="finished" if finished else "interrupted" if _is_request(error) else "failed",
            artifacts=artifacts,
            note=_note(folder) if finished else "",
            timeout_s=3 if isinstance(error, KeyboardInterrupt) else 60,
        )
        journal.set_meta(tracking_error=None)
    except RuntimeError as undelivered:
        # The sweep itself is whole: what is left stays marked in the journal and is delivered by the next --resume.
        journal.set_meta(tracking_error=str(undelivered))
        log(f"warning: {undelivered}")
    if error is not None:
        raise error


def _is_request(error: BaseException | None) -> bool:
    return error is None or isinstance(error, KeyboardInterrupt)


@contextmanager
def _stop_on_signals(switch: Any) -> Iterator[Callable[[], None]]:
    """The first Ctrl-C or SIGTERM ends the sweep so that it can be resumed; the second Ctrl-C ends the process.

    Answers what installs the handlers once more, where another library has taken their place.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def ask(number: int, frame: object) -> None:
        if switch.requested and number == signal.SIGINT:
            switch.aborted = True  # Python swallows an exception that is raised while it tidies up
            raise KeyboardInterrupt
        switch.requested = True

    def listen() -> None:
        for number in previous:
            signal.signal(number, ask)

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    listen()
    try:
        yield listen
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _conclude(journal: Journal, folder: Path) -> dict[str, Path]:
    """Write tables, verdicts, report and figure; answers them as the artifacts of the parent run."""
    tables = from_journal(journal)
    write_tables(tables, folder)
    verdicts = _judge_tables(tables)
    _write_report(tables, verdicts, folder)
    _write_whole(folder / "study.json", json.dumps(tables.metadata["study"], indent=1))
    names = ("study.json", "architectures.parquet", "trials.parquet", "epochs.parquet", "verdicts.json",
             "report.html", "summary.png")  # fmt: skip
    return {name: folder / name for name in names}


def judge(run: str | Path) -> "list[Verdict]":
    """Judge each rule of a sweep, finished or not, from its journal."""
    folder = find_run(run)
    with Journal.open(folder, read_only=True) as journal:
        return _judge_tables(from_journal(journal))


def _judge_tables(tables: Tables) -> "list[Verdict]":
    from sweep.statistics import judge_study

    return judge_study(tables)


def report(run: str | Path) -> Path:
    """Write tables, verdicts and report of a sweep into its run directory; answers the report's path."""
    folder = find_run(run)
    with Journal.open(folder, read_only=True) as journal:
        tables = from_journal(journal)
    write_tables(tables, folder)
    return _write_report(tables, _judge_tables(tables), folder)


def _write_report(tables: Tables, verdicts: "list[Verdict]", folder: Path) -> Path:
    from dashboards.figures import summary_png
    from dashboards.report import write_report
    from sweep.rerun.result import read_results

    _write_whole(folder / "verdicts.json", json.dumps([verdict.to_dict() for verdict in verdicts], indent=1))
    summary_png(tables, verdicts, folder / "summary.png")
    path = folder / "report.html"
    write_report(tables, verdicts, path, reruns=read_results(folder))
    return path


def _write_whole(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def _note(folder: Path) -> str:
    """The verdicts as the Markdown note of the parent run."""
    rows = json.loads((folder / "verdicts.json").read_text())
    lines = [
        f"| {row['rule']} | {row['space_without']} → {row['space_with']} | {row['scale']} | {row['rung_epochs']} |"
        f" {_points(row['effect_pct'])} [{_points(row['ci_low_pct'])}, {_points(row['ci_high_pct'])}] |"
        f" {row['n_without']} + {row['n_with']} | **{row['verdict']}** |"
        for row in rows
    ]
    head = (
        "| rule | from → to | scale | epochs | effect, points of error | n | verdict |\n|---|---|---|---|---|---|---|\n"
    )
    return head + "\n".join(lines)


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def status(run: str | Path) -> Summary:
    """How a sweep stands, read from its journal; nothing is started or changed."""
    folder = find_run(run)
    with Journal.open(folder, read_only=True) as journal:
        return _summary(journal, folder, wall_s=_wall_s(journal))


def _wall_s(journal: Journal) -> float:
    first, last = journal.time_span_ms()
    return (last - first) / 1000 if first is not None and last is not None else 0.0


def _summary(journal: Journal, folder: Path, *, wall_s: float) -> Summary:
    meta = journal.meta()
    study = study_from_dict(meta["study"])
    counts = journal.counts()
    report_path = folder / "report.html"
    return Summary(
        run_dir=str(folder),
        study=study.name,
        tracking_uri=meta.get("tracking_uri")
        or _tracking_uri(study, meta.get("profile", {}).get("tracking", {}).get("uri", ""), None, folder),
        experiment_id=meta.get("experiment_id"),
        parent_run_id=meta.get("parent_run_id"),
        trials={outcome: counts[outcome] for outcome in (*ENDED, PENDING, RUNNING)},
        epochs_trained=journal.num_epochs(),
        epochs_if_all_completed=study.num_trials * study.stopping.max_epochs,
        wall_s=round(wall_s, 1),
        best=_best(journal),
        finished=counts[PENDING] + counts[RUNNING] == 0,
        report=str(report_path) if report_path.exists() else None,
        tracking_error=meta.get("tracking_error"),
    )


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


def stop(run: str | Path) -> Path:
    """Ask the driver of a sweep to end so that it can be resumed; it notices within a second or an epoch."""
    folder = find_run(run)
    with Journal.open(folder) as journal:
        journal.set_meta(stop_requested=True)
    return folder


def failures(run: str | Path) -> list[dict[str, str]]:
    """The trials that failed for good, each with its last traceback."""
    with Journal.open(find_run(run), read_only=True) as journal:
        return [
            {"trial_id": row["trial_id"], "failure": row["failure"]}
            for row in journal.trials()
            if row["outcome"] == FAILED
        ]
