"""The views without a browser: what they offer, what they say, what they draw."""

import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import panel_material_ui as pmui
import plotly.graph_objects as go
import pytest

from same.runs import RunFolder
from tests.workbench.synthetic import write_run
from workbench import figures
from workbench.app import page
from workbench.store import Store
from workbench.views._base import View
from workbench.views.cost import Cost
from workbench.views.drift import RouterDrift
from workbench.views.overview import FIRST, Overview


def title(view: Overview | RouterDrift, pane: str) -> str:
    return str(getattr(view, pane).object.layout.title.text)


def test_overview_draws_what_is_chosen_into_the_same_panes(runs: Path) -> None:
    view = Overview(Store(runs))
    panes = (view.matrix, view.comparison)
    assert len(view.table.value) == 4
    view.run.value = view.run.options["moelora"]
    assert "moelora" in title(view, "matrix")
    view.variant.value = "semantic"
    assert "semantic" in title(view, "matrix")
    view.table.selection = [0]
    assert [trace.name for trace in view.comparison.object.data] == ["lora"]
    assert (view.matrix, view.comparison) == panes


def test_overview_keeps_ticks_and_puts_them_into_its_link(runs: Path) -> None:
    view = Overview(Store(runs))
    assert view.table.selection == [0, 1, 2, 3]
    assert view.state()["runs"] == "", "all is what a link without them shows"
    view.table.selection = [1, 3]
    for change in (view.refresh, lambda: setattr(view.variant, "value", "semantic")):
        change()
        assert view.table.selection == [1, 3]
        assert len(view.comparison.object.data) == 2
    again = Overview(Store(runs))
    again.restore(view.state())
    assert again.state() == view.state()
    assert again.table.selection == [1, 3]
    assert len(again.comparison.object.data) == 2
    view.table.selection = []
    again.restore(view.state())
    assert again.table.selection == []
    view.table.selection = [0, 1, 2, 3]
    assert view.state()["runs"] == ""


def test_overview_ticks_no_more_runs_at_first_than_can_be_read(tmp_path: Path) -> None:
    for seed in range(FIRST + 2):
        write_run(tmp_path, "same", seed=seed, finished=1)
    view = Overview(Store(tmp_path))
    assert view.table.selection == list(range(2, FIRST + 2))
    assert len(view.comparison.object.data) == FIRST
    assert view.comparison.object.layout.title.text == f"Metrics of the ticked runs ({FIRST} of {FIRST + 2})"
    view.table.selection = list(range(FIRST + 2))
    assert len(view.comparison.object.data) == FIRST + 2
    assert view.state()["runs"] == "all"
    view.table.selection = list(range(2, FIRST + 2))
    ticked = view.state()["runs"]
    assert ticked.count(",") == FIRST - 1
    write_run(tmp_path, "same_plus", finished=1)
    for link, then in ((ticked, ticked), ("all", "all")):
        again = Overview(Store(tmp_path))
        again.restore({"runs": link})
        assert again.state()["runs"] == then
        assert len(again.table.selection) == (FIRST + 3 if link == "all" else FIRST)


def test_names_of_panels_have_room_below_the_title() -> None:
    def drawn(label: str) -> go.Figure:
        rows = [(label, after, layer, 0.5) for after in range(3) for layer in ("0.gate", "0.up")]
        return figures.drift_heatmap(pd.DataFrame(rows, columns=["label", "after", "layer", "overlap"]), "overlap")

    plain, long = drawn("same"), drawn("same · seed 0 · rank=4")
    assert plain.layout.yaxis.domain[1] == plain.layout.annotations[0].y == 1
    assert long.layout.height == plain.layout.height + 2 * 16
    assert long.layout.yaxis.domain[1] == long.layout.annotations[0].y < 1


def test_overview_is_searched_by_words_and_state(runs: Path) -> None:
    view = Overview(Store(runs))
    view.table.selection = [0, 2, 3]
    view.search.value = "SAME seed"
    assert list(view.table.value["label"]) == ["same · seed 0", "same · seed 1"]
    assert [bar.name for bar in view.comparison.object.data] == [
        view.table.value["label"][index] for index in view.table.selection
    ]
    view.table.selection = [0, 1]
    again = Overview(Store(runs))
    again.restore(view.state())
    assert list(again.table.value["label"]) == list(view.table.value["label"])
    view.search.value = ""
    assert view.table.selection == [0, 2, 3], "what the search had left out keeps its tick"
    view.state_of.value = "interrupted"
    assert list(view.table.value["label"]) == ["lora"]
    view.search.value = "same"
    assert view.table.value.empty
    assert "Empty Search" in view.note.object
    view.search.value = ""
    assert not view.note.visible


def test_what_overview_and_drift_show_can_be_downloaded(runs: Path) -> None:
    for view, names in (
        (Overview(Store(runs)), {"runs.csv": "label", "scores.csv": "score"}),
        (RouterDrift(Store(runs)), {"routing.csv": "weight", "overlap.csv": "overlap"}),
    ):
        found = {button.filename: button for button in view.__panel__().select(pmui.FileDownload)}
        for name, column in names.items():
            table = pd.read_csv(found[name].callback())
            assert table[column].notna().all()


