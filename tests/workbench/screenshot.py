"""Pictures of every view: ``python -m tests.workbench.screenshot RUNS FOLDER [--dark] [--whole]``."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
PATIENCE = 120_000  # ms; a loaded machine needs it
VIEWS = {"Overview": "overview", "Router drift": "drift"}


@contextmanager
def served(runs: Path) -> Iterator[str]:
    """The dashboard in a process of its own, on a free port, for as long as the block lasts."""
    command = [sys.executable, "-m", "workbench.cli", "serve", "--runs", str(runs), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = next((line for line in server.stdout if "http://" in line), "")
            assert line, f"{command} must print its address"
            yield next(word for word in line.split() if word.startswith("http://"))
        finally:
            server.terminate()


@contextmanager
def browser_page(width: int = 1280, height: int = 800) -> Iterator[Page]:
    """A page of a real headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(PATIENCE)
            yield page
        finally:
            browser.close()


def open_view(page: Page, title: str) -> None:
    """Show a view and wait until every picture of it is drawn."""
    page.get_by_role("tab", name=title).click()
    page.locator(".js-plotly-plot:visible .main-svg").first.wait_for()
    page.wait_for_function("() => !document.body.innerText.includes('Loading …')")


def main(runs: Path, folder: Path, dark: bool = False, whole: bool = False) -> None:
    """Write one PNG a view."""
    folder.mkdir(parents=True, exist_ok=True)
    with served(runs) as address, browser_page(height=1500 if whole else 800) as page:
        page.goto(address)
        if dark:
            page.get_by_role("button", name="Toggle theme").click()
        for title, key in VIEWS.items():
            open_view(page, title)
            page.wait_for_timeout(1500)
            page.screenshot(path=folder / f"{key}{'-dark' if dark else ''}.png")


if __name__ == "__main__":
    places = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("--")]
    main(places[0], places[1], dark="--dark" in sys.argv, whole="--whole" in sys.argv)
