"""Which experts rest, when, and what that saves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.figures._style import (
    OKABE_ITO,
    SEQUENTIAL,
    colour_bar,
    empty,
    groups,
    having,
    layout,
    line,
    mark,
    marks,
    rows_height,
    rule,
    task_ticks,
)

NOTHING = "This run scored no experts: its method does not let any rest."
STEP_MEASURES = {
    "loss": "loss (nats a token)",
    "samples_per_second": "throughput (samples/s)",
    "memory_mb": "memory of the process (MB)",
    "active": "experts that train (mean over layers)",
}
TIME_MEASURES = {
    "train_seconds": "training (s)",
    "evaluate_seconds": "evaluation (s)",
    "memory_mb": "most memory of the process (MB)",
    "megabytes": "files of the snapshot (MB)",
}


def expert_scatter(
    scored: pd.DataFrame, threshold: float, title: str = "Utilisation and importance of every expert"
) -> go.Figure:
    """A point an expert of a layer: relative utilisation now against relative importance for past tasks.

    Args:
        scored: columns layer, expert, relative_utilization and relative_importance (0–1 in each layer), score, rests.
        threshold: τ; experts above the dotted line score below it.
        title: said above the picture.
    """
    if scored.empty:
        return empty(NOTHING)
    points = []
    for index, (rests, name) in enumerate(((False, "trains"), (True, "would rest"))):
        part = scored[scored["rests"] == rests]
        hover = (
            "layer %{customdata[0]}, expert %{customdata[1]}<br>U %{x:.2f}, F %{y:.2f}<br>score %{customdata[2]:.2f}"
        )
        points.append(
            go.Scatter(
                x=part["relative_utilization"],
                y=part["relative_importance"],
                mode="markers",
                name=f"{name} ({len(part)})",
                marker={
                    "size": 9,
                    "color": OKABE_ITO[(2, 5)[index]],
                    "symbol": ("circle", "x")[index],
                    "opacity": 0.85,
                },
                customdata=np.stack([part["layer"], part["expert"] + 1, part["score"]], -1) if len(part) else None,
                hovertemplate=f"{hover}<extra></extra>",
            )
        )
    ends = [-0.05, 1.05]
    border = {"type": "line", "x0": ends[0], "y0": ends[0] - threshold, "x1": ends[1], "y1": ends[1] - threshold}
    border["line"] = {"dash": "dot", "color": OKABE_ITO[6], "width": 2}
    axes: dict[str, Any] = {
        "xaxis": {"title": {"text": "utilisation in this task, relative in its layer (0–1)"}, "range": ends},
        "yaxis": {"title": {"text": "importance for past tasks, relative (0–1)"}, "range": ends},
        "shapes": [border],
    }
    return go.Figure(points, layout(f"{title} (τ = {threshold:g})", 440, showlegend=True, **axes))


def score_map(scored: pd.DataFrame, threshold: float, title: str = "Score of every expert") -> go.Figure:
    """Heat map of minmax(U) − minmax(F), layers against experts; × marks those that τ would let rest.

    Args:
        scored: columns layer, expert (0-based), score (−1 to 1), rests; one scoring of each layer.
        threshold: τ, said in the title.
        title: said above the picture.
    """
    if scored.empty:
        return empty(NOTHING)
    order = list(dict.fromkeys(scored["layer"]))
    wide = {
        name: scored.pivot(index="layer", columns="expert", values=name).reindex(order) for name in ("score", "rests")
    }
    heat = go.Heatmap(
        z=wide["score"].to_numpy(dtype=float),
        x=[f"E{expert + 1}" for expert in map(int, wide["score"].columns)],
        y=order,
        text=np.where(wide["rests"].to_numpy(dtype=bool), "×", ""),
        texttemplate="%{text}",
        textfont={"size": min(16, 0.8 * rows_height(len(order), 22) / len(order))},
        colorscale=SEQUENTIAL,
        zmin=-1,
        zmax=1,
        xgap=1,
        ygap=1,
        hovertemplate="layer %{y}, %{x}<br>score %{z:.2f} %{text}<extra></extra>",
        colorbar={**colour_bar("score (−1 to 1)"), "tickvals": [-1, -0.5, 0, 0.5, 1]},
    )
    axes: dict[str, Any] = {
        "xaxis": {"title": {"text": "expert (×: would rest)"}, "showgrid": False},
        "yaxis": {"title": {"text": "layer"}, "autorange": "reversed", "showgrid": False, "type": "category"},
    }
    return go.Figure(heat, layout(f"{title} (τ = {threshold:g})", 180 + rows_height(len(order), 22), **axes))


def score_history(
    scored: pd.DataFrame, threshold: float, title: str = "Scores of a layer's experts during training"
) -> go.Figure:
    """One line an expert: its score at each scoring of each task, with τ.

    Args:
        scored: columns after (0-based), step, expert (0-based), score; of one layer.
        threshold: τ.
        title: said above the picture.
    """
    if scored.empty:
        return empty(NOTHING)
    last = scored.groupby("after")["step"].transform("max")
    scored = scored.assign(position=scored["after"] + scored["step"] / last.clip(lower=1))
    lines = [
        line(
            mark(int(expert)),
            f"E{int(expert) + 1}",
            part["position"],
            part["score"],
            f"expert {int(expert) + 1}<br>step %{{customdata}}<br>score %{{y:.2f}}",
            customdata=part["step"],
        )
        for expert, part in groups(scored.sort_values(["expert", "position"]), "expert")
    ]
    axes: dict[str, Any] = {
        "xaxis": {"title": {"text": "tasks trained"}},
        "yaxis": {"title": {"text": "score (−1 to 1)"}, "range": [-1.05, 1.05]},
        "shapes": [rule(threshold)],
    }
    return go.Figure(lines, layout(f"{title} (τ = {threshold:g})", 380, showlegend=True, **axes))


def freezing_curve(
    table: pd.DataFrame, threshold: float, title: str = "Share of experts that τ lets rest"
) -> go.Figure:
    """The share of experts that would rest against τ, a line a task.

    Args:
        table: columns after (0-based), threshold (−1 to 1), share (0–1).
        threshold: the τ in force.
        title: said above the picture.
    """
    if table.empty:
        return empty("Nothing rests in the first task: this run has no later one.")
    lines = []
    for index, (after, part) in enumerate(groups(table, "after")):
        name, style = f"Task {int(after) + 1}", mark(index)
        more = {"mode": "lines", "line": {"color": style.colour, "dash": style.dash, "width": 2.5, "shape": "hv"}}
        hover = f"{name}<br>τ %{{x:.2f}}<br>%{{y:.0%}} rest"
        lines.append(line(style, name, part["threshold"], part["share"], hover, **more))
    axes: dict[str, Any] = {
        "xaxis": {"title": {"text": "freeze threshold τ (score, −1 to 1)"}},
        "yaxis": {"title": {"text": "share of experts at rest (0–1)"}, "range": [0, 1.02]},
        "shapes": [rule(threshold, "x")],
    }
    return go.Figure(lines, layout(f"{title} (dotted: τ = {threshold:g})", 380, showlegend=True, **axes))


def step_curve(steps: pd.DataFrame, measure: str = "active", order: Sequence[str] = (), title: str = "") -> go.Figure:
    """What every recorded step said, a line a run.

    Args:
        steps: columns label, position (tasks trained), and the measure.
        measure: one of STEP_MEASURES.
        order: every label that shares the page, so that a run keeps its colour when others are hidden.
        title: said above the picture.
    """
    steps = having(steps, measure)
    if steps.empty:
        return empty("No step of these runs recorded this: choose runs that were trained, of a method that has it.")
    style = marks([*order, *steps["label"]])
    said = STEP_MEASURES[measure]
    lines = []
    for label, part in groups(steps, "label"):
        drawn = {
            "color": style[label].colour,
            "dash": style[label].dash,
            "shape": "vh" if measure == "active" else None,
        }
        more: dict[str, Any] = {"mode": "lines", "line": drawn}
        hover = f"{label}<br>%{{x:.2f}} tasks<br>%{{y:.4g}}"
        lines.append(line(style[label], label, part["position"], part[measure], hover, **more))
    first = said.partition(" (")[0]
    axes = {"xaxis": {"title": {"text": "tasks trained"}}, "yaxis": {"title": {"text": said}, "rangemode": "tozero"}}
    title = title or f"{first[0].upper()}{first[1:]}, step by step"
    return go.Figure(lines, layout(title, 340, showlegend=True, **axes))


def task_times(times: pd.DataFrame, measure: str = "train_seconds", title: str = "") -> go.Figure:
    """Bars by task, runs side by side.

    Args:
        times: columns label, task_index (0-based), and the measure.
        measure: one of TIME_MEASURES.
        title: said above the picture.
    """
    times = having(times, measure)
    if times.empty:
        return empty("No task of these runs is finished.")
    bars = []
    for index, (label, part) in enumerate(groups(times, "label")):
        style = mark(index)
        bars.append(
            go.Bar(
                x=part["task_index"],
                y=part[measure],
                name=label,
                marker={"color": style.colour, "pattern": {"shape": style.pattern, "fillmode": "overlay"}},
                customdata=part["task_index"] + 1,
                hovertemplate=f"{label}<br>Task %{{customdata}}<br>%{{y:.1f}}<extra></extra>",
            )
        )
    said = TIME_MEASURES[measure]
    axes = {
        "xaxis": {"title": {"text": "task"}, "showgrid": False, **task_ticks(int(times["task_index"].max()) + 1)},
        "yaxis": {"title": {"text": said}, "rangemode": "tozero"},
    }
    first = said.partition(" (")[0]
    return go.Figure(bars, layout(title or f"{first[0].upper()}{first[1:]} of each task", 360, barmode="group", **axes))


def savings(table: pd.DataFrame, title: str = "What resting experts save") -> go.Figure:
    """Bars of what a task costs with some experts at rest, relative to none at rest.

    Args:
        table: columns resting (how many), cost (what is measured), ratio (to none at rest; 1 saves nothing).
        title: said above the picture.
    """
    if table.empty:
        return empty("Nothing was measured.")
    bars = []
    for index, (resting, part) in enumerate(groups(table, "resting")):
        style = mark(index)
        bars.append(
            go.Bar(
                x=part["cost"],
                y=part["ratio"],
                name=resting,
                marker={"color": style.colour, "pattern": {"shape": style.pattern, "fillmode": "overlay"}},
                text=[f"{ratio:.2f}" for ratio in part["ratio"]],
                textposition="outside",
                hovertemplate=f"{resting} at rest<br>%{{x}}<br>%{{y:.3f}} of none at rest<extra></extra>",
            )
        )
    axes: dict[str, Any] = {
        "xaxis": {"title": {"text": "what is measured over one task"}, "showgrid": False},
        "yaxis": {"title": {"text": "relative to no expert at rest"}, "range": [0, 1.15 * float(table["ratio"].max())]},
        "legend": {"title": {"text": "at rest"}, "x": 1.02, "xanchor": "left"},
        "shapes": [rule(1.0)],
    }
    return go.Figure(bars, layout(title, 400, barmode="group", showlegend=True, **axes))
