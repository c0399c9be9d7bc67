"""judge: what a sweep, or curves from anywhere, say about rules and spaces.

In: a run directory, or a Parquet file of learning curves. Out: tables for people, one JSON document for machines.
"""

from typing import Any

import click

from sweep.cli.console import as_json, emit_json, stderr, stdout


@click.command()
@click.argument("run", required=False)
@click.option(
    "--curves",
    metavar="FILE",
    help="Judge these learning curves instead: Parquet with trial_id, space, epoch, val_error_pct.",
)
@click.option("--pairs", multiple=True, metavar="WITHOUT:WITH", help="Two spaces of the curves to compare; repeatable.")
@click.option("--margin", type=click.FloatRange(min=0), help="Points of error that count as none.  [default: 0.5]")
@click.option("--confidence", type=click.FloatRange(0.5, 1, True, True), help="[default: 0.95]")
@click.option(
    "--match",
    type=click.Choice(["none", "flops", "params", "activations"]),
    help="Compare only curves of like complexity.  [default: none]",
)
@click.option("--classes", type=click.IntRange(min=2), help="What a diverged network guesses among.  [default: 10]")
@click.option("--seed", type=click.IntRange(min=0), help="Of the resamples.  [default: 0]")
@as_json
def judge(
    run: str | None,
    curves: str | None,
    pairs: tuple[str, ...],
    margin: float | None,
    confidence: float | None,
    match: str | None,
    classes: int | None,
    seed: int | None,
    as_json: bool,
) -> None:
    """Verdicts: which rules help, cost nothing, hurt, or are undecided; and what the spaces are like.

    RUN is a run directory, judged as its study wants it. With --curves, whoever trained them: a row a trial and epoch,
    optionally with one value a trial in scale, flops, params, activations, fully_trained, would_stop_at (the epochs of
    the rung at which early stopping wanted to end it, 0 for none) and audit_fraction.
    """
    from sweep import api, findings_view

    of_curves: dict[str, Any] = {
        "margin_pct": margin,
        "confidence": confidence,
        "match": match,
        "num_classes": classes,
        "seed": seed,
    }
    given = {name: value for name, value in of_curves.items() if value is not None}
    if (run is None) == (curves is None):
        raise ValueError("run: give a run directory, or curves by --curves FILE")
    if curves is None and (given or pairs):
        raise ValueError(
            "--pairs, --margin, --confidence, --match, --classes and --seed are for --curves: a sweep is judged as its "
            "study says; change its table [judging]"
        )
    findings = api.find(run) if run is not None else api.judge_curves(str(curves), pairs=pairs, **given)
    if as_json:
        emit_json(findings.to_dict())
        return
    console = stdout()
    for part in findings_view.findings_tables(findings):
        console.print(part)
    if not findings.verdicts:
        stderr().print("nothing was compared; name two spaces with --pairs WITHOUT:WITH", soft_wrap=True)
