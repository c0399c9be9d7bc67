"""Verbs about networks at full scale: rerun, export."""

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from sweep.cli.console import as_json, emit_json, on_profile, stderr, stdout, stdout_kept_clean
from sweep.cli.remote import follow


@click.command()
@click.argument("run", metavar="RUN|JOB")
@click.option("--best", default=3, show_default=True, type=click.IntRange(min=1), help="How many to confirm first.")
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1), help="Fresh seeds for each.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(min=1), help="Workers at full scale.")
@click.option(
    "--ensemble", type=click.IntRange(min=1), metavar="K",
    help="Train the best K, and test them together too.  [default: the study's]",
)  # fmt: skip
@click.option("--network", default="", metavar="NAME|FILE|PARAMETERS", help="Train this one in place of the best.")
@click.option(
    "--warm-start", default="", metavar="DIR|torchvision:NAME=FILE",
    help="It begins from these weights of a smaller one: an earlier rerun's directory, or a file.",
)  # fmt: skip
@on_profile
@as_json
def rerun(
    run: str,
    best: int,
    seeds: int,
    workers: int,
    ensemble: int | None,
    network: str,
    warm_start: str,
    profile: str,
    as_json: bool,
) -> None:
    """Train the best configuration of RUN at full scale and open the test set, once; that of JOB on its cluster.

    The best networks are confirmed with fresh seeds first, because the best of many is lucky; --best 1 --seeds 1
    takes the sweep's word for it. A network that you name is not confirmed. For JOB, files are those of its cluster's
    head. Interrupted, the same command goes on.
    """
    from sweep import remote

    if remote.is_job(run):
        given = {
            "--best": best, "--seeds": seeds, "--workers": workers, "--ensemble": ensemble, "--network": network,
            "--warm-start": warm_start,
        }  # fmt: skip
        options = [str(word) for name, value in given.items() if value for word in (name, value)]
        follow(*remote.rerun(run, options + (["--json"] if as_json else [])), as_json=False)
    from dashboards.words import ensemble_text
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
            run,
            best=best,
            seeds=seeds,
            workers=workers,
            ensemble=ensemble,
            network=network,
            warm_start=warm_start,
            profile=profile,
            progress=progress,
        )
    if as_json:
        kept = {key: value for key, value in result.to_dict().items() if key != "history"}
        emit_json({**kept, "architecture_id": result.candidate.architecture_id, **vars(registered)})
        return
    stdout().print(f"{result.candidate.trial_id} ({result.candidate.architecture_id})", soft_wrap=True)
    stdout().print(_estimates_table(result))
    if result.ensemble:
        stdout().print(f"ensemble {ensemble_text(result.to_dict())}", soft_wrap=True)
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
    epochs = f"{result.epochs} epoch{'' if result.epochs == 1 else 's'}"
    in_sweep, confirmed, full_scale = estimates(result.to_dict())
    for name, estimate, grounds in (
        ("in the sweep", in_sweep, f"{result.num_validation:,} validation images; the best of {result.num_networks}"),
        ("confirmed", confirmed, f"the same budget, fresh seeds: {len(result.candidate.confirmed_error_pct)}"),
        (
            "at full scale",
            full_scale,
            f"{result.num_test:,} test images, {epochs} on {result.num_train:,}",
        ),
    ):
        if estimate is None:
            table.add_row(name, "–", "–", "named, not drawn" if result.named else "not confirmed")
            continue
        known = estimate.low_pct is not None
        interval = f"{estimate.low_pct:.2f} to {estimate.high_pct:.2f}" if known else "–"
        table.add_row(name, f"{estimate.error_pct:.2f} %", interval, grounds)
    return table


@click.command()
@click.argument("rerun", metavar="RERUN|RUN")
@click.option("--to", "form", required=True, type=click.Choice(["onnx", "torchvision"]), help="What it becomes.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="The new folder.  [default: RERUN/onnx, RERUN/torchvision]"
)
@as_json
def export(rerun: str, form: str, out: Path | None, as_json: bool) -> None:
    """Write a network trained at full scale as other programs read it, checked, with a card that says how.

    RERUN is the directory of a rerun (RUN/rerun/ID); of RUN the latest is meant. ONNX (needs the extra `onnx`) takes
    pixels as they are, torchvision's state dict those that were normalised.
    """
    from sweep.rerun.export import export as write

    with stdout_kept_clean():
        exported = write(rerun, form, out=out)
    if as_json:
        emit_json(exported.to_dict())
        return
    stdout().print(
        f"{exported.file}\n{exported.card}\nthe logits differ by {exported.max_difference:.1g} at most, on "
        f"{exported.num_images} random images",
        soft_wrap=True,
    )
