"""Widgets for notebooks: they draw at once, follow their controls, and say in words what is missing."""

from pathlib import Path
from typing import Any

import ipywidgets
import pytest
from PIL import Image

from same import registry
from same.errors import InputError
from tests.workbench import deep
from workbench.widgets import explore


def inside(widget: Any, kind: type) -> list[Any]:
    """The widgets of a kind below one, in order."""
    below = [found for child in getattr(widget, "children", ()) for found in inside(child, kind)]
    return [widget, *below] if isinstance(widget, kind) else below


def figures_of(widget: Any) -> list[Any]:
    import plotly.graph_objects as go

    return inside(widget, go.FigureWidget)


def control(widget: Any, name: str) -> Any:
    return next(found for found in inside(widget, ipywidgets.DOMWidget) if name in getattr(found, "description", ""))


@pytest.mark.parametrize("name", registry.names("workbench.widgets"))
def test_a_folder_without_runs_is_answered_in_words(name: str, tmp_path: Path) -> None:
    made = explore(name, tmp_path)
    assert isinstance(made, ipywidgets.HTML)
    assert "10_train" in made.value


def test_an_unknown_widget_is_refused_with_the_choices(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Unknown widget 'protect'\. Did you mean 'protected'"):
        explore("protect", tmp_path)


def test_spectra_follow_every_slider(deep_runs: Path) -> None:
    made = explore("protected", deep_runs)
    kept, gains, left = figures_of(made)
    before = kept.layout.title.text, kept.data[0].name
    control(made, "δ").value = 0.5
    assert (kept.layout.title.text, kept.data[0].name) != before
    assert "δ = 0.5" in kept.layout.title.text
    assert len(kept.data) == 1, "the old lines are gone"
    shown = list(left.data[1].x)
    control(made, "damping μ").value = 0.05
    assert list(left.data[1].x) != shown
    control(made, "δ").value = 0.99
    passed = list(gains.data[0].y)
    control(made, "window ρ").value = 1
    assert list(gains.data[0].y) != passed
    control(made, "input").value = control(made, "input").options[-1]
    assert kept.data[0].name.startswith(control(made, "input").value)


def test_tau_says_how_many_rest(deep_runs: Path) -> None:
    made = explore("resting", deep_runs)
    said = next(text for text in inside(made, ipywidgets.HTML) if "would rest" in text.value)
    control(made, "τ").value = -1.0
    assert said.value.startswith("0 of ")
    control(made, "τ").value = 1.0
    assert not said.value.startswith("0 of ")
    control(made, "after task").value = 0
    assert said.value.startswith("0 of "), "nothing rests in the first task"


def test_layers_and_tau_are_those_of_the_run_that_is_picked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layers, taus = {"same": len(deep.LAYERS), "same_plus": 3}, {"same": deep.THRESHOLD, "same_plus": -0.4}
    for method, tau in taus.items():
        monkeypatch.setattr(deep, "LAYERS", deep.LAYERS[: layers[method]])
        monkeypatch.setattr(deep, "THRESHOLD", tau)
        deep.write_deep_run(tmp_path, method, 0.1)
    for name in ("drift", "resting"):
        made = explore(name, tmp_path)
        run, layer = control(made, "run"), control(made, "layer")
        for method, value in [*run.options, *run.options]:
            layer.value = layer.options[-1]
            run.value = value
            assert len(layer.options) == 1 + layers[method]
            assert name == "drift" or control(made, "τ").value == pytest.approx(taus[method])


def test_drift_follows_run_task_and_layer(runs: Path) -> None:
    made = explore("drift", runs)
    bars, _ = figures_of(made)
    control(made, "run").value = control(made, "run").options[-1][1]
    control(made, "layer").value = "0.gate"
    assert bars.layout.title.text.endswith("0.gate")
    control(made, "inputs of").value = 3
    assert "Task 4" in bars.layout.title.text


def test_examples_show_both_answers_and_route_on_demand(variants: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    asked: list[Any] = []

    def routing(run: Any, after: int, task: str, question: str) -> list[dict[str, Any]]:
        asked.append((after, task, question))
        about = {"layer": "layers.0.mlp.up_proj", "expert": 0, "weight": 1.0}
        patch = {**about, "position": 0, "token": "", "row": 0, "column": 0}
        return [patch, {**about, "position": 1, "token": "What", "row": None, "column": None}]

    made = explore("examples", variants, picture=lambda *_: tmp_path / "red.png", routing=routing)
    assert "answer when the task was learned" in inside(made, ipywidgets.HTML)[2].value, "it shows one at once"
    stage = control(made, "after task")
    stage.value = stage.options[0][1]
    stage.value = stage.options[-1][1]
    control(made, "show").value = "wrong in form alone"
    picture, text = inside(made, ipywidgets.HTML)[1:3]
    assert picture.value.startswith("<img")
    assert "data:image/png;base64," in picture.value
    assert "answer when the task was learned" in text.value
    assert "case" in text.value
    assert asked == []
    control(made, "route its tokens").click()
    assert asked == [(stage.value, "scienceqa", "scienceqa-0")]
    patches, words = figures_of(made)
    assert patches.data[0].z[0][0] == 1.0
    assert list(words.layout.xaxis.ticktext) == ["What"]
