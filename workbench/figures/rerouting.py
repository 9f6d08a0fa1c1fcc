"""Re-routing: experts of one version under routers of others."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from workbench.figures._style import OKABE_ITO, empty, groups, having, layout, line, mark, marks, subplots, task_ticks

NOTHING = "No re-routing is recorded here: run `same reroute`, or ask for one in the Re-routing lab."
KINDS = {
    "own": "their own router",
    "retrained": "router retrained",
    "oracle": "oracle router",
    "other": "another version's router",
    "uniform": "uniform routing",
    "random": "random router",
    "by hand": "one layer by hand",
}
"""What experts can be routed by, in the order in which figures show it."""


def rerouting_curve(table: pd.DataFrame, title: str = "Frozen experts of each version, routed anew") -> go.Figure:
    """Score and routing entropy against the experts' version, a line for each way of routing.

    Args:
        table: re-routings of one task: columns label (run), experts (0-based version), kind, score (1: all right),
            entropy (bits); several of one kind and version are averaged, and bars show the least and the most.
        title: said above the picture.
    """
    table = having(table, "score")
    if table.empty:
        return empty(NOTHING)
    single = table["label"].nunique() == 1
    kinds = [kind for kind in KINDS if kind in set(table["kind"])]
    keys = [(label, kind) for label in dict.fromkeys(table["label"]) for kind in kinds]
    style = marks(_series(*key, single) for key in keys)
    figure = subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.07)
    for row, column in enumerate(("score", "entropy"), start=1):
        for label, kind in keys:
            part = table[(table["label"] == label) & (table["kind"] == kind)]
            if part.empty:
                continue
            name = _series(label, kind, single)
            spread = part.groupby("experts")[column].agg(["mean", "min", "max"])
            bars = {"array": spread["max"] - spread["mean"], "arrayminus": spread["mean"] - spread["min"]}
            bars |= {"symmetric": False, "visible": bool((spread["max"] > spread["min"]).any()), "thickness": 1}
            hover = f"{name}<br>experts of Task %{{customdata}}<br>{column} %{{y:.3f}}"
            more = {"customdata": spread.index + 1, "legendgroup": name, "showlegend": row == 1, "error_y": bars}
            figure.add_trace(line(style[name], name, spread.index, spread["mean"], hover, **more), row, 1)
    figure.update_layout(layout(title, 560, showlegend=True), overwrite=True)
    figure.update_xaxes(task_ticks(int(table["experts"].max()) + 1))
    figure.update_xaxes(title={"text": "experts' version: after training task"}, row=2)
    figure.update_yaxes(title={"text": "score (1: all right)"}, rangemode="tozero", row=1)
    figure.update_yaxes(title={"text": "routing entropy (bits)"}, rangemode="tozero", row=2)
    return figure


def _series(label: str, kind: str, single: bool) -> str:
    return KINDS[kind] if single else f"{label}, {KINDS[kind]}"


def rerouting_controls(table: pd.DataFrame, title: str = "What routing is worth to these experts") -> go.Figure:
    """Bars of the score, one for each way of routing the same experts; runs side by side.

    Args:
        table: re-routings of one task and one version of experts: columns label (run), kind, score, entropy; several
            of one kind are averaged, and bars show the least and the most.
        title: said above the picture.
    """
    table = having(table, "score")
    if table.empty:
        return empty(NOTHING)
    table = table[table["kind"] != "other"]
    kinds = [kind for kind in KINDS if kind in set(table["kind"])]
    bars = []
    for index, (label, part) in enumerate(groups(table, "label")):
        spread = part.groupby("kind")[["score", "entropy"]].agg(["mean", "min", "max"]).reindex(kinds)
        score, entropy = spread["score"], spread["entropy"]["mean"]
        over = {"array": score["max"] - score["mean"], "arrayminus": score["mean"] - score["min"], "symmetric": False}
        over |= {"thickness": 1, "color": OKABE_ITO[6]}
        style = mark(index)
        bars.append(
            go.Bar(
                x=[KINDS[kind] for kind in kinds],
                y=score["mean"],
                name=label,
                marker={"color": style.colour, "pattern": {"shape": style.pattern, "fillmode": "overlay"}},
                error_y={**over, "visible": bool((score["max"] > score["min"]).any())},
                text=["" if pd.isna(bits) else f"{bits:.2f}" for bits in entropy],
                textfont={"size": 11},
                textangle=0,
                constraintext="none",
                textposition="outside",
                hovertemplate=f"{label}<br>%{{x}}<br>score %{{y:.3f}}<br>entropy %{{text}} bits<extra></extra>",
            )
        )
    top = max(float(table["score"].max()) * 1.18, 0.05)
    axes: dict[str, Any] = {
        "xaxis": {"title": {"text": "routed by (above each bar: mean routing entropy, bits)"}, "showgrid": False},
        "yaxis": {"title": {"text": "score (1: all right)"}, "range": [0, top]},
        "showlegend": True,
    }
    return go.Figure(bars, layout(title, 400, barmode="group", **axes))


def swap(
    four: pd.DataFrame, effects: pd.DataFrame, title: str = "Routers and experts of two versions swapped"
) -> go.Figure:
    """Interaction plot of a 2×2 swap: parallel lines say that routers and experts do not need each other.

    Args:
        four: columns router, experts (0-based versions), score; the four pairs of two versions.
        effects: columns effect, value: what `four` says of routers, experts and their interaction.
        title: said above the picture.
    """
    if four.empty:
        return empty(NOTHING)
    lines = []
    highest = four.groupby("experts")["score"].idxmax()
    for index, (router, part) in enumerate(four.groupby("router", sort=True)):
        name, places = f"router of Task {int(str(router)) + 1}", [f"experts of Task {at + 1}" for at in part["experts"]]
        more = {"mode": "lines+markers+text", "text": [f"{score:.3f}" for score in part["score"]]}
        more |= {"textposition": ["top center" if row in set(highest) else "bottom center" for row in part.index]}
        lines.append(line(mark(index), name, places, part["score"], f"{name}, %{{x}}<br>score %{{y:.3f}}", **more))
    rounded = [(effect, round(value, 3) + 0.0) for effect, value in effects.itertuples(index=False)]
    said = "  ·  ".join(f"{effect} {value:+.3f}" for effect, value in rounded).replace("-", "−")
    low, high = float(four["score"].min()), float(four["score"].max())
    room = 0.15 * (high - low) + 0.02
    axes: dict[str, Any] = {
        "xaxis": {"title": {"text": f"experts  (late minus early: {said})"}, "range": [-0.4, 1.4], "showgrid": False},
        "yaxis": {"title": {"text": "score (1: all right)"}, "range": [low - room, high + room]},
        "showlegend": True,
    }
    return go.Figure(lines, layout(title, 400, **axes))


def retraining_curves(table: pd.DataFrame, title: str = "Loss while routers alone are trained") -> go.Figure:
    """The loss of each step, a line for each re-routing.

    Args:
        table: columns id, name, step (from 1), loss (nats a token).
        title: said above the picture.
    """
    if table.empty:
        return empty("None of these routers was trained.")
    lines = []
    for index, (_, part) in enumerate(table.groupby("id", sort=False)):
        name, style = str(part["name"].iloc[0]), mark(index)
        more = {"mode": "lines", "line": {"color": style.colour, "dash": style.dash, "width": 2}}
        lines.append(line(style, name, part["step"], part["loss"], f"{name}<br>step %{{x}}<br>loss %{{y:.3f}}", **more))
    axes = {"xaxis": {"title": {"text": "optimiser step"}}, "yaxis": {"title": {"text": "loss (nats a token)"}}}
    return go.Figure(lines, layout(title, 360, showlegend=True, **axes))
