"""Routers of some versions over experts of others: scores of the pairs, and how a router was trained."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from workbench.figures._style import SEQUENTIAL, empty, layout, mark


def version_grid(pairs: pd.DataFrame, title: str = "Score by router and experts") -> go.Figure:
    """Heat map of the score of each pair, routers against experts.

    Args:
        pairs: columns router ("0" … or random, uniform, oracle), experts (0-based), score; the last of a pair counts.
        title: said above the picture.
    """
    if pairs.empty:
        return empty("No pair of this task has been evaluated yet: press “Evaluate this pair”.")
    grid = pairs.drop_duplicates(["router", "experts"], keep="last")
    grid = grid.pivot(index="router", columns="experts", values="score").astype(float)
    grid = grid.loc[
        sorted(grid.index, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
    ]
    heat = go.Heatmap(
        z=grid.to_numpy(),
        x=[f"E{index + 1}" for index in grid.columns],
        y=[f"R{int(name) + 1}" if name.isdecimal() else name for name in grid.index],
        zmin=0,
        colorscale=SEQUENTIAL,
        texttemplate="%{z:.2f}",
        xgap=1,
        ygap=1,
        hoverongaps=False,
        hovertemplate="router %{y}<br>experts %{x}<br>score %{z:.3f}<extra></extra>",
        colorbar={"title": {"text": "score", "side": "right"}, "thickness": 12},
    )
    axes = {
        "xaxis": {"title": {"text": "experts after task t"}, "type": "category", "showgrid": False},
        "yaxis": {
            "title": {"text": "router after task s"},
            "type": "category",
            "autorange": "reversed",
            "showgrid": False,
        },
    }
    return go.Figure(heat, layout(title, 190 + 34 * len(grid), **axes))


def loss_curve(curve: Sequence[tuple[int, float]], title: str = "Loss of the router") -> go.Figure:
    """The loss of each step in which a router was trained.

    Args:
        curve: steps from 1 and losses.
        title: said above the picture.
    """
    if not curve:
        return empty("No router is being trained, and the result chosen has none that was.")
    steps, losses = zip(*curve, strict=True)
    line = go.Scatter(
        x=list(steps),
        y=list(losses),
        mode="lines+markers" if len(steps) < 30 else "lines",
        line={"color": mark(0).colour, "width": 2.5},
        hovertemplate="step %{x}<br>loss %{y:.4f}<extra></extra>",
    )
    axes = {"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": "loss (nats a token)"}}}
    return go.Figure(line, layout(title, 300, **axes))
