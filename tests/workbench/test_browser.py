"""The dashboard in a real headless Chromium: views draw, react, and ask nothing of the network."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import pytest
from playwright.sync_api import Page, expect

from tests.notebooks.small import prepare
from tests.workbench.screenshot import CHROMIUM, again, browser_page, open_view, served

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium"),
]
LOCAL = {"localhost", "127.0.0.1", ""}


@pytest.mark.slow
def test_views_draw_a_run_that_was_trained(tmp_path: Path) -> None:
    prepare(tmp_path / "runs")
    hosts: set[str] = set()
    with served(tmp_path / "runs") as address, browser_page() as page:
        page.on("request", lambda request: hosts.add(urlparse(request.url).hostname or ""))
        page.goto(address)
        open_view(page, "Overview")
        page.locator(".js-plotly-plot:visible .heatmaplayer image").first.wait_for()
        page.locator(".js-plotly-plot:visible .gtitle", has_text="Score matrix of same").wait_for()
        open_view(page, "Router drift")
        page.locator(".js-plotly-plot:visible .scatterlayer .point").first.wait_for()
        assert marks(page, ".barlayer .point path") == 8 * 8
    assert hosts <= LOCAL


@pytest.fixture(scope="module")
def page_and_hosts(runs: Path) -> Iterator[tuple[Page, set[str]]]:
    hosts: set[str] = set()
    with served(runs) as address, browser_page() as page:
        page.on("request", lambda request: hosts.add(urlparse(request.url).hostname or ""))
        page.goto(address)
        yield page, hosts


def marks(page: Page, selector: str) -> int:
    return page.locator(f".js-plotly-plot:visible {selector}").count()


def test_overview_draws(page_and_hosts: tuple[Page, set[str]]) -> None:
    page, hosts = page_and_hosts
    open_view(page, "Overview")
    page.locator(".js-plotly-plot:visible .heatmaplayer image").first.wait_for()
    page.locator(".js-plotly-plot:visible .barlayer .point path").first.wait_for()
    assert marks(page, ".barlayer .point path") >= 3 * 5
    assert page.locator(".tabulator-row:visible").count() == 4
    for kind in ("a PNG", "an SVG"):
        with page.expect_download() as saved:
            page.locator(f".js-plotly-plot:visible [data-title='Download plot as {kind}']").first.click(force=True)
        assert saved.value.suggested_filename.endswith(kind[-3:].lower())
    assert hosts <= LOCAL


def test_router_drift_draws_and_follows_the_slider(page_and_hosts: tuple[Page, set[str]]) -> None:
    page, hosts = page_and_hosts
    open_view(page, "Router drift")
    page.locator(".js-plotly-plot:visible .scatterlayer .point").first.wait_for()
    page.locator(".js-plotly-plot:visible .heatmaplayer image").first.wait_for()
    assert marks(page, ".barlayer .point path") >= 3 * 8
    assert marks(page, ".scatterlayer .point") >= 3 * 3
    slider = page.locator("input[type=range]:visible").first
    slider.focus()
    slider.press("ArrowRight")
    page.locator(".js-plotly-plot:visible .gtitle", has_text="layer 0.gate").wait_for()
    assert hosts <= LOCAL


def test_dark_theme_keeps_the_figures(page_and_hosts: tuple[Page, set[str]]) -> None:
    page, _hosts = page_and_hosts
    open_view(page, "Overview")
    page.get_by_role("button", name="Toggle theme").click()
    title = page.locator(".js-plotly-plot:visible .gtitle").first
    page.wait_for_function(
        "element => getComputedStyle(element).fill.startsWith('rgb(255')", arg=title.element_handle()
    )
    assert marks(page, ".barlayer .point path") >= 3 * 5


def test_overview_is_searched_and_its_link_restores_what_was_compared(page_and_hosts: tuple[Page, set[str]]) -> None:
    page, _hosts = page_and_hosts
    open_view(page, "Overview")
    rows = page.locator(".tabulator-row:visible")
    page.get_by_label("Search runs").fill("same seed")
    expect(rows).to_have_count(2)
    rows.first.get_by_role("checkbox").click()
    page.wait_for_url(re.compile(r"search=same\+seed.*runs="))
    for look_again in (False, True):
        if look_again:
            again(page)
        expect(rows).to_have_count(2)
        expect(rows.first.get_by_role("checkbox")).not_to_be_checked()
        expect(rows.last.get_by_role("checkbox")).to_be_checked()
        expect(page.locator(".js-plotly-plot:visible .barlayer .trace")).to_have_count(1)
    page.get_by_label("Search runs").fill("")
    expect(rows).to_have_count(4)
    expect(page.locator(".js-plotly-plot:visible .barlayer .trace")).to_have_count(3)
    with page.expect_download() as download:
        page.get_by_role("button", name="Runs as CSV").click()
    assert download.value.suggested_filename == "runs.csv"
