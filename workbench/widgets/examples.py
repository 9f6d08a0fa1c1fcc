"""Test questions one by one: picture, question, reference, the answers before and after, where its tokens go."""

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets
import pandas as pd

from same.errors import InputError
from same.runs import RunFolder
from workbench import answers, figures, tables
from workbench.pictures import SIDE, embedded
from workbench.store import MEAN_LAYER, Store
from workbench.widgets._base import Pickers, Plot, choice, page


def explore(
    runs: Path,
    picture: Callable[[RunFolder, str, str], Path | None] | None = None,
    routing: Callable[[RunFolder, int, str, str], list[dict[str, Any]]] | None = None,
) -> ipywidgets.VBox:
    """Pick a run, a stage and a task, and go through its test questions.

    Args:
        picture: finds a question's picture, such as `same.engine.token_routing.picture_of`; none is shown without.
        routing: gives ω of a question's tokens, such as `same.engine.token_routing.token_routing`; it loads the model,
            so it is asked only by the button.
    """
    return _Browser(Store(runs), picture, routing).page


class _Browser:
    def __init__(self, store: Store, picture: Any, routing: Any) -> None:
        self.store, self.find_picture, self.find_routing = store, picture, routing
        self.pick = Pickers(store)
        self.of = ipywidgets.Dropdown(description="task")
        self.shown = ipywidgets.Dropdown(description="show", options=answers.SHOWN)
        self.number = ipywidgets.IntSlider(description="question", min=1, max=1)
        self.picture = ipywidgets.HTML()
        self.text = ipywidgets.HTML()
        self.button = ipywidgets.Button(description="route its tokens", disabled=routing is None)
        self.layer = choice("layer", [MEAN_LAYER])
        self.patches, self.words = Plot(), Plot()
        self.table, self.weights = pd.DataFrame(), tables.with_short_layers([])
        self.pick.task.observe(lambda _: self._tasks(), "value")
        self.pick.run.observe(lambda _: self._tasks(), "value")
        for control in (self.of, self.shown):
            control.observe(lambda _: self._load(), "value")
        self.number.observe(lambda _: self._show(), "value")
        self.layer.observe(lambda _: self._draw(), "value")
        self.button.on_click(lambda _: self._route())
        self._tasks()
        controls = [self.pick.run, self.pick.task, self.of, self.shown, self.number]
        side_by_side = ipywidgets.HBox([self.picture, self.text])
        routed = [ipywidgets.HBox([self.button, self.layer]), self.patches.widget, self.words.widget]
        self.page = page("Examples", controls, side_by_side, *routed)

    def _tasks(self) -> None:
        names = self.store.tasks(self.pick.run.value)[: (self.pick.task.value or 0) + 1]
        if list(self.of.options) != names:
            self.of.options = names
            self.of.value = names[0]  # loads
        else:
            self._load()

    def _load(self) -> None:
        if self.of.value is None or self.pick.task.value is None:
            return
        table = answers.examples(self.store, self.pick.run.value, self.of.value, self.pick.task.value)
        self.table = answers.shown(table, self.shown.value)
        self.number.max = max(1, len(self.table))
        self.number.value = 1
        self._show()

    def _show(self) -> None:
        self.weights = tables.with_short_layers([])
        self._draw()
        if self.table.empty:
            self.picture.value, self.text.value = "", "<p>No such question.</p>"
            return
        row = self.table.iloc[self.number.value - 1]
        self.text.value = f"<p>{self.number.value} of {len(self.table)}</p>{answers.written(row.to_dict())}"
        self.picture.value = self._picture(str(row["question_id"]))

    def _picture(self, question: str) -> str:
        if self.find_picture is None:
            return ""
        try:
            file = self.find_picture(self.store.folder(self.pick.run.value), self.of.value, question)
        except InputError as error:
            return f"<p style='width:{SIDE}'>{escape(str(error))}</p>"
        return "" if file is None else embedded(file)

    def _route(self) -> None:
        if self.table.empty:
            return
        folder, question = (
            self.store.folder(self.pick.run.value),
            str(self.table.iloc[self.number.value - 1]["question_id"]),
        )
        self.button.description = "routing …"
        try:
            rows = self.find_routing(folder, self.pick.task.value, self.of.value, question)
        except InputError as error:
            self.text.value += f"<p>{escape(str(error))}</p>"
            rows = []
        finally:
            self.button.description = "route its tokens"
        self.weights = tables.with_short_layers(rows)
        self.layer.options = [MEAN_LAYER, *dict.fromkeys(self.weights["layer"])]
        self._draw()

    def _draw(self) -> None:
        layer = self.layer.value
        patches, words = tables.of_patches(self.weights, layer), tables.of_words(self.weights, layer)
        self.patches.draw(figures.routing_map(patches, f"ω of each image patch, {layer}"))
        self.words.draw(figures.token_routing(words, f"ω of each word, {layer}"))
