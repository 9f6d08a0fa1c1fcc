"""The lab, links, the login and hostile text in a real headless Chromium."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Locator, Page, expect

from same.engine.trainer import train
from same.runs import write_table
from tests.engine.conftest import ask, checkpoint, data  # noqa: F401 - a benchmark and a backbone of seconds
from tests.workbench.screenshot import CHROMIUM, again, browser_page, open_view, served
from tests.workbench.synthetic import TASKS, write_run
from tests.workbench.test_browser_answers import choose
from tests.workbench.test_rerouting import record
from workbench.serving.accounts import Accounts

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium"),
]
HOSTILE = '<img src=x onerror="window.hacked=1">'
SCRIPT = "<script>window.hacked=1</script>"


def rows(page: Page, text: str) -> Any:
    return page.locator(".tabulator-row:visible", has_text=text).first


@pytest.mark.slow
def test_the_lab_from_question_to_result_and_a_job_that_is_cancelled(ask: Any, tmp_path: Path) -> None:  # noqa: F811
    runs = tmp_path / "runs"
    train(ask(runs, method="moelora", num_experts=3, rank=2))
    with served(runs) as address, browser_page(height=1500) as page:
        page.goto(f"{address}/?view=rerouting&task=letter&router=0&experts=2&steps=5000")
        page.get_by_role("button", name="Evaluate the whole").click()
        rows(page, "running").wait_for()
        rows(page, "100 %").wait_for()
        page.locator(".js-plotly-plot:visible .heatmaplayer image").first.wait_for()
        rows(page, "Which letter does the colour begin with?").wait_for()
        page.get_by_text("Retrain the router with").click()
        page.get_by_role("button", name="Retrain the router and").click()
        rows(page, "routers: step").wait_for()
        page.locator(".js-plotly-plot:visible .scatterlayer .js-line").first.wait_for()
        cancel = page.get_by_role("button", name="Cancel a job")
        cancel.focus()
        page.keyboard.press("Enter")
        expect(page.locator(".tabulator-row:visible", has_text="cancelled")).to_have_count(1)
        page.get_by_role("button", name="Retrain the router and").click()
        rows(page, "running").click()
        cancel.click()
        expect(page.locator(".tabulator-row:visible", has_text="cancelled")).to_have_count(2)


def test_a_link_restores_the_view_and_a_change_makes_a_new_link(runs: Path) -> None:
    with served(runs) as address, browser_page() as page:
        page.goto(f"{address}/?view=drift&task=2&layer=2.up")
        page.locator(".js-plotly-plot:visible .gtitle", has_text="Task 3's inputs, layer 2.up").wait_for()
        slider = page.locator("input[type=range]:visible").first
        slider.focus()
        slider.press("ArrowRight")
        page.wait_for_url(re.compile(r"layer=2\.down"))
        again(page)
        page.locator(".js-plotly-plot:visible .gtitle", has_text="Task 3's inputs, layer 2.down").wait_for()


def test_the_labs_link_brings_back_what_is_asked_and_what_is_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path, "same", finished=3)
    answers = {"question_id": ["1", "2"], "text": ["old", "older"]}
    for experts in range(3):
        run.predictions(experts).write(lambda path: write_table(path / f"{TASKS[0]}.parquet", answers))
        record(run, f"abc{experts}", "0", experts)
    with served(tmp_path) as address, browser_page(height=1500) as page:

        def field(name: str) -> Locator:
            return page.get_by_role("combobox", name=name).locator("visible=true")

        def weight(expert: int) -> Locator:
            return page.get_by_label(f"ω E{expert}").locator("visible=true")

        stage = f"after Task 2 · {TASKS[1]}"
        page.goto(f"{address}/?view=rerouting")
        choose(page, "Router s", "oracle")
        choose(page, "Experts t", stage)
        expect(field("Result")).to_have_text(re.compile("^R1 · E3"))
        field("Result").click()
        page.get_by_role("menuitem", name="R1 · E1").click()
        page.get_by_text("Set one layer's routing by hand").click()
        weight(2).fill("0.5")
        weight(2).press("Enter")
        page.wait_for_url(re.compile("weights=1%2C0.5%2C1"))
        again(page)
        expect(field("Router s")).to_have_text("oracle")
        expect(field("Experts t")).to_have_text(stage)
        expect(field("Result")).to_have_text(re.compile("^R1 · E1"))
        page.get_by_text("Set one layer's routing by hand").click()
        expect(weight(2)).to_have_value("0.5")
        expect(weight(1)).to_have_value("1")


def test_back_leads_to_the_view_before_and_then_out_of_the_page(runs: Path) -> None:
    with served(runs) as address, browser_page() as page:
        page.goto(f"{address}/health")
        page.goto(f"{address}/?view=drift&layer=2.up")
        for layer in ("2.down", "3.gate"):
            page.locator(".js-plotly-plot:visible .gtitle", has_text="Task 1's inputs, layer 2.").wait_for()
            slider = page.locator("input[type=range]:visible").first
            slider.focus()
            slider.press("ArrowRight")
            page.wait_for_url(re.compile(rf"layer={layer}"))
        open_view(page, "Spectra")
        page.wait_for_url(re.compile("view=spectra"))
        page.go_back()
        page.locator(".js-plotly-plot:visible .gtitle", has_text="Task 1's inputs, layer 3.gate").wait_for()
        page.go_back()
        assert page.url == f"{address}/health"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A good run, one with hostile names and answers, a damaged one, one with a pickle, and one from elsewhere."""
    runs = tmp_path / "runs"
    write_run(runs, "moelora", finished=3)
    bad = write_run(runs, HOSTILE, finished=3)
    answers = {"question_id": ["1", "2"], "text": [SCRIPT, HOSTILE]}
    for after in range(3):
        bad.predictions(after).write(lambda path: write_table(path / f"{TASKS[0]}.parquet", answers))
    record(bad, "abc", "0", 2)
    broken = write_run(runs, "lora", finished=3)
    (broken.path / "config.json").write_text(f'{{"schema": 1, "x": "{SCRIPT}"}}', encoding="utf-8")
    pickled = write_run(runs, "same", finished=3)
    pickled.events_path.write_bytes(b"cos\nsystem\n(S'touch " + os.fsencode(tmp_path / "ran") + b"'\ntR.\n")
    (tmp_path / "elsewhere").mkdir()
    away = write_run(tmp_path / "elsewhere", "secret", finished=3)
    (runs / "mini-coin" / "linked").symlink_to(away.path.parent)
    return runs


