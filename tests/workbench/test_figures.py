"""Figures: units on axes, safe colours, something said where there is nothing to draw."""

import inspect
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest

from tests.workbench.deep_drawn import drawn_deep
from tests.workbench.drawn import drawn_variants
from workbench import figures
from workbench.figures._style import DARK, OKABE_ITO, dress, marks
from workbench.store import Store, at_layer, overlap
from workbench.trials import cells, plain
from workbench.trials import corners as corners_of

DRAWABLE = {"bar", "heatmap", "scatter"}  # drawn alike by the plotly.js of notebooks and of Panel


def drawn(runs: Path) -> dict[str, go.Figure]:
    store = Store(runs)
    names = plain(store, "mini-coin", ["moelora", "same"])
    routing = store.routing(names)
    moved = overlap(routing)
    tables = {
        "mean": (at_layer(routing), at_layer(moved)),
        "0.up": (at_layer(routing, "0.up"), at_layer(moved, "0.up")),
    }
    patches = [(e, r, c, 1 / (1 + e + r)) for e in range(4) for r in range(3) for c in range(3)]
    energy = pd.DataFrame({"input": "0.mlp_in", "k": [1, 2, 3], "kept": [0.6, 0.96, 1.0]})
    return {
        "score_matrix": figures.score_matrix(store.scores(names[0])),
        "metric_comparison": figures.metric_comparison(store.metrics(names)),
        "expert_distribution": figures.expert_distribution(*tables["mean"]),
        "expert_distribution_by_layer": figures.expert_distribution_by_layer(tables),
        "overlap_curve": figures.overlap_curve(moved),
        "overlap_heatmap": figures.overlap_heatmap(moved),
        "routing_map": figures.routing_map(pd.DataFrame(patches, columns=["expert", "row", "column", "weight"])),
        "spectrum": figures.spectrum(energy, 0.95),
    }


@pytest.fixture(scope="module")
def pictures(runs: Path, deep_runs: Path, variants: Path) -> dict[str, go.Figure]:
    return drawn(runs) | drawn_deep(deep_runs) | drawn_variants(variants)


def test_every_figure_is_drawn_here(pictures: dict[str, go.Figure]) -> None:
    assert set(pictures) == set(figures.__all__)


@pytest.mark.parametrize("name", figures.__all__)
def test_figures_use_traces_that_every_renderer_knows_and_have_titles(
    pictures: dict[str, go.Figure], name: str
) -> None:
    assert {trace.type for trace in pictures[name].data} <= DRAWABLE
    assert pictures[name].layout.title.text


@pytest.mark.parametrize("name", sorted(set(figures.__all__) - {"routing_map"}))
def test_axes_say_what_they_measure(pictures: dict[str, go.Figure], name: str) -> None:
    layout = pictures[name].layout
    for axis in ("xaxis", "yaxis"):
        assert any(layout[key].title.text for key in layout if key.startswith(axis))


def test_the_heat_map_holds_the_scores(runs: Path, pictures: dict[str, go.Figure]) -> None:
    heat = pictures["score_matrix"].data[0]
    assert heat.z.shape == (9, 8)
    assert heat.y[0] == "zero-shot"
    assert heat.z[1, 0] == pytest.approx(0.9)


def test_stacked_bars_sum_to_one(pictures: dict[str, go.Figure]) -> None:
    bars = [trace for trace in pictures["expert_distribution"].data if trace.type == "bar"]
    assert sum(trace.y[0] for trace in bars[:8]) == pytest.approx(1)


def test_stages_are_named_from_1_on_axes_and_under_the_pointer(runs: Path) -> None:
    store = Store(runs)
    routing = store.routing(plain(store, "mini-coin", ["same"]), probe=3)
    moved = overlap(routing)
    tables = at_layer(routing), at_layer(moved)
    for figure in (figures.expert_distribution(*tables), figures.overlap_curve(moved), figures.overlap_heatmap(moved)):
        axis, trace = figure.layout.xaxis, figure.data[0]
        ticks = dict(zip(axis.tickvals, axis.ticktext, strict=True))
        assert [ticks[after] for after in trace.x] == ["4", "5", "6", "7", "8"]
        named = trace.customdata if trace.type != "heatmap" else trace.customdata[0]
        assert list(named) == [4, 5, 6, 7, 8]
        assert "after Task %{customdata}" in trace.hovertemplate


