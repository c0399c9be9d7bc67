"""The command line: one function a verb, each a thin coat over `sweep.api`.

Data goes to stdout, progress and messages to stderr; with `--json` stdout holds one JSON document and nothing else.
Exit codes: 0 done; 1 something failed (the message says what); 2 bad input, nothing was started; 3 stopped on
request before the end, to be resumed; 130 interrupted at once (second Ctrl-C).

Imports that cost (torch, ray, mlflow, plotly) happen inside the verbs that need them.
"""

import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

OK, FAILURE, BAD_INPUT, STOPPED_EARLY, INTERRUPTED = 0, 1, 2, 3, 130


def main() -> None:
    """Entry point: maps what went wrong to an exit code and one message on stderr."""
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(BAD_INPUT)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except (KeyboardInterrupt, click.Abort):  # before RuntimeError, which Abort is
        click.echo("interrupted; `--resume` goes on from the last committed epoch", err=True)
        sys.exit(INTERRUPTED)
    except ValueError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(BAD_INPUT)
    except RuntimeError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(FAILURE)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="designspace-sweep", prog_name="sweep")
def cli() -> None:
    """Find out which rules of network design really hold.

    A sweep draws networks from design spaces, trains them early-stopped on Ray Tune, records every run in MLflow and
    judges each rule with an interval. Start with: sweep launch quickstart
    """


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
overrides = click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a field, e.g. stopping.max_epochs=8."
)


def stderr() -> Console:
    return Console(stderr=True, highlight=False)


def stdout() -> Console:
    return Console(highlight=False)


def emit_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


@contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """Send what libraries and their child processes write on stdout to stderr, so that stdout is ours alone."""
    sys.stdout.flush()
    ours = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(ours, 1)
        os.close(ours)


@cli.command()
@as_json
def doctor(as_json: bool) -> None:
    """What this machine has: Python, torch, GPU, Ray, MLflow, data."""
    from sweep.doctor import examine

    checks = examine()
    if as_json:
        emit_json([vars(check) for check in checks])
    else:
        table = Table(box=None, padding=(0, 2), show_header=False)
        for check in checks:
            mark = "[green]ok[/]" if check.ok else "[red]missing[/]"
            table.add_row(mark, check.name, check.found if check.ok else f"{check.found}\n→ {check.remedy}")
        stdout().print(table)
    sys.exit(OK if all(check.ok for check in checks) else FAILURE)


@cli.command()
@click.argument("name", required=False)
@as_json
def spaces(name: str | None, as_json: bool) -> None:
    """The design spaces: the rule that each adds, its exact size, its degrees of freedom."""
    from sweep.spaces import SPACES, Ranges, get_space

    chosen = [get_space(name)] if name else list(SPACES.values())
    ranges = Ranges()
    rows: list[dict[str, Any]] = [
        {
            "name": space.name,
            "title": space.title,
            "parent": space.parent,
            "rule": space.rule.name if space.rule else None,
            "claim": space.rule.claim if space.rule else None,
            "citation": space.rule.citation if space.rule else None,
            "size": space.size(ranges),
            "degrees_of_freedom": space.degrees_of_freedom(ranges),
        }
        for space in chosen
    ]
    if as_json:
        emit_json(rows[0] if name else rows)
        return
    if name:
        table = Table(box=None, padding=(0, 2), show_header=False)
        for key, value in rows[0].items():
            table.add_row(
                f"[dim]{key.replace('_', ' ')}[/]", f"{value:,}" if isinstance(value, int) else str(value or "–")
            )
        stdout().print(table)
        return
    table = Table(box=None, padding=(0, 2))
    table.add_column("space")
    table.add_column("adds the rule")
    table.add_column("networks", justify="right")
    table.add_column("freedom", justify="right")
    for row in rows:
        table.add_row(row["name"], row["rule"] or "–", f"{row['size']:,}", str(row["degrees_of_freedom"]))
    stdout().print(table)
    stderr().print(
        "sizes are exact, for the ranges of the paper (224 pixels, 4 stages); `sweep spaces NAME` tells the claim",
        soft_wrap=True,
    )


