"""simulate: what early stopping would have made of a sweep whose networks were all trained.

In: a run directory, a Parquet of curves, or the reference curves that ship. Out: tables on stdout (or JSON), and a PNG.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from sweep.cli.console import as_json, emit_json, stderr, stdout

if TYPE_CHECKING:
    from sweep.scheduling.simulation.accuracy import Accuracy, Agreement, Simulated
    from sweep.scheduling.simulation.simulate import Simulation

_TITLES = {
    "survivors": "survivors only",
    "horvitz_thompson": "Horvitz–Thompson",
    "hajek": "Hájek",
    "model_assisted": "model-assisted",
    "fewer": "fewer, trained fully",
}
_DEFAULT_TRIALS = 200


class Several(click.ParamType):
    """Values separated by commas, each of `kind`."""

    def __init__(self, kind: type, name: str):
        self._kind, self.name = kind, name

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> list[object]:
        if isinstance(value, list):
            return value
        try:
            return [self._kind(part.strip()) for part in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r}: give {self.name}, several separated by commas", param, ctx)


NUMBERS, SHARES = Several(int, "whole numbers"), Several(float, "shares such as 0.1")


@click.command()
@click.argument("source", metavar="RUN|CURVES.parquet|reference")
@click.option(
    "--scheduler",
    "schedulers",
    type=Several(str, "names"),
    metavar="NAME,…",
    multiple=True,
    default=["asha"],
    show_default=False,
    help="asha, asha_promotion, successive_halving, hyperband, median, random, none.  [default: asha]",
)
@click.option(
    "--trials",
    type=NUMBERS,
    metavar="N,…",
    help="Networks drawn of each space.  [default: as many as there are, at most 200]",
)
@click.option(
    "--audit", type=SHARES, metavar="SHARE,…", default="0.1", show_default=True, help="Share that the lottery exempts."
)
@click.option("--eta", type=NUMBERS, metavar="N,…", default="4", show_default=True, help="Reduction factor.")
@click.option(
    "--grace", type=NUMBERS, metavar="N,…", default="1", show_default=True, help="Epochs before the first rung."
)
@click.option("--max-epochs", type=click.IntRange(min=1), help="Full budget.  [default: all epochs of the curves]")
@click.option(
    "--workers", type=NUMBERS, metavar="N,…", default="8", show_default=True, help="Workers of the virtual clock."
)
@click.option("--cost", type=float, help="Share of full training for `random`.  [default: what asha costs]")
@click.option("--repetitions", default=1000, show_default=True, help="Sweeps to replay, for each row.")
@click.option("--seed", default=0, show_default=True, help="Of all chance.")
@click.option(
    "--pairs", multiple=True, metavar="WITHOUT:WITH", help="Spaces to judge.  [default: that differ by a rule]"
)
@click.option("--margin", default=0.5, show_default=True, help="Points of error within which a rule counts as free.")
@click.option("--space", "spaces", multiple=True, help="Only this space; may be repeated.")
@click.option("--figure", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.png", help="Draw it, too.")
@as_json
def simulate(
    source: str,
    schedulers: tuple[list[str], ...],
    trials: list[int] | None,
    audit: list[float],
    eta: list[int],
    grace: list[int],
    max_epochs: int | None,
    workers: list[int],
    cost: float | None,
    repetitions: int,
    seed: int,
    pairs: tuple[str, ...],
    margin: float,
    spaces: tuple[str, ...],
    figure: Path | None,
    as_json: bool,
) -> None:
    """Replay recorded full curves under schedulers: cost, regret, bias, verdicts.

    Each repetition draws networks from the complete curves of SOURCE and plays the sweep under a virtual clock, with
    the very rules that schedule real ones. Several schedulers and several numbers make one row each.
    """
    from sweep import terminal
    from sweep.scheduling.simulation.peers import designs_of
    from sweep.scheduling.simulation.pools import pools_of
    from sweep.scheduling.simulation.simulate import simulate as run

    pools = pools_of(source, spaces=spaces, max_epochs=max_epochs)
    designs = designs_of(
        [name for names in schedulers for name in names],
        max_epochs=pools[0].cohort.full_budget,
        grace_epochs=grace,
        reduction_factors=eta,
        audit_fractions=audit,
        num_trials=trials or [min(_DEFAULT_TRIALS, *(len(pool.chances) for pool in pools))],
        num_workers=workers,
    )
    with terminal.counted("sweeps", repetitions, stderr()) as progress:
        found = run(
            pools,
            designs,
            source=source,
            num_repetitions=repetitions,
            seed=seed,
            margin_pct=margin,
            pairs=[_pair(text) for text in pairs] if pairs else None,
            cost=cost,
            progress=progress,
        )
    if figure:
        from dashboards.simulated import simulation_png

        simulation_png(found.to_dict(), figure)
    if as_json:
        emit_json(found.to_dict())
    else:
        _print(found)
        if figure:
            stdout().print(f"figure   {figure}", soft_wrap=True)


def _pair(text: str) -> tuple[str, str]:
    without, separator, with_ = text.partition(":")
    if not separator or not without or not with_:
        raise ValueError(f"pairs: {text!r} names no two spaces; write WITHOUT:WITH, such as anynet_c:anynet_d")
    return without, with_


# -- tables ----------------------------------------------------------------------------------------------------------


def _print(found: "Simulation") -> None:
    console = stdout()
    spaces = ", ".join(
        f"{space.space} ({space.num_networks:,} networks, mean {space.mean_pct:.2f} %, best {space.best_pct:.2f} %)"
        for space in found.spaces
    )
    console.print(f"[bold]{found.source}[/]: {spaces}", soft_wrap=True)
    console.print(_designs_table(found))
    for label, design in zip(_labels(found.designs), found.designs):
        if design.design.rungs:
            console.print(f"\n[bold]{label}[/]")
            console.print(_estimators_table(design, len(found.spaces)))
            if design.agreements:
                console.print(_verdicts_table(design))
    console.print(
        f"\n{found.num_repetitions:,} sweeps a row, networks drawn with replacement: the curves are the population and "
        "its mean is the truth. ± standard error of the simulation. Regret, bias and rmse (root mean square error) in "
        "points of the error at the full budget, over all spaces (each space: --json). Regret: the best network that "
        "finished against the best drawn. Fewer: as many networks, chosen at random and trained fully, as cost the "
        "same. Holds: share of 95 % intervals that hold the truth. In brackets: the share of sweeps with an estimate, "
        "where some exempt fewer than two networks. Same verdict: as from all networks drawn, each trained fully; "
        "after a slash, the opposite one.",
        style="dim",
    )


def _labels(designs: "Sequence[Simulated]") -> list[str]:
    """What tells each design from the others."""
    texts = {
        "num_trials": "n {}", "reduction_factor": "η {}", "grace_epochs": "grace {}", "audit_fraction": "lottery {:g}",
        "num_workers": "{} workers",
    }  # fmt: skip
    heeded = [found.design.heeded for found in designs]
    varying = [name for name in texts if len({told[name] for told in heeded if name in told}) > 1]
    return [
        ", ".join(
            [
                found.design.scheduler.replace("_", " "),
                *(texts[name].format(told[name]) for name in varying if name in told),
            ]
        )
        for found, told in zip(designs, heeded)
    ]


def _designs_table(found: "Simulation") -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("scheduler")
    for heading in ("cost", "wall", "idle", "regret", "fewer's", "rmse of mean", "fewer's"):
        table.add_column(heading, justify="right", no_wrap=True)
    for label, design in zip(_labels(found.designs), found.designs):
        mean = _to_use(design)
        table.add_row(
            label,
            f"{design.cost.value:.1%}",
            f"{design.wall_s.value:,.0f}",
            f"{design.idle:.0%}",
            f"{design.regret.value:.2f} ± {design.regret.standard_error:.2f}",
            f"{design.regret_of_fewer.value:.2f}",
            f"{mean.rmse_pct:.2f}",
            f"{design.accuracy('fewer', 'mean').rmse_pct:.2f}",
        )
    return table


def _to_use(design: "Simulated") -> "Accuracy":
    """The estimator that one would use: without a lottery, there are only survivors."""
    found = design.accuracy("model_assisted", "mean")
    return found if found.num else design.accuracy("survivors", "mean")


def _estimators_table(design: "Simulated", num_spaces: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("estimator", no_wrap=True, width=24)
    for quantity in ("mean", "10 %"):
        for heading, width in ((f"{quantity}: bias", 13), ("rmse", 5), ("holds", 6)):
            table.add_column(heading, justify="right", no_wrap=True, width=width)
    for estimator, title in _TITLES.items():
        cells = [_cells(design.accuracy(estimator, quantity)) for quantity in ("mean", "q10")]
        if cells[0]:
            # A sweep with fewer than two audited networks has no estimate; the others speak for themselves alone.
            share = design.accuracy(estimator, "mean").num / (design.num_repetitions * num_spaces)
            lacking = "" if share == 1 else f" ({share:.0%})"
            table.add_row(f"  {title}{lacking}", *(cell for row in cells for cell in row))
    return table


def _cells(accuracy: "Accuracy") -> list[str]:
    if not accuracy.num:
        return []
    return [
        f"{accuracy.bias.value:+.2f} ± {accuracy.bias.standard_error:.2f}",
        f"{accuracy.rmse_pct:.2f}",
        f"{accuracy.coverage.value:.1%}",
    ]


def _verdicts_table(design: "Simulated") -> Table:
    """How often the verdict is that on all networks drawn, each trained fully."""
    estimators = ("model_assisted", "survivors", "fewer", "first_rung")
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("same verdict", overflow="fold", width=24)
    for heading in ("model-assisted", "survivors", "fewer", "first rung"):
        table.add_column(heading, justify="right", no_wrap=True)
    by_pair: dict[str, dict[str, Agreement]] = {}
    for agreement in design.agreements:
        by_pair.setdefault(f"{agreement.without} → {agreement.with_}", {})[agreement.estimator] = agreement
    for pair, found in by_pair.items():
        table.add_row(f"  {pair}", *(_agreement(found.get(estimator)) for estimator in estimators))
    return table


def _agreement(agreement: "Agreement | None") -> str:
    if agreement is None:
        return "–"
    opposed = f" / {agreement.opposed.value:.1%}" if agreement.opposed.value else ""
    return f"{agreement.agree.value:.1%}{opposed}"
