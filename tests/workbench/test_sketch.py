"""What a page shows before its scripts are there."""

import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.workbench import synthetic
from tests.workbench.screenshot import CHROMIUM, browser_page, open_view, served
from workbench.store import Store
from workbench.views._sketch import MOST, coloured, luminance, plain
from workbench.views.drift import RouterDrift
from workbench.views.overview import SHOWN, Overview

SCRIPT = "<script>window.hacked=1</script>"
in_browser = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium")


def test_the_overview_sketches_what_it_then_draws(runs: Path) -> None:
    view = Overview(Store(runs))
    listed, matrix = view.sketch()
    shown = view.table.value[["label", "state", *SHOWN, "seed"]]
    for row, values in zip(listed.rows, shown.itertuples(index=False), strict=True):
        texts = [f"{value:.3f}" if isinstance(value, float) else str(value or "") for value in values[:-1]]
        assert [cell.text for cell in row] == [*texts, str(values[-1])]
    assert matrix.title == view.matrix.object.layout.title.text
    assert view.matrix.object.data[0].texttemplate == "%{z:.2f}"
    said = [[cell.text for cell in row[1:]] for row in matrix.rows]
    heat = view.matrix.object.data[0]
    assert said == [["" if math.isnan(value) else f"{value:.2f}" for value in row] for row in heat.z]
    assert [row[0].text for row in matrix.rows] == list(heat.y)
    assert matrix.columns[1:] == heat.x


def test_a_search_that_finds_nothing_and_a_view_without_a_sketch_show_no_rows(runs: Path, tmp_path: Path) -> None:
    view = Overview(Store(runs))
    view.search.value_input = "no such run"
    assert view.sketch()[0].rows == ()
    assert Overview(Store(tmp_path)).sketch() == ()
    assert RouterDrift(Store(runs)).sketch() == ()


def test_ink_stands_out_from_its_ground() -> None:
    scores = [index / 100 for index in range(101)]
    ((_, *cells),) = coloured("", pd.DataFrame([scores], index=["a"]), 1.0).rows
    for cell in cells:
        light, dark = sorted((luminance(cell.ground), {"#000": 0.0, "#fff": 1.0}[cell.ink]), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_numbers_outside_the_scale_take_its_ends_and_missing_ones_stay_empty() -> None:
    (row,) = coloured("", pd.DataFrame([[-1.0, 0.0, 2.0, 3.0, float("nan")]]), 2.0).rows
    assert row[1].ground == row[2].ground != row[3].ground == row[4].ground
    assert (row[5].text, row[5].ground) == ("", "")


def test_a_table_is_written_as_it_is_but_for_what_would_not_fit() -> None:
    table = plain("t", pd.DataFrame({"run": ["a"], "seed": [1], "last": [0.25], "fwt": [None]}))
    assert table.columns == ("run", "seed", "last", "fwt")
    assert [cell.text for cell in table.rows[0]] == ["a", "1", "0.250", ""]
    long = plain("t", pd.DataFrame({"run": range(MOST + 3)}))
    assert (len(long.rows), long.more) == (MOST, 3)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A dashboard of runs whose first task is a script, and of one whose scores cannot be read."""
    folder = tmp_path_factory.mktemp("planted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "TASKS", (SCRIPT, *synthetic.TASKS[1:]))
        for method in ("lora", "moelora"):
            synthetic.write_run(folder, method)
    next(folder.glob("*/lora/*/scores.json")).write_text("{")
    with served(folder) as address:
        yield address


@pytest.fixture
def bare() -> Iterator[Page]:
    """A page of a browser that runs no scripts."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser.new_context(java_script_enabled=False).new_page()
        browser.close()


@in_browser
@pytest.mark.browser
def test_without_scripts_the_page_shows_runs_and_scores(planted: str, bare: Page) -> None:
    bare.goto(planted)
    expect(bare.locator("#sketch table")).to_have_count(2)
    expect(bare.get_by_role("rowheader", name="moelora")).to_be_visible()
    expect(bare.get_by_text(SCRIPT).first).to_be_visible()
    expect(bare.get_by_role("status")).to_contain_text("is damaged")
    bare.get_by_role("link", name="Spectra").click()
    expect(bare.locator("#sketch [aria-current]")).to_have_text("Spectra")
    expect(bare.locator("#sketch table")).to_have_count(0)


@in_browser
@pytest.mark.browser
def test_the_live_page_takes_the_place_of_its_sketch(planted: str) -> None:
    with browser_page() as page:
        page.goto(f"{planted}/?theme=dark", wait_until="commit")
        expect(page.locator("#sketch.dark")).to_be_visible()
        page.locator(".js-plotly-plot:visible .heatmaplayer image").first.wait_for()
        expect(page.locator("#sketch")).to_have_count(0)
        expect(page.locator("#lost")).to_be_hidden()
        assert page.evaluate("window.hacked") is None
        open_view(page, "Spectra")
        page.wait_for_url("**theme=dark**")
        page.get_by_role("button", name="Toggle theme").click()
        page.wait_for_function("() => !location.search.includes('dark')")


@in_browser
@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("lacking", ["scripts", "socket"])
def test_a_page_that_cannot_become_live_says_so(planted: str, lacking: str) -> None:
    with browser_page() as page:
        if lacking == "scripts":
            page.route("**/static/**", lambda route: route.abort())
        else:
            page.route_web_socket("**/ws**", lambda socket: socket.close(code=1011))
        page.goto(planted)
        expect(page.get_by_role("status")).to_contain_text("not live")
        expect(page.locator("#sketch")).to_have_attribute("aria-busy", "false")
        expect(page.get_by_role("rowheader", name="moelora")).to_be_visible()


@in_browser
@pytest.mark.browser
@pytest.mark.slow
def test_a_page_whose_server_is_gone_says_so(runs: Path) -> None:
    with browser_page() as page:
        with served(runs) as address:
            page.goto(address)
            page.locator(".js-plotly-plot:visible .heatmaplayer image").first.wait_for()
            expect(page.get_by_role("alert").filter(has_text="not reached any more")).to_be_hidden()
        expect(page.get_by_role("alert").filter(has_text="not reached any more")).to_be_visible()
