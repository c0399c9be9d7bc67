"""The verb that asks a sweep's records whether anything was lost, doubled or decided wrongly."""

import sys
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from sweep.cli.console import FAILURE, OK, as_json, emit_json, stderr, stdout, stdout_kept_clean

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.verify import Findings

_MOST_SHOWN = 20


@click.command()
@click.argument("run")
@click.option("--against", metavar="OTHER", help="An undisturbed sweep of the same study to compare with.")
@click.option("--tracking-uri", metavar="URI", help="The MLflow that recorded it, with its password where it has one.")
@as_json
def verify(run: str, against: str | None, tracking_uri: str | None, as_json: bool) -> None:
    """Check the records of RUN: nothing lost, nothing doubled, each decision the rule's.

    Reads the journal and MLflow independently of the code that wrote them, also while the sweep runs. Exit code 0 only
    if everything was checked and holds.
    """
    from sweep.records import find_run
    from sweep.verify import verify as check

    folder = find_run(run)
    other = find_run(against) if against else None
    with stdout_kept_clean():
        findings = check(folder, tracking_uri, other, at_work=_is_at_work(folder))
    if as_json:
        emit_json(findings.to_dict())
    else:
        _print(findings)
    sys.exit(OK if findings.holds else FAILURE)


def _is_at_work(folder: "Path") -> bool:
    from sweep.records import Journal
    from sweep.records.lease import owner_of

    try:
        with Journal.open(folder, read_only=True) as journal:
            return owner_of(journal) is not None
    except ValueError:  # the check says what is wrong with it
        return False


def _print(findings: "Findings") -> None:
    from sweep.verify import INVARIANTS

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", no_wrap=True)
    table.add_column("what must hold")
    table.add_column("checked", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for name, (what, counted) in INVARIANTS.items():
        table.add_row(name, what, f"{findings.checked[name]:,} {counted}", _result(findings, name))
    stdout().print(table)
    for name in INVARIANTS:
        found = findings.violations.get(name, ())
        for sentence in found[:_MOST_SHOWN]:
            stdout().print(Text(f"{name}: {sentence}", style="red"), soft_wrap=True)
        if len(found) > _MOST_SHOWN:
            stdout().print(f"{name}: and {len(found) - _MOST_SHOWN:,} more; --json names all", soft_wrap=True)
    for reason in dict.fromkeys(findings.not_checked.values()):
        names = ", ".join(name for name, why in findings.not_checked.items() if why == reason)
        stdout().print(Text(f"not checked: {names}: {reason}", style="yellow"), soft_wrap=True)
    if findings.at_work:
        stderr().print("the sweep is at work: what it has not delivered yet was not asked for", soft_wrap=True)


def _result(findings: "Findings", name: str) -> Text:
    number = len(findings.violations.get(name, ()))
    if number:
        return Text(f"{number:,} violation{'s' if number > 1 else ''}", style="red")
    return Text("not checked", style="yellow") if name in findings.not_checked else Text("ok", style="green")
