"""The form of answers: how far the readings of a rule lie apart, and what is wrong with the form."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from workbench.figures._style import (
    OKABE_ITO,
    PATTERNS,
    SEQUENTIAL,
    empty,
    groups,
    layout,
    marks,
    panels,
    seat,
    task_ticks,
)

_NOTHING = "No answers to compare: pick a run with at least one finished task."


def readings_over_stages(readings: pd.DataFrame, title: str = "One task's score in each reading") -> go.Figure:
    """One line a reading over the stages after a task, one panel a run.

    Args:
        readings: columns label (run), after (0-based), reading, score; of one task.
        title: said above the picture.
    """
    if readings.empty:
        return empty(_NOTHING)
    labels = list(dict.fromkeys(readings["label"]))
    style = marks(readings["reading"])
    figure = panels(labels, 0.03)
    for column, (_, run) in enumerate(groups(readings, "label"), start=1):
        for reading, part in groups(run, "reading"):
            line = go.Scatter(
                x=part["after"],
                y=part["score"],
                name=reading,
                legendgroup=reading,
                showlegend=column == 1,
                mode="lines+markers",
                line={"color": style[reading].colour, "dash": style[reading].dash, "width": 2.5},
                marker={"symbol": style[reading].marker, "size": 8},
                customdata=part["after"] + 1,
                hovertemplate=f"{reading}<br>after Task %{{customdata}}<br>score %{{y:.3f}}<extra></extra>",
            )
            figure.add_trace(line, 1, column)
    seat(figure, layout(title, 360, showlegend=True))
    figure.update_xaxes(task_ticks(int(readings["after"].max()) + 1), title={"text": "after training task"})
    figure.update_yaxes(title={"text": "score (0–1)"}, col=1)
    figure.update_yaxes(range=[-0.03, max(1.03, float(readings["score"].max()))])
    return figure


def format_drift_map(drift: pd.DataFrame, title: str = "Format drift: semantic less strict score") -> go.Figure:
    """Heat map of what each task loses in form alone, stages against tasks, one panel a run.

    Args:
        drift: columns label (run), after, task_index (0-based), task, drift (a difference of scores).
        title: said above the picture.
    """
    if drift.empty:
        return empty(_NOTHING)
    labels = list(dict.fromkeys(drift["label"]))
    figure = panels(labels, 0.02)
    for column, (label, part) in enumerate(groups(drift, "label"), start=1):
        grid = part.pivot(index="after", columns="task_index", values="drift").sort_index()
        names = dict(zip(part["task_index"], part["task"], strict=True))
        heat = go.Heatmap(
            z=grid.to_numpy(),
            x=[f"{index + 1} {names[index]}" for index in map(int, grid.columns)],
            y=[f"Task {after + 1}" for after in map(int, grid.index)],
            coloraxis="coloraxis",
            texttemplate="%{z:.2f}" if len(labels) < 3 else "",
            xgap=1,
            ygap=1,
            hoverongaps=False,
            hovertemplate=f"{label}<br>after %{{y}}<br>on %{{x}}<br>drift %{{z:.3f}}<extra></extra>",
        )
        figure.add_trace(heat, 1, column)
    bar = {"title": {"text": "semantic − strict (0–1)", "side": "right"}, "thickness": 12}
    colours = {"colorscale": SEQUENTIAL, "cmin": 0, "cmax": max(0.2, float(drift["drift"].max())), "colorbar": bar}
    seat(figure, layout(title, 190 + 34 * int(drift["after"].max() + 1), coloraxis=colours))
    figure.update_xaxes(title={"text": "evaluated on task"}, showgrid=False, tickangle=-40, automargin=True)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_yaxes(title={"text": "after training"}, col=1)
    return figure


def error_classes(
    errors: pd.DataFrame, order: Sequence[str] = (), title: str = "Answers by kind of error"
) -> go.Figure:
    """Stacked shares of the classes of error over the stages, one panel a run.

    Args:
        errors: columns label (run), after (0-based), error, share; of one task, or means over tasks.
        order: the classes, from the bottom, each with a colour of its own; as they come where left out.
        title: said above the picture.
    """
    if errors.empty:
        return empty(_NOTHING)
    errors = errors[errors["share"] > 0]
    labels = list(dict.fromkeys(errors["label"]))
    known = {name: place for place, name in enumerate(order or dict.fromkeys(errors["error"]))}
    classes = {name: place for name, place in known.items() if (errors["error"] == name).any()}
    figure = panels(labels, 0.03)
    for column, (_, run) in enumerate(groups(errors, "label"), start=1):
        for name, place in classes.items():
            part = run[run["error"] == name]
            bar = go.Bar(
                x=part["after"],
                y=part["share"],
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                marker={
                    "color": OKABE_ITO[place % len(OKABE_ITO)],
                    "pattern": {"shape": PATTERNS[place % len(PATTERNS)], "fillmode": "overlay"},
                },
                customdata=part["after"] + 1,
                hovertemplate=f"{name}<br>after Task %{{customdata}}<br>%{{y:.1%}} of answers<extra></extra>",
            )
            figure.add_trace(bar, 1, column)
    seat(figure, layout(title, 380, barmode="stack", bargap=0.15, legend={"traceorder": "reversed", "x": 1.02}))
    figure.update_xaxes(
        task_ticks(int(errors["after"].max()) + 1), title={"text": "after training task"}, showgrid=False
    )
    figure.update_yaxes(title={"text": "share of answers (0–1)"}, col=1)
    figure.update_yaxes(range=[0, 1.01])
    return figure
