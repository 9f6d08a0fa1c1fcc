"""The score matrix."""

import pandas as pd
import plotly.graph_objects as go

from workbench.figures._style import SEQUENTIAL, empty, layout


def named_matrix(scores: pd.DataFrame) -> pd.DataFrame:
    """R[t][i] with the names of its rows and columns; nan where nothing was evaluated. `scores` as of score_matrix."""
    matrix = scores.pivot(index="after", columns="task_index", values="score").sort_index()
    names = dict(zip(scores["task_index"], scores["task"], strict=True))
    matrix.columns = pd.Index([f"{index + 1} {names[index]}" for index in map(int, matrix.columns)])
    matrix.index = pd.Index(["zero-shot" if after < 0 else f"Task {after + 1}" for after in map(int, matrix.index)])
    return matrix


def largest_score(scores: pd.DataFrame) -> float:
    """Where the scale of colours ends: CIDEr may be more than 1."""
    return max(1.0, float(scores["score"].max()))


def score_matrix(scores: pd.DataFrame, title: str = "Score matrix") -> go.Figure:
    """Heat map of R[t][i], the score on task i after training task t.

    Args:
        scores: columns after (0-based index; -1 is the untrained model), task_index, task, score, 1 for all right.
        title: said above the picture.
    """
    if scores.empty:
        return empty("No task of this run has been evaluated yet.")
    matrix = named_matrix(scores)
    heat = go.Heatmap(
        z=matrix.to_numpy(),
        x=list(matrix.columns),
        y=list(matrix.index),
        zmin=0,
        zmax=largest_score(scores),
        colorscale=SEQUENTIAL,
        texttemplate="%{z:.2f}",
        xgap=1,
        ygap=1,
        hoverongaps=False,
        hovertemplate="after %{y}<br>on %{x}<br>score %{z:.3f}<extra></extra>",
        colorbar={"title": {"text": "score", "side": "right"}, "thickness": 12},
    )
    axes = {
        "xaxis": {"title": {"text": "evaluated on task"}, "showgrid": False, "tickangle": -30},
        "yaxis": {"title": {"text": "after training"}, "autorange": "reversed", "showgrid": False},
    }
    return go.Figure(heat, layout(title, 190 + 34 * len(matrix), **axes))
