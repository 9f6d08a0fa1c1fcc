"""Palette, marks and layout shared by every figure; colour never carries a meaning alone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8A8A8A", "#F0E442")
"""Okabe and Ito's colour-blind-safe hues, black replaced by a grey that shows on dark and light ground."""
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "star", "triangle-down", "cross")
PATTERNS = ("", "/", ".", "x", "-", "\\", "+", "|")
SEQUENTIAL = "Cividis"


@dataclass(frozen=True)
class Mark:
    """How one run or expert is drawn."""

    colour: str
    dash: str
    marker: str
    pattern: str


def mark(index: int) -> Mark:
    """The mark of the index-th thing of a kind; hue, dash, marker and pattern change together and wrap apart."""
    return Mark(
        colour=OKABE_ITO[index % len(OKABE_ITO)],
        dash=DASHES[(index + index // len(OKABE_ITO)) % len(DASHES)],
        marker=MARKERS[index % len(MARKERS)],
        pattern=PATTERNS[index % len(PATTERNS)],
    )


SVG_BUTTON = """
Plotly.setPlotConfig({modeBarButtonsToAdd: [{
  name: "svg", title: "Download plot as an SVG", icon: Plotly.Icons.disk,
  click: graph => Plotly.downloadImage(graph, {format: "svg"}),
}]});
"""
"""For a page's own scripts, after plotly's: beside the button for a PNG, which plotly has, one for an SVG."""


def marks(labels: Iterable[str]) -> dict[str, Mark]:
    """Marks by label, in the order given, so that figures that share `labels` share colours."""
    return {label: mark(index) for index, label in enumerate(dict.fromkeys(labels))}


FONT = "Roboto, Helvetica, Arial, sans-serif"
LIGHT = {"text": "rgba(0, 0, 0, 0.87)", "line": "rgba(0, 0, 0, 0.14)"}
DARK = {"text": "rgba(255, 255, 255, 0.92)", "line": "rgba(255, 255, 255, 0.18)"}


_INK, _GRID = "#2a3f5f", "#EBF0F8"
_AXIS: dict[str, Any] = {"automargin": True, "ticks": "", "title": {"standoff": 15}, "zerolinewidth": 2}
_AXIS |= {"gridcolor": _GRID, "linecolor": _GRID, "zerolinecolor": _GRID}
_BAR = {"outlinewidth": 0, "ticks": ""}
TEMPLATE = {
    "layout": {
        "autotypenumbers": "strict",
        "colorway": OKABE_ITO,
        "font": {"color": _INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "hoverlabel": {"align": "left"},
        "hovermode": "closest",
        "coloraxis": {"colorbar": _BAR},
    },
    "data": {"heatmap": [{"colorbar": _BAR}]},
}
"""The look of plotly_white, as far as our figures use it: the whole of it takes most of the time a figure is built in,
and would be most of what a page is sent at each change."""


def layout(title: str, height: int, **settings: Any) -> dict[str, Any]:
    """The layout every figure starts from; it agrees with the one the dashboard's theme sets."""
    base: dict[str, Any] = {
        "title": {"text": title, "x": 0.5, "xanchor": "center", "font": {"size": 16}},
        "height": height,
        "margin": {"l": 64, "r": 64, "t": 72, "b": 64},
        "legend": {"orientation": "v", "x": 1.02, "xanchor": "left"},
        "template": TEMPLATE,
    }
    return base | settings


def subplots(**settings: Any) -> go.Figure:
    """Plotly's `make_subplots` in our look."""
    return make_subplots(figure=go.Figure(layout={"template": TEMPLATE}), **settings)


def panels(labels: Sequence[str], spacing: float) -> go.Figure:
    """One panel a run, side by side on one scale; what tells it from others stands below its name."""
    titles = [label.replace(" · ", "<br>").replace(", ", ",<br>") for label in labels]
    figure = subplots(rows=1, cols=len(labels), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=spacing)
    return figure.update_annotations(font={"size": 12})


def seat(figure: go.Figure, look: Mapping[str, Any]) -> go.Figure:
    """Give panels their layout, with room between its title and the longest name of one.

    The room is taken from the panels, as the dashboard's theme sets margins of its own.
    """
    more = 16 * max((note.text.count("<br>") for note in figure.layout.annotations), default=0)
    figure.update_layout({**look, "height": look["height"] + more}, overwrite=True)
    top = 1 - more / (look["height"] + more - look["margin"]["t"] - look["margin"]["b"])
    figure.update_yaxes(domain=[0, top])
    return figure.update_annotations(y=top)


def dress(figure: go.Figure, dark: bool) -> go.Figure:
    """Give a figure the text and line colours of a light or dark page, and no ground of its own."""
    colours = DARK if dark else LIGHT
    clear = "rgba(0, 0, 0, 0)"
    axis = {"gridcolor": colours["line"], "linecolor": colours["line"], "zerolinecolor": colours["line"]}
    axes = {name: axis for name in figure._layout if name.startswith(("xaxis", "yaxis"))}
    figure.update_layout(
        font={"color": colours["text"], "family": FONT},
        paper_bgcolor=clear,
        plot_bgcolor=clear,
        legend={"bgcolor": clear},
        title={"font": {"color": colours["text"]}},
        **{"xaxis": axis, "yaxis": axis} | axes,
    )
    return figure


def empty(message: str, height: int = 240) -> go.Figure:
    """A figure that says in words why there is nothing to draw."""
    note = {"text": message, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False}
    hidden: Mapping[str, Any] = {"visible": False}
    return go.Figure(layout=layout("", height, annotations=[note], xaxis=hidden, yaxis=hidden))


def line(style: Mark, name: str, x: Any, y: Any, hover: str, **settings: Any) -> go.Scatter:
    """A line in a mark's colour, dash and marker.

    Args:
        style: of the line.
        name: said in the legend.
        x: values.
        y: values.
        hover: what is said under the pointer, in plotly's template.
        settings: of the trace, in place of these.
    """
    base: dict[str, Any] = {
        "mode": "lines+markers",
        "line": {"color": style.colour, "dash": style.dash, "width": 2.5},
        "marker": {"symbol": style.marker, "size": 9, "color": style.colour, "opacity": 1},
        "hovertemplate": f"{hover}<extra></extra>",
    }
    return go.Scatter(x=x, y=y, name=name, **(base | settings))


def rows_height(count: int, each: int) -> int:
    """Pixels of a picture's rows: fewer for each where there are many, so that the picture stays on a screen or two."""
    return round(count * min(each, max(9.0, 720 / max(1, count))))


def rule(value: float, axis: str = "y") -> dict[str, Any]:
    """A dotted line across the picture at a value of an axis."""
    along = "x" if axis == "y" else "y"
    ends = {f"{along}ref": "paper", f"{along}0": 0, f"{along}1": 1, f"{axis}0": value, f"{axis}1": value}
    return {"type": "line", **ends, "line": {"dash": "dot", "color": OKABE_ITO[6], "width": 2}}


def colour_bar(title: str) -> dict[str, Any]:
    """A narrow colour bar whose title stands along it."""
    return {"title": {"text": title, "side": "right"}, "thickness": 12}


def having(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows that have a value in a column; none where the table has no such column."""
    return table.dropna(subset=column) if column in table else table.iloc[:0]


def measure(metric: str) -> str:
    """An axis title: the name of a metric, what it is and what it can be."""
    apart = metric in ("bwt", "bwt_over_t", "fwt", "forgetting")
    return f"{metric} ({'difference of scores, −1 to 1' if apart else 'mean score; 1: all right'})"


def groups(table: pd.DataFrame, column: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of each name in a column, in the order the names first appear."""
    for name, part in table.groupby(column, sort=False):
        yield str(name), part


def task_ticks(count: int) -> dict[str, Any]:
    """Axis ticks for 0-based task indices, written 1-based as papers do."""
    names = [str(index + 1) for index in range(count)]
    return {"tickmode": "array", "tickvals": list(range(count)), "ticktext": names, "zeroline": False}
