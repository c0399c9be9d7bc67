"""Verbs about one sweep, by its run directory: launch, status, stop, report, ui, recover."""

import signal
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from sweep.cli.console import (
    FAILURE,
    OK,
    STOPPED_EARLY,
    as_json,
    emit_json,
    of_cluster,
    on_profile,
    overrides,
    short_path,
    smoke,
    stderr,
    stdout,
    stdout_kept_clean,
)


@click.command()
@click.argument("study")
@click.option("--run-dir", type=click.Path(path_type=Path), help="Where the sweep lives.  [default: runs/STUDY]")
@on_profile
@overrides
@smoke
@click.option("--resume", is_flag=True, help="Go on with the sweep in the run directory; start it if there is none.")
@as_json
def launch(
    study: str,
    run_dir: Path | None,
    profile: str,
    overrides: tuple[str, ...],
    smoke: bool,
    resume: bool,
    as_json: bool,
) -> None:
    """Run STUDY: train its population under early stopping, record, judge, report.

    STUDY is a path or the name of a study that ships (sweep/studies). Ctrl-C once ends the sweep so that --resume
    can go on with it.
    """
    from sweep import api, terminal
    from sweep.studies import load_study

    loaded = load_study(study, overrides)
    loaded = loaded.smoke() if smoke else loaded
    console = stderr()
    with stdout_kept_clean():
        summary = api.launch(
            loaded,
            run_dir=run_dir,
            profile=profile,
            resume=resume,
            watch=lambda folder: terminal.live(folder, console),
            log=lambda message: console.print(f"[dim]·[/] {message}", soft_wrap=True),
        )
    if as_json:
        emit_json(summary.to_dict())
    else:
        _print_summary(summary)
    _explain_end(summary, console)


def _print_summary(summary: Any, *, here: bool = True) -> None:
    """`here`: its run directory is on this machine."""
    from sweep import api, findings_view, terminal
    from sweep.scheduling import standing

    console = stdout()
    if summary.finished and here:
        console.print(findings_view.verdict_table(api.judge(summary.run_dir)))
        console.print()
    counts = ", ".join(f"{count} {outcome}" for outcome, count in summary.trials.items() if count)
    share = summary.epochs_trained / summary.epochs_if_all_completed
    console.print(
        f"trials   {counts}; {summary.epochs_trained} epochs of {summary.epochs_if_all_completed} ({share:.0%}) "
        f"in {terminal.duration(summary.wall_s)}",
        soft_wrap=True,
    )
    if summary.looks:
        console.print(f"looks    {standing.told(summary.looks)}", soft_wrap=True)
    if summary.best:
        best = summary.best
        console.print(
            f"best     {best['error_pct']:.2f} % validation error after {best['epochs']} epochs: {best['trial_id']}",
            soft_wrap=True,
        )
    if summary.report and here:
        console.print(f"report   {summary.report}", soft_wrap=True)
    if summary.tracking_uri.startswith("http"):
        console.print(f"MLflow   {_mlflow_link(summary, summary.tracking_uri)}", soft_wrap=True)
    elif here:
        console.print(
            f"MLflow   {summary.tracking_uri}  (read it with: sweep ui {short_path(summary.run_dir)})", soft_wrap=True
        )


def _mlflow_link(summary: Any, base_url: str) -> str:
    from sweep.tracking import experiment_url

    return experiment_url(base_url, summary.experiment_id or "0", summary.parent_run_id or "")


def _explain_end(summary: Any, console: Console) -> None:
    """Say what to do next, and leave with the exit code that tells what happened."""
    short = short_path(summary.run_dir)
    if not summary.finished:
        console.print(f"stopped before its end; go on with: sweep launch {summary.study} --run-dir {short} --resume")
        sys.exit(STOPPED_EARLY)
    console.print(f"next     sweep ui {short}  ·  sweep rerun {short}", soft_wrap=True)
    if summary.tracking_error:
        console.print(f"MLflow lacks part of this sweep: {summary.tracking_error}", style="red", soft_wrap=True)
        sys.exit(FAILURE)
    if summary.trials["failed"]:
        console.print(
            f"{summary.trials['failed']} trials failed for a reason that is not their network's; "
            f"see `sweep status {short}`",
            style="red",
            soft_wrap=True,
        )
        sys.exit(FAILURE)


@click.command()
@click.argument("run", metavar="RUN|JOB")
@click.option("--watch", is_flag=True, help="Stay until the sweep ends.")
@of_cluster
@as_json
def status(run: str, watch: bool, profile: str | None, as_json: bool) -> None:
    """How the sweep in RUN stands, or the one that JOB runs on a cluster."""
    from sweep import api, remote, terminal
    from sweep.scheduling.driver import is_owned

    if remote.is_job(run) or profile:
        if watch:
            raise ValueError(f"--watch: {run!r} runs on a cluster; follow it with `sweep attach {run}`")
        known = remote.status(run, profile)
    else:
        folder = api.find_run(run)
        if watch:
            api.status(folder)  # refuses what is no sweep, before the view opens
            terminal.follow(folder, stderr(), lambda: not is_owned(folder))
        known = {**api.status(folder).to_dict(), "running": is_owned(folder), "failures": api.failures(folder)}
    if as_json:
        emit_json(known)
    else:
        _print_status(known)


