"""The command line: one function a verb, each a thin coat over `sweep.api`.

In: words. Out: data on stdout, messages on stderr, an exit code (sweep/cli/console.py). Imports that cost (torch, ray,
mlflow, plotly) happen inside the verbs that need them.
"""

import sqlite3
import sys

import click

from sweep.cli import care, hosts, judging, look, remote, reruns, runs, simulate
from sweep.cli.console import BAD_INPUT, FAILURE, INTERRUPTED


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
    except (RuntimeError, OSError, sqlite3.Error) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(FAILURE)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="designspace-sweep", prog_name="sweep")
def cli() -> None:
    """Find out which rules of network design really hold.

    A sweep draws networks from design spaces, trains them early-stopped on Ray Tune, records every run in MLflow and
    judges each rule with an interval. Start with: sweep launch quickstart
    """


for _verb in (
    look.doctor, look.spaces, look.show, look.plan,
    runs.launch, runs.status, runs.stop, judging.judge, runs.report, runs.ui, runs.recover,
    reruns.rerun, reruns.export, simulate.simulate,
    care.extend, care.logs, care.sync, care.verify, remote.submit, remote.attach, hosts.cluster, hosts.serve,
):  # fmt: skip
    cli.add_command(_verb)
