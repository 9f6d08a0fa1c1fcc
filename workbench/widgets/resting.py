"""Which experts τ would let rest, drawn again with every move of the slider."""

from pathlib import Path

import ipywidgets

from workbench import figures, tables
from workbench.store import Store
from workbench.widgets._base import Pickers, Plot, choice, page, slider, together

ALL = "all"


def explore(runs: Path) -> ipywidgets.VBox:
    """Pick a run that scores its experts, a task and a layer; move τ; nothing is trained."""
    store = Store(runs)
    pick = Pickers(store, lambda table: table[[len(tables.activation(store, run)) > 0 for run in table["run"]]])
    tau = slider("freezing threshold", "τ", _given(store, pick.run.value), -1.0, 1.0, 0.01)
    pick.run.observe(lambda _: setattr(tau, "value", _given(store, pick.run.value)), "value")
    layer = choice("layer", [ALL])
    scatter, curve = Plot(), Plot()
    said = ipywidgets.HTML()

    def draw() -> None:
        scored = tables.activation(store, pick.run.value)
        names = [ALL, *dict.fromkeys(scored["layer"])]
        if list(layer.options) != names:
            layer.options = names
        now = tables.at_threshold(tables.last_scored(scored, pick.task.value), tau.value)
        shown = now if layer.value == ALL else now[now["layer"] == layer.value]
        said.value = f"{int(shown['rests'].sum())} of {len(shown)} experts would rest at τ = {tau.value:.2f}"
        scatter.draw(figures.expert_scatter(shown, tau.value))
        curve.draw(figures.freezing_curve(tables.freezing(scored), tau.value))

    together(draw, pick.run, pick.task, layer, tau)
    controls = [pick.run, pick.task, layer, tau]
    return page("Which experts τ would let rest", controls, said, scatter.widget, curve.widget)


def _given(store: Store, run: str) -> float:
    """The τ that a run was trained with."""
    return float(store.folder(run).config()["settings"]["method"].get("freeze_threshold", 0.0))