@cli.command()
@click.argument("arch")
@click.option("--resolution", default=224, show_default=True, type=click.IntRange(min=1), help="Image size in pixels.")
@click.option("--channels", default=3, show_default=True, type=click.IntRange(min=1), help="Image channels.")
@click.option("--classes", default=1000, show_default=True, type=click.IntRange(min=1), help="Number of classes.")
@as_json
def show(arch: str, resolution: int, channels: int, classes: int, as_json: bool) -> None:
    """Layer summary of ARCH: a named network, a YAML file, or a RegNet by its numbers.

    For example regnetx_400mf, regnetx32, my_network.yaml or regnetx:d=22,w0=24,wa=24.48,wm=2.54,g=16
    """
    from sweep.spaces import complexity, layer_table, resolve

    architecture = resolve(arch)
    image = {"resolution": resolution, "channels": channels, "classes": classes}
    total, layers = complexity(architecture, **image), layer_table(architecture, **image)
    if as_json:
        emit_json(
            {
                "id": architecture.id,
                "architecture": architecture.to_dict(),
                **vars(total),
                "layers": [vars(layer) | {"output_shape": list(layer.output_shape)} for layer in layers],
            }
        )
        return
    table = Table(box=None, padding=(0, 2))
    table.add_column("layer")
    for heading in ("output", "flops", "parameters", "activations"):
        table.add_column(heading, justify="right")
    for layer in layers:
        shape = " × ".join(map(str, layer.output_shape))
        table.add_row(layer.name, shape, f"{layer.flops:,}", f"{layer.params:,}", f"{layer.activations:,}")
    table.add_section()
    table.add_row("total", "", f"{total.flops:,}", f"{total.params:,}", f"{total.activations:,}", style="bold")
    stdout().print(f"{arch} ({architecture.id}), {channels} × {resolution} × {resolution} pixels, {classes} classes")
    stdout().print(table)


