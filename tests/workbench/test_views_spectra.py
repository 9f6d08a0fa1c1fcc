"""Spectra and Activation without a browser: sliders, pages, links, damage, and runs that have nothing to show."""

from pathlib import Path

import pytest

from tests.workbench import deep
from tests.workbench.synthetic import write_run
from workbench.store import Store
from workbench.views._run import UNREAD, RunView
from workbench.views.activation import Activation
from workbench.views.spectra import Spectra

LAST = len(deep.TASKS) - 1


def title(view: RunView, pane: str) -> str:
    return str(getattr(view, pane).object.layout.title.text)


def test_the_energy_slider_redraws_only_what_depends_on_it(deep_runs: Path) -> None:
    view = Spectra(Store(deep_runs))
    decay, before = view.decay.object, view.ranks.object
    assert title(view, "ranks") == "k at δ = 0.9"
    view.threshold.value = 0.6
    assert view.decay.object is decay
    assert (view.ranks.object.data[0].z <= before.data[0].z).all()
    assert (view.ranks.object.data[0].z < before.data[0].z).any()
    view.threshold.value = 1.0
    assert set(view.ranks.object.data[0].text.flat) == {deep.WIDTH - 2}
    assert all(f"k = {deep.WIDTH - 2}" in trace.name for trace in view.energy.object.data)
    view.own_button.param.trigger("clicks")
    assert title(view, "ranks") == "k at δ = 0.9"


def test_gains_follow_window_and_damping(deep_runs: Path) -> None:
    view = Spectra(Store(deep_runs))
    view.page.value = "gains"
    first = view.protection.object.data
    view.damping.value = 0.1
    routers, experts = view.protection.object.data
    assert (experts.x < first[1].x).all()
    assert (routers.x == first[0].x).all()
    view.threshold.value = 0.99
    narrow = view.protection.object.data[0].x
    view.window.value = 6
    assert (view.protection.object.data[0].x > narrow).any()
    view.inputs.value = ["1.mlp_mid"]
    assert {trace.name for trace in view.gains.object.data} == {"1.mlp_mid"}


def test_angles_are_of_the_chosen_input_and_none_where_no_probe_is(deep_runs: Path, tmp_path: Path) -> None:
    view = Spectra(Store(deep_runs))
    view.page.value = "angles"
    view.compared.value = "1.mlp_mid"
    assert "1.mlp_mid" in title(view, "angles")
    assert view.angles.object.data[0].z.shape == (LAST + 1, LAST + 1)
    view = Spectra(Store(without(tmp_path, "probe.safetensors")))
    view.page.value = "angles"
    assert "No probe was recorded" in view.angles.object.layout.annotations[0].text


def without(runs: Path, name: str) -> Path:
    """A run whose snapshots lack a file, as of a method that does not write it."""
    run = deep.write_deep_run(runs, "same", 0.1)
    for after in range(LAST + 1):
        kept = {path.name: path.read_bytes() for path in run.snapshot(after).path.iterdir()}
        del kept["manifest.json"], kept[name]

        def fill(folder: Path, kept: dict[str, bytes] = kept) -> None:
            for file, content in kept.items():
                (folder / file).write_bytes(content)

        run.snapshot(after).write(fill)
    return runs


def test_the_threshold_says_who_rests(deep_runs: Path) -> None:
    view = Activation(Store(deep_runs))
    assert view.threshold.value == deep.THRESHOLD
    view.threshold.value = 1.0
    marked = (view.map.object.data[0].text == "×").sum(axis=1)
    assert set(marked) == {deep.EXPERTS - 1}
    assert view.scatter.object.data[1].name == f"would rest ({len(deep.LAYERS) * (deep.EXPERTS - 1)})"
    view.after.value = 0
    assert not (view.map.object.data[0].text == "×").any()
    view.page.value = "history"
    view.layer.value = "1.up"
    assert "1.up" in title(view, "history")
    assert len(view.history.object.data) == deep.EXPERTS
    steps = view.steps.object
    view.threshold.value = 0.0
    assert view.steps.object is steps
    view.measure.value = "loss"
    assert "Loss" in title(view, "steps")


