"""The report: one file that shows texts, tables and figures, and asks nothing of the network."""

import json
import re
from pathlib import Path

import pytest
from nbformat import write
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.workbench.screenshot import CHROMIUM, browser_page
from tests.workbench.variants import corner_score
from workbench import figures
from workbench.plan import Chain, Step
from workbench.report import PLOTLY, write_report
from workbench.store import Store
from workbench.trials import plain


@pytest.fixture(scope="module")
def report(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a step whose notebook printed, drew and failed, and of one that trains, with the same notebook."""
    store = Store(runs)
    figure = json.loads(figures.score_matrix(store.scores(plain(store, "mini-coin", ["same"])[0])).to_json())
    table = "<table><tr><td>0.5</td></tr></table>"
    outputs = [
        new_output("stream", name="stdout", text="1 < 2\n"),
        new_output("display_data", {PLOTLY: figure, "text/plain": "Figure"}),
        new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "Box()"}),
        new_output("display_data", {"text/html": table, "text/plain": "0.5"}),
        new_output("error", ename="ValueError", evalue="no", traceback=["\x1b[31mValueError: <no>\x1b[0m"]),
    ]
    cells = [
        new_markdown_cell("## A heading\n\nω(x) is **bold**."),
        new_code_cell("secret = 1", metadata={"tags": ["parameters"]}),
        new_code_cell("print('1 < 2')", outputs=outputs),
    ]
    folder = tmp_path_factory.mktemp("report")
    write(new_notebook(cells=cells), folder / "step.ipynb")
    step = Step("step", folder / "step.ipynb", {"seed": 0}, (), None, "step.ipynb")
    folded = Step("train", folder / "step.ipynb", {}, (), "none/*", "step.ipynb", group="train")
    return write_report(Chain("demo", "A <title>", 1, (step, folded)), folder, runs, {"step": 12.3})


def test_texts_are_escaped_and_widgets_and_parameters_left_out(report: Path) -> None:
    page = report.read_text(encoding="utf-8")
    for shown in ("A &lt;title&gt;", "1 &lt; 2", "ValueError: &lt;no&gt;", "<td>0.5</td>", "step (12 s)", "seed = 0"):
        assert shown in page
    for hidden in ("secret", "Box()", "\x1b"):
        assert hidden not in page.partition("</script>")[2]


def test_nothing_is_loaded_from_elsewhere(report: Path) -> None:
    page = report.read_text(encoding="utf-8").partition("</script>")[2]
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)
    assert not re.findall(r"@import|url\(", page)


def test_runs_are_folded_after_the_figures_with_scores_and_the_environment_names_no_other_run(
    tmp_path: Path, variants: Path
) -> None:
    def step(name: str, makes: str | None, **given: object) -> Step:
        write(new_notebook(cells=[new_markdown_cell(f"About {name}")]), tmp_path / f"{name}.ipynb")
        group = name.split("-", maxsplit=1)[0]
        return Step(name, tmp_path / f"{name}.ipynb", given, (), makes, f"{name}.ipynb", group=group)

    scores = "mini-coin/*/*/scores.json"
    asked = {"benchmark": "mini-coin", "method": "same", "seed": 0}
    steps = (
        step("train-plain", scores, **asked, settings={}),
        step("train-gain", scores, **asked, settings={"gain": "none"}),
        step("vary-rank", scores, **asked, settings={"rank": 1000}),
        step("drift", None),
    )
    page = write_report(Chain("demo", "D", 1, steps), tmp_path, variants, {"train-plain": 3.0, "train-gain": 4.0})
    body = page.read_text(encoding="utf-8").rpartition("<nav>")[2]
    assert body.index("About drift") < body.index("About train-plain") < body.index("About vary-rank")
    contents = body.partition("</nav>")[0]
    assert re.findall("#([a-z-]+)", contents) == ["drift", "steps-train", "steps-vary", "environment"]
    assert "train: 2 training steps (7 s)" in contents
    trained, varied, runs = (re.findall("<td>(.*?)</td>", table) for table in body.split("<table")[1:4])
    both, without = corner_score((True,) * 3), corner_score((False, True, True))
    assert trained[:6] == ["same", "mini-coin", "0", "", f"{both:.3f}", "3"]
    assert trained[6:] == ["same", "mini-coin", "0", "gain = none", f"{without:.3f}", "4"]
    assert varied[3:] == ["rank = 1000", "none", "0"]
    assert [cell.rpartition("-")[0] for cell in runs[::3]] == ["mini-coin/same/0", "mini-coin/same/0"]
    assert "code, weights and manifests" in body


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium")
def test_it_draws_without_a_network(report: Path) -> None:
    asked: list[str] = []
    with browser_page() as page:
        page.context.set_offline(True)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        page.locator(".js-plotly-plot .heatmaplayer image").first.wait_for()
        assert page.locator(".gtitle", has_text="Score matrix").count() == 1
        with page.expect_download() as saved:
            page.locator("[data-title='Download plot as an SVG']").first.click(force=True)
        assert saved.value.suggested_filename.endswith(".svg")
        page.locator("summary", has_text="train: 1 training step").click()
        page.locator("#steps-train .js-plotly-plot .heatmaplayer image").wait_for()
        assert page.locator(".gtitle", has_text="Score matrix").count() == 2, (
            "what is folded is drawn when it is opened"
        )
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
