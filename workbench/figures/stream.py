"""A stream of inputs without task names: where its covariance shifts; and what the routers know from the text alone."""

import pandas as pd
import plotly.graph_objects as go

from workbench.figures._style import OKABE_ITO, empty, groups, layout, marks


def covariance_shift(shift: pd.DataFrame, title: str = "Shift of the covariance") -> go.Figure:
    """The shift of each window from those before it, the true boundaries, and what would be called one.

    Args:
        shift: columns window (0-based), shift in [0, 1], limit (above which a boundary is called), boundary (a task
            begins with it), found (called a boundary).
        title: said above the picture.
    """
    if shift.empty:
        return empty("No windows to show: stream more rows.")
    line = go.Scatter(
        x=shift["window"] + 1,
        y=shift["shift"],
        mode="lines",
        name="shift",
        line={"color": OKABE_ITO[0], "width": 2},
        hovertemplate="window %{x}<br>shift %{y:.3f}<extra></extra>",
    )
    kinds = {
        "task begins, found": (shift["boundary"] & shift["found"], OKABE_ITO[2], "circle"),
        "task begins, missed": (shift["boundary"] & ~shift["found"], OKABE_ITO[5], "x"),
        "found, no task begins": (~shift["boundary"] & shift["found"], OKABE_ITO[1], "triangle-up"),
    }
    dots = [
        go.Scatter(
            x=shift.loc[chosen, "window"] + 1,
            y=shift.loc[chosen, "shift"],
            mode="markers",
            name=f"{name} ({int(chosen.sum())})",
            marker={"color": colour, "symbol": symbol, "size": 11},
            hovertemplate=f"{name}<br>window %{{x}}<br>shift %{{y:.3f}}<extra></extra>",
        )
        for name, (chosen, colour, symbol) in kinds.items()
    ]
    limit = go.Scatter(
        x=shift["window"] + 1,
        y=shift["limit"],
        mode="lines",
        name="limit",
        line={"color": "#8A8A8A", "dash": "dot", "width": 1.5},
        hovertemplate="window %{x}<br>limit %{y:.3f}<extra></extra>",
    )
    high = 1.15 * max(float(shift["shift"].max()), 0.1)
    axes = {
        "xaxis": {"title": {"text": "window of the stream"}},
        "yaxis": {"title": {"text": "shift from the windows before (0–1)"}, "range": [-0.02, high]},
        "showlegend": True,
    }
    return go.Figure([limit, line, *dots], layout(title, 360, **axes))


def probe_accuracy(
    probe: pd.DataFrame, chance: float, title: str = "Which task is it? Told from the routing"
) -> go.Figure:
    """How often a probe names the task of a test item from where the routers send its tokens, layer by layer.

    Args:
        probe: columns tokens (which are shown), layer (a short name), accuracy in [0, 1].
        chance: accuracy of the commonest task.
        title: said above the picture.
    """
    if probe.empty:
        return empty("No routing to probe: pick a run whose method has experts.")
    style = marks(probe["tokens"])
    lines = [
        go.Scatter(
            x=part["layer"],
            y=part["accuracy"],
            name=label,
            mode="lines+markers",
            line={"color": style[label].colour, "dash": style[label].dash, "width": 2.5},
            marker={"symbol": style[label].marker, "size": 9},
            hovertemplate=f"{label}<br>layer %{{x}}<br>accuracy %{{y:.3f}}<extra></extra>",
        )
        for label, part in groups(probe, "tokens")
    ]
    bar = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": chance, "y1": chance}
    axes = {
        "xaxis": {"title": {"text": "layer"}, "type": "category"},
        "yaxis": {"title": {"text": "accuracy (0–1); dotted: chance"}, "range": [0, 1.03]},
        "shapes": [{**bar, "line": {"dash": "dot", "color": "#8A8A8A"}}],
        "showlegend": True,
    }
    return go.Figure(lines, layout(title, 360, **axes))
