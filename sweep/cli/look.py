"""Verbs that start nothing: what this machine has, what the design spaces are, what a study would cost."""

import sys
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from sweep.cli.console import FAILURE, OK, as_json, emit_json, overrides, smoke, stderr, stdout
from sweep.cli.design import plan_by_pilot

if TYPE_CHECKING:
    from sweep.records import TrialRow
    from sweep.scheduling.forecast import Disk, Forecast
    from sweep.spaces import Space
    from sweep.studies import Scale, Study

_EXAMPLE_SLOTS = 8


@click.command()
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


@click.command()
@click.argument("name", required=False)
@as_json
def spaces(name: str | None, as_json: bool) -> None:
    """The design spaces: the rule that each puts to the test, its exact size, its degrees of freedom."""
    from sweep.spaces import SPACES, get_space

    if name:
        row = _space_row(get_space(name)) | {"num_networks": get_space(name).num_networks(get_space(name).RANGES())}
        if as_json:
            emit_json(row)
            return
        table = Table(box=None, padding=(0, 2), show_header=False)
        row["rule"] = _signed_rule(row)
        del row["obeys"]
        for key, value in row.items():
            text = f"{value:,}" if isinstance(value, int) else str(value or "–")
            table.add_row(f"[dim]{key.replace('_', ' ')}[/]", text)
        stdout().print(table)
        return
    rows = [_space_row(space) for space in SPACES.values()]
    if as_json:
        emit_json(rows)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("space", no_wrap=True)
    table.add_column("+ adds, − breaks", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("free", justify="right")
    for row in rows:
        table.add_row(row["name"], _signed_rule(row), f"{row['size']:,}", str(row["degrees_of_freedom"]))
    stdout().print(table)
    stderr().print(
        "sizes are exact, for the ranges of the paper (224 pixels, 4 stages); free: degrees of freedom; "
        "`sweep spaces NAME` tells the claim and how networks are drawn",
        soft_wrap=True,
    )


def _signed_rule(row: dict[str, Any]) -> str:
    """With a plus where the space obeys the rule that it tests, with a minus where it breaks it."""
    return f"{'+' if row['obeys'] else '−'} {row['rule']}" if row["rule"] else "–"


def _space_row(space: "Space") -> dict[str, Any]:
    """What `sweep spaces` tells of a space, for its default ranges."""
    ranges = space.RANGES()
    rule, other = space.rule or space.breaks, space.parent or space.counterpart
    return {
        "name": space.name,
        "title": space.title,
        "rule": rule.name if rule else None,
        "obeys": space.breaks is None,
        "against": other.name if other else None,
        "claim": space.claim,
        "citation": space.citation,
        "size": space.size(ranges),
        "degrees_of_freedom": space.degrees_of_freedom(ranges),
        "distribution": space.distribution,
    }


@click.command()
@click.argument("arch")
@click.option("--resolution", type=click.IntRange(min=1), help="Image size in pixels.  [default: 224]")
@click.option("--channels", type=click.IntRange(min=1), help="Image channels.  [default: 3]")
@click.option("--classes", type=click.IntRange(min=1), help="Number of classes.  [default: 1000]")
@as_json
def show(arch: str, resolution: int | None, channels: int | None, classes: int | None, as_json: bool) -> None:
    """Layer summary of ARCH: a named network, a YAML file, or one by its numbers.

    For example regnetx_400mf, torchvision:regnet_y_8gf, my_network.yaml, regnetx:d=22,w0=24,wa=24.48,wm=2.54,g=16,
    mlp:widths=256-128,norm=batch or vit:patch=4,width=64,num_blocks=6,num_heads=4. The images of regnetx32 are by
    default those of its book: grey, of 96 pixels, in 10 classes.
    """
    from sweep.spaces import complexity, layer_table, resolve
    from sweep.spaces.zoo import image_of

    architecture = resolve(arch)
    given = {"resolution": resolution, "channels": channels, "classes": classes}
    image = image_of(arch)._asdict() | {key: value for key, value in given.items() if value is not None}
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
    stdout().print(
        f"{arch} ({architecture.id}), {image['channels']} × {image['resolution']} × {image['resolution']} pixels, "
        f"{image['classes']} classes"
    )
    stdout().print(table)


@click.command()
@click.argument("study")
@overrides
@smoke
@click.option("--pilot", metavar="RUN|CURVES.parquet|reference", help="Choose lottery and rungs by replaying curves.")
@click.option("--width", type=float, metavar="POINTS", help="Wished width of the 95 % interval of a space's mean.")
@click.option("--effect-width", type=float, metavar="POINTS", help="And of the difference between two spaces.")
@click.option("--regret", type=float, metavar="POINTS", help="Wished distance of the network found from the best.")
@as_json
def plan(
    study: str,
    overrides: tuple[str, ...],
    smoke: bool,
    pilot: str | None,
    width: float | None,
    effect_width: float | None,
    regret: float | None,
    as_json: bool,
) -> None:
    """Trials, budgets, epochs, device-hours and disk of STUDY, as ranges. Starts nothing.

    With --pilot instead: which lottery, reduction factor, grace period and number of trials fulfil the wishes at least
    cost, as lines for the study file.
    """
    from sweep.scheduling.forecast import forecast
    from sweep.scheduling.population import draw_population
    from sweep.studies import load_study

    loaded = load_study(study, overrides)
    loaded = loaded.smoke() if smoke else loaded
    wishes = {"width": width, "effect_width": effect_width, "regret": regret}
    if pilot:
        plan_by_pilot(loaded, pilot, wishes, as_json=as_json)
        return
    if any(wish is not None for wish in wishes.values()):
        raise ValueError("plan: wishes need curves to replay; give --pilot RUN, a Parquet of curves, or reference")
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
    several, names = len(loaded.scale) > 1, ", ".join(loaded.spaces)
    table.add_row(
        "trials",
        f"{cost.num_trials:,} of {names}"
        if several
        else f"{cost.num_trials:,} ({loaded.trials_per_space:,} from each of {names})",
    )
    for scale in loaded.scale if several else ():
        table.add_row(f"scale {scale.name}", _scale_line(loaded, scale, trials))
    table.add_row("stopping", _stopping_line(loaded, cost))
    table.add_row(
        "epochs", f"{cost.epochs_low:,} to {cost.epochs_high:,} of {cost.epochs_if_all_completed:,} without stopping"
    )
    if sizes := loaded.judging.look_sizes(loaded.num_trials):
        listed = ", ".join(f"{size:,}" for size in sizes)
        table.add_row("looks", f"after {listed} trials and at the end; ends early when no rule is undecided")
    table.add_row("device-hours", f"{cost.device_hours_low:,.2f} to {cost.device_hours_high:,.2f} on {cost.device}")
    table.add_row("disk", _disk_line(cost.disk))
    drawn = ", ".join(f"{draw.space} {draw.num_draws:,}" for draw in draws if not draw.scaled_from)
    table.add_row("draws", f"{drawn}; why the others were rejected: --json")
    console.print(table)


def _scale_line(study: "Study", scale: "Scale", trials: "list[TrialRow]") -> str:
    """What tells one scale from the others; flops are those of its networks."""
    from dashboards.words import si

    flops = [trial.flops for trial in trials if trial.scale == scale.name]
    parts = [
        f"{study.trials_at(scale.name):,} of each space",
        f"{scale.resolution} px",
        f"{si(min(flops))} to {si(max(flops))} flops",
        f"{study.stopping_at(scale.name).max_epochs} epochs on {study.data_at(scale.name).num_train:,} images",
    ]
    if study.is_repeat(scale.name):
        parts.append(f"those of {scale.of} once more, with other seeds")
    elif scale.of:
        parts.append(f"those of {scale.of}, widths × {scale.width_factor:g}, depths × {scale.depth_factor:g}")
    return ", ".join(parts)


def _stopping_line(study: "Study", cost: "Forecast") -> str:
    """The rungs, at each scale where they differ."""
    rungs = {
        name: f"rungs after epoch {', '.join(map(str, cost.rung_epochs[name]))} of {cost.max_epochs[name]}"
        for name in cost.rung_epochs
        if cost.rung_epochs[name] and not study.is_repeat(name)
    }
    if not rungs:
        return "none"
    if len(set(rungs.values())) > 1:
        rungs = {name: f"{text} at scale {name}" for name, text in rungs.items()}
    goes_on = f"about 1 in {study.stopping.reduction_factor} goes on"
    of_others, of_worst = (study.stopping.lottery(among_worst=is_worst) for is_worst in (False, True))
    worst = f", {of_worst:.0%} of the worst tenth" if of_worst > of_others else ""
    return f"{', '.join(dict.fromkeys(rungs.values()))}, {goes_on}, {of_others:.0%} exempt by lottery{worst}"


def _disk_line(disk: "Disk") -> str:
    """At most at once. How many trials train at a time is the cluster's affair, of which `plan` knows nothing."""
    from sweep.terminal import size

    parts = [f"{size(disk.per_training_trial_bytes)} a trial in training"]
    if disk.kept_best_bytes:
        parts.append(f"{size(disk.kept_best_bytes)} the best {disk.num_kept}")
    if disk.waiting_bytes:
        parts.append(f"{size(disk.waiting_bytes)} if all wait at a rung")
    total = f"{size(disk.checkpoints_bytes(_EXAMPLE_SLOTS))} with {_EXAMPLE_SLOTS} in training"
    return f"checkpoints: {', '.join(parts)} ({total}); records: {size(disk.records_bytes)}"
