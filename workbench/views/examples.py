"""Examples: test questions one by one, with picture, reference, the answers after each task, where its tokens go."""

import shlex
from html import escape
from typing import Any, ClassVar

import pandas as pd
import panel as pn
import panel_material_ui as pmui

from same.errors import InputError
from same.metrics import ERRORS
from workbench import answers, figures, pictures, tables
from workbench.jobs.asked import TokenRouting
from workbench.jobs.queue import FINISHED, Job
from workbench.store import MEAN_LAYER, Store, at_layer
from workbench.views._base import DAMAGED, NO_RUNS, POLL_MS, View, Visitor, card
from workbench.views._panes import Sheet

ABOUT = (
    "The answer when the task was learned stands beside the one after the stage chosen; the table has that of every "
    "stage. *strict* and *semantic* are readings of the benchmark's rule, the error is the first class of form that "
    "fits ({errors}). The bars are the mean of ω(x) = softmax(W_G x) over the tokens of **all** test items of a task. "
    "Runs keep no ω of single tokens until somebody asks: then a job lets the model of that stage read the question "
    "again, and what it finds joins the run's record (`tokens/`), for everybody."
)
UNANSWERED = (
    "No run of this benchmark kept answers. Train one, or run `same evaluate` on a run to write its answers anew."
)
NO_EXPERTS = "This run's method has no experts: its tokens are not routed. Choose a run of another method."
UNROUTED = "Where the tokens of this question go after this stage is not in the run's record yet. "
ASK = "Press Route its tokens: a job loads the model, lets it read the question, and keeps what it finds."
ASK_A_RUNNER = "Ask a runner to press Route its tokens here, or to run: {command}"
NO_TOKENS = tables.with_short_layers([])
NONE = "There is no such question in this task and stage. Choose another kind under Show."
COLUMNS = ["after", "answer", "strict", "semantic", "error"]


