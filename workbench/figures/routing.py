"""Router drift: where the tokens of one task go after each later task."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from workbench.figures._style import (
    OKABE_ITO,
    PATTERNS,
    SEQUENTIAL,
    colour_bar,
    empty,
    groups,
    layout,
    subplots,
    task_ticks,
)
from workbench.figures.drift import NOTHING, drift_curve, drift_heatmap


def expert_distribution(
    routing: pd.DataFrame, overlap: pd.DataFrame, title: str = "Expert activation of Task 1's inputs"
) -> go.Figure:
    """Stacked bars of mean routing weight, one bar a training stage and one row of bars a run.

    Args:
        routing: columns label, after (0-based), expert (0-based), weight; one layer or a mean over layers.
        overlap: columns label, after, overlap with the first stage; written above the bars.
        title: said above the picture.
    """
    if routing.empty:
        return empty(NOTHING)
    labels = list(dict.fromkeys(routing["label"]))
    figure = subplots(
        rows=len(labels), cols=1, shared_xaxes=True, subplot_titles=labels, vertical_spacing=0.16 / len(labels)
    )
    for row, label in enumerate(labels, start=1):
        part = routing[routing["label"] == label]
        figure.add_traces([_expert_bar(int(expert), bars, row == 1) for expert, bars in groups(part, "expert")], row, 1)
        figure.add_trace(_overlap_text(overlap[overlap["label"] == label]), row, 1)
    across = {**task_ticks(int(routing["after"].max()) + 1), "showgrid": False, "zeroline": False}
    up = {"range": [0, 1.16], "tickvals": [0, 0.5, 1], "showgrid": False, "zeroline": False}
    up["title"] = {"text": "mean weight ω (0–1)"}
    axes = {
        f"{axis}{row}": said for row in range(1, len(labels) + 1) for axis, said in (("xaxis", across), ("yaxis", up))
    }
    below = {"text": "after training task (above each bar: overlap with the first)"}
    axes[f"xaxis{len(labels)}"] = {**across, "title": below}
    axes["legend"] = {"title": {"text": "expert"}, "traceorder": "reversed"}
    figure.update_layout(
        layout(title, 140 + 190 * len(labels), barmode="stack", bargap=0.12, hovermode="closest"), overwrite=True
    )
    figure.update_layout(axes)
    return figure


def expert_distribution_by_layer(
    routing: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]], title: str = "Expert activation of Task 1's inputs"
) -> go.Figure:
    """The expert distribution with a slider over layers that needs no server.

    Args:
        routing: by name of the layer the two tables of `expert_distribution`.
        title: said above the picture.
    """
    parts = {name: expert_distribution(*tables, title) for name, tables in routing.items()}
    figure = go.Figure(next(iter(parts.values())))
    figure.data = ()
    counts = {name: len(part.data) for name, part in parts.items()}
    steps: list[dict[str, Any]] = []
    before, total = 0, sum(counts.values())
    for name, part in parts.items():
        figure.add_traces([trace.update(visible=not steps) for trace in part.data])
        visible = [before <= index < before + counts[name] for index in range(total)]
        steps.append({"label": name, "method": "restyle", "args": [{"visible": visible}]})
        before += counts[name]
    figure.update_layout(sliders=[{"steps": steps, "currentvalue": {"prefix": "layer: "}, "pad": {"t": 56}}])
    figure.update_layout(height=figure.layout.height + 90, margin={"b": 150})
    return figure


def _expert_bar(expert: int, part: pd.DataFrame, legend: bool) -> go.Bar:
    name = f"E{expert + 1}"
    return go.Bar(
        x=part["after"],
        y=part["weight"],
        name=name,
        legendgroup=name,
        showlegend=legend,
        marker={
            "color": OKABE_ITO[expert % len(OKABE_ITO)],
            "pattern": {"shape": PATTERNS[expert // len(OKABE_ITO) % len(PATTERNS)], "fillmode": "overlay"},
        },
        customdata=part["after"] + 1,
        text=[name if weight >= 0.09 else "" for weight in part["weight"]],
        constraintext="none",
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        textfont={"size": 10, "color": "#111111"},
        hovertemplate=f"expert {expert + 1}<br>after Task %{{customdata}}<br>mean ω %{{y:.3f}}<extra></extra>",
    )


def _overlap_text(part: pd.DataFrame) -> go.Scatter:
    return go.Scatter(
        x=part["after"],
        y=[1.08] * len(part),
        mode="text",
        text=[f"{value:.2f}" for value in part["overlap"]],
        textfont={"size": 11},
        showlegend=False,
        hoverinfo="skip",
    )


def overlap_curve(
    overlap: pd.DataFrame, order: Sequence[str] = (), title: str = "Overlap with Task 1's own routing, mean over layers"
) -> go.Figure:
    """One line a run: overlap Σ min(p, q) against training stage, averaged over layers.

    Args:
        overlap: columns label, after (0-based), layer, overlap in [0, 1].
        order: every label that shares the page, so that a run keeps its colour when others are hidden.
        title: said above the picture.
    """
    return drift_curve(overlap, "overlap", order, title)


def overlap_heatmap(overlap: pd.DataFrame, title: str = "Overlap with Task 1's own routing, by layer") -> go.Figure:
    """Heat maps of overlap, layers against training stages, one a run, on one colour scale.

    Args:
        overlap: columns label, after (0-based), layer (a short name), overlap in [0, 1].
        title: said above the picture.
    """
    return drift_heatmap(overlap, "overlap", title)


def routing_map(weights: pd.DataFrame, title: str = "Routing weight of each image patch") -> go.Figure:
    """Small multiples over experts: ω of every image patch at its place in the picture.

    Args:
        weights: columns expert (0-based), row, column (patch position from the top left), weight.
        title: said above the picture.
    """
    if weights.empty:
        return empty("No image token to show.")
    experts = sorted(weights["expert"].unique())
    figure = subplots(
        rows=1, cols=len(experts), subplot_titles=[f"E{expert + 1}" for expert in experts], horizontal_spacing=0.01
    )
    for column, expert in enumerate(experts, start=1):
        grid = weights[weights["expert"] == expert].pivot(index="row", columns="column", values="weight")
        figure.add_trace(
            go.Heatmap(z=grid.to_numpy(), coloraxis="coloraxis", hovertemplate="ω %{z:.3f}<extra></extra>"), 1, column
        )
    bar = colour_bar("ω (0–1)")
    figure.update_layout(layout(title, 240, coloraxis={"colorscale": SEQUENTIAL, "colorbar": bar}), overwrite=True)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, autorange="reversed")
    for column in range(1, len(experts) + 1):
        figure.update_yaxes(scaleanchor=f"x{column if column > 1 else ''}", col=column)
    return figure
