"""What δ, ρ and μ would protect of a run's past inputs, drawn again with every move of a slider."""

from dataclasses import replace
from pathlib import Path

import ipywidgets

from workbench import figures, tables
from workbench.store import Store
from workbench.widgets._base import Pickers, Plot, choice, page, slider, together


def explore(runs: Path) -> ipywidgets.VBox:
    """Pick a run that keeps covariances, a stage and an input; move δ, ρ and μ; nothing is trained."""
    store = Store(runs)
    pick = Pickers(store, lambda table: table[[bool(tables.inputs(store, run)) for run in table["run"]]])
    rules = tables.rules_of(store, pick.run.value)
    delta = slider("energy threshold", "δ", rules.energy_threshold, 0.05, 1.0, 0.01)
    window = ipywidgets.IntSlider(description="window ρ", value=rules.window, min=1, max=16)
    mu = ipywidgets.FloatLogSlider(description="damping μ", value=rules.damping, min=-2, max=2, step=0.05)
    layer = choice("input", tables.inputs(store, pick.run.value))
    kept, gains, left = Plot(), Plot(), Plot()

    def draw() -> None:
        run, after = pick.run.value, pick.task.value
        names = tables.inputs(store, run)
        if list(layer.options) != names:
            layer.options = names
        asked = replace(
            tables.rules_of(store, run), energy_threshold=delta.value, window=window.value, damping=mu.value
        )
        spectra, passed = tables.spectra(store, run, after, asked.energy), tables.gains(store, run, after, asked)
        kept.draw(figures.spectrum(spectra[spectra["input"] == layer.value], delta.value))
        gains.draw(figures.gain_curve(passed[passed["input"] == layer.value]))
        left.draw(figures.protection(tables.protection(store, run, after, asked)))

    together(draw, pick.run, pick.task, layer, delta, window, mu)
    controls = [pick.run, pick.task, layer, delta, window, mu]
    return page("What δ, ρ and μ would protect", controls, kept.widget, gains.widget, left.widget)
