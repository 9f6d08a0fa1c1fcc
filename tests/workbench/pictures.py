"""Figures of a chain's report as pictures: ``python -m tests.workbench.pictures REPORT TARGET STEP:NUMBER …``.

REPORT is an index.html, TARGET a folder; drift:0 is the first figure of the step drift, written as drift-0.png.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from tests.workbench.screenshot import browser_page


def main(report: Path, target: Path, chosen: Iterable[str]) -> None:
    """Write one PNG a chosen figure."""
    target.mkdir(parents=True, exist_ok=True)
    with browser_page(width=1140) as page:
        page.goto(report.resolve().as_uri())
        for name in chosen:
            step, _, number = name.partition(":")
            figure = page.locator(f"section[id='{step}'] .js-plotly-plot").nth(int(number))
            figure.scroll_into_view_if_needed()
            figure.screenshot(path=target / f"{step}-{number}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
