"""Examples, Format drift, Cost and Reports in a real headless Chromium: they follow a control, as do their links."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from same.runs import write_table
from tests.workbench.deep import write_deep_run
from tests.workbench.screenshot import CHROMIUM, again, browser_page, open_view, served
from tests.workbench.synthetic import TASKS
from tests.workbench.variants import write_variant
from workbench import results
from workbench.store import Store

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium"),
]
SCRIPT = "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"


def choose(page: Page, label: str, option: str) -> None:
    page.get_by_role("combobox", name=label).locator("visible=true").click()
    page.get_by_role("menuitem", name=option, exact=True).click()


def titled(page: Page, text: str) -> None:
    page.locator(".js-plotly-plot:visible .gtitle", has_text=text).first.wait_for()


def only_semantic(runs: Path) -> str:
    """A score in the first rows of the measured table that no strict score holds."""
    strict, semantic = (
        results.summary(results.ours(Store(runs), "mini-coin", variant=reading)).map(str)
        for reading in ("strict", "semantic")
    )
    said = " | ".join(strict.to_numpy().flatten())
    return str(next(text for text in semantic.iloc[:5].to_numpy().flatten() if text not in said))


def sorted_by_mean(page: Page) -> None:
    means = page.locator(".tabulator:visible").first.locator(".tabulator-cell[tabulator-field=mean]")
    page.get_by_role("columnheader", name="mean").first.click()
    expect(means.first).to_have_text(re.compile(r"^0\.0"))
    shown = [float(text.partition("±")[0]) for text in means.all_inner_texts()]
    assert shown == sorted(shown)


def test_each_view_draws_and_follows_a_control(tmp_path: Path) -> None:
    run = write_variant(tmp_path, "moelora", {})
    for after in range(len(TASKS)):
        table = run.read_predictions(after, TASKS[0]).assign(text=SCRIPT, prompt=SCRIPT)
        content = {name: table[name].tolist() for name in table}
        run.predictions(after).write(lambda path, content=content: write_table(path / f"{TASKS[0]}.parquet", content))
    write_deep_run(tmp_path, "same", 0.2)
    with served(tmp_path) as address, browser_page(height=1500) as page:
        page.goto(f"{address}/?view=examples")
        page.get_by_text("1 of 4").wait_for()
        assert page.get_by_role("cell", name=SCRIPT).count() >= 1
        slider = page.locator("input[type=range]:visible").first
        slider.focus()
        slider.press("ArrowRight")
        page.get_by_text("2 of 4").wait_for()
        page.wait_for_url("**question=2*")
        again(page)
        page.get_by_text("2 of 4").wait_for()
        assert page.evaluate("() => window.hacked") is None
        open_view(page, "Format drift")
        choose(page, "Readings of task", "gqa")
        titled(page, "gqa: its score in each reading")
        page.wait_for_url("**task=gqa*")
        again(page)
        titled(page, "gqa: its score in each reading")
        open_view(page, "Cost")
        titled(page, "Training of each task")
        choose(page, "By task", "files of the snapshot (MB)")
        titled(page, "Files of the snapshot of each task")
        page.wait_for_url("**measure=megabytes*")
        again(page)
        titled(page, "Files of the snapshot of each task")
        open_view(page, "Reports")
        page.locator(".tabulator-row:visible", has_text="50.58").first.wait_for()
        sorted_by_mean(page)
        lenient = only_semantic(tmp_path)
        choose(page, "Scoring", "semantic")
        page.locator(".tabulator-row:visible", has_text=lenient).first.wait_for()
        page.wait_for_url("**scoring=semantic**")
        again(page)
        page.locator(".tabulator-row:visible", has_text=lenient).first.wait_for()
