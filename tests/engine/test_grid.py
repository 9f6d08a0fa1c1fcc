"""Grids: what a file becomes, in which order, and how a wrong one is named; choosing by validation rows."""

import json

import pytest
import yaml

from same.engine import tuning
from same.engine.grid import load_grid
from same.engine.job import Request
from same.engine.remote import arguments_of
from same.engine.results import MANIFESTS
from same.engine.sweep import without_choice
from same.errors import InputError
from same.sealed import read_json

SMALL = {"benchmarks": ["mini-coin"], "methods": ["lora", "moelora"], "seeds": [0, 1], "train_items": 32}


@pytest.fixture
def load(tmp_path):
    """Read a grid of some content."""

    def read(**content):
        path = tmp_path / "grid.yaml"
        path.write_text(yaml.safe_dump(SMALL | content))
        return load_grid(path, tmp_path / "runs")

    return read


def names(grid):
    return [cell.name.removeprefix("mini-coin/") for cell in grid.cells]


def test_all_methods_of_a_seed_come_before_the_next_seed_and_listed_runs_after_them(load):
    grid = load(runs=[{"method": "same", "tag": "damping=1", "settings": {"damping": 1.0}}])
    listed = ["same@damping=1-0", "same@damping=1-1"]
    assert names(grid) == ["lora-0", "moelora-0", "lora-1", "moelora-1", *listed]


def test_the_order_and_a_priority_are_the_files_choice(load):
    assert names(load(order=["method", "benchmark", "seed"])) == ["lora-0", "lora-1", "moelora-0", "moelora-1"]
    first = load(runs=[{"method": "same", "seeds": [5], "priority": -1}])
    assert names(first)[0] == "same-5"


def test_a_run_takes_what_it_leaves_out_from_its_method_and_from_the_file(load):
    grid = load(
        settings={"epochs": 2, "batch_size": 8},
        per_method={"same": {"damping": 0.5, "epochs": 3}},
        methods=["same"],
        seeds=[0],
        runs=[{"method": "same", "tag": "a", "settings": {"damping": 2.0}}],
    )
    plain, other = (cell.job for cell in grid.cells)
    assert (plain.train.epochs, plain.train.batch_size, plain.method_config.damping) == (3, 8, 0.5)
    assert (other.train.epochs, other.method_config.damping) == (3, 2.0)
    assert plain.request.train_items == 32
    assert plain.folder.path != other.folder.path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"methods": ["loraa"]}, ["the file.methods", "loraa", "moelora"]),
        ({"benchmarks": ["mini-con"]}, ["mini-con", "mini-coin"]),
        ({"seeds": [0, 0]}, ["seeds", "nothing twice"]),
        ({"seeds": ["0"]}, ["seeds", "whole numbers"]),
        ({"method": ["lora"]}, ["method", "Did you mean methods?"]),
        ({"keep": "some"}, ["keep", "all, results"]),
        ({"order": ["seed"]}, ["order", "seed, benchmark, method"]),
        ({"per_method": {"loraa": {}}}, ["per_method", "loraa"]),
        ({"runs": [{"method": "lora"}]}, ["runs", "differ", "lora-0"]),
        ({"runs": [{"method": "lora", "tag": "a/b"}]}, ["runs[0].tag", "a/b"]),
        ({"runs": [{"methods": "lora"}]}, ["runs[0]", "Did you mean method?"]),
        ({"tune": {"values": []}}, ["tune.values", "at least one"]),
        ({"tune": {"values": [0.1], "metric": "accuracy"}}, ["tune.metric", "accuracy", "last, mean"]),
        ({"methods": [], "seeds": [0]}, ["the file.methods"]),
        ({"seeds": [-1]}, ["grid.yaml: seed must be", "-1"]),
    ],
)
def test_a_wrong_grid_names_the_file_the_key_and_the_choices(load, content, said, tmp_path):
    with pytest.raises(InputError) as raised:
        load(**content)
    assert [word for word in said if word not in str(raised.value)] == []
    assert [path.name for path in tmp_path.iterdir()] == ["grid.yaml"]


def test_a_setting_no_method_has_names_its_run(load):
    grid = load(settings={"dampign": 1.0})
    with pytest.raises(InputError, match=r"mini-coin/lora-0: .*dampign"):
        _ = grid.cells[0].job


