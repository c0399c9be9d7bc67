"""What `sweep plan --pilot` prints: the cheapest design for each wish, and the lines of TOML that make it."""

from typing import TYPE_CHECKING

from rich.table import Table

from sweep.cli.console import emit_json, stderr, stdout

if TYPE_CHECKING:
    from sweep.scheduling.simulation.design import Choice, Plan
    from sweep.studies import Study


def plan_by_pilot(study: "Study", pilot: str, wishes: dict[str, float | None], *, as_json: bool) -> None:
    """`wishes` by name, as in `design.Wishes`."""
    from sweep import terminal
    from sweep.scheduling.simulation.design import NUM_REPETITIONS, Wishes, num_sweeps, plan_design, study_design
    from sweep.scheduling.simulation.pools import pools_of

    pools = pools_of(pilot, spaces=(), max_epochs=study_design(study).max_epochs)
    pools = [pool for pool in pools if pool.space in study.spaces] or pools
    with terminal.counted("replayed sweeps", num_sweeps(study, NUM_REPETITIONS), stderr()) as progress:
        plan = plan_design(
            pools, study, Wishes(**wishes), pilot=pilot, num_repetitions=NUM_REPETITIONS, progress=progress
        )
    if as_json:
        emit_json(plan.to_dict())
    else:
        _print(plan, study)


def _print(plan: "Plan", study: "Study") -> None:
    from sweep.scheduling.simulation.design import toml_of

    console = stdout()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("design", "trials", "epochs", "of full", "width", "effect", "regret"):
        table.add_column(heading, justify="left" if heading == "design" else "right", no_wrap=True)
    wish = ""
    for choice in plan.choices:
        if choice.wish != wish:
            wish = choice.wish
            table.add_row(f"[bold]{wish}[/]")
        table.add_row(
            f"  {_design_text(choice)}",
            f"{choice.num_trials:,}{'*' if choice.extrapolated else ' '}",
            f"{choice.epochs:,}",
            f"{choice.share:.0%}",
            *map(_points, (choice.width_pct, choice.effect_width_pct, choice.regret_pct)),
        )
    console.print(f"[bold]{study.name}[/], by curves of {', '.join(plan.spaces)} from {plan.pilot}", soft_wrap=True)
    console.print(table)
    console.print(
        f"Trials of each of {len(study.spaces)} spaces; epochs in all, and as a share of training so many networks "
        "fully. Width: of the 95 % interval of a space's mean error at the full budget, in points; effect: that of the "
        "difference between two. Regret: points above the best network of the pilot. An asterisk: more trials than "
        "were replayed; widths are scaled by the square root of their number, and the regret is not known. "
        f"{plan.num_repetitions} sweeps replayed for each design.",
        style="dim",
    )
    for wish in plan.unreachable:
        console.print(
            f"[yellow]{wish}[/]: no design tried reaches it; allow more points, or --set more trials_per_space",
            soft_wrap=True,
        )
    for choice in plan.chosen:
        console.print(f"\n# {choice.wish}\n{toml_of(choice)}", end="", highlight=False, markup=False, soft_wrap=True)


def _design_text(choice: "Choice") -> str:
    design = choice.design
    if design.scheduler == "none":
        return "no stopping"
    name = "" if design.scheduler == "asha" else design.scheduler.replace("_", " ") + ", "
    return f"{name}η {design.reduction_factor}, grace {design.grace_epochs}, lottery {design.audit_fraction:g}"


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
