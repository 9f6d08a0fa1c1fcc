"""Memory that a run was planned to need, part by part, beside what it was seen to hold."""

import pandas as pd
import plotly.graph_objects as go

from workbench.figures._style import empty, groups, layout, mark

MEASURED = "measured"


def planned_memory(parts: pd.DataFrame, title: str = "Memory of a process, planned and measured") -> go.Figure:
    """Two bars a run: the parts of the plan on one another, and the most that was measured.

    Args:
        parts: columns label, part (`measured` for what was), megabytes.
        title: said above the picture.
    """
    if parts.empty:
        return empty("None of the chosen runs has recorded a plan: the text above says what to do.")
    order = {name: index for index, name in enumerate(dict.fromkeys(parts["part"]))}
    bars = []
    for name, part in groups(parts, "part"):
        style = mark(order[name])
        which = MEASURED if name == MEASURED else "planned"
        bars.append(
            go.Bar(
                x=[list(part["label"]), [which] * len(part)],
                y=part["megabytes"],
                name=name,
                marker={"color": style.colour, "pattern": {"shape": style.pattern, "fillmode": "overlay"}},
                hovertemplate=f"%{{x}}<br>{name}<br>%{{y:,.1f}} MB<extra></extra>",
            )
        )
    axes: dict[str, dict[str, object]] = {"xaxis": {"title": {"text": "run"}, "showgrid": False}}
    axes["yaxis"] = {"title": {"text": "memory (MB)"}, "rangemode": "tozero"}
    return go.Figure(bars, layout(title, 360, barmode="stack", showlegend=True, **axes))
