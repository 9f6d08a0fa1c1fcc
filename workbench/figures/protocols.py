"""Our numbers and published ones: two panels, as they are of different protocols."""

import pandas as pd
import plotly.graph_objects as go

from workbench.figures._style import OKABE_ITO, PATTERNS, empty, layout, subplots


def two_protocols(
    beside: pd.DataFrame, benchmark: str, backbone: str = "", over: str = "tasks", title: str = "Mean of the last stage"
) -> go.Figure:
    """Method by method our mean over tasks and the published one, a panel and an axis each.

    Args:
        beside: columns method, ours, deviation (over seeds, NaN for one), published; in percent, NaN where missing.
        benchmark: name of ours.
        backbone: that ours are of.
        over: what the means are over, such as "tasks without captions".
        title: said above the picture.
    """
    if beside.empty or beside[["ours", "published"]].isna().all(axis=None):
        return empty("Neither runs nor published numbers of this benchmark: train it with 10_train or a chain.")
    here = f"ours on {benchmark} ({backbone})" if backbone else f"ours on {benchmark}"
    names = (here, "as published (7B, real benchmark)")
    figure = subplots(rows=1, cols=2, shared_yaxes=True, subplot_titles=names, horizontal_spacing=0.04)
    for column, name in enumerate(("ours", "published"), start=1):
        values = beside[name]
        deviation = beside["deviation"].fillna(0) if name == "ours" else 0 * values.fillna(0)
        ends = values.fillna(0) + deviation
        bar = go.Bar(
            x=values,
            y=beside["method"],
            orientation="h",
            showlegend=False,
            error_x={"type": "data", "array": deviation, "thickness": 1.5} if name == "ours" else None,
            marker={"color": OKABE_ITO[column - 1], "pattern": {"shape": PATTERNS[column - 1], "fillmode": "overlay"}},
            hovertemplate="%{y}<br>%{x:.2f} %<extra></extra>",
        )
        said = go.Scatter(
            x=ends,  # behind the line of the deviation
            y=beside["method"],
            mode="text",
            text=["none" if pd.isna(value) else f" {value:.1f}" for value in values],
            textposition="middle right",
            cliponaxis=False,
            showlegend=False,
            hoverinfo="skip",
        )
        figure.add_traces([bar, said], rows=[1, 1], cols=[column, column])
        figure.update_xaxes(range=[0, 1.18 * (ends.max() if ends.max() > 0 else 1)], row=1, col=column)
    figure.update_layout(layout(title, 160 + 26 * len(beside)), overwrite=True)
    figure.update_xaxes(title={"text": f"mean over {over} (%)"})
    figure.update_yaxes(automargin=True)
    figure.update_yaxes(title={"text": "method"}, col=1)
    return figure
