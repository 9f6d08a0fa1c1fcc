"""Questions to a trained run's model in a real headless Chromium: a layer routed by hand, the tokens of an example."""

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Page, expect
from safetensors.torch import load_file, save_file

from same.engine.snapshot import ADAPTER
from same.engine.trainer import train
from same.runs import RunFolder
from tests.engine.conftest import ask, checkpoint, data  # noqa: F401 - a benchmark and a backbone of seconds
from tests.workbench.screenshot import CHROMIUM, again, browser_page, served
from tests.workbench.test_browser_answers import choose, titled

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium"),
]
LAYER, PLACE = "0.down", "layers.0.mlp.down_proj"


@pytest.fixture(scope="module")
def run(ask: Any, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:  # noqa: F811
    """Trained, and its last snapshot with one expert that says much in a layer, and another that says nothing there."""
    run = train(ask(tmp_path_factory.mktemp("jobs") / "runs", method="moelora", num_experts=3, rank=2))
    snapshot = run.snapshot(2)

    def far_apart(folder: Path) -> None:
        shutil.copytree(snapshot.path, folder, ignore=shutil.ignore_patterns("manifest.json"), dirs_exist_ok=True)
        weights = load_file(folder / ADAPTER)
        loud, silent = (weights[next(name for name in weights if name.endswith(f"{PLACE}.lora_B.{i}"))] for i in (0, 1))
        loud.normal_(0, 100, generator=torch.Generator().manual_seed(0))
        silent.zero_()
        save_file(weights, folder / ADAPTER)

    run.write_snapshot(2, far_apart, task=snapshot.manifest()["task"])
    return run


@pytest.fixture(scope="module")
def page(run: RunFolder) -> Iterator[Page]:
    with served(run.path.parents[2]) as address, browser_page(height=1500) as page:
        page.goto(address)
        yield page


def cells(page: Page, name: str) -> list[str]:
    found = page.locator(f".tabulator-cell[tabulator-field='{name}']:visible").all_inner_texts()
    return [text.strip() for text in found]


def by_hand(page: Page, weights: Sequence[int]) -> None:
    """Type weights into the fields, from the first on, and ask."""
    page.get_by_label("ω E1").locator("visible=true").fill(str(weights[0]))
    for weight in weights[1:]:  # the fields have a button on either side; what is in one is selected on coming in
        for _ in range(3):
            page.keyboard.press("Tab")
        page.keyboard.type(str(weight))
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Answer with these weights").click()


def test_a_layer_routed_by_hand_changes_the_answers(page: Page, run: RunFolder) -> None:
    address = page.url.partition("?")[0]
    page.goto(f"{address}?view=rerouting&task=letter&router=own&experts=2")
    page.get_by_text("Set one layer's routing by hand").click()
    choose(page, "Layer", LAYER)
    shown, known = [], set()
    for weights in ([1, 0, 0], [0, 1, 0]):
        by_hand(page, weights)
        done = page.locator(".tabulator-row").filter(has_text="by hand").filter(has_text="100 %")
        expect(done).to_have_count(len(shown) + 1, timeout=120_000)
        page.get_by_text(re.compile(r"by hand · score")).locator("visible=true").first.wait_for()
        (key,) = set(run.reroutings()) - known
        known.add(key)
        found, answers = run.read_rerouting(key), list(run.rerouted_answers(key).table("answers")["text"])
        assert found["layer"].endswith(PLACE)
        assert found["weights"] == found["routing"][found["layer"]] == weights
        now = page.locator(".tabulator-cell[tabulator-field='now']").locator("visible=true")
        expect(now).to_have_text([" ".join(text.split()) for text in answers], timeout=30_000)
        assert cells(page, "before") == list(run.read_predictions(2, "letter")["text"])
        shown.append(cells(page, "now"))
    assert shown[0] != shown[1]


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
    again(page)
    titled(page, f"ω of each word, {LAYER}")
    assert page.get_by_role("button", name="Route its tokens").is_disabled()
    assert len(list((run.path / "tokens").iterdir())) == 1
    slider = page.locator("input[type=range]:visible").first
    slider.focus()
    slider.press("ArrowRight")
    page.get_by_text("not in the run's record yet").wait_for()