def test_steps_that_a_live_run_has_taken_since_are_drawn_by_refresh(tmp_path: Path) -> None:
    run = deep.write_deep_run(tmp_path, "same", 0.2)
    view = Activation(Store(tmp_path))
    view.page.value = "history"
    (before,) = view.steps.object.data
    run.append_event("step", task=len(deep.TASKS), step=5, steps=10, loss=0.5, active_experts=[3, 3])
    view.refresh()
    (after,) = view.steps.object.data
    assert (len(after.x), after.x[-1], after.y[-1]) == (len(before.x) + 1, len(deep.TASKS) + 0.5, 3.0)


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        (Spectra, {"page": "gains", "inputs": "1.mlp_in", "after": "1", "delta": "0.7", "rho": "8", "mu": "20"}),
        (Activation, {"page": "history", "layer": "1.down", "after": "2", "tau": "-0.3", "measure": "loss"}),
    ],
)
def test_a_link_brings_a_state_back(kind: type[RunView], state: dict[str, str], deep_runs: Path) -> None:
    store = Store(deep_runs)
    view = kind(store)
    run = view.run.options["same_plus"]
    view.restore({"run": run, **state})
    said = view.state()
    assert said | {"run": run, **state} == said
    other = kind(store)
    other.restore(said)
    other.restore({"delta": "7", "tau": "x", "page": "nowhere"})
    assert other.state() == said


def test_a_link_without_layer_inputs_shows_none(deep_runs: Path) -> None:
    view, other = Spectra(Store(deep_runs)), Spectra(Store(deep_runs))
    view.inputs.value = []
    assert view.state()["inputs"] == "none"
    other.restore(view.state())
    assert other.inputs.value == []
    assert not other.decay.object.data


@pytest.mark.parametrize(("kind", "file"), [(Spectra, "spectrum.safetensors"), (Activation, "activation.parquet")])
def test_damage_is_said_and_the_other_runs_are_drawn(kind: type[RunView], file: str, tmp_path: Path) -> None:
    deep.write_deep_run(tmp_path, "same", 0.1)
    broken = deep.write_deep_run(tmp_path, "moelora", 0.1)
    (broken.path / "config.json").write_text("{}", encoding="utf-8")
    bad = deep.write_deep_run(tmp_path, "same_plus", 0.1)
    for after in range(LAST + 1):
        path = bad.snapshot(after).path / file
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    view = kind(Store(tmp_path))
    assert "moelora is damaged" in view.note.object
    assert "cannot" not in view.note.object
    assert list(view.run.options) == ["same", "same_plus"]
    first = view.ranks if isinstance(view, Spectra) else view.map
    assert first.object.data
    view.run.value = view.run.options["same_plus"]
    assert view.note.alert_type == "error"
    assert f"{file} is damaged" in view.note.object
    assert first.object.layout.annotations[0].text == UNREAD
    view.run.value = view.run.options["same"]
    assert view.note.alert_type == "warning"
    assert first.object.data


@pytest.mark.parametrize("kind", [Spectra, Activation])
def test_without_a_run_that_has_it_a_view_says_what_to_do(kind: type[RunView], tmp_path: Path) -> None:
    view = kind(Store(tmp_path))
    assert "same train" in view.note.object
    write_run(tmp_path, "lora")
    view.refresh()
    assert "--method same or same_plus" in view.note.object
    view.page.value = list(view.pages.values())[1]
    view.own_button.param.trigger("clicks")
    deep.write_deep_run(tmp_path, "same", 0.1)
    view.refresh()
    assert not view.note.visible
    assert list(view.run.options) == ["same"]
    slider = next(iter(view.sliders.values()))
    slider.value = slider.options[3]
    view.refresh()
    assert slider.value == slider.options[3]
