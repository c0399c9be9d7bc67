"""Verbs about the hosts that a sweep runs on: Ray's heads and workers, their keys, a team's MLflow."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from sweep.cli.console import FAILURE, OK, as_json, emit_json, stderr, stdout

_PORT = click.IntRange(1, 65535)


@click.group()
def cluster() -> None:
    """Ray on this host: start a head, join one, see it, end it."""


def _resources(verb: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        (
            click.option("--num-cpus", type=click.IntRange(min=0), help="Cores to offer.  [default: all]"),
            click.option("--num-gpus", type=click.IntRange(min=0), help="Cards to offer.  [default: all]"),
            click.option("--object-store-memory", type=click.IntRange(min=80_000_000), help="Bytes for Ray's objects."),
            click.option("--metrics-port", type=_PORT, help="Where Prometheus finds this node."),
            click.option("--tls-dir", default="", help="This host's folder of `sweep cluster certs`: TLS for Ray."),
            click.option("--foreground", is_flag=True, help="Stay until told to end, and end the node then."),
        )
    ):
        verb = option(verb)
    return verb


@cluster.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="This host's address, as the workers reach it.")
@click.option("--port", default=6379, show_default=True, type=_PORT, help="Where workers join.")
@click.option("--dashboard-port", default=8265, show_default=True, type=_PORT, help="Where studies are submitted.")
@_resources
@as_json
def up(host: str, port: int, dashboard_port: int, foreground: bool, as_json: bool, **resources: Any) -> None:
    """Start a head on this host. Whoever joins or submits needs its token."""
    from cluster import node
    from cluster.keys import token_file

    started = node.up(host, port, dashboard_port, node.Resources(**resources))
    _tell(started, as_json)
    stderr().print(
        f"workers  sweep cluster join {started.gcs_address}   (each with this host's {token_file()})\n"
        f"studies  sweep submit STUDY --on {started.dashboard}",
        soft_wrap=True,
    )
    if foreground:
        sys.exit(node.stay(started))


@cluster.command()
@click.argument("address", metavar="ADDR:PORT")
@click.option("--host", default="", help="This host's own address.  [default: the one that faces the head]")
@_resources
@as_json
def join(address: str, host: str, foreground: bool, as_json: bool, **resources: Any) -> None:
    """Start a worker on this host for the head at ADDR:PORT."""
    from cluster import node

    started = node.join(address, host, node.Resources(**resources))
    _tell(started, as_json)
    if foreground:
        sys.exit(node.stay(started))


def _tell(node: Any, as_json: bool) -> None:
    if as_json:
        emit_json(vars(node))
    else:
        stdout().print(
            f"{node.kind} {node.host} is up (process {node.pid}); end it with `sweep cluster down`", soft_wrap=True
        )


@cluster.command("status")
@as_json
def cluster_status(as_json: bool) -> None:
    """What was started on this host, and the nodes of its cluster."""
    from cluster import node

    here = node.nodes_here()
    members = node.members(here[0]) if here else []
    if as_json:
        emit_json({"here": [vars(one) for one in here], "members": members})
        sys.exit(OK if here else FAILURE)
    if not here:
        stderr().print("no node was started on this host; start one: sweep cluster up, or sweep cluster join ADDR:PORT")
        sys.exit(FAILURE)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("node", "state", "CPUs free", "GPUs free"):
        table.add_column(heading, justify="right" if "free" in heading else "left")
    for member in members:
        state = "[green]alive[/]" if member["alive"] else "[red]gone[/]"
        table.add_row(member["address"], state, *(_share(member, name) for name in ("CPU", "GPU")))
    stdout().print(f"{here[0].kind} on this host, cluster of {here[0].gcs_address}")
    stdout().print(table)


def _share(member: dict[str, Any], resource: str) -> str:
    total = member["resources"].get(resource, 0)
    return f"{member['available'].get(resource, 0):g} of {total:g}" if member["alive"] and total else "–"


@cluster.command()
def down() -> None:
    """End what was started on this host, and nothing else."""
    from cluster import node

    ended = node.down()
    for one in ended:
        stdout().print(f"{one.kind} {one.host} (process {one.pid}) has ended")
    if not ended:
        stderr().print("no node was started on this host; there is nothing to end")


@cluster.command()
def token() -> None:
    """Print the cluster's token, made if there is none; other hosts and laptops keep it in the same file."""
    from cluster.keys import ensure_token, token_file

    path = ensure_token(token_file())
    stderr().print(f"in {path}, for you alone; it lets its bearer run code on the cluster", soft_wrap=True)
    click.echo(path.read_text().strip())


@cluster.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--host", "hosts", multiple=True, required=True, metavar="ADDR", help="A host's address or name; repeat it."
)
def certs(folder: Path, hosts: tuple[str, ...]) -> None:
    """Make certificates in FOLDER for TLS between the hosts of a cluster."""
    from cluster.keys import make_certs

    for path in make_certs(folder, hosts):
        click.echo(path)
    stderr().print(
        "copy each folder to its host and name it there: --tls-dir of `sweep cluster up` and `join`, tls_dir of the "
        f"profile. {folder / 'ca.key'} signs new hosts: keep it here",
        soft_wrap=True,
    )


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address that the server listens on.")
@click.option("--port", default=5000, show_default=True, type=_PORT, help="Its port.")
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="A name by which browsers and hosts call it; repeat it.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=Path("mlflow-server"),
    show_default=True,
    help="Its folder: accounts, password, log.",
)
@click.option(
    "--backend",
    envvar="SWEEP_MLFLOW_BACKEND",
    required=True,
    show_envvar=True,
    help="Its database, e.g. postgresql://USER@HOST/NAME.",
)
@click.option(
    "--artifacts",
    envvar="SWEEP_MLFLOW_ARTIFACTS",
    required=True,
    show_envvar=True,
    help="Folder, or s3://BUCKET/PREFIX.",
)
@click.option(
    "--password-file",
    envvar="SWEEP_MLFLOW_PASSWORD_FILE",
    type=click.Path(path_type=Path),
    show_envvar=True,
    help="The administrator's.  [default: made, in --state]",
)
def serve(
    host: str,
    port: int,
    allowed_hosts: tuple[str, ...],
    state: Path,
    backend: str,
    artifacts: str,
    password_file: Path | None,
) -> None:
    """A team's MLflow: accounts, a database, artifacts through the server, nothing open without a password."""
    from sweep.tracking import serve_team

    # Before it starts: MLflow must not outlive this command.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(OK))
    server = serve_team(
        backend, artifacts, host=host, port=port, allowed_hosts=allowed_hosts, state=state, password_file=password_file,
        log_path=state / "server.log",
    )  # fmt: skip
    click.echo(f"http://{host}:{port}")
    stderr().print(f"user admin, password in {password_file or state / 'password'}; Ctrl-C ends it", soft_wrap=True)
    try:
        if server.wait():
            stderr().print(f"the server ended with code {server.returncode}; see {state / 'server.log'}", style="red")
            sys.exit(FAILURE)
    except KeyboardInterrupt:
        pass
    finally:
        server.terminate()
        server.wait()
