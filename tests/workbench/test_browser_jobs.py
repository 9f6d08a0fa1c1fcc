"""Questions to a trained run's model in a real headless Chromium: a layer routed by hand, the tokens of an example."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page

from same.engine.trainer import train
from same.runs import RunFolder
from tests.engine.conftest import ask, checkpoint, data  # noqa: F401 - a benchmark and a backbone of seconds
from tests.workbench.screenshot import CHROMIUM, browser_page, served
from tests.workbench.test_browser_answers import choose, titled
from tests.workbench.test_browser_lab import rows

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium"),
]
LAYER = "0.down"


@pytest.fixture(scope="module")
def run(ask: Any, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:  # noqa: F811
    return train(ask(tmp_path_factory.mktemp("jobs") / "runs", method="moelora", num_experts=3, rank=2))


@pytest.fixture(scope="module")
def page(run: RunFolder) -> Iterator[Page]:
    with served(run.path.parents[2]) as address, browser_page(height=1500) as page:
        page.goto(address)
        yield page


def cells(page: Page, name: str) -> list[str]:
    found = page.locator(f".tabulator-cell[tabulator-field='{name}']:visible").all_inner_texts()
    return [text.strip() for text in found]


def test_a_layer_routed_by_hand_is_answered_beside_what_was_before(page: Page, run: RunFolder) -> None:
    address = page.url.partition("?")[0]
    page.goto(f"{address}?view=rerouting&task=letter&router=own&experts=2")
    page.get_by_text("Set one layer's routing by hand").click()
    choose(page, "Layer", LAYER)
    page.get_by_label("ω E1").locator("visible=true").fill("1")
    for _ in range(2):  # the fields have a button on either side; what is in one is selected on coming in
        for _ in range(3):
            page.keyboard.press("Tab")
        page.keyboard.type("0")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Answer with these weights").click()
    rows(page, "by hand").wait_for()
    rows(page, "100 %").wait_for()
    page.get_by_text(re.compile(r"by hand · score")).locator("visible=true").first.wait_for()
    (key,) = run.reroutings()
    found = run.read_rerouting(key)
    assert found["layer"].endswith("layers.0.mlp.down_proj")
    assert found["weights"] == [1.0, 0.0, 0.0]
    assert found["routing"][found["layer"]] == [1.0, 0.0, 0.0]
    before, now = cells(page, "before"), cells(page, "now")
    assert before == list(run.read_predictions(2, "letter")["text"])
    assert now == list(run.rerouted_answers(key).table("answers")["text"])


def test_weights_that_are_all_0_are_refused_with_what_to_do(page: Page) -> None:
    for expert in (1, 2, 3):
        field = page.get_by_label(f"ω E{expert}").locator("visible=true")
        field.fill("0")
        field.press("Enter")
    page.get_by_role("button", name="Answer with these weights").click()
    page.get_by_text("weights must not all be 0. Raise one.").wait_for()


def test_the_tokens_of_an_example_are_routed_on_demand_and_stay(page: Page, run: RunFolder) -> None:
    address = page.url.partition("?")[0]
    page.goto(f"{address}?view=examples&task=letter&question=2")
    page.get_by_text("2 of 5").wait_for()
    page.get_by_text("not in the run's record yet").wait_for()
    page.get_by_role("button", name="Route its tokens").click()
    page.get_by_text("asks the model").wait_for()
    titled(page, "ω of each word, mean over layers")
    titled(page, "ω of each image patch, mean over layers")
    assert page.locator(".js-plotly-plot:visible .xtick", has_text="letter").count() >= 1
    choose(page, "Layer", LAYER)
    titled(page, f"ω of each word, {LAYER}")
    page.wait_for_url(re.compile(r"layer=0\.down"))
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    titled(page, f"ω of each word, {LAYER}")
    assert page.get_by_role("button", name="Route its tokens").is_disabled()
    assert len(list((run.path / "tokens").iterdir())) == 1
    slider = page.locator("input[type=range]:visible").first
    slider.focus()
    slider.press("ArrowRight")
    page.get_by_text("not in the run's record yet").wait_for()
