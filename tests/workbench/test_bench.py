"""The bench: what it asks of the server, and that visitors see what they move."""

import asyncio
import json
from pathlib import Path
from time import monotonic

import panel as pn
import pytest
from bokeh.core.serialization import Serializer

from same.errors import InputError
from tests.workbench.screenshot import CHROMIUM, served
from workbench.bench.clients import Visitor, crowd
from workbench.bench.measure import SCENES, Load, measure_on
from workbench.bench.snapshots import Size, write_runs
from workbench.store import Store
from workbench.views._panes import Ready, Slider
from workbench.views.spectra import Spectra

SMALL = Size(layers=2, width=32, hidden=48, experts=3, tasks=3, directions=8)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs as the bench's, of a small model."""
    folder = tmp_path_factory.mktemp("bench")
    write_runs(folder, SMALL, ("steady", "drifting"))
    return folder


def test_a_load_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match=r"Unknown view 'spectrum'.*'spectra'"):
        Load(view="spectrum")
    with pytest.raises(InputError, match="--sessions must be from 1 to 1000; got 0"):
        Load(sessions=0)


def test_a_list_is_sent_as_bokeh_would_and_told_from_another() -> None:
    values = [1.5, float("nan"), "a", None, [1, 2]]
    assert Serializer().encode(Ready(values)) == Serializer().encode(values)
    assert Ready([1, 2]) == Ready([1, 2]) != Ready([1, 3])


def test_sessions_share_what_is_sent_of_a_figure_and_never_its_dictionaries(small: Path) -> None:
    first, second = (Spectra(Store(small)).ranks for _ in range(2))
    assert first.object is second.object
    sent = [pane._plotly_json_wrapper(pane.object) for pane in (first, second)]
    assert sent[0]["data"][0]["z"] is sent[1]["data"][0]["z"]
    assert sent[0]["data"][0] is not sent[1]["data"][0]
    numbers = json.dumps(Serializer().encode(sent[0]["data"][0]["z"]))
    assert json.loads(numbers) == first.object.data[0].z.tolist()


def test_a_slider_answers_its_first_move_at_once_and_then_at_panels_pace() -> None:
    slider, usual = Slider(options=[1, 2, 3]), pn.widgets.IntSlider._debounce
    assert slider._debounce == 0
    begun = monotonic()
    for pauses in range(1, 4):
        wait, passed = slider._debounce, 1000 * (monotonic() - begun)
        assert pauses * usual - passed - 1 <= wait <= pauses * usual + 1
    slider._free = monotonic() + 10
    assert 5_000 < slider._debounce <= 10_000
    slider._free = monotonic() - 1
    assert slider._debounce == 0


def test_large_maps_have_no_numbers_in_their_cells(small: Path, tmp_path: Path) -> None:
    write_runs(tmp_path, Size(layers=30, width=8, hidden=8, experts=2, tasks=2, directions=4), ("steady",))
    cells = [Spectra(Store(folder)).ranks.object.data[0].texttemplate for folder in (small, tmp_path)]
    assert cells == ["%{text}", None]


@pytest.mark.slow
@pytest.mark.parametrize("view", SCENES)
def test_visitors_move_a_slider_and_get_all_its_pictures_in_one_message(small: Path, view: str) -> None:
    scene, messages = SCENES[view], []

    class Counting(Visitor):
        async def _until(self, kind: str, holding: str = "") -> str:
            messages.append(await super()._until(kind, holding))
            return messages[-1]

    with served(small) as address:
        visitors = [Counting(f"{address}/?view={view}", scene.slider, scene.pictures) for _ in range(3)]
        seen = asyncio.run(crowd(visitors, 4.0, 0.5, messages.clear))
    assert seen.errors == []
    assert len(seen.waits) >= len(visitors)
    assert [message.count('"_render_count"') for message in messages] == [scene.pictures] * len(seen.waits)


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium")
def test_the_bench_measures_a_browser_and_a_crowd(small: Path) -> None:
    found = measure_on(small, Load(minutes=0.05, sessions=2))
    assert (found["errors"], found["first_errors"]) == (0, [])
    assert 0 < found["first_contentful_paint_s"] <= found["first_paint_s"]
    assert found["slider_p95_ms_1"] > 0
    assert found["slider_p95_ms_50"] > 0
    assert "megabytes_per_session" in found
