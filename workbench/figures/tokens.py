"""Where the words of one question go."""

from html import escape

import pandas as pd
import plotly.graph_objects as go

from workbench.figures._style import SEQUENTIAL, colour_bar, empty, layout


def token_routing(weights: pd.DataFrame, title: str = "Routing weight of each word") -> go.Figure:
    """Heat map of ω, experts against the tokens of a question in their order.

    Args:
        weights: columns position (of the token), token (its text), expert (0-based), weight in [0, 1].
        title: said above the picture.
    """
    if weights.empty:
        return empty("No tokens to show yet: ask for the routing of a question.")
    grid = weights.pivot(index="expert", columns="position", values="weight")
    texts = weights.drop_duplicates("position").set_index("position")["token"]
    words = [escape(str(texts[position]), quote=False) for position in grid.columns]  # plotly would obey a token <s>
    heat = go.Heatmap(
        z=grid.to_numpy(dtype=float),
        x=[str(position) for position in grid.columns],
        y=[f"E{expert + 1}" for expert in grid.index],
        customdata=[words] * len(grid),
        colorscale=SEQUENTIAL,
        zmin=0,
        xgap=1,
        ygap=1,
        hovertemplate="%{customdata}<br>%{y}<br>ω %{z:.3f}<extra></extra>",
        colorbar=colour_bar("ω (0–1)"),
    )
    axes = {
        "xaxis": {
            "title": {"text": "token of the question"},
            "type": "category",
            "tickmode": "array",
            "tickvals": [str(position) for position in grid.columns],
            "ticktext": [word.strip() or "␣" for word in words],
            "showgrid": False,
            "tickangle": -60,
        },
        "yaxis": {"title": {"text": "expert"}, "autorange": "reversed", "showgrid": False},
    }
    return go.Figure(heat, layout(title, 220 + 24 * len(grid), **axes))
