"""What the widgets share: pickers of run and task, sliders, and a figure that is drawn anew in its place."""

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets
import pandas as pd
import plotly.graph_objects as go

from same.errors import InputError
from workbench.store import Store

WIDE = "22em"


class Plot:
    """A figure that changes in its place: the same function draws it as draws the dashboard's."""

    def __init__(self) -> None:
        self.widget = go.FigureWidget()

    def draw(self, figure: go.Figure) -> None:
        """Show another figure."""
        self.widget.data = ()
        self.widget.layout = figure.layout
        for name in ("annotations", "shapes"):  # what the new one has none of would stay in the page otherwise
            self.widget.layout[name] = figure.layout[name] or ()
        self.widget.add_traces(figure.data)


class Pickers:
    """A run and one of its finished tasks.

    Args:
        store: whose runs are offered.
        keep: which rows of its overview; all with a finished task by default.
    """

    def __init__(self, store: Store, keep: Callable[[pd.DataFrame], pd.DataFrame] = lambda table: table):
        self.store = store
        table = keep(store.overview().query("tasks > 0 and problem == ''"))
        if table.empty:
            raise InputError(
                f"{store.runs} must hold a run to show; none fits. Train one with 10_train, then ask again."
            )
        many = table["benchmark"].nunique() > 1
        names = [f"{row.benchmark} · {row.label}" if many else row.label for row in table.itertuples()]
        self.run = ipywidgets.Dropdown(options=list(zip(names, table["run"], strict=True)), description="run")
        self.task = ipywidgets.Dropdown(description="after task")
        self._fill()
        self.run.observe(lambda _: self._fill(), "value")

    def _fill(self) -> None:
        tasks = self.store.tasks(self.run.value)[: self.store.folder(self.run.value).finished()]
        self.task.options = [(f"{index + 1} {task}", index) for index, task in enumerate(tasks)]
        self.task.value = len(tasks) - 1


def slider(name: str, symbol: str, value: float, low: float, high: float, step: float) -> ipywidgets.FloatSlider:
    """A slider that speaks while it is moved, with the paper's symbol."""
    style, place = {"description_width": "initial"}, ipywidgets.Layout(width=WIDE)
    limits: Mapping[str, Any] = {"value": value, "min": low, "max": high, "step": step}
    return ipywidgets.FloatSlider(description=f"{name} {symbol}", style=style, layout=place, **limits)


def choice(name: str, options: list[Any]) -> ipywidgets.SelectionSlider:
    """A slider over names, such as layers."""
    style, place = {"description_width": "initial"}, ipywidgets.Layout(width="30em")
    return ipywidgets.SelectionSlider(description=name, options=options, style=style, layout=place)


def together(draw: Callable[[], None], *controls: Any) -> None:
    """Draw now, and whenever one of the controls has another value."""
    for control in controls:
        control.observe(lambda _: draw(), "value")
    draw()


def page(title: str, controls: list[Any], *below: Any) -> ipywidgets.VBox:
    """A title, the controls in rows, and what they control."""
    row = ipywidgets.HBox(controls, layout=ipywidgets.Layout(flex_flow="row wrap"))
    return ipywidgets.VBox([ipywidgets.HTML(f"<b>{title}</b>"), row, *below])