class Examples(View):
    """A question with its picture, answers over the stages, the routing of its task and of its own tokens."""

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
        self.stages = Sheet(
            pd.DataFrame(columns=COLUMNS),
            formatters=plain,
            layout="fit_columns",
            widths={"after": 150, "strict": 80, "semantic": 105, "error": 110},
            header_tooltips={"error": "; ".join(f"{name}: {meaning}" for name, meaning in ERRORS.items())},
            height=300,
            sizing_mode="stretch_width",
        )
        self.routing = self.plot()
        self.table = self.history = pd.DataFrame()
        self.route_button = pmui.Button(label="Route its tokens", icon="alt_route", variant="outlined", margin=(14, 8))
        self.cancel_button = pmui.Button(
            label="Cancel", icon="cancel", color="error", variant="outlined", margin=(14, 8), disabled=True
        )
        self.layer = pmui.Select(label="Layer", options=[MEAN_LAYER], value=MEAN_LAYER, width=190)
        self.said = pmui.Typography("", variant="body2", margin=(10, 10), sizing_mode="stretch_width")
        self.patches, self.words = self.plot(), self.plot()
        self._routed = pmui.Column(sizing_mode="stretch_width")
        self._asked: TokenRouting | None = None
        self._job: Job | None = None
        self.watch(self.route_button, self._route, "clicks")
        self.watch(self.cancel_button, self._cancel, "clicks")
        self.watch(self.layer, self._draw_tokens)
        self.watch(self.run, self._offer)
        self.watch(self.task, self._offer)
        self.watch(self.after, self._load)
        self.watch(self.shown, self._load)
        self.watch(self.number, self._show)
        self.remember(benchmark=self.benchmark, run=self.run, task=self.task, after=self.after)
        self.remember(show=self.shown, question=self.number, layer=self.layer)
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
                self.layer.param.update(options=[MEAN_LAYER], value=MEAN_LAYER)
            return self._show()
        names = self.store.tasks(run)[: self.store.folder(run).finished()]
        task = self.task.value if self.task.value in names else names[0]
        stages = {f"Task {stage + 1} · {names[stage]}": stage for stage in range(names.index(task), len(names))}
        after = self.after.value if self.after.value in stages.values() else len(names) - 1
        layers = [MEAN_LAYER, *self.store.layers(run)]
        layer = self.layer.value if self.layer.value in layers else MEAN_LAYER
        with self.quiet():
            self.task.param.update(options=names, value=task)
            self.after.param.update(options=stages, value=after)
            self.layer.param.update(options=layers, value=layer)
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
        self._asked = self._job = None
        if self.table.empty:
            self.picture.object = ""
            self.text.object = f"<p>{NONE}</p>" if self.run.value else ""
            self.stages.value = pd.DataFrame(columns=COLUMNS)
            if self.run.value is None:
                self.show(self.routing, figures.expert_distribution(pd.DataFrame(), pd.DataFrame()))
            return self._draw_tokens()
        number = min(self.number.value, len(self.table))
        row = self.table.iloc[number - 1]
        self.text.object = f"<p>{number} of {len(self.table)}</p>{answers.written(row.to_dict())}"
        one = self.history[self.history["question_id"] == row["question_id"]]
        names = self.store.tasks(self.run.value)
        stages = [f"Task {after + 1} · {names[after]}" for after in one["after"]]
        texts = one.rename(columns={"text": "answer"}).assign(after=stages)[COLUMNS]
        self.stages.value = texts.astype(str).reset_index(drop=True)
        self.picture.object = self._embedded(str(row["question_id"]))
        self._asked = TokenRouting(self.after.value, self.task.value, str(row["question_id"]))
        self._job = self._newest()
        return self._draw_tokens()

    def _embedded(self, question: str) -> str:
        try:
            file = pictures.found(self.store.folder(self.run.value), self.task.value, question)
        except InputError as error:
            return f"<p style='overflow-wrap:anywhere'>{escape(str(error))}</p>"
        return "<p>This question has no picture.</p>" if file is None else pictures.embedded(file)

    # -- where the question's own tokens go -----------------------------------------------------------------------

    def opened(self) -> None:
        """Look while the page is open whether a job about the question has gone on."""
        if pn.state.curdoc is not None and pn.state.curdoc.session_context is not None:
            pn.state.add_periodic_callback(self.poll, POLL_MS)

    def poll(self) -> None:
        """Say how far the job about this question is; where it has ended, draw what it found."""
        with self._drawing:
            job = self._newest()
            if job != self._job:
                self._job = job
                with self._together():
                    self.attempt(self._draw_tokens)

    def _newest(self) -> Job | None:
        """The newest job that asks what is shown, whoever wished it."""
        jobs = self.visitor.queue.listed() if self.visitor.queue and self._asked else ()
        return next((job for job in jobs if (job.run, job.asked) == (self.run.value, self._asked)), None)

    def _route(self) -> None:
        jobs = self.visitor.allowed()
        if self._asked is None:
            raise InputError("There must be a question to ask for its routing. Choose it above.")
        folder = self.store.folder(self.run.value)
        self._job = jobs.submit(self.visitor.name, folder, self.run.value, self._asked)
        self._draw_tokens()

    def _cancel(self) -> None:
        if self._job is not None:
            self.visitor.allowed().cancel(self._job.key, self.visitor.name)
            self.poll()

    def _draw_tokens(self) -> None:
        asked, layer = self._asked, self.layer.value
        job = self._job if self._job is not None and self._job.state not in FINISHED else None
        mine = job is not None and job.user == self.visitor.name and self.visitor.jobs is not None
        possible = asked is not None and len(self.layer.options) > 1
        self.cancel_button.disabled = not mine
        self.route_button.disabled = not possible or job is not None or self.visitor.jobs is None
        table = self._tokens(asked) if asked and possible else NO_TOKENS
        patches, words = tables.of_patches(table, layer), tables.of_words(table, layer)
        if asked is None:
            said = ""
        elif not possible:
            said = NO_EXPERTS
        elif table.empty:
            said = self._unrouted(asked, job)
        else:
            said = f"Question {asked.question} after Task {asked.after + 1}: "
            said += "ω of each of its tokens." if len(words) else "this layer reads none of its tokens. Choose another."
            self.route_button.disabled = True
        self.said.object = escape(said, quote=False)
        key = (self.run.value, asked, layer, tables.stages(self.store, self.run.value) if len(table) else ())
        if len(words):
            self.draw(self.words, key, lambda: figures.token_routing(words, f"ω of each word, {layer}"))
        if len(patches):
            self.draw(self.patches, key, lambda: figures.routing_map(patches, f"ω of each image patch, {layer}"))
        drawn = [pane for pane, part in ((self.words, words), (self.patches, patches)) if len(part)]
        if self._routed.objects != drawn:
            self._routed.objects = drawn

    def _tokens(self, asked: TokenRouting) -> pd.DataFrame:
        try:
            return tables.tokens(self.store, self.run.value, asked.after, asked.task, asked.question)
        except DAMAGED:
            self.said.object, self._routed.objects = "", []
            raise

    def _unrouted(self, asked: TokenRouting, job: Job | None) -> str:
        """Why no routing is shown, and what to do."""
        if job is not None:
            return f"A job of {job.user or 'this machine'} asks the model: {job.state}. {job.message}".strip()
        words = ["same", "route", "--run", str(self.store.folder(self.run.value).path), "--after", str(asked.after)]
        command = shlex.join([*words, "--task", asked.task, "--question", asked.question])
        wish = ASK if self.visitor.jobs is not None else ASK_A_RUNNER.format(command=command)
        ended = f"The last job {self._job.state}: {self._job.message} " if self._job is not None else ""
        return f"{UNROUTED}{ended}{wish}"

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
        controls = pmui.Row(self.route_button, self.cancel_button, self.layer)
        tokens = card(controls, self.said, self._routed)
        errors = "; ".join(f"*{name}*, {meaning}" for name, meaning in ERRORS.items())
        about = pn.pane.Markdown(ABOUT.format(errors=errors))
        parts = (which, through, self.note, question, below, tokens, about)
        return pmui.Column(*parts, sizing_mode="stretch_width")