@pytest.mark.parametrize("path", sorted((MANIFESTS / "grids").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_grid_of_the_project_can_be_read(path, tmp_path):
    grid = load_grid(path, tmp_path)
    assert grid.tuned == "mini-coin"
    assert all(cell.job.request.train_items for cell in grid.cells)


def test_a_request_becomes_the_arguments_of_train():
    request = Request("b", "m", runs="r", train_items=3, settings={"epochs": 2, "targets": ["ffn", "attention"]})
    found = arguments_of({"benchmark": "b", "allow_missing": True, "tasks": None, "settings": request.settings})
    assert found == ["--benchmark", "b", "--allow-missing", "--set", "epochs=2", "--set", "targets=ffn,attention"]


# -- choosing ---------------------------------------------------------------------------------------------------------


def test_the_highest_score_is_chosen_and_of_equals_the_smallest_value():
    assert tuning.choose({4.0: 0.5, 1.0: 0.7, 2.0: 0.7}) == 1.0
    assert tuning.choose({}) is None


def test_every_method_that_trains_is_tried_with_the_same_values_on_the_first_tasks(load):
    grid = load(methods=["zero_shot", "lora"], tune={"values": [0.1, 0.2], "tasks": 2, "validation_items": 7})
    found = tuning.candidates(grid)
    assert list(found) == ["lora"]
    jobs = [cell.job for cell in found["lora"].values()]
    assert [job.train.learning_rate for job in jobs] == [0.1, 0.2]
    assert {job.benchmark.keys for job in jobs} == {("scienceqa", "textvqa")}
    assert {job.settings["validation_items"] for job in jobs} == {7}


def test_a_choice_is_kept_used_and_not_asked_for_again(load, tmp_path):
    grid = load(methods=["zero_shot", "lora"], seeds=[0], tune={"values": [0.1, 0.2], "tasks": 2})
    found, path = tuning.candidates(grid), tuning.tuning_path(tmp_path, "mini-coin")
    assert list(tuning.open_questions(found, grid.tune, path)) == ["lora"]
    for value, cell in found["lora"].items():
        run = cell.job.create_folder()
        run.write_scores(["a", "b"], {"strict": [[value, None], [value, value]]})
        run.append_event("start")
        run.append_event("done")
    assert grid.tune is not None
    tuning.decide(found, grid.tune, path)
    kept = read_json(path, "")
    assert kept["methods"]["lora"]["chosen"] == 0.2
    assert kept["methods"]["lora"]["scores"] == {"0.1": 0.1, "0.2": 0.2}
    assert str(tmp_path) not in json.dumps(kept)
    assert tuning.open_questions(found, grid.tune, path) == {}
    untrained, trained = tuning.tuned(grid, tmp_path)
    assert trained.job.train.learning_rate == 0.2
    assert trained.tuning is not None
    assert trained.tuning["scores"] == {"0.1": 0.1, "0.2": 0.2}
    assert untrained.tuning is None
    assert tuning.chosen("lora", "mini-coin", tmp_path) == {"learning_rate": 0.2}
    assert tuning.chosen("zero_shot", "mini-coin", tmp_path) == {}
    with pytest.raises(InputError, match=r"must be chosen for same on mini-coin; there is one for lora"):
        tuning.chosen("same", "mini-coin", tmp_path)
    tuning.check_choices(
        tuning.candidates(load(methods=["same"], tune={"values": [0.1, 0.2], "tasks": 2})), grid.tune, path
    )
    more = load(methods=["same"], tune={"values": [0.1, 0.4], "tasks": 2})
    assert more.tune is not None
    with pytest.raises(InputError, match=r"that of lora differs in values: \[0\.1, 0\.2\] → \[0\.1, 0\.4\].*--results"):
        tuning.check_choices(tuning.candidates(more), more.tune, path)
    tuning.check_choices(found, more.tune, path)
    by_the_end = load(methods=["lora"], seeds=[0], tune={"values": [0.1, 0.2], "tasks": 2, "metric": "last"})
    assert list(tuning.open_questions(tuning.candidates(by_the_end), by_the_end.tune, path)) == ["lora"]
    both = load(methods=["lora", "gem"], seeds=[0], tuned="mini-coin")
    assert [cell.name for cell in without_choice(both, tuning.tuned(both, tmp_path))] == ["mini-coin/gem-0"]


def test_a_method_with_a_run_that_did_not_end_is_asked_for_again(load, tmp_path):
    grid = load(methods=["lora"], seeds=[0], tune={"values": [0.1, 0.2], "tasks": 2})
    found, path = tuning.candidates(grid), tuning.tuning_path(tmp_path, "mini-coin")
    good, lost = (cell.job.create_folder() for cell in found["lora"].values())
    good.write_scores(["a", "b"], {"strict": [[0.5, None], [0.5, 0.5]]})
    for run, end in ((good, {"kind": "done"}), (lost, {"kind": "failed", "error": "OSError: no space"})):
        run.append_event("start")
        run.append_event(**end)
    assert grid.tune is not None
    tuning.decide(found, grid.tune, path)
    assert list(tuning.open_questions(found, grid.tune, path)) == ["lora"]
    assert tuning.tuned(grid, tmp_path) == []
    lost.append_event("start")
    lost.append_event("failed", error="RunFailed: The loss must stay finite; got nan at step 1. Lower learning_rate.")
    tuning.decide(found, grid.tune, path)
    assert read_json(path, "")["methods"]["lora"]["scores"] == {"0.1": 0.5, "0.2": None}


def test_a_grid_that_takes_anothers_choice_says_where_it_should_be(load, tmp_path):
    grid = load(tuned="mini-ucit")
    with pytest.raises(InputError, match=r"mini-ucit/tuning\.json is missing.*grid that tunes"):
        tuning.tuned(grid, tmp_path)
