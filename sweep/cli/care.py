"""Verbs that look after a sweep, running or not: extend, logs, sync, verify."""

import sys
from typing import Any

import click

from sweep.cli.console import FAILURE, OK, as_json, emit_json, of_cluster, short_path, stderr, stdout
from sweep.cli.verify import verify

__all__ = ["extend", "logs", "sync", "verify"]


@click.command()
@click.argument("run", metavar="RUN|JOB")
@click.option("--trials", type=click.IntRange(min=1), help="How many more networks of each space.")
@click.option("--spaces", help="Of which spaces, with commas between; new ones may be named.  [default: all]")
@of_cluster
@as_json
def extend(run: str, trials: int | None, spaces: str | None, profile: str | None, as_json: bool) -> None:
    """Add networks to the sweep in RUN, or to the one that JOB runs; what is there stays as it is.

    With --spaces alone, as many of each as the study has of its own. A running sweep takes them up by itself; else
    launch it again with --resume.
    """
    if trials is None and spaces is None:
        raise click.UsageError("name --trials, --spaces or both")
    from sweep import api, remote
    from sweep.records import Journal
    from sweep.records.lease import owner_of

    if remote.is_job(run) or profile:
        words = [*(["--trials", str(trials)] if trials else []), *(["--spaces", spaces] if spaces else [])]
        words += ["--json"] if as_json else []
        _pass_on(*remote.ask(run, profile, "extend", words))
        return
    named = tuple(name.strip() for name in spaces.split(",")) if spaces else None
    extended = api.extend(run, trials=trials, spaces=named)
    if as_json:
        emit_json(extended.to_dict())
        return
    cohorts = ", ".join(f"{count} of {cohort}" for cohort, count in extended.by_cohort.items())
    stdout().print(f"added {extended.added} trials ({cohorts}); {extended.total} in all", soft_wrap=True)
    folder = api.find_run(run)
    with Journal.open(folder, read_only=True) as journal:
        owner, study = owner_of(journal), journal.get("study")["name"]
    if owner:
        stderr().print(f"next     nothing: {owner} takes them up", soft_wrap=True)
    else:
        stderr().print(f"next     sweep launch {study} --run-dir {short_path(str(folder))} --resume", soft_wrap=True)


@click.command()
@click.argument("run", metavar="RUN|JOB")
@click.argument("trial", required=False)
@of_cluster
def logs(run: str, trial: str | None, profile: str | None) -> None:
    """What TRIAL of the sweep printed and what happened to it; without TRIAL, what happened to the sweep."""
    from sweep import api, remote

    if remote.is_job(run) or profile:
        _pass_on(*remote.ask(run, profile, "logs", [trial] if trial else []))
        return
    click.echo(api.logs(run, trial), nl=False)


@click.command()
@click.argument("run")
@click.option(
    "--tracking-uri", default="", help="Where to, if the sweep's own held a password.  [default: the sweep's own]"
)
@as_json
def sync(run: str, tracking_uri: str, as_json: bool) -> None:
    """Deliver to MLflow what the sweep in RUN could not, from its journal; done twice, it does nothing."""
    from sweep import api

    delivered = api.sync(run, tracking_uri)
    if as_json:
        emit_json({"delivered": delivered})
    else:
        click.echo(f"delivered {delivered} results; MLflow knows all of the sweep" if delivered else "nothing was left")


def _pass_on(exit_code: int | None, printed: str) -> Any:
    click.echo(printed, nl=False)
    sys.exit(OK if exit_code == 0 else FAILURE)
