"""Router drift: where one task's inputs are sent after each later task, by layer."""

from contextlib import suppress
from typing import Any, ClassVar

import pandas as pd
import panel as pn
import panel_material_ui as pmui

from same.errors import SnapshotError
from workbench import figures
from workbench.store import MEAN_LAYER, Drift, Store, at_layer
from workbench.views._base import NO_RUNS, View, Visitor, card
from workbench.views._panes import Slider

ABOUT = (
    "ω(x) = softmax(W_G x) is a token's routing over the experts. Its mean over the test inputs of one task is "
    "measured after that task and after every later one. **Overlap** = Σ min(p, q) of the two distributions: 1 is "
    "unchanged routing, 0 means that the tokens now go to other experts."
)

CHOOSE = "Choose at least one run whose method has experts (for example same) and that has finished this task."


class RouterDrift(View):
    """Expert distribution over stages for the chosen layer, overlap curves, overlap of every layer."""

    title: ClassVar[str] = "Router drift"
    order: ClassVar[int] = 10

    def __init__(self, store: Store, visitor: Visitor | None = None, **params: Any):
        super().__init__(store, visitor, **params)
        self.chosen = pmui.MultiChoice(label="Runs", options={}, value=[], width=380)
        self.probe = pmui.Select(label="Inputs of", options={}, width=200)
        self.layer = Slider(label="Layer", options={MEAN_LAYER: None}, value=None, width=280)
        self.distribution, self.curve, self.heatmap = self.plot(), self.plot(), self.plot()
        self.labels: list[str] = []
        self.damage: list[str] = []
        self.drift = Drift(None, pd.DataFrame(), pd.DataFrame())
        self.watch(self.chosen, self._load)
        self.watch(self.probe, self._load)
        self.watch(self.layer, self._draw_distribution)
        self.remember(benchmark=self.benchmark, task=self.probe, runs=self.chosen, layer=self.layer)
        self.refresh()

    def fill(self) -> None:
        """Offer the runs of the chosen benchmark and draw them."""
        table = self.store.overview()
        table = table[
            (table["benchmark"] == self.benchmark.value) & (table["state"] != "damaged") & (table["tasks"] > 0)
        ]
        self.labels = list(table["label"])
        options = dict(zip(table["label"], table["run"], strict=True))
        probes = {f"Task {index + 1} · {task}": index for index, task in enumerate(self._tasks(table))}
        routed = self._with_experts(table)
        kept = [run for run in self.chosen.value if run in options.values()]
        with self.quiet():
            self.chosen.param.update(options=options, value=kept or routed[:4])
            probe = self.probe.value if self.probe.value in probes.values() else next(iter(probes.values()), None)
            self.probe.param.update(options=probes, value=probe)
        self._load()

    def _tasks(self, table: pd.DataFrame) -> list[str]:
        """The benchmark's tasks, from the first run that has scores: one that is being trained may have none yet."""
        for run in table["run"]:
            with suppress(SnapshotError):
                return self.store.tasks(run)
        return []

    def _with_experts(self, table: pd.DataFrame) -> list[str]:
        """The runs that recorded routing; what is damaged is left out and noted, so that the others can be drawn."""
        found = []
        self.damage = []
        for run in table["run"]:
            try:
                if len(self.store.routing([run])):
                    found.append(run)
            except SnapshotError as error:
                self.damage.append(str(error))
        return found

    def _load(self) -> None:
        drift = self.drift = self.store.drift(self.chosen.value, self.probe.value or 0)
        if not self.labels:
            self.tell(NO_RUNS)
        elif drift.routing.empty:
            self.tell("  ".join([CHOOSE, *self.damage]))
        else:
            self.tell("  ".join(self.damage), "warning")
        options: dict[str, str | None] = {MEAN_LAYER: None} | {
            name: name for name in dict.fromkeys(drift.routing["layer"])
        }
        value = self.layer.value if self.layer.value in options.values() else None
        with self.quiet():
            self.layer.param.update(options=options, value=value)
        self._draw_distribution()
        task, labels = f"Task {(self.probe.value or 0) + 1}", tuple(self.labels)
        title = f"Overlap with {task}'s own routing, "
        self.draw(
            self.curve,
            (drift.key, labels),
            lambda: figures.overlap_curve(drift.overlap, labels, f"{title}mean over layers"),
        )
        self.draw(self.heatmap, drift.key, lambda: figures.overlap_heatmap(drift.overlap, f"{title}by layer"))

    def _draw_distribution(self) -> None:
        drift, layer = self.drift, self.layer.value
        where = f"layer {layer}" if layer else MEAN_LAYER
        title = f"Expert activation of Task {(self.probe.value or 0) + 1}'s inputs, {where}"
        self.draw(
            self.distribution,
            (drift.key, layer),
            lambda: figures.expert_distribution(at_layer(drift.routing, layer), at_layer(drift.overlap, layer), title),
        )

    def __panel__(self) -> pn.viewable.Viewable:
        controls = pmui.Row(
            self.benchmark, self.probe, self.chosen, self.layer, self.refresh_button, margin=(12, 0, 0, 0)
        )
        routing = self.download("Routing as CSV", "routing.csv", lambda: self.drift.routing)
        overlap = self.download("Overlap as CSV", "overlap.csv", lambda: self.drift.overlap)
        right = pmui.Column(card(self.curve), card(self.heatmap, overlap), sizing_mode="stretch_width")
        pictures = pmui.Row(card(self.distribution, routing), right, sizing_mode="stretch_width")
        return pmui.Column(controls, self.note, pictures, pn.pane.Markdown(ABOUT), sizing_mode="stretch_width")