def _print_status(known: dict[str, Any]) -> None:
    from sweep import api, terminal

    if "trials" not in known:  # a job whose sweep has not begun, or never did
        stdout().print(
            f"[bold]{known['study']}[/] as {known['job']}: {known['job_status']}, {known['message']}", soft_wrap=True
        )
        return
    job = f" as {known['job']}" if "job" in known else ""
    state = "running" if known["running"] else "finished" if known["finished"] else "not running; go on with --resume"
    stdout().print(f"[bold]{known['study']}[/]{job} in {known['run_dir']}: {state}", soft_wrap=True)
    fields = api.Summary.__dataclass_fields__
    _print_summary(api.Summary(**{key: value for key, value in known.items() if key in fields}), here=not job)
    if events := ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in known["events"].items()):
        stdout().print(
            f"events   {events}  (read them with: sweep logs {short_path(known['run_dir'])})", soft_wrap=True
        )
    disk = known["disk_bytes"]
    parts = ", ".join(f"{terminal.size(count)} {name}" for name, count in disk.items() if count)
    stdout().print(f"disk     {terminal.size(sum(disk.values()))}: {parts}", soft_wrap=True)
    for failure in known["failures"]:
        stdout().print(
            f"[red]failed[/]   {failure['trial_id']}: {failure['failure'].strip().splitlines()[-1]}", soft_wrap=True
        )


@click.command()
@click.argument("run", metavar="RUN|JOB")
@click.option("--trial", metavar="ID", help="End this trial alone, for good; the sweep goes on.")
@of_cluster
def stop(run: str, trial: str | None, profile: str | None) -> None:
    """Ask the sweep in RUN, or the one that JOB runs, to end so that it can be resumed."""
    from sweep import api, remote
    from sweep.scheduling.driver import is_owned

    if remote.is_job(run) or profile:
        remote.stop(run, profile, trial)
        folder: Path | str = run
    else:
        folder = api.find_run(run)
        if trial is None and not is_owned(folder):
            raise ValueError(f"run: no sweep is running in {str(folder)!r}; there is nothing to stop")
        api.stop(folder, trial)
    if trial is None:
        click.echo(f"asked the sweep in {folder} to stop; it ends within some seconds", err=True)
    else:
        click.echo(f"asked for the end of {trial}; the sweep goes on without it", err=True)


@click.command()
@click.argument("run")
@as_json
def report(run: str, as_json: bool) -> None:
    """Write report.html (self-contained), tables and figure of RUN."""
    from sweep import api

    path = api.report(run)
    if as_json:
        emit_json({"report": str(path)})
    else:
        click.echo(path)


@click.command()
@click.option("--from", "tracking_uri", required=True, metavar="TRACKING_URI", help="The MLflow that recorded it.")
@click.option("--parent", required=True, metavar="RUN_ID", help="The run of the sweep.")
@click.option("--run-dir", required=True, type=click.Path(path_type=Path), help="Where the journal is written.")
@as_json
def recover(tracking_uri: str, parent: str, run_dir: Path, as_json: bool) -> None:
    """Rebuild the journal of a sweep whose run directory is lost, from what MLflow knows of it."""
    from sweep.scheduling.recover import recover as recover_from

    found = recover_from(tracking_uri, parent, run_dir.absolute())
    for warning in found.warnings:
        stderr().print(f"warning: {warning}", style="yellow", soft_wrap=True)
    if as_json:
        emit_json(found.to_dict())
        return
    stdout().print(
        f"recovered {found.trials} trials with {found.epochs} epochs in {found.run_dir}; {found.unfinished} are left",
        soft_wrap=True,
    )
    stderr().print(f"next     sweep launch STUDY --run-dir {short_path(found.run_dir)} --resume", soft_wrap=True)


@click.command()
@click.argument("run", required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address that the server listens on.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="Its port.")
@click.option("--browser/--no-browser", default=True, help="Open the page in a browser.")
def ui(run: str | None, host: str, port: int, browser: bool) -> None:
    """The MLflow UI, opened where the sweep in RUN (default: the newest under runs) can be read."""
    from sweep import api
    from sweep.tracking import serve

    summary = api.status(run or api.newest_run())
    if summary.tracking_uri.startswith(("http://", "https://")):
        click.echo(_mlflow_link(summary, summary.tracking_uri))
        return
    click.echo("starting the MLflow server (some seconds) …", err=True)
    folder = Path(summary.run_dir)
    server = serve(
        summary.tracking_uri, folder / "mlartifacts", host=host, port=port, log_path=folder / "mlflow-server.log"
    )
    url = _mlflow_link(summary, f"http://{host}:{port}")
    click.echo(url)
    click.echo("Ctrl-C ends it", err=True)
    # The server ends with this command, also where a service manager ends it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(OK))
    try:
        if browser:
            click.launch(url)
        server.wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.terminate()
        server.wait()
