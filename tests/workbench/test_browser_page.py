"""The dashboard's page as a whole, in a real headless Chromium: what every view must be, and what must never happen."""

from pathlib import Path
from urllib.parse import urlparse

import pytest

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


def test_a_view_whose_messages_overtook_each_other_is_opened_anew_once(runs: Path) -> None:
    lost = "() => { window.before = true; setTimeout(() => { throw new Error(`reference p1386 isn't known`); }); }"
    with served(runs) as address, browser_page() as page:
        page.goto(address)
        open_view(page, "Spectra")
        page.wait_for_url("**view=spectra**")
        page.evaluate("() => sessionStorage.removeItem('anew')")  # should it have happened by itself just now
        page.evaluate(lost)
        page.wait_for_function("() => !window.before")
        page.locator(".js-plotly-plot:visible .main-svg").first.wait_for()
        assert "view=spectra" in page.url
        page.evaluate(lost)
        page.wait_for_timeout(2_000)
        assert page.evaluate("() => window.before")
