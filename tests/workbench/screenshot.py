"""Pictures of every view: ``python -m tests.workbench.screenshot RUNS TARGET [--dark] [--whole]``.

TARGET is a folder (one picture a view: docs/dashboard) or a .png file (the README's picture: docs/dashboard.png).
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from same.registry import load_class, names
from workbench.views._base import View

CHROMIUM = Path("/usr/bin/chromium")
SETTLE = 1500  # ms, for the plots' own transitions
PATIENCE = 120_000  # ms; a loaded machine needs it
IN_README = ("overview", "spectra")


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
            lost: list[str] = []
            page.on("pageerror", lambda error: lost.append(str(error)))
            page.set_default_timeout(PATIENCE)
            expect.set_options(timeout=PATIENCE)
            yield page
        finally:
            browser.close()
        assert not any("isn't known" in error for error in lost), f"the browser never got what it was told of: {lost}"


def open_view(page: Page, title: str) -> None:
    """Show a view and wait until every picture of it is drawn."""
    page.get_by_role("tab", name=title).click()
    page.locator(".js-plotly-plot:visible .main-svg").first.wait_for()
    page.wait_for_function("() => !document.body.innerText.includes('Loading …')")


def again(page: Page) -> None:
    """Open the page's own link anew."""
    link = page.url
    page.goto("about:blank")
    page.goto(link)


def main(runs: Path, target: Path, dark: bool = False, whole: bool = False) -> None:
    """Write one PNG a view into a folder, or those of the README, one below the other, into one PNG file."""
    single = target.suffix == ".png"
    folder = target.parent if single else target
    folder.mkdir(parents=True, exist_ok=True)
    shots = {}
    with served(runs) as address, browser_page(height=1500 if whole else 800) as page:
        page.goto(address)
        if dark:
            page.get_by_role("button", name="Toggle theme").click()
        for key in IN_README if single else names("workbench.views"):
            open_view(page, load_class("workbench.views", key, View).title)  # type: ignore[type-abstract]
            page.wait_for_timeout(SETTLE)
            shots[key] = Image.open(BytesIO(page.screenshot()))
    if single:
        _stacked(list(shots.values())).save(target, optimize=True)
    else:
        for key, shot in shots.items():
            shot.save(folder / f"{key}{'-dark' if dark else ''}.png", optimize=True)


def _stacked(shots: list[Image.Image]) -> Image.Image:
    whole = Image.new("RGB", (shots[0].width, sum(shot.height for shot in shots)))
    for index, shot in enumerate(shots):
        whole.paste(shot, (0, sum(above.height for above in shots[:index])))
    return whole.quantize(256, dither=Image.Dither.NONE)


if __name__ == "__main__":
    places = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("--")]
    main(places[0], places[1], dark="--dark" in sys.argv, whole="--whole" in sys.argv)
