"""One look for all figures: how verdicts are marked, colours, grounds and greys.

In: a plotly figure. Out: the same, dressed; legible on a light and on a dark page.
"""

import html
from dataclasses import dataclass

import plotly.graph_objects as go


@dataclass(frozen=True)
class Mark:
    """How a verdict looks: told apart by shape and word as well as by colour."""

    colour: str
    plotly_symbol: str
    matplotlib_marker: str
    filled: bool


MARKS = {
    "helps": Mark("#2f7ed8", "triangle-left", "<", True),
    "hurts": Mark("#c2334d", "triangle-right", ">", True),
    "free": Mark("#6b7a8f", "square", "s", True),
    "undecided": Mark("#8f8f8f", "circle-open", "o", False),
}

GREY = "rgba(128, 128, 128, 0.9)"
FAINT = "rgba(128, 128, 128, 0.16)"
GRID = "rgba(128, 128, 128, 0.22)"


def small(text: str) -> str:
    """For the second line of a plotly label; escaped."""
    return f'<span style="font-size: 11px">{html.escape(text)}</span>'


def rgba(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity})"


def dress(figure: go.Figure, *, height: int, x_title: str | None = None, y_title: str | None = None) -> None:
    """One look for all. Grounds are clear, greys middling: the page's style sheet inks text for light and dark."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 56, "r": 16, "t": 44, "b": 56},
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        font={"family": "system-ui, sans-serif", "size": 13, "color": GREY},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "rgba(0, 0, 0, 0)"},
        modebar={"bgcolor": "rgba(0, 0, 0, 0)", "color": "rgba(128, 128, 128, 0.6)", "activecolor": GREY},
    )
    figure.update_xaxes(
        gridcolor=GRID, linecolor=GRID, zeroline=False, title=x_title, title_standoff=12, title_font_size=13
    )
    figure.update_yaxes(
        gridcolor=GRID, linecolor=GRID, zeroline=False, title=y_title, automargin=True, title_font_size=13
    )
