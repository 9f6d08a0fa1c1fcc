"""Format drift: answers that are right in meaning and wrong by the letter, and what is wrong with their form."""

from typing import Any, ClassVar

import pandas as pd
import panel as pn
import panel_material_ui as pmui

from same.metrics import ERRORS, READINGS
from workbench import answers, figures
from workbench.store import Store
from workbench.views._base import Visitor, card
from workbench.views._several import SeveralRuns

ABOUT = (
    "**Format drift** of a task after a stage = semantic − strict score: what is lost in the form of answers alone. "
    "*strict*: {strict}. *semantic*: {semantic}. *standard*: {standard}. Kinds of error, the first that fits: {errors}."
)
ALL = "all tasks seen"
RULE = "Of one task; of all tasks: mean over the tasks seen, each with equal weight"
DRIFT = "semantic − strict score of the same answers: 0 is no drift of the format"


class FormatDrift(SeveralRuns):
    """Map of format drift, one task's score in each reading, answers by kind of error."""

    title: ClassVar[str] = "Format drift"
    order: ClassVar[int] = 60
    first: ClassVar[int] = 2
    lacking: ClassVar[str] = (
        "No run of this benchmark has scored a task yet: wait for the first one, or run `same evaluate` on a run."
    )

    def __init__(self, store: Store, visitor: Visitor | None = None, **params: Any):
        super().__init__(store, visitor, **params)
        self.task = pmui.Select(label="Readings of task", options=[], width=190, description=DRIFT)
        self.of = pmui.Select(label="Kinds of error in", options=[ALL], value=ALL, width=190, description=RULE)
        self.map, self.curve, self.kinds = self.plot(), self.plot(), self.plot()
        self.readings = self.errors = pd.DataFrame()
        self.watch(self.task, self._draw_readings)
        self.watch(self.of, self._draw_errors)
        self.remember(task=self.task, errors=self.of)
        self.refresh()

    def holds(self, run: str) -> bool:
        """Whether a task of the run has its scores."""
        folder = self.store.folder(run)
        return (folder.path / "scores.json").exists() and len(self.store.scores(run)) > 0

    def redraw(self) -> None:
        """Draw the chosen runs."""
        self.readings = answers.readings(self.store, self.runs)
        self.errors = answers.errors(self.store, self.runs)
        names = list(dict.fromkeys(self.readings.sort_values("task_index", kind="stable")["task"]))
        with self.quiet():
            if self.task.value not in names or list(self.task.options) != names:
                value = self.task.value if self.task.value in names else next(iter(names), None)
                self.task.param.update(options=names, value=value)
                of = self.of.value if self.of.value in names else ALL
                self.of.param.update(options=[ALL, *names], value=of)
        readings = self.readings
        self.draw(
            self.map,
            self.key("scores.json"),
            lambda: figures.format_drift_map(answers.drift_of_format(readings) if len(readings) else readings),
        )
        self._draw_readings()
        self._draw_errors()

    def _draw_readings(self) -> None:
        task, readings = self.task.value, self.readings
        self.draw(
            self.curve,
            (self.key("scores.json"), task),
            lambda: figures.readings_over_stages(
                readings[readings["task"] == task], f"{task}: its score in each reading"
            ),
        )

    def _draw_errors(self) -> None:
        of, table = self.of.value, self.errors
        self.draw(
            self.kinds,
            (self.key("scores.json"), of),
            lambda: figures.error_classes(
                answers.over_tasks(table) if of == ALL else table[table["task"] == of],
                list(ERRORS),
                f"Answers by kind of error, {of}",
            ),
        )

    def __panel__(self) -> pn.viewable.Viewable:
        controls = pmui.Row(self.benchmark, self.chosen, self.task, self.of, self.refresh_button, margin=(12, 0, 0, 0))
        scores = self.download("Scores as CSV", "readings.csv", lambda: self.readings)
        kinds = self.download("Kinds of error as CSV", "errors.csv", lambda: self.errors)
        below = pmui.Row(card(self.curve, scores), card(self.kinds, kinds), sizing_mode="stretch_width")
        errors = "; ".join(f"*{name}*, {meaning}" for name, meaning in ERRORS.items())
        about = pn.pane.Markdown(ABOUT.format(**READINGS, errors=errors))
        return pmui.Column(controls, self.note, card(self.map), below, about, sizing_mode="stretch_width")
