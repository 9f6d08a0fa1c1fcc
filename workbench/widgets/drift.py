"""Where one task's inputs are routed after each later task, layer by layer."""

from pathlib import Path

import ipywidgets

from workbench import figures
from workbench.store import MEAN_LAYER, Store, at_layer, overlap
from workbench.widgets._base import Pickers, Plot, choice, page, together


def explore(runs: Path) -> ipywidgets.VBox:
    """Pick a run and the task whose inputs are followed; slide through the layers."""
    store = Store(runs)
    pick = Pickers(store, lambda table: table[[len(store.routing([run])) > 0 for run in table["run"]]])
    pick.task.description, pick.task.value = "inputs of", 0
    layer = choice("layer", [MEAN_LAYER])
    bars, map_of_layers = Plot(), Plot()

    def draw() -> None:
        routing = store.routing([pick.run.value], probe=pick.task.value or 0)
        names = [MEAN_LAYER, *dict.fromkeys(routing["layer"])]
        if list(layer.options) != names:
            layer.options = names
        drift = overlap(routing)
        one = None if layer.value == MEAN_LAYER else layer.value
        title = f"Expert activation of Task {(pick.task.value or 0) + 1}'s inputs, {layer.value}"
        bars.draw(figures.expert_distribution(at_layer(routing, one), at_layer(drift, one), title))
        map_of_layers.draw(figures.overlap_heatmap(drift))

    together(draw, pick.run, pick.task, layer)
    return page("Router drift", [pick.run, pick.task, layer], bars.widget, map_of_layers.widget)
