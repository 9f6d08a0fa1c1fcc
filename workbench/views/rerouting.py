"""Re-routing lab: routers of one version over experts of another, a router trained anew, a layer routed by hand."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

import pandas as pd
import panel as pn
import panel_material_ui as pmui
import plotly.graph_objects as go

from same.errors import InputError
from workbench import figures
from workbench.jobs.asked import MOST_STEPS, ROUTERS, Rerouting
from workbench.jobs.queue import FINISHED, Job
from workbench.store import VARIANTS, Store
from workbench.views._base import DIGITS, NO_RUNS, ONLY_RUNNERS, POLL_MS, View, Visitor, card, put, said
from workbench.views._panes import Count, Number, Sheet

ABOUT = (
    "After task t a model has experts and a router. **R s E t** answers a task with the experts as they were after "
    "task t and the router as it was after task s: ω(x) = softmax(W_G⁽ˢ⁾ x) over the experts of t. Where an old router "
    "brings the score back, it was the router that drifted; where it does not, the experts were overwritten. *own* is "
    "the router of the experts' own version, *random* and *uniform* know nothing, *oracle* is trained on the task with "
    "the experts frozen. Results join the run's record (`reroute/`); what was asked before is answered from there."
)
NO_EXPERTS = "No run of this benchmark has experts and a finished task. Train one, for example with --method same."
SHOWN = {"state": 100, "done": 80, "asked": 330, "run": 200, "user": 100, "submitted": 110, "message": 320}
"""Columns of the queue, and their widths in pixels."""


class ReroutingLab(View):
    """Controls of a job, the queue, the grid of pairs, the curve and the answers of one result."""

    title: ClassVar[str] = "Re-routing lab"
    order: ClassVar[int] = 20

    def __init__(self, store: Store, visitor: Visitor | None = None, **params: Any):
        super().__init__(store, visitor, **params)
        self.run = pmui.Select(label="Run", options={}, width=230)
        self.task = pmui.Select(label="Task", options=[], width=170)
        self.variant = pmui.Select(label="Scoring", options=list(VARIANTS), width=130)
        about_s = "ω = softmax(W_G⁽ˢ⁾ x): the router as it was after task s"
        self.router = pmui.Select(label="Router s", options={}, width=160, description=about_s)
        self.experts = pmui.Select(label="Experts t", options={}, width=160, description="Bₙ⁽ᵗ⁾Aₙ⁽ᵗ⁾ after task t")
        self.items = Count(label="Test items", value=50, start=0, width=120, description="From the first on; 0 is all")
        self.steps = Count(label="Steps", value=50, start=1, end=MOST_STEPS, width=110)
        self.rate = Number(label="Learning rate", value=1e-3, start=1e-8, end=10.0, step=1e-4, width=160, format=DIGITS)
        self.layer = pmui.Select(label="Layer", options={}, width=150)
        self.weights = pmui.FlexBox()
        self.pair_button = self._button("Evaluate this pair", "play_arrow", self._pair)
        self.grid_button = self._button("Evaluate the whole s × t grid", "grid_on", self._grid)
        self.train_button = self._button("Retrain the router and evaluate", "model_training", self._retrain)
        self.hand_button = self._button("Answer with these weights", "tune", self._by_hand)
        self.queue = self._table(list(SHOWN), 170)
        self.queue.param.update(widths=SHOWN, layout="fit_data_stretch")
        self.cancel_button = self._button("Cancel a job", "cancel", self._cancel, "error")
        about_cancel = "Cancel a job: the selected one, or else your newest"  # also the name that is read aloud
        self.cancel_button.description = about_cancel
        self.results = pmui.Select(label="Result", options={}, width=460)
        self.grid, self.curve = self.plot(), self.plot()
        self.answers = self._table(["question", "answer", "before", "now"], 320)
        self._seen: tuple[Job, ...] = ()
        self._picked: str | None = None
        self._found = pd.DataFrame()
        self.watch(self.run, self._offer)
        self.watch(self.task, self._show_results)
        self.watch(self.variant, self._show_results)
        self.watch(self.results, self._show_result)
        self.watch(self.layer, self._offer_weights)
        self.watch(self.queue, self._pick, "selection")
        for widget in (self.router, self.experts, self.items, self.steps, self.rate):
            self._follow(widget)
        self.remember(benchmark=self.benchmark, run=self.run, task=self.task, scoring=self.variant)
        self.remember(router=self.router, experts=self.experts, items=self.items, steps=self.steps, rate=self.rate)
        self.remember(layer=self.layer, result=self.results)
        self.refresh()

    def _button(self, label: str, icon: str, act: Any, colour: str = "primary") -> pmui.Button:
        button = pmui.Button(label=label, icon=icon, color=colour, variant="outlined", margin=(14, 8))
        self.watch(button, act, "clicks")
        button.disabled = self.visitor.jobs is None
        return button

    def _table(self, columns: list[str], height: int) -> Sheet:
        plain: Any = {name: {"type": "plaintext"} for name in columns}
        return Sheet(
            pd.DataFrame(columns=columns),
            selectable=1,
            formatters=plain,
            layout="fit_columns",
            height=height,
            sizing_mode="stretch_width",
        )

    def _follow(self, widget: Any) -> None:
        """Let the address follow a widget that nothing is drawn for."""
        self.watch(widget, lambda: None)

    def state(self) -> dict[str, str]:
        """What the address says of this view, the weights set by hand among it."""
        return super().state() | {"weights": said(self._by_expert())}

    def restore(self, state: Mapping[str, str]) -> None:
        """Take up what an address says; what is not on offer, or weights of another number of experts, is left."""
        super().restore(state)
        texts = state.get("weights", "").split(",")
        if len(texts) == len(self.weights):
            for widget, text in zip(self.weights, texts, strict=True):
                put(widget, text)

    # -- what is offered ------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Offer the runs of the chosen benchmark that have experts."""
        table = self.store.overview()
        table = table[
            (table["benchmark"] == self.benchmark.value) & (table["state"] != "damaged") & (table["tasks"] > 0)
        ]
        options, damage = {}, []
        for label, run in zip(table["label"], table["run"], strict=True):
            try:
                if self.store.layers(run):
                    options[label] = run
            except InputError as error:
                damage.append(str(error))
        value = self.run.value if self.run.value in options.values() else next(reversed(options.values()), None)
        with self.quiet():
            self.run.param.update(options=options, value=value)
        if options:
            reason = ONLY_RUNNERS if self.visitor.jobs is None else ""
            self.tell("  ".join([*damage, reason]) if damage else reason, "warning" if damage else "info")
        else:
            self.tell("  ".join([NO_RUNS if table.empty else NO_EXPERTS, *damage]))
        self._offer()
        self.poll()

    def _offer(self) -> None:
        run = self.run.value
        with self.quiet():
            if run is None:
                for widget in (self.task, self.router, self.experts, self.layer):
                    widget.param.update(options={}, value=None)
            else:
                keys = [task["key"] for task in self.store.folder(run).config()["settings"]["tasks"]]
                finished = {f"after Task {i + 1} · {keys[i]}": i for i in range(self.store.folder(run).finished())}
                _offer(self.task, {key: key for key in keys})
                _offer(self.router, {name: str(index) for name, index in finished.items()} | {n: n for n in ROUTERS})
                _offer(self.experts, finished)
                _offer(self.layer, self.store.layers(run))
        self._offer_weights()
        self._show_results()

    def _offer_weights(self) -> None:
        count = self.store.experts(self.run.value) if self.run.value else 0
        if len(self.weights) != count:
            self.weights.objects = [
                Number(label=f"ω E{expert + 1}", value=1.0, start=0.0, step=0.1, width=124, format=DIGITS)
                for expert in range(count)
            ]
            for widget in self.weights:
                self._follow(widget)

    # -- what is asked --------------------------------------------------------------------------------------------

    def _asked(self, **chosen: Any) -> Rerouting:
        """The question of the widgets; of fewer items than asked for, all are taken."""
        if self.run.value is None:
            raise InputError(NO_EXPERTS)
        items = min(self.items.value or 0, self.store.items(self.run.value, self.task.value)) or None
        pair: dict[str, Any] = {"routers": (self.router.value,), "experts": (self.experts.value,), "items": items}
        return Rerouting(self.task.value, **(pair | chosen))

    def _pair(self) -> None:
        self._submit(self._asked())

    def _grid(self) -> None:
        versions = tuple(self.experts.options.values())
        self._submit(self._asked(routers=tuple(map(str, versions)), experts=versions))

    def _retrain(self) -> None:
        self._submit(self._asked(retrain_steps=self.steps.value, learning_rate=self.rate.value))

    def _by_hand(self) -> None:
        self._submit(self._asked(layer=self.layer.value, weights=self._by_expert()))

    def _by_expert(self) -> tuple[float, ...]:
        """The weights set by hand; a field that was emptied is 0."""
        return tuple(float(widget.value or 0) for widget in self.weights)

    def _submit(self, asked: Rerouting) -> None:
        jobs = self.visitor.allowed()
        job = jobs.submit(self.visitor.name, self.store.folder(self.run.value), self.run.value, asked)
        self.tell(f"Queued: {job.title}.", "success")
        self.poll()

    def _pick(self) -> None:
        """Keep which job the reader has selected: rows move when another comes."""
        self._picked = next((self._seen[row].key for row in self.queue.selection if row < len(self._seen)), None)

    def _cancel(self) -> None:
        """Stop the selected job, or else the reader's newest: who has no mouse can select none."""
        jobs = self.visitor.allowed()
        ended = (*FINISHED, "stopping")
        own = (job.key for job in jobs.listed() if job.user == self.visitor.name and job.state not in ended)
        key = self._picked or next(own, None)
        if key is None:
            raise InputError("A job of yours must wait or run to be cancelled; none does. Queue one above first.")
        jobs.cancel(key, self.visitor.name)
        self.poll()

    # -- what is shown --------------------------------------------------------------------------------------------

    def opened(self) -> None:
        """Look at the queue while the page is open."""
        if pn.state.curdoc is not None and pn.state.curdoc.session_context is not None:
            pn.state.add_periodic_callback(self.poll, POLL_MS)

    def poll(self) -> None:
        """Show the queue as it stands; where a job has ended, also its results."""
        with self._drawing:
            jobs = tuple(self.visitor.queue.listed()) if self.visitor.queue else ()
            if jobs != self._seen:
                with self._together():
                    self.attempt(lambda: self._show_queue(jobs))

    def _show_queue(self, jobs: tuple[Job, ...]) -> None:
        ended = {job.key for job in self._seen if job.state in FINISHED}
        fresh = [job for job in jobs if job.state in FINISHED and job.key not in ended and job.results]
        with self.quiet():
            self._seen = jobs
            self.queue.value = pd.DataFrame([_row(job) for job in jobs], columns=list(SHOWN))
            self.queue.selection = [row for row, job in enumerate(jobs) if job.key == self._picked]
        running = next((job for job in jobs if job.state == "running" and job.curve), None)
        if running is not None:
            self.show(self.curve, _curve(running.key, running.title, running.curve))
        mine = [job for job in fresh if job.run == self.run.value and isinstance(job.asked, Rerouting)]
        if mine:
            self._show_results(mine[0].results[-1])

    def _show_results(self, newest: str | None = None) -> None:
        if self.run.value is None:
            found, damage = pd.DataFrame(columns=["id", "task", "router", "experts", "score"]), list[str]()
        else:
            found, damage = self.store.reroutings(self.run.value, self.variant.value)
        if damage:
            self.tell("  ".join(damage), "warning")
        self._found = found[found["task"] == self.task.value]
        options = {_label(row): row.id for row in reversed(list(self._found.itertuples()))}
        value = newest or self.results.value
        with self.quiet():
            value = value if value in options.values() else next(iter(options.values()), None)
            self.results.param.update(options=options, value=value)
        plain = self._found
        if len(plain):
            plain = plain[(plain["retrained_steps"] == 0) | (plain["router"] == "oracle")]
            plain = plain[plain["layer"].isna()]
        self.show(self.grid, figures.version_grid(plain, f"{self.variant.value} score on {self.task.value}"))
        self._show_result()

    def _show_result(self) -> None:
        if self.results.value is None:
            self.answers.value = self.answers.value.iloc[:0]
            return self.show(self.curve, figures.retraining_curves(pd.DataFrame()))
        found = self.store.rerouting(self.run.value, self.results.value)
        curve = tuple((int(point["step"]), float(point["loss"])) for point in found["curve"])
        self.show(self.curve, _curve(found["id"], f"experts of Task {found['experts'] + 1}", curve))
        table = self.store.rerouted_answers(self.run.value, self.results.value)
        names = {"prompt": "question", "answer": "answer", "before": "before", "text": "now"}
        self.answers.value = table.rename(columns=names)[list(names.values())].astype(str)
        return None

    def __panel__(self) -> pn.viewable.Viewable:
        which = pmui.Row(self.benchmark, self.run, self.task, self.variant, self.refresh_button, margin=(12, 0, 0, 0))
        pair = pmui.Row(self.router, self.experts, self.items, self.pair_button, self.grid_button)
        retrain = pmui.Row(self.steps, self.rate, self.train_button)
        by_hand = pmui.Column(pmui.Row(self.layer, self.hand_button), self.weights)
        titles = ("Retrain the router with frozen experts", "Set one layer's routing by hand")
        more = pmui.Accordion(
            *zip(titles, (retrain, by_hand), strict=True),
            active=[],
            title_variant="subtitle1",
            sizing_mode="stretch_width",
            margin=5,
        )
        queue = card(pmui.Row(pmui.Typography("Queue", variant="h6"), self.cancel_button), self.queue)
        table = self.download("Answers as CSV", "answers.csv", lambda: self.answers.value)
        scores = self.download("Scores as CSV", "reroutings.csv", lambda: self._found)
        pictures = pmui.Row(card(self.grid, scores), card(self.curve), sizing_mode="stretch_width")
        answers = card(pmui.Row(self.results, table), self.answers)
        parts = (which, self.note, pair, more, pictures, queue, answers, pn.pane.Markdown(ABOUT))
        return pmui.Column(*parts, sizing_mode="stretch_width")


def _curve(key: str, name: str, curve: tuple[tuple[int, float], ...]) -> go.Figure:
    table = pd.DataFrame(curve, columns=["step", "loss"])
    return figures.retraining_curves(table.assign(id=key, name=name), "Loss while the routers alone are trained")


def _offer(widget: Any, options: dict[str, Any]) -> None:
    value = widget.value if widget.value in options.values() else next(iter(options.values()), None)
    widget.param.update(options=options, value=value)


def _row(job: Job) -> dict[str, str]:
    when = datetime.fromtimestamp(job.submitted).strftime("%H:%M:%S")
    row = {"state": job.state, "done": f"{100 * job.share:.0f} %", "asked": job.title, "run": job.run}
    return row | {"user": job.user, "submitted": when, "message": job.message}


def _label(row: Any) -> str:
    router = f"R{int(row.router) + 1}" if row.router.isdecimal() else row.router
    text = f"{router} · E{row.experts + 1} · {row.items} items"
    text += f" · {row.retrained_steps} steps" if row.retrained_steps else ""
    text += " · by hand" if row.layer else ""
    return f"{text} · score {row.score:.3f} · {row.id[:6]}"
