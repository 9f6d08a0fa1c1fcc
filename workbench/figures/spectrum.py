"""The spectrum of past inputs."""

import pandas as pd
import plotly.graph_objects as go

from workbench.figures._style import DASHES, empty, groups, layout, mark


def spectrum(energy: pd.DataFrame, threshold: float, title: str = "Spectrum of the layer's inputs") -> go.Figure:
    """Share of energy kept by the first k directions, with the k that reaches the threshold.

    Args:
        energy: columns input, k (1-based), kept in [0, 1].
        threshold: energy threshold δ in (0, 1].
        title: said above the picture.
    """
    if energy.empty:
        return empty("This run kept no covariance: its method does not use one.")
    lines = []
    for index, (name, part) in enumerate(groups(energy, "input")):
        rank = int(part.loc[part["kept"] >= threshold, "k"].min())
        line = {"color": mark(index).colour, "dash": DASHES[index % len(DASHES)], "width": 2.5}
        lines.append(
            go.Scatter(
                x=part["k"],
                y=part["kept"],
                name=f"{name}: k = {rank}",
                line=line,
                mode="lines",
                hovertemplate="k %{x}<br>kept %{y:.4f}<extra></extra>",
            )
        )
    floor = {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": threshold,
        "y1": threshold,
        "line": {"dash": "dot", "color": "#8A8A8A"},
    }
    axes = {
        "xaxis": {"title": {"text": "directions kept, k"}, "type": "log"},
        "yaxis": {"title": {"text": "share of energy Σσ²"}, "range": [0, 1.03]},
        "shapes": [floor],
        "showlegend": True,
    }
    return go.Figure(lines, layout(f"{title} (δ = {threshold:g})", 340, **axes))
