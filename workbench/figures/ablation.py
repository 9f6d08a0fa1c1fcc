"""The three mechanisms, each on or off."""

import pandas as pd
import plotly.graph_objects as go

from workbench.figures._style import OKABE_ITO, PATTERNS, empty, groups, layout, measure, subplots

_NOTHING = "No runs with the mechanisms on and off to compare: train the corners with a chain's `ablate` steps."
ORDERS = {1: "main effect", 2: "interaction of two", 3: "interaction of three"}


def factorial_corners(cells: pd.DataFrame, metric: str, title: str = "Each mechanism on or off") -> go.Figure:
    """One bar a corner of the factorial, with the standard deviation over seeds where there are several.

    Args:
        cells: columns corner, mean, std (NaN for one seed), count.
        metric: name of what is shown.
        title: said above the picture.
    """
    if cells.empty:
        return empty(_NOTHING)
    over = cells["std"].fillna(0)
    bar = go.Bar(
        x=cells["mean"],
        y=cells["corner"],
        orientation="h",
        error_x={"type": "data", "array": cells["std"], "thickness": 1.5, "visible": bool(cells["std"].notna().any())},
        marker={"color": OKABE_ITO[0]},
        text=[f"{value:.3f}" for value in cells["mean"]],
        textposition="outside",
        cliponaxis=False,
        customdata=cells["count"],
        hovertemplate=f"%{{y}}<br>{metric} %{{x:.4f}}<br>seeds %{{customdata}}<extra></extra>",
    )
    axes = {
        "xaxis": {
            "title": {"text": measure(metric)},
            "range": _range(pd.concat([cells["mean"] - over, cells["mean"] + over])),
        },
        "yaxis": {"title": {"text": "mechanisms on"}, "autorange": "reversed", "automargin": True},
    }
    return go.Figure(bar, layout(title, 150 + 34 * len(cells), **axes))


def _range(values: pd.Series) -> list[float]:
    """From 0 to the longest bar on each side, with room for the number at its end."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    room = 0.15 * (high - low or 1)
    return [low - room if low else 0.0, high + room if high or not low else 0.0]


def factorial_effects(effects: pd.DataFrame, metric: str, title: str = "Main effects and interactions") -> go.Figure:
    """One bar an effect: how much switching it on changes the metric, over all states of the others.

    Args:
        effects: columns effect, order (1 main, 2 or 3 interacting), value.
        metric: name of what is shown.
        title: said above the picture.
    """
    if effects.empty:
        return empty("Effects need all eight corners: train those that are missing.")
    bars = [
        go.Bar(
            x=part["value"],
            y=part["effect"],
            orientation="h",
            name=ORDERS[int(order)],
            marker={
                "color": OKABE_ITO[int(order) - 1],
                "pattern": {"shape": PATTERNS[int(order) - 1], "fillmode": "overlay"},
            },
            text=[f"{value:+.3f}" for value in part["value"]],
            textposition="outside",
            cliponaxis=False,
            hovertemplate=f"%{{y}}<br>changes {metric} by %{{x:+.4f}}<extra></extra>",
        )
        for order, part in groups(effects, "order")
    ]
    axes = {
        "xaxis": {
            "title": {"text": f"change of {metric} when switched on (difference of scores)"},
            "zeroline": True,
            "range": _range(effects["value"]),
        },
        "yaxis": {"title": {"text": "effect"}, "autorange": "reversed", "automargin": True},
        "showlegend": True,
        "barmode": "overlay",
    }
    return go.Figure(bars, layout(title, 150 + 34 * len(effects), **axes))


def cumulative_ablation(
    ours: pd.DataFrame, published: pd.DataFrame, title: str = "Mechanisms added one after the other"
) -> go.Figure:
    """The paper's column beside ours in two panels with an axis each: they are of different protocols.

    Args:
        ours, published: columns step, value (percent).
        title: said above the picture.
    """
    if ours["value"].isna().all():
        return empty(_NOTHING)
    names = ("ours, what was trained here", "as published, 7B on CoIN")
    figure = subplots(rows=1, cols=2, subplot_titles=names, horizontal_spacing=0.12)
    for column, (table, colour) in enumerate(((ours, OKABE_ITO[0]), (published, OKABE_ITO[1])), start=1):
        bar = go.Bar(
            x=table["step"],
            y=table["value"],
            marker={"color": colour, "pattern": {"shape": PATTERNS[column - 1], "fillmode": "overlay"}},
            text=[f"{value:.1f}" for value in table["value"]],
            textposition="outside",
            cliponaxis=False,
            showlegend=False,
            hovertemplate="%{x}<br>%{y:.2f} %<extra></extra>",
        )
        figure.add_trace(bar, 1, column)
    figure.update_layout(layout(title, 360), overwrite=True)
    figure.update_xaxes(title={"text": "mechanism"})
    figure.update_yaxes(title={"text": "mean of the last stage (%)"}, rangemode="tozero")
    return figure
