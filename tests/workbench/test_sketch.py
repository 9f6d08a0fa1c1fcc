"""What a page shows before its scripts are there."""

import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.workbench import synthetic
from tests.workbench.screenshot import CHROMIUM, browser_page, served
from workbench.store import Store
from workbench.views._sketch import coloured, plain
from workbench.views.drift import RouterDrift
from workbench.views.overview import Overview

SCRIPT = "<script>window.hacked=1</script>"
in_browser = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium")


def test_the_overview_sketches_its_runs_and_the_score_matrix_that_is_chosen(runs: Path) -> None:
    view = Overview(Store(runs))
    listed, matrix = view.sketch()
    assert [row[0].text for row in listed.rows] == list(view.table.value["label"])
    assert matrix.title == view.matrix.object.layout.title.text
    shown = view.matrix.object.data[0].z
    said = [[cell.text for cell in row[1:]] for row in matrix.rows]
    assert said == [["" if math.isnan(value) else f"{value:.3f}" for value in row] for row in shown]


def test_a_search_that_finds_nothing_and_a_view_without_a_sketch_show_no_rows(runs: Path, tmp_path: Path) -> None:
    view = Overview(Store(runs))
    view.search.value_input = "no such run"
    assert view.sketch()[0].rows == ()
    assert Overview(Store(tmp_path)).sketch() == ()
    assert RouterDrift(Store(runs)).sketch() == ()


def test_ink_can_be_read_on_its_ground() -> None:
    (row,) = coloured("", pd.DataFrame([[0.0, 0.5, 1.0, float("nan")]], index=["a"]), 1.0).rows
    assert [cell.ink for cell in row] == ["", "#fff", "#fff", "#000", ""]
    assert [cell.text for cell in row] == ["a", "0.000", "0.500", "1.000", ""]


def test_numbers_outside_the_scale_take_its_ends() -> None:
    (row,) = coloured("", pd.DataFrame([[-1.0, 0.0, 2.0, 3.0]]), 2.0).rows
    assert row[1].ground == row[2].ground != row[3].ground == row[4].ground


def test_a_table_is_written_as_it_is() -> None:
    table = plain("t", pd.DataFrame({"run": ["a"], "seed": [1], "last": [0.25], "fwt": [float("nan")]}))
    assert table.columns == ("run", "seed", "last", "fwt")
    assert [cell.text for cell in table.rows[0]] == ["a", "1", "0.250", ""]


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
    expect(bare.get_by_text("moelora").first).to_be_visible()
    expect(bare.get_by_text(SCRIPT).first).to_be_visible()
    bare.goto(f"{planted}/?view=spectra")
    expect(bare.locator("#sketch nav")).to_be_visible()
    expect(bare.locator("#sketch table")).to_have_count(0)


@in_browser
@pytest.mark.browser
def test_the_live_page_takes_the_place_of_its_sketch(planted: str) -> None:
    with browser_page() as page:
        page.goto(planted, wait_until="commit")
        expect(page.locator("#sketch")).to_be_visible()
        page.locator(".js-plotly-plot:visible .heatmaplayer image").first.wait_for()
        expect(page.locator("#sketch")).to_have_count(0)
        assert page.evaluate("window.hacked") is None
