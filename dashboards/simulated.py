"""The picture of a simulation, for talks: what schedulers cost, what they find, and which estimators can be trusted.

In: the document of `sweep simulate --json`. Out: a PNG of three panels. Left, how precisely the full-budget mean is
known for what a design costs, beside training fewer networks fully; in the middle, how far the best network found is
from the best there was; right, the bias of each estimator, with two standard errors.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLOURS = {
    "asha": "#2d69ff",
    "asha_promotion": "#00aa63",
    "successive_halving": "#e17a00",
    "hyperband": "#9f2ea8",
    "median": "#c01b1f",
    "random": "#74988c",
    "none": "#626262",
}
_MARKERS = {
    "asha": "o", "asha_promotion": "s", "successive_halving": "D", "hyperband": "^", "median": "v", "random": "P",
    "none": "X",
}  # fmt: skip
_BIASES = (  # estimators from above to below, each with what it is called
    ("survivors", "survivors"),
    ("horvitz_thompson", "Horvitz–Thompson"),
    ("hajek", "Hájek"),
    ("model_assisted", "model-assisted"),
    ("fewer", "fewer networks,\nfully trained"),
)
_NUMBERS = {
    "num_trials": "networks", "reduction_factor": "η", "grace_epochs": "grace", "audit_fraction": "lottery",
    "num_workers": "workers",
}  # fmt: skip
_GREY = "#8f8f8f"


def simulation_png(document: dict[str, Any], path: Path) -> None:
    """Draw it into `path`."""
    rows = document["designs"]
    figure = Figure(figsize=(13.5, 4.8), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    precision, regret, bias = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
    _draw_precision(precision, rows)
    _draw_regret(regret, rows)
    _draw_bias(bias, rows)
    entries = [name for name in COLOURS if any(row["design"]["scheduler"] == name for row in rows)]
    handles = [
        precision.plot([], [], _MARKERS[name], color=COLOURS[name], label=name.replace("_", " "))[0] for name in entries
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.suptitle(_title(document), x=0.012, ha="left", fontsize=10, color="#555555", parse_math=False)
    figure.savefig(path, format="png", metadata={"Software": None})


def _title(document: dict[str, Any]) -> str:
    trials = sorted({row["design"]["num_trials"] for row in document["designs"]})
    epochs = sorted({row["design"]["max_epochs"] for row in document["designs"]})
    spaces = ", ".join(f"{pool['space']} ({pool['num_networks']:,})" for pool in document["spaces"])
    return (
        f"{document['num_repetitions']:,} sweeps of {' and '.join(map(str, trials))} networks a space and "
        f"{' or '.join(map(str, epochs))} epochs, replayed on the complete curves of {spaces}"
    )


def _accuracy(row: dict[str, Any], estimator: str) -> dict[str, Any]:
    return next(
        found
        for found in row["accuracies"]
        if (found["space"], found["estimator"], found["quantity"]) == (None, estimator, "mean")
    )


def _best(row: dict[str, Any]) -> dict[str, Any]:
    """Of the estimator to use: model-assisted, unless there is no lottery to make it one."""
    found = _accuracy(row, "model_assisted")
    return found if found["num"] else _accuracy(row, "survivors")


def _draw_precision(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    fewer = sorted((row["cost"]["value"], _accuracy(row, "fewer")["rmse_pct"]) for row in rows)
    axes.plot(*zip(*fewer), color=_GREY, lw=1.5, ls="--", zorder=1)
    labels = _varying(rows)
    _draw_designs(axes, rows, [_best(row)["rmse_pct"] for row in rows], labels=labels)
    _dress(axes, "How precisely the mean error is known", "root mean square error, points")
    notes = [
        "dashed: fewer networks, fully trained",
        *([f"labels: {', '.join(_NUMBERS[label] for label in labels)}"] if labels else []),
    ]
    axes.text(0.03, 0.04, "\n".join(notes), transform=axes.transAxes, fontsize=9, color="#666666")


def _draw_regret(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    fewer = sorted((row["cost"]["value"], row["regret_of_fewer"]["value"]) for row in rows)
    axes.plot(*zip(*fewer), color=_GREY, lw=1.5, ls="--", zorder=1)
    _draw_designs(axes, rows, [row["regret"]["value"] for row in rows])
    _dress(axes, "How good the network is that it finds", "above the best drawn, points of error")


def _draw_designs(
    axes: Axes, rows: Sequence[dict[str, Any]], heights: Sequence[float], *, labels: Sequence[str] = ()
) -> None:
    """A mark for each, at its cost; those of one scheduler are joined, and labelled where `labels` says by what."""
    for name, colour in COLOURS.items():
        own = [number for number, row in enumerate(rows) if row["design"]["scheduler"] == name]
        costs = [rows[number]["cost"]["value"] for number in own]
        axes.plot(costs, [heights[number] for number in own], color=colour, lw=0.8, alpha=0.5, zorder=2)
        for number, cost in zip(own, costs):
            honest = _accuracy(rows[number], "model_assisted")["num"] > 0
            face = colour if honest else "white"  # hollow: only survivors, nothing makes up for the others
            axes.plot(
                cost, heights[number], _MARKERS[name], color=colour, mfc=face, ms=9, mew=1.6, zorder=3, clip_on=False
            )
            if labels and name not in ("none", "random"):
                text = ", ".join(f"{rows[number]['design'][label]:g}" for label in labels)
                axes.annotate(text, (cost, heights[number]), (7, 4), textcoords="offset points", fontsize=8)


def _varying(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The numbers by which designs of one scheduler differ."""
    stopping = [row["design"] for row in rows if row["design"]["scheduler"] not in ("none", "random")]
    return [name for name in _NUMBERS if len({design[name] for design in stopping}) > 1]


def _dress(axes: Axes, title: str, y_label: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("cost, share of training all fully")
    axes.set_ylabel(y_label)
    axes.set_xlim(0, 1.05)
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    _strip(axes)


def _draw_bias(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    rows = [row for row in rows if row["cost"]["value"] < 1 and row["design"]["scheduler"] != "random"] or rows
    height = 0.7 / len(rows)
    for place, (estimator, _) in enumerate(_BIASES):
        for number, row in enumerate(rows):
            found = _accuracy(row, estimator)
            if not found["num"]:
                continue
            name = row["design"]["scheduler"]
            y = place + (number - (len(rows) - 1) / 2) * height
            reach = 2 * (found["bias"]["standard_error"] or 0)
            axes.errorbar(
                found["bias"]["value"], y, xerr=reach, fmt=_MARKERS[name], color=COLOURS[name], ms=6, capsize=2, lw=1.4
            )
    axes.axvline(0, color="#444444", lw=1)
    axes.set_yticks(range(len(_BIASES)), [label for _, label in _BIASES])
    axes.set_ylim(len(_BIASES) - 0.5, -0.5)
    axes.set_xlabel("bias of the mean, points (± 2 standard errors)")
    axes.set_title("Which estimates can be trusted", loc="left", fontsize=11, fontweight="bold")
    _strip(axes)


def _strip(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#808080", alpha=0.18, lw=0.8)
    axes.set_axisbelow(True)
