"""The views on answers, cost and published numbers, without a browser."""

from pathlib import Path

import pandas as pd
import panel_material_ui as pmui
import pytest

from same.runs import write_table
from tests.workbench.deep import write_deep_run
from tests.workbench.synthetic import TASKS, write_run
from tests.workbench.variants import write_variant
from workbench.store import Store
from workbench.tables import sizes
from workbench.views.cost import Cost
from workbench.views.examples import Examples
from workbench.views.formats import FormatDrift
from workbench.views.reports import Reports


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs with answers."""
    folder = tmp_path_factory.mktemp("answered")
    write_variant(folder, "moelora", {}, last=0.3)
    write_variant(folder, "same", {}, last=0.5)
    return folder


def test_format_drift_follows_task_and_runs(answered: Path) -> None:
    view = FormatDrift(Store(answered))
    assert not view.note.visible
    assert len(view.map.object.data) == 2
    view.task.value = "vizwiz"
    assert "vizwiz" in view.curve.object.layout.title.text
    view.of.value = "textvqa"
    assert "textvqa" in view.kinds.object.layout.title.text
    assert {bar.name for bar in view.kinds.object.data} == {"right", "case", "wrong"}
    view.chosen.value = [view.chosen.options["same"]]
    assert len(view.map.object.data) == 1
    assert view.state() | {"runs": ""} == {"benchmark": "mini-coin", "runs": "", "task": "vizwiz", "errors": "textvqa"}
    again = FormatDrift(Store(answered))
    again.restore(view.state())
    assert again.state() == view.state()
    view.chosen.value = []
    assert "Choose at least one" in view.note.object
    view.chosen.value = [view.chosen.options["same"]]
    assert not view.note.visible


def test_damaged_scores_are_named_and_the_others_drawn(tmp_path: Path) -> None:
    broken = write_variant(tmp_path, "lora", {})
    write_run(tmp_path, "moelora")
    view = FormatDrift(Store(tmp_path))
    assert len(view.map.object.data) == 2
    (broken.path / "scores.json").write_text('{"schema": 1}', encoding="utf-8")
    view.refresh()
    assert len(view.map.object.data) == 1
    assert view.note.visible
    assert "scores.json" in view.note.object or "lora" in view.note.object


def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    view = FormatDrift(Store(tmp_path))
    assert "same train" in view.note.object
    assert view.map.object.layout.annotations[0].text.startswith("No answers")


SCRIPT = "<script>window.hacked=1</script>"


def test_examples_go_through_questions_stages_and_kinds(
    answered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAME_DATA", str(tmp_path))
    view = Examples(Store(answered))
    assert list(view.after.options.values()) == list(range(8))
    assert "answer when the task was learned" in view.text.object
    assert len(view.stages.value) == 8
    view.shown.value = "wrong in form alone"
    assert list(view.table["error"]) == ["case"]
    assert view.text.object.startswith("<p>1 of 1</p>")
    view.after.value = 0
    assert "no such question" in view.text.object
    view.shown.value = "all"
    view.number.value = 3
    assert view.text.object.startswith("<p>3 of 4</p>")
    view.task.value = "textvqa"
    assert len(view.stages.value) == 7
    assert "same prepare --benchmark mini-coin" in view.picture.object
    again = Examples(Store(answered))
    again.restore(view.state())
    assert again.state() == view.state()


def test_what_data_and_models_say_is_plain_text(tmp_path: Path) -> None:
    run = write_variant(tmp_path, "moelora", {})
    for after in range(len(TASKS)):
        table = run.read_predictions(after, TASKS[0]).assign(text=SCRIPT, prompt=SCRIPT, answer=SCRIPT)
        content = {name: table[name].tolist() for name in table}
        run.predictions(after).write(lambda path, content=content: write_table(path / f"{TASKS[0]}.parquet", content))
    view = Examples(Store(tmp_path))
    assert "<script" not in view.text.object
    assert view.text.object.count("&lt;script&gt;") == 4
    assert set(view.stages.value["answer"]) == {SCRIPT}, "a column of plain text"
    assert view.stages.formatters["answer"] == {"type": "plaintext"}


def test_what_models_say_is_no_formula_in_a_spreadsheet(tmp_path: Path) -> None:
    run = write_variant(tmp_path, "moelora", {})
    said = ["=HYPERLINK(A1)", "@SUM(A1)", "-2", " +cmd"]
    for after in (0, len(TASKS) - 1):
        table = run.read_predictions(after, TASKS[0]).assign(text=said, prompt="\t=1")
        content = {name: table[name].tolist() for name in table}
        run.predictions(after).write(lambda path, content=content: write_table(path / f"{TASKS[0]}.parquet", content))
    view = Examples(Store(tmp_path))
    buttons = {button.filename: button for button in view.__panel__().select(pmui.FileDownload)}
    found = pd.read_csv(buttons["examples.csv"].callback(), dtype=str)
    assert list(found["after"]) == ["'=HYPERLINK(A1)", "'@SUM(A1)", "-2", "' +cmd"]
    assert set(found["prompt"]) == {"'\t=1"}
    assert list(found["score_after"].astype(float)) == list(view.table["score_after"]), "numbers are left as they are"


def test_examples_say_where_there_are_none(tmp_path: Path) -> None:
    assert "same train" in Examples(Store(tmp_path)).note.object
    write_run(tmp_path, "same")
    assert "same evaluate" in Examples(Store(tmp_path)).note.object


def test_cost_follows_measure_and_runs(deep_runs: Path) -> None:
    view = Cost(Store(deep_runs))
    assert list(view.totals.value["training (s)"]) == ["46.0"] * 3
    assert list(view.totals.value["most memory (MB)"]) == ["510.0"] * 3
    view.measure.value = "megabytes"
    assert "snapshot" in view.by_task.object.layout.yaxis.title.text
    assert min(view.by_task.object.data[0].y) > 0
    view.step.value = "memory_mb"
    assert view.by_step.object.data[0].y[-1] == 510
    view.chosen.value = [view.chosen.options["same"]]
    assert [bar.name for bar in view.by_task.object.data] == ["same"]
    again = Cost(Store(deep_runs))
    again.restore(view.state())
    assert again.state() == view.state()


def test_bytes_are_those_on_disk(deep_runs: Path) -> None:
    store = Store(deep_runs)
    run = next(run for run in store.overview()["run"] if "/same/" in run)
    files = [file for file in (store.folder(run).path / "snapshots").rglob("*") if file.is_file()]
    assert sizes(store, [run])["megabytes"].sum() == pytest.approx(sum(file.stat().st_size for file in files) / 1e6)


def test_cost_says_where_nothing_was_recorded(answered: Path, tmp_path: Path) -> None:
    assert "same train" in Cost(Store(tmp_path)).note.object
    assert "recorded" in Cost(Store(answered)).note.object


def test_reports_keep_two_protocols_apart(answered: Path) -> None:
    view = Reports(Store(answered))
    row = view.measured.value.set_index("method").loc["moelora"]
    assert row["mean"] == "30.0"
    view.variant.value = "semantic"
    assert view.measured.value.set_index("method").loc["moelora", "mean"] == "40.0"
    assert view.printed.value.set_index("method").loc["moelora", "mean"] == "50.58"
    names = [note.text for note in view.beside.object.layout.annotations]
    assert any("ours on mini-coin" in name for name in names)
    assert any("as published" in name for name in names)
    page = view._page().read()
    assert "40.0" in page
    assert "another protocol" in page
    assert 'src="http' not in page


def test_reports_say_where_there_are_no_runs(tmp_path: Path) -> None:
    view = Reports(Store(tmp_path))
    assert "same train" in view.note.object
    write_run(tmp_path, "mine", finished=2, state="interrupted")
    view.refresh()
    assert "same train" not in view.note.object
    assert "mine" not in set(view.measured.value.get("method", []))


def test_what_was_planned_stands_beside_what_was_measured(tmp_path: Path) -> None:
    run = write_deep_run(tmp_path, "same", 0.2)
    other = write_deep_run(tmp_path, "moelora", 0.4)
    view = Cost(Store(tmp_path))
    assert "Without a plan: moelora, same." in view.unplanned.object
    assert "same train" in view.unplanned.object
    assert view.memory.object.layout.annotations[0].text.startswith("None of the chosen runs")
    assert view.beside.value.empty
    plan = {"trainable": 5000, "gigabytes": {"weights": 0.2, "adapter": 0.05, "buckets": 0.0, "total": 0.25}}
    plan |= {"megabytes_sent_per_step": 0.0, "task_megabytes": [1.0] * 4, "petaflops": [0.001] * 4}
    run.append_event("plan", **plan)
    view.refresh()
    assert "Without a plan: moelora." in view.unplanned.object
    table = view.beside.value.set_index("quantity")
    assert list(table.loc["memory of a process (MB)", ["planned", "measured"]]) == ["238", "510"]
    assert list(table.loc["training (s)", ["planned", "measured"]]) == ["0.04", "46"]
    assert list(table.loc["speed of a process (TFLOP/s)", ["planned", "measured"]]) == ["100", "0.087"]
    assert table.loc["trained parameters", "measured"] == "–"
    assert [bar.name for bar in view.memory.object.data] == ["weights", "adapter", "measured"]
    view.speed.value = 0.1
    assert view.beside.value.set_index("quantity").loc["training (s)", "planned"] == "40"
    assert view.state()["teraflops"] == "0.1"
    view.speed.value = None
    assert view.beside.value.set_index("quantity").loc["training (s)", "planned"] == "–", "an emptied field"
    assert not view.note.visible
    run.append_event("plan", unknown="RuntimeError: <b>")
    view.refresh()
    assert "same could not be planned: RuntimeError: &lt;b&gt;" in view.unplanned.object
    other.append_event("budget", trainable=0)
    view.refresh()
    assert "moelora could not be planned: its method trains nothing." in view.unplanned.object
    assert "Without a plan" not in view.unplanned.object
