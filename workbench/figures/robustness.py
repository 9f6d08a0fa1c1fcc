"""How a result moves with the order of tasks, the seed and each setting."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from workbench.figures._style import empty, groups, layout, mark, marks, measure, subplots

SYMBOLS = {
    "energy_threshold": "δ, energy threshold",
    "damping": "μ, damping<br>(mean eigenvalues)",
    "freeze_threshold": "τ, freeze threshold<br>(score)",
    "num_experts": "number of experts",
    "rank": "rank of an expert",
}
"""What an axis calls a setting, where its name alone does not say what it is."""


def spread(points: pd.DataFrame, metric: str, across: str, order: Sequence[str] = (), title: str = "") -> go.Figure:
    """One dot a run and a bar from the lowest to the highest, one row a method.

    Args:
        points: columns label (method), value, about (what tells the run from its neighbours).
        metric: name of what is shown.
        across: what differs between the dots of a row: seeds, orders of tasks.
        order: every label that shares the page, for its colours.
        title: said above the picture.
    """
    if points.empty:
        return empty(f"No runs that differ in {across}: train some with 10_train or a chain.")
    style = marks([*order, *points["label"]])
    traces = []
    for label, part in groups(points, "label"):
        low, high, mean = part["value"].min(), part["value"].max(), part["value"].mean()
        line = {"color": style[label].colour, "width": 3, "dash": style[label].dash}
        traces.append(go.Scatter(x=[low, high], y=[label, label], mode="lines", line=line, hoverinfo="skip"))
        dot = {"size": 11, "color": style[label].colour, "symbol": style[label].marker}
        hover = f"{label}<br>%{{customdata}}<br>{metric} %{{x:.3f}}<extra></extra>"
        traces.append(
            go.Scatter(
                x=part["value"],
                y=part["label"],
                mode="markers",
                marker=dot,
                customdata=part["about"],
                hovertemplate=hover,
            )
        )
        bar = {"symbol": "line-ns-open", "size": 22, "color": style[label].colour, "line": {"width": 3}}
        hover = f"{label}<br>mean of {len(part)}: %{{x:.3f}}<extra></extra>"
        traces.append(go.Scatter(x=[mean], y=[label], mode="markers", marker=bar, hovertemplate=hover))
    axes = {
        "xaxis": {"title": {"text": f"{measure(metric)}; tick: mean"}},
        "yaxis": {"title": {"text": "method"}, "automargin": True, "autorange": "reversed", "type": "category"},
        "showlegend": False,
    }
    return go.Figure(traces, layout(title or f"{metric} over {across}", 170 + 50 * points["label"].nunique(), **axes))


def sensitivity(varied: pd.DataFrame, metric: str, title: str = "Sensitivity to each setting alone") -> go.Figure:
    """Small multiples: the metric over the values of one setting each, on one scale.

    Args:
        varied: columns setting, value, mean, std (NaN for one seed).
        metric: name of what is shown.
        title: said above the picture.
    """
    if varied.empty:
        return empty("No runs that differ in one setting alone: train some with a chain's `vary` steps.")
    names = list(dict.fromkeys(varied["setting"]))
    figure = subplots(rows=1, cols=len(names), shared_yaxes=True, horizontal_spacing=0.03)
    for column, (name, rows) in enumerate(groups(varied, "setting"), start=1):
        numbers = pd.to_numeric(rows["value"], errors="coerce")
        part = rows.loc[numbers.sort_values().index] if numbers.notna().all() else rows
        style = mark(column - 1)
        line = go.Scatter(
            x=[f"{value:g}" if isinstance(value, float) else str(value) for value in part["value"]],
            y=part["mean"],
            error_y={"type": "data", "array": part["std"].fillna(0), "thickness": 1.5},
            mode="lines+markers",
            line={"color": style.colour, "dash": style.dash, "width": 2.5},
            marker={"symbol": style.marker, "size": 9},
            showlegend=False,
            hovertemplate=f"{name} = %{{x}}<br>{metric} %{{y:.4f}}<extra></extra>",
        )
        figure.add_trace(line, 1, column)
        figure.update_xaxes(title={"text": SYMBOLS.get(name, name)}, row=1, col=column)
    figure.update_layout(layout(title, 340), overwrite=True)
    figure.update_xaxes(type="category")
    figure.update_yaxes(title={"text": measure(metric)}, col=1)
    return figure
