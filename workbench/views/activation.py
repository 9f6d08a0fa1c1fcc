"""Activation: which experts rest at any τ, why, and how it went during training."""

from collections.abc import Hashable
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import panel as pn
import panel_material_ui as pmui

from workbench import figures, tables
from workbench.figures.activation import STEP_MEASURES
from workbench.store import Store
from workbench.views._base import Visitor, card
from workbench.views._run import RunView

ABOUT = (
    "For each expert i of a layer: U(i), the mean of ωᵢ over the task being trained (**utilisation**), and F(i), the "
    "mean of ωᵢ(x)·‖x‖² over past tasks (**importance**). **Score**(i) = minmax(U)(i) − minmax(F)(i), in [−1, 1]; an "
    "expert whose score is below τ rests, but never the best of a layer, and none in the first task. The slider asks "
    "who would have rested at another τ, by the scores that the run recorded; with another τ it would have trained on "
    "other experts from there on."
)
FREEZE = "i rests ⇔ minmax(U)(i) − minmax(F)(i) < τ"


class Activation(RunView):
    """Scores of every expert, utilisation against importance, history during training."""

    title: ClassVar[str] = "Activation"
    order: ClassVar[int] = 40
    file: ClassVar[str] = "activation.parquet"
    lacking: ClassVar[str] = (
        "No run of this benchmark scored its experts. Train one that does: --method same or same_plus."
    )
    pages: ClassVar[dict[str, str]] = {"Which experts rest": "experts", "During training": "history"}

    def __init__(self, store: Store, visitor: Visitor | None = None, **params: Any):
        super().__init__(store, visitor, **params)
        self.layer = pmui.Select(label="Layer", options=[], width=170)
        self.measure = pmui.Select(
            label="Of every step",
            options=dict(zip(STEP_MEASURES.values(), STEP_MEASURES, strict=True)),
            value="active",
            width=290,
        )
        self.watch(self.layer, self.redraw)
        self.watch(self.measure, self.redraw)
        self.remember(layer=self.layer, measure=self.measure)
        self.threshold = self.slider(
            "tau", "τ freeze threshold", [round(float(tau), 3) for tau in np.linspace(-1, 1, 81)], FREEZE
        )
        self.map, self.scatter, self.curve = self.plot(), self.plot(), self.plot()
        self.history, self.steps = self.plot(), self.plot()
        self.scored = pd.DataFrame()
        self._scored_key: Hashable = None
        self.refresh()

    def own(self, run: str) -> dict[str, float]:
        """τ that the run was trained with."""
        return {"tau": tables.freeze_threshold_of(self.store, run)}

    def take(self, run: str) -> None:
        """Offer the layers whose experts the run scored."""
        if self._scored_key == self.key:
            return
        self.scored = tables.activation(self.store, run)
        self._scored_key = self.key
        layers = list(dict.fromkeys(self.scored["layer"]))
        with self.quiet():
            layer = self.layer.value if self.layer.value in layers else next(iter(layers), None)
            self.layer.param.update(options=layers, value=layer)

    def draw_page(self, run: str, after: int) -> None:
        """Draw one page; what does not depend on the slider that was moved is the figure that is there."""
        if self.page.value == "experts":
            self._draw_experts(after, self.threshold.value)
        else:
            self._draw_history(run, self.threshold.value)

    def _draw_experts(self, after: int, tau: float) -> None:
        key, task, scored = (self.key, after, tau), f"Task {after + 1}", self.scored
        self.draw(self.map, key, lambda: figures.score_map(_acted_on(scored, after, tau), tau, f"Scores in {task}"))
        self.draw(
            self.scatter,
            key,
            lambda: figures.expert_scatter(_acted_on(scored, after, tau), tau, f"U and F of every expert in {task}"),
        )
        self.draw(self.curve, (self.key, tau), lambda: figures.freezing_curve(tables.freezing(scored), tau))

    def _draw_history(self, run: str, tau: float) -> None:
        layer, measure, scored = self.layer.value, self.measure.value, self.scored
        self.draw(
            self.history,
            (self.key, layer, tau),
            lambda: figures.score_history(
                scored[scored["layer"] == layer], tau, f"Scores of layer {layer}'s experts during training"
            ),
        )
        key = (self.key, self.store.key([run], "events.jsonl"), measure)  # snapshots come task by task, steps all along
        self.draw(self.steps, key, lambda: figures.step_curve(tables.steps(self.store, [run]), measure))

    def sheet(self, page: str) -> pmui.Column:
        """Lay out a page."""
        if page == "experts":
            scores = self.download(
                "Scores as CSV", "scores.csv", lambda: _acted_on(self.scored, self.after.value, self.threshold.value)
            )
            shares = self.download("Shares as CSV", "freezing.csv", lambda: tables.freezing(self.scored))
            right = pmui.Column(card(self.scatter), card(self.curve, shares), sizing_mode="stretch_width")
            return pmui.Column(
                pmui.Row(card(self.map, scores), right, sizing_mode="stretch_width"), sizing_mode="stretch_width"
            )
        steps = self.download("Steps as CSV", "steps.csv", lambda: tables.steps(self.store, [self.run.value]))
        whole = self.download("All scores as CSV", "activation.csv", lambda: self.scored)
        history = pmui.Column(self.layer, card(self.history, whole), sizing_mode="stretch_width")
        during = pmui.Column(self.measure, card(self.steps, steps), sizing_mode="stretch_width")
        return pmui.Column(pmui.Row(history, during, sizing_mode="stretch_width"), sizing_mode="stretch_width")

    def __panel__(self) -> pn.viewable.Viewable:
        return self.laid_out((), ABOUT)


def _acted_on(scored: pd.DataFrame, after: int, tau: float) -> pd.DataFrame:
    """The scores that a task last acted on, with who rests at τ."""
    return tables.at_threshold(tables.last_scored(scored, after), tau)
