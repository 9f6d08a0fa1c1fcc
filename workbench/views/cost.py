"""Cost: what time, memory and bytes the runs took, as they recorded it, beside what was planned for them."""

from html import escape
from typing import Any, ClassVar

import pandas as pd
import panel as pn
import panel_material_ui as pmui

from workbench import figures, tables
from workbench.figures.activation import STEP_MEASURES, TIME_MEASURES
from workbench.store import Store
from workbench.views._base import DIGITS, Visitor, card
from workbench.views._panes import Sheet
from workbench.views._several import SeveralRuns

ABOUT = (
    "What is called measured was recorded while the runs were trained, on the machine that trained them: compare runs "
    "of one machine. *Training* and *evaluation* are the wall clock of a task, the latter with the audit of drift and "
    "the writing of the snapshot; *memory* is the most that a recorded step saw the process hold (on a GPU, what was "
    "allocated there) in 2²⁰ bytes; *throughput* = samples a step / mean seconds of the last twenty or so steps; "
    "*files of the snapshot* = bytes of all files kept after the task, in 10⁶.\n\n"
    "A run's plan is worked out as it begins, by the planner of `same plan`, for its own settings and rows; nothing "
    "of it is fitted to what was measured. *Memory* is that of weights, adapter, gradients, optimiser, statistics, "
    "activations and logits for rows of a picture's tokens and 128 more: on a GPU the measured value is of the same "
    "things, on a CPU it is the whole process, in which Python, torch and the pictures take several hundred MB more. "
    "*Snapshots* are the adapters and statistics of the finished tasks; the files measured also hold tables. "
    "*Training* = operations / (processes · speed); the speed is what you say above, and the speed measured is the "
    "planned operations / measured seconds: take it to plan another run on this machine. Memory is in 2²⁰ bytes, what "
    "is kept or sent in 10⁶. What a run **would** need "
    "elsewhere: `same plan --benchmark coin --method same --backbone llava-1.5-7b`."
)
HOW = {
    "train_seconds": "Wall clock until the task's model is kept, in the process that finished it",
    "evaluate_seconds": "Wall clock of answering every task seen, audit and snapshot",
    "memory_mb": "Maximum over the recorded steps of a task",
    "megabytes": "Σ bytes of the snapshot's files / 10⁶",
}
UNPLANNED = (
    "Without a plan: {runs}. Runs record one as they begin; for those of an earlier version give their `same train` "
    "command again: what is finished is not trained again."
)
UNKNOWN = "{run} could not be planned: {reason}"
BESIDE = {"label": "run", "quantity": "quantity", "planned": "planned", "measured": "measured"}
TOTALS = {
    "label": "run",
    "train_seconds": "training (s)",
    "evaluate_seconds": "evaluation (s)",
    "memory_mb": "most memory (MB)",
    "megabytes": "all snapshots (MB)",
}


class Cost(SeveralRuns):
    """Totals of each run, one measure by task, another step by step; what was planned beside what was measured."""

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
        about = "What one process sustains in training: the planned time follows from it"
        self.speed = pmui.FloatInput(
            label="Planned speed (TFLOP/s)",
            value=100.0,
            start=1e-6,
            end=1e6,
            step=1.0,
            width=220,
            format=DIGITS,
            description=about,
        )
        self.totals = _table(list(TOTALS.values()), 1)
        self.beside = _table(list(BESIDE.values()), 2)
        of_many_units = {"planned": False, "measured": False}
        self.beside.param.update(
            height=360, widths={"run": 180, "planned": 90, "measured": 100}, sortable=of_many_units
        )
        self.unplanned = pmui.Typography("", variant="body2", margin=(10, 10), sizing_mode="stretch_width")
        self.by_task, self.by_step, self.memory = self.plot(), self.plot(), self.plot()
        self.times = self.steps = pd.DataFrame()
        self.watch(self.measure, self._draw_tasks)
        self.watch(self.step, self._draw_steps)
        self.watch(self.speed, self._draw_plans)
        self.remember(measure=self.measure, step=self.step, teraflops=self.speed)
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
        self._draw_plans()

    def _draw_plans(self) -> None:
        table, lacking = tables.planned(self.store, self.runs, self.speed.value)
        shown = table.assign(**{name: table[name].map(_written) for name in ("planned", "measured")})
        self.beside.value = shown[list(BESIDE)].rename(columns=BESIDE)
        plain = [run for run, reason in lacking.items() if not reason]
        said = [UNPLANNED.format(runs=", ".join(plain))] if plain else []
        said += [UNKNOWN.format(run=run, reason=reason) for run, reason in lacking.items() if reason]
        self.unplanned.param.update(object=escape("  ".join(said), quote=False), visible=bool(said))
        parts = tables.memory_parts(self.store, self.runs)
        self.draw(self.memory, self.key("events.jsonl"), lambda: figures.planned_memory(parts))

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
        plans = self.download("Planned and measured as CSV", "planned.csv", self._planned)
        title = pmui.Row(pmui.Typography("Planned beside measured", variant="subtitle1", margin=(18, 10)), self.speed)
        both = pmui.Row(pmui.Column(self.beside, plans), self.memory, sizing_mode="stretch_width")
        planned = card(title, self.unplanned, both)
        parts = (controls, self.note, card(self.totals), pictures, planned, pn.pane.Markdown(ABOUT))
        return pmui.Column(*parts, sizing_mode="stretch_width")

    def _planned(self) -> pd.DataFrame:
        return tables.planned(self.store, self.runs, self.speed.value)[0]


def _table(columns: list[str], words: int) -> Sheet:
    """A table of plain text whose first columns hold words, the others numbers."""
    return Sheet(
        pd.DataFrame(columns=columns),
        formatters={name: {"type": "plaintext"} for name in columns},
        text_align=dict.fromkeys(columns[words:], "right"),
        layout="fit_columns",
        sizing_mode="stretch_width",
    )


def _written(number: float) -> str:
    """Three digits of what is small, all of what is counted."""
    return "–" if pd.isna(number) else f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"
