"""Cost: what time, memory and bytes the runs took, as they recorded it."""

from typing import Any, ClassVar

import pandas as pd
import panel as pn
import panel_material_ui as pmui

from workbench import figures, tables
from workbench.figures.activation import STEP_MEASURES, TIME_MEASURES
from workbench.store import Store
from workbench.views._base import Visitor, card
from workbench.views._several import SeveralRuns

ABOUT = (
    "All of this was measured while the runs were trained, on the machine that trained them: compare runs of one "
    "machine. *Training* and *evaluation* are the wall clock of a task, the latter with the audit of drift and the "
    "writing of the snapshot; *memory* is the most that a recorded step saw the process hold (on a GPU, what was "
    "allocated there) in 2²⁰ bytes; *throughput* = samples a step / mean seconds of the last twenty or so steps; "
    "*files of the snapshot* = bytes of all files kept after the task, in 10⁶. What a run **would** need on other "
    "hardware is planned, not measured: `same plan --benchmark coin --method same --backbone llava-1.5-7b` says it "
    "without training."
)
HOW = {
    "train_seconds": "Wall clock until the task's model is kept, in the process that finished it",
    "evaluate_seconds": "Wall clock of answering every task seen, audit and snapshot",
    "memory_mb": "Maximum over the recorded steps of a task",
    "megabytes": "Σ bytes of the snapshot's files / 10⁶",
}
TOTALS = {
    "label": "run",
    "train_seconds": "training (s)",
    "evaluate_seconds": "evaluation (s)",
    "memory_mb": "most memory (MB)",
    "megabytes": "all snapshots (MB)",
}


class Cost(SeveralRuns):
    """Totals of each run, one measure by task, another step by step."""

    title: ClassVar[str] = "Cost"
    order: ClassVar[int] = 70
    first: ClassVar[int] = 4
    lacking: ClassVar[str] = "No run of this benchmark has recorded a step yet. Wait for the first one, or train again."

    def __init__(self, store: Store, visitor: Visitor | None = None, **params: Any):
        super().__init__(store, visitor, **params)
        said = {name: measure for measure, name in TIME_MEASURES.items()}
        how = "; ".join(f"{TIME_MEASURES[measure]}: {rule}" for measure, rule in HOW.items())
        self.measure = pmui.Select(label="By task", options=said, value="train_seconds", width=230, description=how)
        said = {name: measure for measure, name in STEP_MEASURES.items()}
        self.step = pmui.Select(label="Step by step", options=said, value="samples_per_second", width=230)
        self.totals = pn.widgets.Tabulator(
            pd.DataFrame(columns=list(TOTALS.values())),
            disabled=True,
            show_index=False,
            formatters={name: {"type": "plaintext"} for name in TOTALS.values()},
            text_align=dict.fromkeys(list(TOTALS.values())[1:], "right"),
            layout="fit_columns",
            sizing_mode="stretch_width",
        )
        self.by_task, self.by_step = self.plot(), self.plot()
        self.times = self.steps = pd.DataFrame()
        self.watch(self.measure, self._draw_tasks)
        self.watch(self.step, self._draw_steps)
        self.remember(measure=self.measure, step=self.step)
        self.refresh()

    def holds(self, run: str) -> bool:
        """Whether the run recorded what a task took."""
        return len(tables.times(self.store, [run])) > 0

    def redraw(self) -> None:
        """Draw the chosen runs."""
        self.steps = tables.steps(self.store, self.runs)
        sizes = tables.sizes(self.store, self.runs).groupby(["run", "task_index"])["megabytes"].sum().reset_index()
        self.times = tables.times(self.store, self.runs).merge(sizes, on=["run", "task_index"], how="left")
        ways = {"train_seconds": "sum", "evaluate_seconds": "sum", "memory_mb": "max", "megabytes": "sum"}
        totals = self.times.groupby("label", sort=False).agg(ways).reset_index().rename(columns=TOTALS)
        self.totals.value = totals.round(1).astype(str)
        self._draw_tasks()
        self._draw_steps()

    def _draw_tasks(self) -> None:
        measure, times = self.measure.value, self.times
        key = (self.key("events.jsonl", "snapshots"), measure)
        self.draw(self.by_task, key, lambda: figures.task_times(times, measure))

    def _draw_steps(self) -> None:
        measure, steps = self.step.value, self.steps
        key = (self.key("events.jsonl"), measure)
        self.draw(self.by_step, key, lambda: figures.step_curve(steps, measure, list(dict.fromkeys(steps["label"]))))

    def __panel__(self) -> pn.viewable.Viewable:
        controls = pmui.Row(
            self.benchmark, self.chosen, self.measure, self.step, self.refresh_button, margin=(12, 0, 0, 0)
        )
        times = self.download("Tasks as CSV", "times.csv", lambda: self.times)
        steps = self.download("Steps as CSV", "steps.csv", lambda: self.steps)
        files = self.download("Files as CSV", "sizes.csv", lambda: tables.sizes(self.store, self.runs))
        pictures = pmui.Row(
            card(self.by_task, pmui.Row(times, files)), card(self.by_step, steps), sizing_mode="stretch_width"
        )
        about = pn.pane.Markdown(ABOUT)
        return pmui.Column(controls, self.note, card(self.totals), pictures, about, sizing_mode="stretch_width")
