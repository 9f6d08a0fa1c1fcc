"""How far something moved after each later task: curves over stages, and by layer."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from workbench.figures._style import (
    SEQUENTIAL,
    colour_bar,
    empty,
    groups,
    having,
    layout,
    line,
    marks,
    panels,
    seat,
    subplots,
    task_ticks,
)

NOTHING = "No routing was recorded: pick a run whose method has experts, with at least one finished task."
MEASURES = {
    "overlap": "overlap Σ min(p, q) (0–1)",
    "divergence": "Jensen–Shannon divergence (bits)",
    "entropy": "entropy of a token's routing (bits)",
    "flips": "share of tokens re-routed (0–1)",
    "router_drift": "router drift (share of old logit energy)",
    "expert_drift": "expert drift (share of old output energy)",
    "angle": "mean principal angle (radians)",
    "representation": "representation drift (share of old energy)",
}
"""Columns that can be drawn, and what their axis says."""
BOUNDED = ("overlap", "flips")


def drift_curve(
    table: pd.DataFrame, measure: str = "divergence", order: Sequence[str] = (), title: str = ""
) -> go.Figure:
    """One line a run: a measure against the training stage, averaged over layers.

    Args:
        table: columns label, after (0-based), layer, and the measure.
        measure: one of MEASURES.
        order: every label that shares the page, so that a run keeps its colour when others are hidden.
        title: said above the picture.
    """
    table = having(table, measure)
    if table.empty:
        return empty(NOTHING)
    style = marks([*order, *table["label"]])
    mean = table.groupby(["label", "after"], sort=False, observed=True)[measure].mean().reset_index()
    hover = "after Task %{customdata}<br>" + MEASURES[measure].partition(" (")[0] + " %{y:.3f}"
    lines = [
        line(style[label], label, part["after"], part[measure], f"{label}<br>{hover}", customdata=part["after"] + 1)
        for label, part in groups(mean, "label")
    ]
    axes: dict[str, Any] = {
        "xaxis": {"title": {"text": "after training task"}, **task_ticks(int(mean["after"].max()) + 1)},
        "yaxis": {"title": {"text": MEASURES[measure]}, "rangemode": "tozero"},
        "showlegend": True,
    }
    if measure == "overlap":
        axes["yaxis"] |= {"range": [max(0.0, float(mean[measure].min()) - 0.08), 1.02]}
    return go.Figure(lines, layout(title or f"{_short(measure)}, mean over layers", 360, **axes))


def drift_heatmap(table: pd.DataFrame, measure: str = "divergence", title: str = "") -> go.Figure:
    """Heat maps of a measure, layers against training stages, one a run, on one colour scale.

    Args:
        table: columns label, after (0-based), layer (a short name), and the measure.
        measure: one of MEASURES.
        title: said above the picture.
    """
    table = having(table, measure)
    if table.empty:
        return empty(NOTHING)
    labels = list(dict.fromkeys(table["label"]))
    figure = panels(labels, 0.02)
    for column, label in enumerate(labels, start=1):
        part = table[table["label"] == label]
        grid = part.pivot(index="layer", columns="after", values=measure).reindex(dict.fromkeys(part["layer"]))
        said = MEASURES[measure].partition(" (")[0]
        heat = go.Heatmap(
            z=grid.to_numpy(dtype=float),
            x=list(grid.columns),
            y=list(grid.index),
            coloraxis="coloraxis",
            xgap=1,
            ygap=1,
            customdata=[[after + 1 for after in grid.columns]] * len(grid),
            hovertemplate=f"{label}<br>layer %{{y}}<br>after Task %{{customdata}}<br>{said} %{{z:.3f}}<extra></extra>",
        )
        figure.add_trace(heat, 1, column)
        ticks = task_ticks(int(max(grid.columns)) + 1)
        figure.update_xaxes(ticks, showgrid=False, title={"text": "after task"}, row=1, col=column)
    colours: dict[str, Any] = {"colorscale": SEQUENTIAL, "colorbar": colour_bar(MEASURES[measure])}
    colours |= {"cmax": 1} if measure in BOUNDED else {}
    height = max(300, 170 + 20 * table["layer"].nunique())
    seat(figure, layout(title or f"{_short(measure)}, by layer", height, coloraxis=colours))
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_yaxes(title={"text": "layer"}, col=1)
    return figure


def _short(measure: str) -> str:
    said = MEASURES[measure].partition(" (")[0]
    return said[0].upper() + said[1:]


def expert_map(
    routing: pd.DataFrame, layers: Sequence[str] = (), title: str = "Where Task 1's inputs go, by run and layer"
) -> go.Figure:
    """Small multiples: a row a run, a column a layer; in each, mean ω of every expert after every stage.

    Args:
        routing: columns label, after (0-based), layer (a short name), expert (0-based), weight.
        layers: those shown (default: six spread over all).
        title: said above the picture.
    """
    if routing.empty:
        return empty(NOTHING)
    known = list(dict.fromkeys(routing["layer"]))
    shown = list(layers) or known[:: max(1, -(-len(known) // 6))]
    labels = list(dict.fromkeys(routing["label"]))
    names = {"row_titles": labels, "column_titles": shown}
    shape = {"rows": len(labels), "cols": len(shown), "shared_xaxes": True, "shared_yaxes": True}
    figure = subplots(**shape, **names, horizontal_spacing=0.012, vertical_spacing=0.16 / (1 + len(labels)))
    for row, label in enumerate(labels, start=1):
        for column, layer in enumerate(shown, start=1):
            part = routing[(routing["label"] == label) & (routing["layer"] == layer)]
            grid = part.pivot(index="expert", columns="after", values="weight")
            hover = f"{label}, layer {layer}<br>%{{y}} after Task %{{x}}<br>mean ω %{{z:.3f}}<extra></extra>"
            heat = go.Heatmap(
                z=grid.to_numpy(dtype=float),
                x=[str(after + 1) for after in grid.columns],
                y=[f"E{expert + 1}" for expert in grid.index],
                coloraxis="coloraxis",
                hovertemplate=hover,
            )
            figure.add_trace(heat, row, column)
    colours = {"colorscale": SEQUENTIAL, "cmin": 0, "colorbar": {**colour_bar("mean ω (0–1)"), "x": 1.06}}
    margin = {"l": 64, "r": 110, "t": 84, "b": 64}
    figure.update_layout(layout(title, 150 + 150 * len(labels), coloraxis=colours, margin=margin), overwrite=True)
    figure.update_xaxes(showgrid=False, type="category")
    figure.update_yaxes(showgrid=False, autorange="reversed")
    figure.update_xaxes(title={"text": "after task"}, row=len(labels))
    figure.update_yaxes(title={"text": "expert"}, col=1)
    return figure
