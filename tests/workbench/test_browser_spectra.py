"""Spectra and Activation in a real headless Chromium: they draw, a slider changes the picture, a link restores it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.workbench import deep
from tests.workbench.screenshot import CHROMIUM, again, browser_page, open_view, served

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def opened(deep_runs: Path) -> Iterator[tuple[str, Page]]:
    with served(deep_runs) as address, browser_page(height=1300) as page:
        yield address, page


def said(page: Page, text: str) -> None:
    """Wait for a picture whose title has a text."""
    page.locator(".js-plotly-plot:visible .gtitle", has_text=text).first.wait_for()


def press(page: Page, label: str, key: str) -> None:
    slider = page.get_by_label(label, exact=True).first
    slider.focus()
    slider.press(key)


def test_spectra_draws_follows_its_sliders_and_its_link(opened: tuple[str, Page]) -> None:
    address, page = opened
    page.goto(address)
    open_view(page, "Spectra")
    said(page, "k at δ = 0.9")
    assert page.locator(".js-plotly-plot:visible .scatterlayer .js-line").count() == 2 * len(deep.INPUTS)
    press(page, "δ energy threshold", "ArrowLeft")
    said(page, "k at δ = 0.89")
    page.get_by_role("button", name="What is let through").click()
    said(page, "δ = 0.89, ρ = 2, μ = 1")
    bars = page.locator(".js-plotly-plot:visible .barlayer .point path")
    assert bars.count() == 2 * len(deep.INPUTS)
    before = bars.last.get_attribute("d")
    press(page, "μ damping of P", "Home")
    said(page, "μ = 0.01")
    assert bars.last.get_attribute("d") != before
    page.wait_for_url(re.compile(r"page=gains.*delta=0\.89.*mu=0\.01"))
    again(page)
    said(page, "δ = 0.89, ρ = 2, μ = 0.01")
    page.get_by_role("button", name="Angles between tasks").click()
    said(page, "Mean principal angle between tasks' inputs 0.mlp_in (δ = 0.89)")


def test_activation_draws_follows_its_slider_and_its_link(opened: tuple[str, Page]) -> None:
    address, page = opened
    page.goto(f"{address}/?view=activation")
    said(page, "Scores in Task 4 (τ = 0.1)")
    dots = page.locator(".js-plotly-plot:visible .scatterlayer .point")
    dots.first.wait_for()
    assert dots.count() == len(deep.LAYERS) * deep.EXPERTS
    press(page, "τ freeze threshold", "End")
    said(page, "Scores in Task 4 (τ = 1)")
    resting = len(deep.LAYERS) * (deep.EXPERTS - 1)
    page.locator(".js-plotly-plot:visible .legendtext", has_text=f"would rest ({resting})").wait_for()
    page.get_by_role("button", name="Reset to").click()
    said(page, "Scores in Task 4 (τ = 0.1)")
    page.get_by_role("button", name="During training").click()
    press(page, "τ freeze threshold", "Home")
    said(page, "during training (τ = -1)")
    page.wait_for_url(re.compile(r"page=history.*tau=-1"))
    again(page)
    said(page, "during training (τ = -1)")
    said(page, "Experts that train, step by step")