def test_more_experts_than_hues_stay_apart() -> None:
    parts = [{"label": "a", "after": 0, "expert": expert, "weight": 0.1} for expert in range(10)]
    moved = pd.DataFrame({"label": ["a"], "after": [0], "overlap": [1.0]})
    bars = figures.expert_distribution(pd.DataFrame(parts), moved).data[:10]
    assert len({(bar.marker.color, bar.marker.pattern.shape) for bar in bars}) == 10


def test_the_slider_shows_one_layer_at_a_time(pictures: dict[str, go.Figure]) -> None:
    figure = pictures["expert_distribution_by_layer"]
    masks = [step.args[0]["visible"] for step in figure.layout.sliders[0].steps]
    assert [sum(mask) for mask in masks] == [len(figure.data) // 2] * 2
    assert not any(all(pair) for pair in zip(*masks, strict=True))
    assert [bool(trace.visible) for trace in figure.data] == masks[0]


def test_the_rank_that_reaches_the_threshold_is_named(pictures: dict[str, go.Figure]) -> None:
    assert pictures["spectrum"].data[0].name.endswith("k = 2")


def test_a_run_keeps_its_mark_when_others_are_hidden() -> None:
    assert marks(["a", "b", "c"])["b"] == marks(["a", "b"])["b"]
    assert len({mark.colour for mark in marks("abcdefgh").values()}) == len(OKABE_ITO)


def test_nothing_to_draw_is_said_in_words() -> None:
    for name in figures.__all__:
        draw = getattr(figures, name)
        if name == "expert_distribution_by_layer":
            continue
        needed = [p for p in inspect.signature(draw).parameters.values() if p.default is p.empty]
        tables = [0.9 if parameter.name == "threshold" else pd.DataFrame({"value": []}) for parameter in needed]
        assert draw(*tables).layout.annotations[0].text


def test_dark_dress_reaches_every_axis(pictures: dict[str, go.Figure]) -> None:
    figure = dress(go.Figure(pictures["overlap_heatmap"]), dark=True)
    axes = [figure.layout[key] for key in figure.layout if key.startswith(("xaxis", "yaxis"))]
    assert {axis.gridcolor for axis in axes} == {DARK["line"]}
    assert figure.layout.paper_bgcolor == "rgba(0, 0, 0, 0)"


def test_re_routings_are_drawn_by_what_routed_them(pictures: dict[str, go.Figure]) -> None:
    curves = pictures["rerouting_curve"]
    names = [trace.name for trace in curves.data if trace.showlegend]
    assert names[:3] == ["their own router", "router retrained", "oracle router"]
    random = next(trace for trace in curves.data if trace.name == "random router")
    assert random.error_y.visible
    assert not curves.data[0].error_y.visible
    assert [len(bar.x) for bar in pictures["rerouting_controls"].data] == [5, 5, 5]
    assert "interaction" in pictures["swap"].layout.xaxis.title.text
    places = {trace.name: list(trace.textposition) for trace in pictures["swap"].data}
    assert all({one, other} == {"top center", "bottom center"} for one, other in zip(*places.values(), strict=True))


def test_axes_name_the_setting_and_what_the_metric_can_be(pictures: dict[str, go.Figure], variants: Path) -> None:
    layout = pictures["sensitivity"].layout
    assert [layout[axis].title.text for axis in ("xaxis", "xaxis2")] == ["μ, damping<br>(mean eigenvalues)", "gain"]
    assert layout.yaxis.title.text == "last (mean score; 1: all right)"
    corners = corners_of(Store(variants), "mini-coin", "same")
    lost = figures.factorial_corners(cells(corners.assign(bwt=-0.5), "bwt"), "bwt").layout.xaxis
    assert lost.title.text == "bwt (difference of scores, −1 to 1)"
    assert lost.range[0] < -0.5
    assert lost.range[1] == 0
    assert pictures["rerouting_curve"].layout.yaxis.title.text == "score (1: all right)"


def test_experts_that_would_rest_are_marked_and_counted(pictures: dict[str, go.Figure]) -> None:
    trains, rests = pictures["expert_scatter"].data
    marks_drawn = (pictures["score_map"].data[0].text == "×").sum()
    assert marks_drawn == len(rests.x) > 0
    assert all(u - f >= 0.1 or u - f == 0 for u, f in zip(trains.x, trains.y, strict=True))
    assert rests.name == f"would rest ({marks_drawn})"
