"""The dashboard's page as a whole, in a real headless Chromium: what every view must be, and what must never happen."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import pytest
from playwright.sync_api import Page

from same.registry import load_class, names
from tests.workbench.screenshot import CHROMIUM, browser_page, open_view, served
from workbench.views._base import View

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium"),
]
LOCAL = {"localhost", "127.0.0.1", ""}


@pytest.mark.parametrize("width", [1280, 1024])
def test_every_view_fits_the_screen_and_asks_nothing_of_the_network(deep_runs: Path, width: int) -> None:
    hosts: set[str] = set()
    with served(deep_runs) as address, browser_page(width=width, height=768) as page:
        page.on("request", lambda request: hosts.add(urlparse(request.url).hostname or ""))
        page.goto(address)
        for key in names("workbench.views"):
            title = load_class("workbench.views", key, View).title  # type: ignore[type-abstract]
            page.get_by_role("tab", name=title).click()
            page.wait_for_url(f"**view={key}**")
            page.wait_for_function("() => !document.body.innerText.includes('Loading …')")
            page.wait_for_timeout(1000)
            beyond = page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
            assert beyond <= 0, f"{title} is {beyond} px wider than {width}"
    assert hosts <= LOCAL


def test_a_table_that_is_resized_does_not_freeze_a_page_of_which_a_part_has_failed(runs: Path) -> None:
    with served(runs) as address, browser_page() as page:
        page.set_default_timeout(20_000)
        page.goto(address)
        page.locator(".js-plotly-plot:visible .heatmaplayer image").first.wait_for()
        page.wait_for_function("() => Bokeh.index.roots[0].is_idle")
        page.evaluate("() => { Bokeh.index.roots[0]._ready = Promise.reject(new Error('a part has failed')); }")
        page.set_viewport_size({"width": 1000, "height": 700})
        page.wait_for_timeout(1000)
        open_view(page, "Spectra")


UNDRAWN = """
const send = WebSocket.prototype.send, parts = [];
WebSocket.prototype.send = function (part) {
  parts.push(part);
  if (parts.length < 3) return;  // one of Bokeh's messages is a header, metadata, content and buffers
  if (parts.length < 3 + 2 * (JSON.parse(parts[0]).num_buffers ?? 0)) return;
  if (!parts[2].includes("document_ready")) for (const each of parts) send.call(this, each);
  parts.length = 0;
};
"""
"""Lets the server never hear that all is drawn."""


@pytest.fixture
def early(runs: Path) -> Iterator[Page]:
    """The lab, as it is before all of it is drawn."""
    with served(runs) as address, browser_page(height=1500) as page:
        page.add_init_script(UNDRAWN)
        page.goto(f"{address}/?view=rerouting")
        page.get_by_role("button", name="Evaluate this pair").wait_for()
        yield page


def test_a_click_is_answered_before_the_browser_has_drawn_everything(early: Page) -> None:
    early.get_by_role("button", name="Evaluate this pair").click()
    early.get_by_role("alert").filter(has_text="Queued").wait_for()


def test_a_view_is_opened_before_the_browser_has_drawn_everything(early: Page) -> None:
    open_view(early, "Reports")
    early.locator(".tabulator-row:visible", has_text="50.58").wait_for()
    open_view(early, "Router drift")
    early.locator(".js-plotly-plot:visible .gtitle", has_text="Expert activation of Task 1's inputs").wait_for()
