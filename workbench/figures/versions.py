"""Routers of some versions over experts of others: scores of the pairs."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.figures._style import SEQUENTIAL, empty, layout


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
    grid = grid.loc[sorted(map(str, grid.index), key=_place)]
    heat = go.Heatmap(
        z=grid.to_numpy(),
        x=[f"E{index + 1}" for index in map(int, grid.columns)],
        y=[f"R{int(name) + 1}" if name.isdecimal() else name for name in grid.index],
        zmin=0,
        zmax=max(1.0, float(np.nanmax(grid.to_numpy()))),  # CIDEr may be more
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


def _place(router: str) -> tuple[bool, int, str]:
    """Versions in order, then the others by name."""
    return not router.isdecimal(), int(router) if router.isdecimal() else 0, router
