"""Results files of finished runs, snapshots without weights, rows held out for validation."""

import dataclasses
import json

import pytest

from same.data import dataset
from same.data.manifest import load_benchmark
from same.engine.grid import Cell
from same.engine.job import request_of
from same.engine.record import check_results, is_finished, result_path, write_result
from same.engine.results import read_result, read_results
from same.engine.session import Session
from same.engine.snapshot import prune
from same.engine.trainer import train
from same.errors import DataError, InputError, SnapshotError


@pytest.fixture
def cell(copied):
    """The copied run as a cell of a grid."""
    request = request_of(copied)
    return Cell(type(request)(**{**vars(request), "runs": str(copied.path.parents[2])}), "t=1")


def test_a_finished_run_becomes_one_small_file_without_paths(cell, copied, tmp_path):
    assert is_finished(cell)
    path = write_result(tmp_path / "results", cell)
    assert path == tmp_path / "results/colours/lora@t=1-0.json"
    text = path.read_text()
    assert str(tmp_path) not in text
    assert '"/' not in text
    assert len(text) < 30_000
    found, scores = read_result(path), copied.scores()
    assert found["scores"]["variants"]["strict"] == scores["variants"]["strict"]
    assert found["settings"] == json.loads(json.dumps(cell.job.settings))
    assert found["budget"]["samples"] == 30
    assert found["budget"]["global_batch"] == 4
    assert found["budget"]["trainable_parameters"] > 0
    assert found["cost"]["train_seconds"] > 0
    assert found["cost"]["starts"] == 1
    assert [name for name, _ in read_results(tmp_path / "results")] == [path]


def test_an_unchanged_result_is_not_written_again_and_a_damaged_one_is(cell, tmp_path):
    path = write_result(tmp_path, cell)
    inode = path.stat().st_ino
    assert write_result(tmp_path, cell).stat().st_ino == inode
    path.write_text(path.read_text().replace("lora", "lara"))
    with pytest.raises(SnapshotError, match="is damaged"):
        list(read_results(tmp_path))
    write_result(tmp_path, cell)
    assert read_result(result_path(tmp_path, cell))["method"] == "lora"


def test_a_result_of_another_protocol_is_not_written_over(cell, tmp_path):
    path = write_result(tmp_path, cell)
    check_results(tmp_path, [cell])
    fewer = Cell(dataclasses.replace(cell.request, train_items=3), cell.tag)
    with pytest.raises(InputError, match=rf"{path.name} must hold .*train_items: None → 3.* --results"):
        check_results(tmp_path, [cell, fewer])
    shorter = Cell(dataclasses.replace(cell.request, tasks=1), cell.tag)
    with pytest.raises(InputError, match=r"differs in tasks: "):
        check_results(tmp_path, [shorter])


def test_a_run_that_was_started_again_is_not_finished(cell, copied):
    copied.append_event("start", tasks=[], running=[])
    assert not is_finished(cell)


def test_pruning_keeps_tables_and_results_and_a_finished_run_stays_finished(cell, copied):
    scores, before = copied.scores(), sum(file.stat().st_size for file in copied.path.rglob("*"))
    prune(copied)
    assert sum(file.stat().st_size for file in copied.path.rglob("*")) < before / 2
    assert copied.finished() == 3
    for index in range(3):
        copied.snapshot(index).verify()
        assert copied.snapshot(index).manifest()["pruned"]
        assert not copied.snapshot(index).has("adapter/adapter_model.safetensors")
    again = train(cell.request)
    assert again.scores() == scores
    assert len(again.events("step")) == len(copied.events("step"))
    assert is_finished(cell)


# -- validation -------------------------------------------------------------------------------------------------------


def test_the_last_training_rows_are_asked_and_not_trained_on(data):
    benchmark = load_benchmark(data / "colours.yaml")
    task, root = benchmark.tasks[0], data / "colours"
    everything = dataset.training_rows(benchmark, task, root)
    trained = dataset.training_rows(benchmark, task, root, held_out=3)
    asked = dataset.validation_rows(benchmark, task, root, 3)
    assert trained["id"] == everything["id"][:7]
    assert dataset.training_rows(benchmark, task, root, 2, held_out=3)["id"] == [
        everything["id"][0],
        everything["id"][3],
    ]
    assert asked["answer"] == [turns[1]["value"] for turns in everything["conversations"][7:]]
    assert asked["image"] == everything["image"][7:]
    assert asked.features == dataset.test_rows(benchmark, task, root).features
    with pytest.raises(DataError, match="10, 10 held out"):
        dataset.validation_rows(benchmark, task, root, 10)


def test_a_run_can_have_the_first_tasks_alone_and_be_scored_on_validation_rows(ask, tmp_path):
    request = ask(tmp_path)
    request = type(request)(**{**vars(request), "tasks": 2, "validation_items": 4})
    session = Session.open(request)
    assert session.job.benchmark.keys == ("colour", "letter")
    assert [len(rows) for rows in session.rows.train] == [6, 6]
    assert [len(rows) for rows in session.rows.test] == [4, 4]
    whole = Session.open(ask(tmp_path)).job
    assert session.job.folder.path != whole.folder.path
    assert session.job.settings["data"] == whole.settings["data"]
    with pytest.raises(InputError, match="it has 3"):
        Session.open(type(request)(**{**vars(request), "tasks": 4}))
