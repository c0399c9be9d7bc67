"""What all verbs share: exit codes, options, and the two ways to print.

Data goes to stdout, progress and messages to stderr; with `--json` stdout holds one JSON document and nothing else.
"""

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console

# Done; something failed (the message says what); bad input, nothing was started; stopped on request before the end, to
# be resumed; interrupted at once (second Ctrl-C).
OK, FAILURE, BAD_INPUT, STOPPED_EARLY, INTERRUPTED = 0, 1, 2, 3, 130

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
smoke = click.option("--smoke", is_flag=True, help="In miniature: the whole way in under a minute; it says nothing.")
overrides = click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a field, e.g. stopping.max_epochs=8."
)
on_profile = click.option(
    "--on", "profile", default="laptop", show_default=True, metavar="PROFILE",
    help="Where it runs: a profile, its file, or an address.",
)  # fmt: skip
of_cluster = click.option(
    "--on", "profile", metavar="PROFILE", help="The cluster of a JOB that was not submitted from this folder."
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


def short_path(path: str) -> str:
    """As one would type it here, in a shell."""
    return shlex.quote(min(os.path.relpath(path), path, key=len))
