"""Metrics side by side over runs."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from workbench.figures._style import empty, groups, layout, marks


def metric_comparison(metrics: pd.DataFrame, order: Sequence[str] = (), title: str = "Metrics by run") -> go.Figure:
    """Grouped bars, one group a metric and one bar a run.

    Args:
        metrics: columns label (run), metric, value; a missing value leaves a gap.
        order: every label that shares the page, so that a run keeps its colour when others are hidden.
        title: said above the picture.
    """
    metrics = metrics.dropna(subset="value")
    if metrics.empty:
        return empty("No finished evaluation to compare: pick a run with at least one trained task.")
    style = marks([*order, *metrics["label"]])
    bars = [
        go.Bar(
            x=part["metric"],
            y=part["value"],
            name=label,
            marker={"color": style[label].colour, "pattern": {"shape": style[label].pattern, "fillmode": "overlay"}},
            text=part["value"],
            texttemplate="%{text:.2f}",
            textposition="outside",
            textangle=-90,
            textfont={"size": 10},
            constraintext="none",
            cliponaxis=False,
            hovertemplate=f"{label}<br>%{{x}} %{{y:.3f}}<extra></extra>",
        )
        for label, part in groups(metrics, "label")
    ]
    low, high = min(0.0, float(metrics["value"].min())), max(0.0, float(metrics["value"].max()))
    axes = {
        "xaxis": {"title": {"text": "metric"}, "type": "category"},
        "yaxis": {
            "title": {"text": "score (0–1), or a difference of scores"},
            "zeroline": True,
            "range": [low - 0.15, high + 0.15],
        },
        "barmode": "group",
        "showlegend": True,
    }
    return go.Figure(bars, layout(title, 496, **axes))