def test_router_drift_follows_layer_task_and_runs(runs: Path) -> None:
    view = RouterDrift(Store(runs))
    assert len(view.layer.options) == 13
    view.layer.value = "2.up"
    assert "layer 2.up" in title(view, "distribution")
    view.probe.value = 2
    assert "Task 3" in title(view, "curve")
    assert view.layer.value == "2.up"
    view.chosen.value = [view.chosen.options["moelora"]]
    assert [trace.name for trace in view.curve.object.data] == ["moelora"]
    view.chosen.value = []
    assert view.note.visible
    assert "Choose at least one run" in view.note.object


@pytest.mark.parametrize("kind", [RouterDrift, Cost])
def test_a_link_tells_runs_that_were_taken_away_from_those_at_first(
    kind: type[RouterDrift | Cost], deep_runs: Path, tmp_path: Path
) -> None:
    view = kind(Store(deep_runs))
    first = view.chosen.value
    view.chosen.value = []
    said = view.state()
    assert said["runs"] == "none"
    other = kind(Store(deep_runs))
    other.restore(said)
    assert other.chosen.value == []
    other.restore({"runs": f"{first[0]},gone"})
    assert other.chosen.value == first[:1]
    other.restore({"runs": "gone"})
    assert other.chosen.value == first[:1]
    assert kind(Store(tmp_path)).state()["runs"] == "", "where there is none, a link does not ask for none"


def test_a_run_with_rows_left_out_says_how_many(tmp_path: Path) -> None:
    settings = {"left_out": {"textvqa": {"train": 7}}}
    run = RunFolder.create(tmp_path, "mini-coin", "same", 0, settings)
    run.append_event("start")
    run.write_scores(["textvqa"], {"strict": [[0.5]], "normalised": [[0.5]]})
    view = Overview(Store(tmp_path))
    assert "same: Left out for missing pictures: textvqa 7 train rows." in view.note.object


def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    for view in (Overview(Store(tmp_path)), RouterDrift(Store(tmp_path))):
        assert view.note.visible
        assert "same train" in view.note.object
    write_run(tmp_path, "same")
    view = Overview(Store(tmp_path))
    view.refresh()
    assert not view.note.visible


def test_a_run_that_appears_is_found_by_refresh(tmp_path: Path) -> None:
    view = RouterDrift(Store(tmp_path))
    write_run(tmp_path, "same")
    view.refresh()
    assert list(view.chosen.options) == ["same"]
    assert len(view.curve.object.data) == 1


def test_a_damaged_table_is_named_in_the_view(tmp_path: Path) -> None:
    run = write_run(tmp_path, "same")
    table = run.snapshot(4).path / "routing.parquet"
    table.write_bytes(b"x" + table.read_bytes()[1:])
    view = RouterDrift(Store(tmp_path))
    assert "routing.parquet is damaged" in view.note.object
    write_run(tmp_path, "moelora")
    view.refresh()
    assert view.note.alert_type == "warning"
    assert "routing.parquet is damaged" in view.note.object
    assert [trace.name for trace in view.curve.object.data] == ["moelora"]
    view.chosen.value = [view.chosen.options["same"]]
    assert view.note.alert_type == "error"


def test_a_run_without_scores_yet_does_not_hide_the_others(tmp_path: Path) -> None:
    early = write_run(tmp_path, "lora", finished=1, state="start")
    (early.path / "scores.json").unlink()
    write_run(tmp_path, "same")
    view = RouterDrift(Store(tmp_path))
    assert len(view.probe.options) == 8
    assert sorted(trace.name for trace in view.curve.object.data) == ["lora", "same"]


def test_a_view_that_lacks_a_part_is_refused(runs: Path) -> None:
    class Unfinished(View):
        """Has no __panel__."""

        def fill(self) -> None:
            return None

    with pytest.raises(TypeError, match="__panel__"):
        Unfinished(Store(runs))


def test_the_theme_reaches_the_figures(runs: Path) -> None:
    shell = page(runs)
    view = Overview(Store(runs))
    shell.link(view, dark_theme="dark")
    shell.dark_theme = True
    assert view.matrix.object.layout.font.color.startswith("rgba(255")


def test_the_web_process_leaves_torch_out(runs: Path) -> None:
    program = f"import sys; from workbench.app import page; page({str(runs)!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--runs", "nowhere"], "nowhere"),
        (["--runs", "file"], "is no folder"),
        (["--port", "99999", "--runs", "."], "99999"),
        (["--port", "abc"], "--port"),
    ],
)
def test_serve_refuses_what_it_cannot_use(arguments: list[str], named: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "workbench.cli", "serve", *arguments]
    (tmp_path / "file").touch()
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("wish", [signal.SIGINT, signal.SIGTERM])
def test_to_stop_the_server_is_no_failure(wish: signal.Signals, runs: Path) -> None:
    command = [sys.executable, "-m", "workbench.cli", "serve", "--runs", str(runs), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert "http://localhost" in server.stdout.readline()
        server.send_signal(wish)
        _, err = server.communicate(timeout=120)
    assert server.returncode == 0, err
    assert "Traceback" not in err