def test_hostile_runs_are_shown_and_do_nothing(hostile: Path) -> None:
    with served(hostile) as address, browser_page(height=1500) as page:
        page.goto(address)
        page.locator(".js-plotly-plot:visible .heatmaplayer image").first.wait_for()
        assert page.locator(".tabulator-row:visible").count() == 4
        assert page.locator(".tabulator-row:visible", has_text="damaged").count() == 2
        assert page.locator(".tabulator-row:visible", has_text=HOSTILE).count() == 1
        chosen = next(hostile.glob("*/<*/*")).relative_to(hostile).as_posix()
        page.goto(f"{address}/?{urlencode({'view': 'rerouting', 'run': chosen})}")
        rows(page, SCRIPT).wait_for()
        assert page.locator(".tabulator-row:visible", has_text=HOSTILE).count() == 1
        assert page.evaluate("() => window.hacked") is None
        page.goto(f"{address}/?view=drift")
        page.locator(".js-plotly-plot:visible .barlayer .point path").first.wait_for()
        assert page.evaluate("() => window.hacked") is None
    assert not (hostile.parent / "ran").exists()


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    accounts = Accounts(tmp_path / "users.json")
    accounts.add("alice", "runner", "correct horse")
    accounts.add("bob", "viewer", "correct horse")
    return accounts


@pytest.fixture
def guarded(runs: Path, accounts: Accounts) -> Iterator[str]:
    command = [sys.executable, "-m", "workbench.cli", "serve", "--runs", str(runs), "--port", "0", "--prefix", "/same"]
    with subprocess.Popen(
        [*command, "--auth", str(accounts.path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        yield next(word for word in server.stdout.readline().split() if word.startswith("http://"))
        server.terminate()


def test_login_leads_to_the_page_and_roles_to_what_one_may_do(guarded: str, accounts: Accounts) -> None:
    for name, may in (("bob", False), ("alice", True)):
        with browser_page(height=1500) as page:
            page.goto(f"{guarded}/?view=rerouting")
            page.get_by_label("Name").fill(name)
            page.get_by_label("Password").fill("wrong password")
            page.get_by_role("button", name="Log in").click()
            page.get_by_text("The name or the password is wrong.").wait_for()
            page.get_by_label("Password").fill("correct horse")
            page.get_by_role("button", name="Log in").click()
            button = page.get_by_role("button", name="Evaluate this pair")
            button.wait_for()
            assert button.is_enabled() is may
            refused = page.get_by_text("Only runners may queue jobs")
            assert refused.count() == (0 if may else 1)
            if may:
                accounts.add(name, "viewer", "correct horse")  # while the page is open
                button.click()
                refused.wait_for()
