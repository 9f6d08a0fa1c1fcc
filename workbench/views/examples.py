"""Examples: test questions one by one, with picture, reference and the answers after each task."""

from html import escape
from typing import Any, ClassVar

import pandas as pd
import panel as pn
import panel_material_ui as pmui

from same.errors import InputError
from same.metrics import ERRORS
from workbench import answers, figures, pictures
from workbench.store import MEAN_LAYER, Store, at_layer
from workbench.views._base import NO_RUNS, View, Visitor, card

ABOUT = (
    "The answer when the task was learned stands beside the one after the stage chosen; the table has that of every "
    "stage. *strict* and *semantic* are readings of the benchmark's rule, the error is the first class of form that "
    "fits ({errors}). The routing is the mean of ω(x) = softmax(W_G x) over the tokens of **all** test items of the "
    "task: runs keep no ω of single tokens. For those the model must answer again: notebook 99_explore does."
)
UNANSWERED = (
    "No run of this benchmark kept answers. Train one, or run `same evaluate` on a run to write its answers anew."
)
NONE = "There is no such question in this task and stage. Choose another kind under Show."
COLUMNS = ["after", "answer", "strict", "semantic", "error"]


class Examples(View):
    """A question with its picture, answers over the stages, and the routing of its task."""

    title: ClassVar[str] = "Examples"
    order: ClassVar[int] = 50

    def __init__(self, store: Store, visitor: Visitor | None = None, **params: Any):
        super().__init__(store, visitor, **params)
        self.run = pmui.Select(label="Run", options={}, width=210)
        self.task = pmui.Select(label="Task", options=[], width=150)
        self.after = pmui.Select(label="After training", options={}, width=170)
        forms = "Wrong in form alone: " + ", ".join(answers.FORM)
        self.shown = pmui.Select(label="Show", options=list(answers.SHOWN), width=290, description=forms)
        self.number = pmui.IntSlider(label="Question", value=1, start=1, end=2, width=260)
        self.picture = pn.pane.HTML("", width=275, margin=10)
        self.text = pn.pane.HTML("", sizing_mode="stretch_width", margin=10)
        plain: Any = {name: {"type": "plaintext"} for name in COLUMNS}
        self.stages = pn.widgets.Tabulator(
            pd.DataFrame(columns=COLUMNS),
            disabled=True,
            show_index=False,
            formatters=plain,
            layout="fit_columns",
            widths={"after": 150, "strict": 80, "semantic": 105, "error": 110},
            header_tooltips={"error": "; ".join(f"{name}: {meaning}" for name, meaning in ERRORS.items())},
            height=300,
            sizing_mode="stretch_width",
        )
        self.routing = self.plot()
        self.table = self.history = pd.DataFrame()
        self.watch(self.run, self._offer)
        self.watch(self.task, self._offer)
        self.watch(self.after, self._load)
        self.watch(self.shown, self._load)
        self.watch(self.number, self._show)
        self.remember(benchmark=self.benchmark, run=self.run, task=self.task, after=self.after)
        self.remember(show=self.shown, question=self.number)
        self.refresh()

    def fill(self) -> None:
        """Offer the runs of the chosen benchmark that kept their answers."""
        table = self.store.overview()
        table = table[
            (table["benchmark"] == self.benchmark.value) & (table["state"] != "damaged") & (table["tasks"] > 0)
        ]
        pairs = zip(table["label"], table["run"], strict=True)
        options = {label: run for label, run in pairs if self.store.folder(run).predictions(0).exists}
        value = self.run.value if self.run.value in options.values() else next(reversed(options.values()), None)
        with self.quiet():
            self.run.param.update(options=options, value=value)
        self._offer()
        if not options:
            self.tell(NO_RUNS if table.empty else UNANSWERED)

    def _offer(self) -> None:
        """Offer the tasks that the run has come to, and the stages that have answered the chosen one."""
        run = self.run.value
        self.table = self.history = pd.DataFrame()
        self.tell()
        if run is None:
            with self.quiet():
                self.task.param.update(options=[], value=None)
                self.after.param.update(options={}, value=None)
            return self._show()
        names = self.store.tasks(run)[: self.store.folder(run).finished()]
        task = self.task.value if self.task.value in names else names[0]
        stages = {f"Task {stage + 1} · {names[stage]}": stage for stage in range(names.index(task), len(names))}
        after = self.after.value if self.after.value in stages.values() else len(names) - 1
        with self.quiet():
            self.task.param.update(options=names, value=task)
            self.after.param.update(options=stages, value=after)
        self.attempt(self._draw_routing)
        self.history = answers.history(self.store, run, task)
        return self._load()

    def _load(self) -> None:
        if self.run.value is None:
            return
        table = answers.examples(self.store, self.run.value, self.task.value, self.after.value)
        self.table = answers.shown(table, self.shown.value)
        count = len(self.table)
        with self.quiet():
            number = min(self.number.value, max(1, count))
            self.number.param.update(end=max(2, count), value=number, disabled=count < 2)
        self._show()

    def _show(self) -> None:
        if self.table.empty:
            self.picture.object = ""
            self.text.object = f"<p>{NONE}</p>" if self.run.value else ""
            self.stages.value = pd.DataFrame(columns=COLUMNS)
            if self.run.value is None:
                self.show(self.routing, figures.expert_distribution(pd.DataFrame(), pd.DataFrame()))
            return
        number = min(self.number.value, len(self.table))
        row = self.table.iloc[number - 1]
        self.text.object = f"<p>{number} of {len(self.table)}</p>{answers.written(row.to_dict())}"
        one = self.history[self.history["question_id"] == row["question_id"]]
        names = self.store.tasks(self.run.value)
        stages = [f"Task {after + 1} · {names[after]}" for after in one["after"]]
        texts = one.rename(columns={"text": "answer"}).assign(after=stages)[COLUMNS]
        self.stages.value = texts.astype(str).reset_index(drop=True)
        self.picture.object = self._embedded(str(row["question_id"]))

    def _embedded(self, question: str) -> str:
        try:
            file = pictures.found(self.store.folder(self.run.value), self.task.value, question)
        except InputError as error:
            return f"<p style='overflow-wrap:anywhere'>{escape(str(error))}</p>"
        return "<p>This question has no picture.</p>" if file is None else pictures.embedded(file)

    def _draw_routing(self) -> None:
        task, probe = self.task.value, self.store.tasks(self.run.value).index(self.task.value)
        drift = self.store.drift([self.run.value], probe)
        title = f"Routing of {task}'s test inputs, {MEAN_LAYER}"
        self.draw(
            self.routing,
            (drift.key, task),
            lambda: figures.expert_distribution(at_layer(drift.routing), at_layer(drift.overlap), title),
        )

    def __panel__(self) -> pn.viewable.Viewable:
        which = pmui.Row(self.benchmark, self.run, self.task, self.after, self.refresh_button, margin=(12, 0, 0, 0))
        through = pmui.Row(self.shown, self.number)
        question = card(pmui.Row(self.picture, self.text, sizing_mode="stretch_width"))
        examples = self.download("Examples as CSV", "examples.csv", lambda: self.table)
        every = self.download("Answers after every task as CSV", "history.csv", lambda: self.history)
        stages = card(self.stages, pmui.Row(examples, every))
        below = pmui.Row(stages, card(self.routing), sizing_mode="stretch_width")
        errors = "; ".join(f"*{name}*, {meaning}" for name, meaning in ERRORS.items())
        about = pn.pane.Markdown(ABOUT.format(errors=errors))
        return pmui.Column(which, through, self.note, question, below, about, sizing_mode="stretch_width")
