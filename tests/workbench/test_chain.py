"""What a chain promises: order, refusals, skipping, kept failures, a report."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import nbformat
import psutil
import pytest
import yaml

from same import registry
from same.engine.results import MANIFESTS
from same.errors import InputError, RunFailed
from same.runs import runs_in
from tests.workbench.variants import write_variant
from workbench import plan
from workbench.chain import Record, reproduce
from workbench.fleet import grids, train_on
from workbench.plan import load_chain
from workbench.trained import made, run_of, trains


def notebook(folder: Path, name: str, parameters: str | None, *cells: str) -> None:
    tagged = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})] if parameters else []
    book = nbformat.v4.new_notebook(cells=[*tagged, *(nbformat.v4.new_code_cell(cell) for cell in cells)])
    book.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(book, folder / f"{name}.ipynb")


def chain(folder: Path, **content: object) -> str:
    file = folder / "demo.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(file)


@pytest.fixture
def books(tmp_path: Path) -> Path:
    """Three notebooks that leave a line each in a log beside them."""
    append = "from pathlib import Path\nwith Path('log').open('a') as log: log.write(word + '\\n')"
    notebook(tmp_path, "one", "word: str = 'one'  # what to write\ncount: int = 1  # how often", append)
    notebook(tmp_path, "two", "word: str = 'two'  # what to write", append, "print('<b>two</b>')")
    notebook(tmp_path, "bare", None, "x = 1")
    notebook(tmp_path, "many", "words: list = ['a']  # what to write")
    (tmp_path / "torn.ipynb").write_text('{"cells": [', encoding="utf-8")
    return tmp_path


def log(folder: Path) -> list[str]:
    return (folder / "log").read_text().split()


def test_steps_come_after_what_they_need_and_a_matrix_makes_one_step_each(books: Path) -> None:
    steps = {
        "last": {"notebook": "two", "needs": ["first"]},
        "first": {"notebook": "one", "matrix": {"word": ["a", "b"]}},
    }
    found = load_chain(chain(books, steps=steps), books / "runs")
    assert [step.name for step in found.steps] == ["first-a", "first-b", "last"]
    assert found.steps[-1].needs == ("first-a", "first-b")


@pytest.mark.parametrize("name", sorted(path.stem for path in (plan.NOTEBOOKS / "chains").glob("*.yaml")))
def test_the_chains_that_are_shipped_can_be_run(name: str, tmp_path: Path) -> None:
    found = load_chain(name, tmp_path)
    assert len({step.copy for step in found.steps}) == len(found.steps)
    for step in found.steps:
        assert step.makes is not None or "train" not in step.notebook.stem


@pytest.mark.parametrize("name", ["full", "mini", "mini-all", "quick"])
def test_what_a_shipped_step_reads_is_named_and_made_before_it(name: str, tmp_path: Path) -> None:
    steps = load_chain(name, tmp_path).steps
    for step in steps:
        assert step.reads or step.makes or step.notebook.stem == "00_quickstart"
        assert step.kept == (step.notebook.stem == "60_tables")
        folders = [pattern.split("/")[0] for pattern in step.reads]
        made_there = {
            one.name for one in steps for folder in folders if one.makes and fnmatch(one.makes.split("/")[0], folder)
        }
        assert made_there - set(step.needs) == set()


def test_mini_draws_each_figure_of_finished_runs_for_every_benchmark(tmp_path: Path) -> None:
    steps = load_chain("mini", tmp_path).steps
    for name in ("20_router_drift", "40_spectra", "50_activation", "80_format_drift", "95_beyond"):
        drawn = [step.parameters["benchmark"] for step in steps if step.notebook.stem == name]
        assert drawn == ["mini-coin", "mini-ucit", "mini-trigap"]


def test_full_is_mini_with_other_parameters(tmp_path: Path) -> None:
    def outline(name: str) -> list[tuple[str, tuple[str, ...]]]:
        return [(step.notebook.stem, tuple(step.needs)) for step in load_chain(name, tmp_path).steps]

    assert [notebook for notebook, _ in outline("full")] == [notebook for notebook, _ in outline("mini")]
    assert [len(needs) for _, needs in outline("full")] == [len(needs) for _, needs in outline("mini")]


def test_all_methods_stand_for_every_file_of_the_package(books: Path) -> None:
    notebook(books, "trains", "method: str = 'x'  # which\nseed: int = 0  # drawn")
    steps = {"t": {"notebook": "trains", "matrix": {"method": "all"}, "makes": "{method}/{seed}-*"}}
    found = load_chain(chain(books, steps=steps), books / "runs").steps
    assert [step.parameters["method"] for step in found] == registry.names("same.methods")
    assert found[0].makes == f"{found[0].parameters['method']}/0-*"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"steps": {"s": {"notebook": "one", "parameters": {"wrod": "x"}}}}, ["wrod", "word", "step s"]),
        ({"steps": {"s": {"notebook": "one", "parameters": {"count": "three"}}}}, ["count", "int", "three"]),
        ({"steps": {"s": {"notebook": "many", "parameters": {"words": "abc"}}}}, ["words", "list", "abc"]),
        ({"steps": {"s": {"notebook": "one", "parameters": ["word"]}}}, ["step s", "parameters", "entries"]),
        ({"steps": {"s": {"notebook": "one", "matrix": {"word": "abc"}}}}, ["matrix", "word", "list", "abc"]),
        ({"steps": {"s": {"notebook": "one", "matrix": {"word": []}}}}, ["matrix", "word", "none"]),
        ({"steps": {"s": {"notebook": "one", "makes": "{wrod}/x"}}}, ["makes", "wrod", "count, word"]),
        ({"steps": {"s": {"notebook": "one", "makes": "/tmp/x"}}}, ["makes", "/tmp/x", "below"]),
        ({"steps": {"s": {"notebook": "one", "reads": ["../x"]}}}, ["reads", "../x", "below"]),
        ({"steps": {"s": {"notebook": "one", "reads": "x"}}}, ["reads", "list", "'x'"]),
        ({"steps": {"s": {"notebook": "one", "kept": "yes"}}}, ["kept", "true or false", "'yes'"]),
        ({"steps": {"s": {"notebook": "one"}, "t": {"notebook": "two", "needs": "s"}}}, ["needs", "list", "'s'"]),
        ({"steps": {"s": {"notebook": "one", "matrix": {"word": ["a b", "a/b"]}}}}, ["s-a_b", "name of its own"]),
        ({"steps": {"s": {"notebook": "torn"}}}, ["torn.ipynb", "must be a notebook"]),
        ({"steps": {"s": {"notebook": "bare"}}}, ["bare.ipynb", "parameters"]),
        ({"steps": {"s": {"notebook": "onne"}}}, ["onne", "one"]),
        ({"steps": {"s": {"notebook": "one", "need": ["t"]}}}, ["need", "needs"]),
        ({"steps": {"s": {"notebook": "one", "needs": ["t"]}}}, ["'t'", "Choices: s"]),
        ({"steps": {"s": {"notebook": "one", "needs": ["s"]}}}, ["circle"]),
        ({"steps": {"s": {"notebook": "one"}}, "parameters": {"sed": 1}}, ["sed"]),
        ({"steps": {"s": {"notebook": "one"}}, "jobs": 0}, ["jobs", "0"]),
        ({"steps": {}}, ["steps"]),
    ],
)
def test_a_chain_that_cannot_be_is_refused_before_anything_is_written(
    books: Path, content: dict[str, object], named: list[str]
) -> None:
    file = chain(books, **content)
    with pytest.raises(InputError) as caught:
        reproduce(file, books / "runs")
    assert [word for word in named if word not in str(caught.value)] == []
    assert not (books / "runs").exists()


def test_other_weights_or_manifests_make_other_fingerprints(books: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = books / "packages"
    files = [place / "same" / "backbones" / "model.safetensors", place / "data_manifests" / "demo.yaml"]
    files += [place / "data_manifests" / "results" / "demo" / name for name in ("tuning.json", "lora-0.json")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1")
    monkeypatch.setattr(plan, "ROOT", place)
    given = {"s": {"notebook": "one"}, "tables": {"notebook": "one", "kept": True}}
    steps = load_chain(chain(books, steps=given), books / "runs")
    found = [steps.fingerprints()]
    for file in files:
        file.write_text("2")
        found.append(steps.fingerprints())
    plain = [one["s"] for one in found]
    assert plain[3] == plain[4], "one more result changes no other run"
    assert len(set(plain)) == 4
    assert len({one["tables"] for one in found}) == 5, "a step that reads the kept results sees every one"


def test_a_dry_run_writes_nothing(books: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reproduce(chain(books, steps={"s": {"notebook": "one"}}), books / "runs", dry_run=True)
    assert "would run" in capsys.readouterr().out
    assert not (books / "runs").exists()


@pytest.mark.slow
def test_only_what_changed_and_what_depends_on_it_runs_again(books: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(word: str) -> None:
        steps = {"a": {"notebook": "one", "parameters": {"word": word}}, "b": {"notebook": "two", "needs": ["a"]}}
        reproduce(chain(books, steps={**steps, "c": {"notebook": "two"}}, jobs=2), books / "runs")

    run("x")
    assert sorted(log(books)) == ["two", "two", "x"]
    run("x")
    assert len(log(books)) == 3
    run("y")
    assert sorted(log(books)) == ["two", "two", "two", "x", "y"]
    folder = books / "runs" / "reports" / "demo"
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;two&lt;/b&gt;" in page
    assert "http://" not in page.split("</script>", 1)[1]
    assert str(folder / "index.html") in capsys.readouterr().out
    assert sorted(path.name for path in folder.glob("*.ipynb")) == ["b.ipynb", "c.ipynb", "one.ipynb"]


@pytest.mark.slow
def test_a_failing_notebook_is_kept_with_its_error_and_what_needs_it_does_not_run(books: Path) -> None:
    notebook(books, "broken", "word: str = 'x'", "raise ValueError('on purpose')")
    steps = {"a": {"notebook": "broken"}, "b": {"notebook": "two", "needs": ["a"]}}
    with pytest.raises(RunFailed, match="on purpose"):
        reproduce(chain(books, steps=steps), books / "runs")
    copy = nbformat.read(books / "runs" / "reports" / "demo" / "broken.ipynb", as_version=4)
    outputs = [output for cell in copy.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any(output.output_type == "error" and output.evalue == "on purpose" for output in outputs)
    assert not (books / "log").exists()


@pytest.mark.slow
def test_a_dead_kernel_is_an_error_in_the_copy(books: Path) -> None:
    notebook(
        books, "dying", "word: str = 'x'", "print('before', flush=True)", "import os; os._exit(1)", "print('after')"
    )
    with pytest.raises(RunFailed, match=r"DeadKernelError: the kernel must answer"):
        reproduce(chain(books, steps={"a": {"notebook": "dying"}}), books / "runs")
    copy = nbformat.read(books / "runs" / "reports" / "demo" / "dying.ipynb", as_version=4)
    errors = [cell.source for cell in copy.cells for output in cell.get("outputs", []) if output.output_type == "error"]
    assert errors == ["import os; os._exit(1)"]


def test_a_runs_folder_that_is_a_file_is_refused(books: Path) -> None:
    (books / "runs").write_text("")
    with pytest.raises(InputError, match="--runs must be a folder"):
        reproduce(chain(books, steps={"s": {"notebook": "one"}}), books / "runs")


@pytest.mark.slow
def test_what_a_step_reads_and_what_it_needs_make_it_run_again(books: Path) -> None:
    read = books / "runs" / "mini-x" / "one.json"
    steps = {"a": {"notebook": "one"}, "b": {"notebook": "two", "needs": ["a"], "reads": ["mini-*/*.json"]}}
    file = chain(books, steps=steps, jobs=2)
    reproduce(file, books / "runs")
    read.parent.mkdir()
    read.write_text("{}")
    reproduce(file, books / "runs")
    assert log(books) == ["one", "two", "two"]
    (books / "runs" / "reports" / "demo" / "one.ipynb").unlink()
    reproduce(file, books / "runs")
    assert log(books) == ["one", "two", "two", "one", "two"]


@pytest.mark.slow
def test_what_changed_while_a_step_ran_is_not_taken_as_read(books: Path) -> None:
    notebook(books, "late", "word: str = 'x'", "from pathlib import Path\nPath('runs/mini-x/one.json').write_text('2')")
    read = books / "runs" / "mini-x" / "one.json"
    read.parent.mkdir(parents=True)
    read.write_text("1")
    name = chain(books, steps={"a": {"notebook": "late", "reads": ["mini-x/*.json"]}})
    reproduce(name, books / "runs")
    found = load_chain(name, books / "runs")
    record = Record(books / "runs" / "reports" / "demo", found)
    assert not record.holds(found.steps[0]), "it was started when the file held another text"
    read.write_text("1")
    assert record.holds(found.steps[0])


def test_what_another_process_did_until_the_lock_is_ours_is_taken_up(books: Path) -> None:
    found = load_chain(chain(books, steps={"a": {"notebook": "one"}, "b": {"notebook": "two"}}), books / "runs")
    early, other = (Record(books / "runs" / "reports" / "demo", found) for _ in range(2))
    with other.held():
        other.note(found.steps[0], other.fingerprint(found.steps[0]), 1)
        other.copy(found.steps[0]).touch()
    with early.held():
        assert early.holds(found.steps[0])
        early.note(found.steps[1], early.fingerprint(found.steps[1]), 2)
    assert Record(early.folder, found).seconds() == {"a": 1, "b": 2}


@pytest.mark.slow
def test_from_a_notebook_on_everything_runs_again_and_what_comes_before_stays(books: Path) -> None:
    steps = {"a": {"notebook": "one"}, "b": {"notebook": "two", "needs": ["a"]}, "c": {"notebook": "many"}}
    file = chain(books, steps=steps, jobs=2)
    with pytest.raises(InputError, match="a never was in"):
        reproduce(file, books / "runs", begin="two")
    with pytest.raises(InputError, match="Choices: one, two, many"):
        reproduce(file, books / "runs", begin="three")
    reproduce(file, books / "runs")
    notebook(books, "one", "word: str = 'one'  # what to write\ncount: int = 1  # how often", "1 / 0")
    reproduce(file, books / "runs", begin="two.ipynb")
    assert log(books) == ["one", "two", "two"]


@pytest.mark.slow
def test_after_a_failure_the_report_that_stands_there_says_that_it_is_old(books: Path) -> None:
    steps = {"a": {"notebook": "one"}}
    reproduce(chain(books, steps=steps), books / "runs")
    page = books / "runs" / "reports" / "demo" / "index.html"
    assert "This report is old" not in page.read_text(encoding="utf-8")
    notebook(books, "broken", "word: str = 'x'", "raise ValueError('<purpose>')")
    file = chain(books, steps={**steps, "b": {"notebook": "broken"}})
    for _ in range(2):
        with pytest.raises(RunFailed, match="<purpose>"):
            reproduce(file, books / "runs")
    told = page.read_text(encoding="utf-8")
    assert told.count("This report is old") == 1
    assert "&lt;purpose&gt;" in told
    reproduce(chain(books, steps=steps), books / "runs")
    assert "This report is old" not in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_killed_chain_takes_its_notebooks_along_and_the_next_one_goes_on_after_what_was_done(books: Path) -> None:
    wait = (
        "import time, pathlib\npathlib.Path('started').touch()\nwhile not pathlib.Path('go').exists(): time.sleep(0.1)"
    )
    notebook(books, "long", "word: str = 'x'", wait, "with open('log', 'a') as log: log.write('long\\n')")
    steps = {"a": {"notebook": "one"}, "b": {"notebook": "long", "needs": ["a"]}}
    file = chain(books, steps=steps)
    command = [sys.executable, "-m", "workbench.cli", "reproduce", "--chain", file, "--runs", str(books / "runs")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as killed:
        wait_for((books / "started").exists)
        below = psutil.Process(killed.pid).children(recursive=True)
        with pytest.raises(InputError, match="another process runs this chain"):
            reproduce(file, books / "runs")
        killed.kill()
    assert psutil.wait_procs(below, timeout=60)[1] == []
    (books / "go").touch()
    reproduce(file, books / "runs")
    assert log(books) == ["one", "long"]


def test_what_a_chain_trains_becomes_a_grid_of_each_size(tmp_path: Path) -> None:
    steps = load_chain("mini", tmp_path).steps
    one, *others = grids(steps)
    assert not others
    assert one["benchmarks"] == ["mini-coin", "mini-ucit", "mini-trigap"]
    assert len(one["runs"]) == sum(step.makes is not None for step in steps)
    assert len({run["tag"] for run in one["runs"]}) == len(one["runs"])
    [corner] = [run for run in one["runs"] if run.get("settings") == {"gain": "none"}]
    assert (corner["method"], corner["benchmarks"], corner["seeds"]) == ("same", ["mini-coin"], [0])
    assert (one["train_items"], one["tuned"]) == (640, "mini-coin")
    assert len(grids([*steps, *load_chain("quick", tmp_path).steps])) == 2


def test_the_grid_of_kept_results_holds_all_that_the_chain_varies(tmp_path: Path) -> None:
    [grid] = grids(load_chain("mini", tmp_path).steps)
    kept = yaml.safe_load((MANIFESTS / "grids/ablation.yaml").read_text(encoding="utf-8"))
    varied = [(run["method"], run["settings"]) for run in grid["runs"] if "settings" in run]
    assert len(varied) > 20
    assert [run for run in varied if run not in [(one["method"], one["settings"]) for one in kept["runs"]]] == []
    assert [kept[name] for name in ("train_items", "tuned")] == [grid[name] for name in ("train_items", "tuned")]


@pytest.mark.slow
def test_a_scheduler_that_cannot_be_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--scheduler must be the address"):
        train_on("nonsense", load_chain("quick", tmp_path).steps, tmp_path / "runs", tmp_path)
    assert not (tmp_path / "runs").exists()


def test_the_progress_beside_a_step_is_that_of_its_own_run(variants: Path) -> None:
    [corner] = [step for step in load_chain("mini", variants).steps if step.name == "ablate-gain=none"]
    of_its_size = replace(corner, parameters={**corner.parameters, "train_items": 64, "test_items": 0})
    [found] = [run for run in runs_in(variants) if trains(of_its_size, run)]
    request = found.config()["environment"]["request"]
    assert request["settings"] == {"gain": "none"}
    chosen = {**of_its_size.parameters, "settings": {"gain": "none", "learning_rate": 0.1}}
    assert not trains(replace(of_its_size, parameters=chosen), found)
    assert not any(trains(corner, run) for run in runs_in(variants)), "it trains 640 rows of each task"


def test_a_step_whose_own_run_is_gone_is_not_done_because_a_sibling_is_there(tmp_path: Path) -> None:
    write_variant(tmp_path, "same", {"gain": "none"})
    write_variant(tmp_path, "same", {})
    steps = {step.name: step for step in load_chain("mini", tmp_path).steps}
    size = {"train_items": 64, "test_items": 0}
    corner, other, plain = (
        replace(steps[name], parameters={**steps[name].parameters, **size})
        for name in ("ablate-gain=none", "ablate-curvature_on=none", "train-mini-coin-same")
    )
    assert [made(step, tmp_path) for step in (corner, other, plain)] == [True, False, True]
    assert not made(steps["ablate-gain=none"], tmp_path), "it trains 640 rows of each task"
    found = run_of(corner, tmp_path)
    assert found is not None
    (found.path / "scores.json").unlink()
    assert [made(step, tmp_path) for step in (corner, other, plain)] == [False, False, True]
    assert made(steps["drift-mini-coin"], tmp_path), "it makes nothing below the folder of runs"


def wait_for(happened: Callable[[], bool]) -> None:
    """Until something on disk has happened; fails after two minutes."""
    end = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < end
        threading.Event().wait(0.05)
