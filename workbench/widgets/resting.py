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
    given = store.folder(pick.run.value).config()["settings"]["method"].get("freeze_threshold", 0.0)
    tau = slider("freezing threshold", "τ", float(given), -1.0, 1.0, 0.01)
    layer = choice("layer", [ALL, *dict.fromkeys(tables.activation(store, pick.run.value)["layer"])])
    scatter, curve = Plot(), Plot()
    said = ipywidgets.HTML()

    def draw() -> None:
        scored = tables.activation(store, pick.run.value)
        now = tables.at_threshold(tables.last_scored(scored, pick.task.value), tau.value)
        shown = now if layer.value == ALL else now[now["layer"] == layer.value]
        said.value = f"{int(shown['rests'].sum())} of {len(shown)} experts would rest at τ = {tau.value:.2f}"
        scatter.draw(figures.expert_scatter(shown, tau.value))
        curve.draw(figures.freezing_curve(tables.freezing(scored), tau.value))

    together(draw, pick.run, pick.task, layer, tau)
    controls = [pick.run, pick.task, layer, tau]
    return page("Which experts τ would let rest", controls, said, scatter.widget, curve.widget)
