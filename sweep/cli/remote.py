"""Verbs that send a study to a cluster and follow it from a machine that trains nothing: submit, attach."""

import sys
from typing import Any, NoReturn

import click

from sweep.cli.console import FAILURE, OK, STOPPED_EARLY, as_json, emit_json, of_cluster, overrides, stderr


@click.command()
@click.argument("study")
@click.option(
    "--on", "profile", required=True, metavar="PROFILE", help="The cluster: a profile, its file, or an address."
)
@click.option("--name", help="Of the run directory on the head.  [default: the study's]")
@overrides
@click.option("--detach", is_flag=True, help="Return when the cluster has taken it; do not follow.")
@as_json
def submit(study: str, profile: str, name: str | None, overrides: tuple[str, ...], detach: bool, as_json: bool) -> None:
    """Run STUDY on a cluster, as a Ray job with this project's own code, and follow it.

    Ctrl-C detaches, `sweep attach` comes back, `sweep stop` ends it. The same study submitted again under the same
    name goes on with what its run directory holds.
    """
    from sweep import remote

    server, job = remote.submit(study, overrides, profile, name)
    stderr().print(f"[dim]·[/] {job.study} runs as {job.job_id} on {server.address}, in {job.run_dir}", soft_wrap=True)
    if not detach:
        follow(server, job, as_json=as_json)
    if as_json:
        emit_json(job.to_dict())
    else:
        click.echo(job.job_id)


@click.command()
@click.argument("job")
@of_cluster
@as_json
def attach(job: str, profile: str | None, as_json: bool) -> None:
    """Follow JOB from its beginning until it ends; Ctrl-C detaches."""
    from sweep import remote

    follow(*remote.find(job, profile), as_json=as_json)


def follow(server: Any, job: Any, *, as_json: bool) -> NoReturn:
    """Print what the job prints; leave with its exit code, or with 0 where Ctrl-C lets it go on by itself."""
    console = stderr()
    try:
        state = server.follow(job.job_id, lambda text: click.echo(text, nl=False, err=as_json))
    except KeyboardInterrupt:
        console.print(
            f"\ndetached; the sweep goes on. Back: sweep attach {job.job_id}  ·  end it: sweep stop {job.job_id}",
            soft_wrap=True,
        )
        sys.exit(OK)
    if as_json:
        emit_json({**job.to_dict(), "job_status": state.status, "exit_code": state.exit_code})
    if state.status == "SUCCEEDED":
        sys.exit(OK)
    if state.exit_code is None:
        console.print(f"{job.job_id}: {state.status}. {state.message}", soft_wrap=True)
        sys.exit(STOPPED_EARLY if state.status == "STOPPED" else FAILURE)
    sys.exit(state.exit_code)