@cli.command()
@click.argument("study")
@overrides
@as_json
def plan(study: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Trials, budgets, epochs and device-hours of STUDY, as a range. Starts nothing."""
    from sweep.scheduling.forecast import forecast
    from sweep.scheduling.population import draw_population
    from sweep.studies import load_study

    loaded = load_study(study, overrides)
    trials, draws = draw_population(loaded)
    cost = forecast(loaded, trials)
    if as_json:
        emit_json(
            {"study": loaded.name, "study_hash": loaded.hash, **cost.to_dict(), "draws": [vars(draw) for draw in draws]}
        )
        return
    console = stdout()
    console.print(f"[bold]{loaded.name}[/] ({loaded.hash}): {loaded.question}", soft_wrap=True)
    table = Table(box=None, padding=(0, 2), show_header=False)
    rungs = ", ".join(map(str, cost.rung_epochs)) or "none"
    stopped = f"rungs after epoch {rungs} of {cost.max_epochs}, about 1 in {loaded.stopping.reduction_factor} goes on"
    table.add_row("trials", f"{cost.num_trials} ({loaded.trials_per_space} from each of {', '.join(loaded.spaces)})")
    table.add_row(
        "stopping", f"{stopped}, {loaded.stopping.audit_fraction:.0%} exempt by lottery" if cost.rung_epochs else "none"
    )
    table.add_row(
        "epochs", f"{cost.epochs_low} to {cost.epochs_high} of {cost.epochs_if_all_completed} without stopping"
    )
    table.add_row("device-hours", f"{cost.device_hours_low:.2f} to {cost.device_hours_high:.2f} on {cost.device}")
    drawn = ", ".join(f"{draw.space} {draw.num_draws:,}" for draw in draws)
    table.add_row("draws", f"{drawn}; why the others were rejected: --json")
    console.print(table)


@cli.command()
@click.argument("study")
@click.option("--run-dir", type=click.Path(path_type=Path), help="Where the sweep lives.  [default: runs/STUDY]")
@click.option("--on", "profile", default="laptop", show_default=True, metavar="PROFILE", help="Where it runs.")
@overrides
@click.option("--resume", is_flag=True, help="Go on with the sweep in the run directory; start it if there is none.")
@as_json
def launch(
    study: str, run_dir: Path | None, profile: str, overrides: tuple[str, ...], resume: bool, as_json: bool
) -> None:
    """Run STUDY: train its population under early stopping, record, judge, report.

    STUDY is a path or the name of a study that ships (sweep/studies). Ctrl-C once ends the sweep so that --resume
    can go on with it.
    """
    from sweep import api, terminal
    from sweep.studies import load_study

    loaded = load_study(study, overrides)
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


def _print_summary(summary: Any) -> None:
    from sweep import api, terminal

    console = stdout()
    if summary.finished:
        console.print(terminal.verdict_table(api.judge(summary.run_dir)))
        console.print()
    counts = ", ".join(f"{count} {outcome}" for outcome, count in summary.trials.items() if count)
    share = summary.epochs_trained / summary.epochs_if_all_completed
    console.print(
        f"trials   {counts}; {summary.epochs_trained} epochs of {summary.epochs_if_all_completed} ({share:.0%}) "
        f"in {terminal.duration(summary.wall_s)}",
        soft_wrap=True,
    )
    if summary.best:
        best = summary.best
        console.print(
            f"best     {best['error_pct']:.2f} % validation error after {best['epochs']} epochs: {best['trial_id']}",
            soft_wrap=True,
        )
    if summary.report:
        console.print(f"report   {summary.report}", soft_wrap=True)
    if summary.tracking_uri.startswith("http"):
        console.print(f"MLflow   {_mlflow_link(summary, summary.tracking_uri)}", soft_wrap=True)
    else:
        console.print(
            f"MLflow   {summary.tracking_uri}  (read it with: sweep ui {short_path(summary.run_dir)})", soft_wrap=True
        )


def _mlflow_link(summary: Any, base_url: str) -> str:
    from sweep.tracking import experiment_url

    return experiment_url(base_url, summary.experiment_id or "0", summary.parent_run_id or "")


def short_path(path: str) -> str:
    """As one would type it here, in a shell."""
    return shlex.quote(min(os.path.relpath(path), path, key=len))


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


@cli.command()
@click.argument("run")
@click.option("--watch", is_flag=True, help="Stay until the sweep ends.")
@as_json
def status(run: str, watch: bool, as_json: bool) -> None:
    """How the sweep in RUN stands."""
    from sweep import api, terminal
    from sweep.scheduling.driver import is_owned

    folder = api.find_run(run)
    if watch:
        api.status(folder)  # refuses what is no sweep, before the view opens
        terminal.follow(folder, stderr(), lambda: not is_owned(folder))
    summary, failures, alive = api.status(folder), api.failures(folder), is_owned(folder)
    if as_json:
        emit_json({**summary.to_dict(), "running": alive, "failures": failures})
        return
    state = "running" if alive else "finished" if summary.finished else "not running; go on with --resume"
    stdout().print(f"[bold]{summary.study}[/] in {summary.run_dir}: {state}", soft_wrap=True)
    _print_summary(summary)
    for failure in failures:
        stdout().print(
            f"[red]failed[/]   {failure['trial_id']}: {failure['failure'].strip().splitlines()[-1]}", soft_wrap=True
        )


@cli.command()
@click.argument("run")
def stop(run: str) -> None:
    """Ask the sweep in RUN to end so that it can be resumed."""
    from sweep import api
    from sweep.scheduling.driver import is_owned

    folder = api.find_run(run)
    if not is_owned(folder):
        raise ValueError(f"run: no sweep is running in {str(folder)!r}; there is nothing to stop")
    api.stop(folder)
    click.echo(f"asked the sweep in {folder} to stop; it ends when its trials have reported their epoch", err=True)


@cli.command()
@click.argument("run")
@as_json
def judge(run: str, as_json: bool) -> None:
    """Verdicts: which rules help, cost nothing, hurt, or are undecided."""
    from sweep import api, terminal

    verdicts = api.judge(run)
    if as_json:
        emit_json([verdict.to_dict() for verdict in verdicts])
    else:
        stdout().print(terminal.verdict_table(verdicts))


@cli.command()
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


@cli.command()
@click.argument("run")
@click.option("--best", default=3, show_default=True, type=click.IntRange(min=1), help="How many to confirm first.")
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1), help="Fresh seeds for each.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(min=1), help="Workers at full scale.")
@click.option("--on", "profile", default="laptop", show_default=True, metavar="PROFILE", help="Where it runs.")
@as_json
def rerun(run: str, best: int, seeds: int, workers: int, profile: str, as_json: bool) -> None:
    """Train the best configuration of RUN at full scale and open the test set, once.

    The best networks are confirmed with fresh seeds first, because the best of many is lucky; --best 1 --seeds 1
    takes the sweep's word for it. Interrupted, the same command goes on.
    """
    from sweep.rerun import rerun as rerun_best

    console = stderr()

    def progress(stage: str, result: Any) -> None:
        error = (
            "" if result.val_error_pct != result.val_error_pct else f", validation error {result.val_error_pct:.2f} %"
        )
        console.print(
            f"[dim]·[/] {stage}: epoch {result.epoch}, training loss {result.train_loss:.3f}{error}, "
            f"{result.train_time_s:.0f} s",
            soft_wrap=True,
        )

    with stdout_kept_clean():
        result, registered = rerun_best(
            run, best=best, seeds=seeds, workers=workers, profile=profile, progress=progress
        )
    if as_json:
        kept = {key: value for key, value in result.to_dict().items() if key != "history"}
        emit_json({**kept, "architecture_id": result.candidate.architecture_id, **vars(registered)})
        return
    stdout().print(f"{result.candidate.trial_id} ({result.candidate.architecture_id})", soft_wrap=True)
    stdout().print(_estimates_table(result))
    alias = f"is the champion: {registered.why}" if registered.is_champion else f"is not the champion: {registered.why}"
    stdout().print(
        f"model    {registered.model}, version {registered.version}, {alias}\n"
        f"report   {Path(result.directory).parents[1] / 'report.html'}\n"
        f"weights  {result.directory}",
        soft_wrap=True,
    )


def _estimates_table(result: Any) -> Table:
    """Three estimates of one network; the interval is that of the choice of images, or of seeds."""
    from sweep.statistics import estimates

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("estimate", no_wrap=True)
    table.add_column("error", justify="right", no_wrap=True)
    table.add_column(f"{100 * result.confidence:g} % interval", no_wrap=True)
    table.add_column("grounds")
    in_sweep, confirmed, full_scale = estimates(result.to_dict())
    for name, estimate, grounds in (
        ("in the sweep", in_sweep, f"{result.num_validation:,} validation images; the best of {result.num_networks}"),
        ("confirmed", confirmed, f"the same budget, fresh seeds: {len(result.candidate.confirmed_error_pct)}"),
        (
            "at full scale",
            full_scale,
            f"{result.num_test:,} test images, {result.epochs} epochs on {result.num_train:,}",
        ),
    ):
        if estimate is None:
            table.add_row(name, "–", "–", "not confirmed")
            continue
        known = estimate.low_pct is not None
        interval = f"{estimate.low_pct:.2f} to {estimate.high_pct:.2f}" if known else "–"
        table.add_row(name, f"{estimate.error_pct:.2f} %", interval, grounds)
    return table


@cli.command()
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
