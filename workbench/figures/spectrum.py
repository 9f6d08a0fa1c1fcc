"""The spectrum of past inputs, and what the rules make of it."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.figures._style import (
    DASHES,
    OKABE_ITO,
    SEQUENTIAL,
    colour_bar,
    empty,
    groups,
    layout,
    line,
    mark,
    rows_height,
    rule,
    subplots,
    task_ticks,
)

MOST_ROWS_WITH_NUMBERS = 48
"""In lower rows numbers cannot be read, and take longer to draw than all else; the pointer says them."""
NOTHING = "This run kept no covariance: its method does not use one."


def spectrum(energy: pd.DataFrame, threshold: float, title: str = "Spectrum of the layer's inputs") -> go.Figure:
    """Share of energy kept by the first k directions, with the k that reaches the threshold.

    Args:
        energy: columns input, k (1-based), kept in [0, 1].
        threshold: energy threshold δ in (0, 1].
        title: said above the picture.
    """
    if energy.empty:
        return empty(NOTHING)
    lines = []
    for index, (name, part) in enumerate(groups(energy, "input")):
        reached = part["k"][part["kept"] >= threshold * (1 - 1e-12)] if threshold < 1 else part["k"].iloc[:0]
        rank = int(reached.min() if len(reached) else part["k"].max())
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
    axes = {
        "xaxis": {"title": {"text": "directions kept, k"}, "type": "log"},
        "yaxis": {"title": {"text": "share of energy kept (0–1)"}, "range": [0, 1.03]},
        "shapes": [rule(threshold)],
        "showlegend": True,
    }
    return go.Figure(lines, layout(f"{title} (δ = {threshold:g})", 340, **axes))


def eigenvalue_decay(spectra: pd.DataFrame, title: str = "Eigenvalues of past inputs' covariance") -> go.Figure:
    """Eigenvalues against their rank on two logarithmic axes, a line an input.

    Args:
        spectra: columns input, k (from 1), eigenvalue.
        title: said above the picture.
    """
    spectra = spectra[spectra["eigenvalue"] > 0] if len(spectra) else spectra
    if spectra.empty:
        return empty(NOTHING)
    lines = [
        line(
            mark(index),
            name,
            part["k"],
            part["eigenvalue"],
            f"input {name}<br>k %{{x}}<br>σ %{{y:.3g}}",
            mode="lines",
            line={"color": mark(index).colour, "dash": DASHES[index % len(DASHES)], "width": 2.5},
        )
        for index, (name, part) in enumerate(groups(spectra, "input"))
    ]
    axes = {
        "xaxis": {"title": {"text": "direction k"}, "type": "log"},
        "yaxis": {
            "title": {"text": "eigenvalue σ (mean squared input)"},
            "type": "log",
            "exponentformat": "power",
            "dtick": 1,
        },
        "legend": {"title": {"text": "input"}, "x": 1.02, "xanchor": "left"},
    }
    return go.Figure(lines, layout(title, 360, showlegend=True, **axes))


def rank_map(ranks: pd.DataFrame, title: str = "Directions that hold δ of the energy") -> go.Figure:
    """Heat map of k at δ, inputs against stages; the colour is its share of the input's width.

    Args:
        ranks: columns after (0-based), input, rank, dim.
        title: said above the picture.
    """
    if ranks.empty:
        return empty(NOTHING)
    shares = ranks.assign(share=ranks["rank"] / ranks["dim"])
    order = list(dict.fromkeys(ranks["input"]))
    wide = {
        name: shares.pivot(index="input", columns="after", values=name).reindex(order) for name in ("rank", "share")
    }
    stages = [int(after) for after in wide["rank"].columns]
    heat = go.Heatmap(
        z=wide["share"].to_numpy(dtype=float),
        x=stages,
        y=order,
        text=wide["rank"].to_numpy(),
        texttemplate="%{text}" if len(order) <= MOST_ROWS_WITH_NUMBERS else None,
        colorscale=SEQUENTIAL,
        zmin=0,
        zmax=float(shares["share"].max()),
        xgap=1,
        ygap=1,
        customdata=[[after + 1 for after in stages]] * len(order),
        hovertemplate="input %{y}<br>after Task %{customdata}<br>k = %{text}, %{z:.1%} of the width<extra></extra>",
        colorbar=colour_bar("k / width (0–1)"),
    )
    axes: dict[str, Any] = {
        "xaxis": {"title": {"text": "after training task"}, "showgrid": False, **task_ticks(max(stages) + 1)},
        "yaxis": {"title": {"text": "layer input"}, "autorange": "reversed", "showgrid": False, "type": "category"},
    }
    return go.Figure(heat, layout(title, 170 + rows_height(len(order), 24), **axes))


def angle_matrix(angles: pd.DataFrame, title: str = "Mean principal angle between tasks' inputs") -> go.Figure:
    """Heat map of the angles between each two tasks' leading directions, 0° for one subspace, 90° for none in common.

    Args:
        angles: columns first, second (0-based tasks), min, mean, max (degrees).
        title: said above the picture.
    """
    if angles.empty:
        return empty("No probe was recorded: train a method that routes experts, with audit=true.")
    wide = {name: angles.pivot(index="first", columns="second", values=name) for name in ("mean", "min", "max")}
    tasks = [f"Task {task + 1}" for task in map(int, wide["mean"].columns)]
    ends = np.stack([wide["min"].to_numpy(dtype=float), wide["max"].to_numpy(dtype=float)], -1)
    span = "%{customdata[0]:.1f}° to %{customdata[1]:.1f}°"
    heat = go.Heatmap(
        z=wide["mean"].to_numpy(dtype=float),
        x=tasks,
        y=tasks,
        customdata=ends,
        colorscale=SEQUENTIAL,
        zmin=0,
        zmax=90,
        texttemplate="%{z:.0f}°",
        xgap=1,
        ygap=1,
        hovertemplate=f"%{{y}} and %{{x}}<br>mean %{{z:.1f}}°<br>{span}<extra></extra>",
        colorbar={**colour_bar("mean angle (degrees)"), "tickvals": [0, 30, 60, 90]},
    )
    axes = {
        "xaxis": {"title": {"text": "leading directions of"}, "showgrid": False},
        "yaxis": {"title": {"text": "leading directions of"}, "autorange": "reversed", "showgrid": False},
    }
    return go.Figure(heat, layout(title, 170 + 38 * len(tasks), **axes))


def gain_curve(gains: pd.DataFrame, title: str = "What is let through along protected directions") -> go.Figure:
    """G of routers and the diagonal of P of experts against the direction, a line an input.

    Args:
        gains: columns input, k (from 1), eigenvalue, router, experts (1: the full change).
        title: said above the picture.
    """
    if gains.empty:
        return empty(NOTHING)
    parts = {"router": "routers: g", "experts": "experts' A: diagonal of P"}
    figure = subplots(rows=1, cols=2, shared_yaxes=True, subplot_titles=list(parts.values()), horizontal_spacing=0.04)
    for column, part in enumerate(parts, start=1):
        for index, (name, rows) in enumerate(groups(gains, "input")):
            hover = f"input {name}<br>k %{{x}}, σ %{{customdata:.3g}}<br>%{{y:.3f}} of the change"
            dash = {"color": mark(index).colour, "dash": DASHES[index % len(DASHES)], "width": 2.5}
            more = {"mode": "lines", "line": dash, "legendgroup": name, "showlegend": column == 1}
            more |= {"customdata": rows["eigenvalue"]}
            figure.add_trace(line(mark(index), name, rows["k"], rows[part], hover, **more), 1, column)
    figure.update_layout(layout(title, 380, showlegend=True), overwrite=True)
    figure.update_layout(legend={"title": {"text": "input"}})
    figure.update_xaxes(title={"text": "direction k (1: strongest past input)"}, type="log")
    figure.update_yaxes(range=[0, 1.05 * max(1.0, float(gains[list(parts)].to_numpy().max()))])
    figure.update_yaxes(title={"text": "share let through"}, col=1)
    return figure


def protection(table: pd.DataFrame, title: str = "Effect of an update on past inputs that is left") -> go.Figure:
    """Bars by input: the share of an update's effect on past inputs that the rules leave; the shorter, the safer.

    Args:
        table: columns input, rank, dim, router, experts (1: nothing is protected).
        title: said above the picture.
    """
    if table.empty:
        return empty(NOTHING)
    names = [f"{row.input} (k = {row.rank} of {row.dim})" for row in table.itertuples()]
    bars = [
        go.Bar(
            y=names,
            x=table[part],
            name=said,
            orientation="h",
            marker={"color": OKABE_ITO[index], "pattern": {"shape": ("", "/")[index], "fillmode": "overlay"}},
            hovertemplate=f"{said}, input %{{y}}<br>%{{x:.1%}} is left<extra></extra>",
        )
        for index, (part, said) in enumerate({"router": "routers", "experts": "experts' A"}.items())
    ]
    axes: dict[str, Any] = {
        "xaxis": {"title": {"text": "share left (1: nothing protected)"}, "range": [0, 1.02]},
        "yaxis": {"title": {"text": "layer input"}, "autorange": "reversed", "showgrid": False, "automargin": True},
    }
    return go.Figure(bars, layout(title, 170 + rows_height(len(names), 34), barmode="group", showlegend=True, **axes))
