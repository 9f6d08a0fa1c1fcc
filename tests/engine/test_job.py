"""Settings are looked up by name, typed by their field, and decide the fingerprint."""

import json
import shutil
import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from typing import Literal

import pytest

from same import registry
from same.backbones._base import Backbone
from same.engine.job import STRATEGIES, Request, TrainConfig, coerce, make_config, place_settings, resolve
from same.engine.session import check
from same.engine.trainer import train
from same.errors import DataError, InputError
from same.methods._base import Method
from same.methods.lora import Lora


@dataclass
class Other:
    rank: int = 4
    note: str | None = None


OWNERS = {"train": TrainConfig, "method": Other}


def test_a_setting_goes_to_the_dataclass_that_has_it():
    placed = place_settings({"learning_rate": "1e-3", "rank": "8"}, OWNERS)
    assert placed == {"train": {"learning_rate": 1e-3}, "method": {"rank": 8}}


def test_an_unknown_setting_is_answered_with_the_choices():
    with pytest.raises(InputError, match=r"Unknown setting 'ranke'\. Did you mean 'rank'\?.*learning_rate"):
        place_settings({"ranke": "4"}, OWNERS)


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        ("3", int, 3),
        ("1e-3", float, 1e-3),
        (2, float, 2.0),
        ("False", bool, False),
        (True, bool, True),
        ("none", int | None, None),
        ("None", int | None, None),
        ("5", int | None, 5),
        ("bf16", Literal["fp32", "bf16"], "bf16"),
        ("x", str, "x"),
        ("3,4", tuple[int, ...], (3, 4)),
        ([3, 4], tuple[int, ...], (3, 4)),
    ],
)
def test_texts_become_what_the_field_asks_for(value, annotation, expected):
    found = coerce("name", value, annotation)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(("value", "annotation"), [("x", int), ("2.5", int), ("maybe", bool), ("x", Literal["a"])])
def test_a_value_of_another_type_is_named(value, annotation):
    with pytest.raises(InputError, match="some_name"):
        coerce("some_name", value, annotation)


@pytest.mark.parametrize(
    "values", [{"batch_size": 0}, {"learning_rate": -1.0}, {"warmup_ratio": 1.5}, {"learning_rate": float("nan")}]
)
def test_impossible_training_settings_are_refused(values):
    with pytest.raises(InputError, match=next(iter(values))):
        make_config(TrainConfig, values)


@pytest.mark.parametrize(
    ("name", "values"),
    [("seed", [-1, 2**32, "0"]), ("processes", [0, "2", None]), ("train_items", [0]), ("test_items", [1.5])],
)
def test_impossible_requests_are_refused_with_what_to_do(name, values):
    for value in values:
        with pytest.raises(InputError, match=rf"{name} must be a whole number .*; got {value!r}\. \w+"):
            Request("b", "m", **{name: value})


@pytest.mark.parametrize(
    ("method", "given", "advice"),
    [
        ("same_plus", {}, "Use --set apply_to=gradient --set freeze_threshold=-1, or"),
        ("same", {}, "Use --set freeze_threshold=-1, or"),
        ("same", {"apply_to": "update", "freeze_threshold": -1}, "Use --set apply_to=gradient, or"),
    ],
)
def test_zero2_refuses_what_edits_finished_updates_and_offers_gradients(ask, tmp_path, method, given, advice):
    with pytest.raises(InputError, match=f"must leave finished updates alone.*{advice}"):
        train(ask(tmp_path, method, 2, strategy="zero2", **given))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("method", "given"),
    [("lora", {}), ("moelora", {}), ("same_plus", {"apply_to": "gradient", "freeze_threshold": -1})],
)
def test_zero2_takes_what_edits_gradients_only(ask, tmp_path, method, given):
    assert resolve(ask(tmp_path, method, 2, strategy="zero2", **given)).request.strategy == "zero2"


@pytest.mark.parametrize(("name", "value", "instead"), [("compile", True, False), ("optimizer", "adamw_8bit", "adamw")])
def test_what_was_never_seen_to_work_on_cut_parameters_is_refused(ask, tmp_path, name, value, instead, monkeypatch):
    installed = module_from_spec(ModuleSpec("bitsandbytes", None))
    monkeypatch.setitem(sys.modules, "bitsandbytes", installed)
    with pytest.raises(InputError, match=f"strategy fsdp must have {name}={str(instead).lower()}:"):
        resolve(ask(tmp_path, "same", 2, strategy="fsdp", **{name: value}))
    assert resolve(ask(tmp_path, "same", 2, **{name: value})).request.strategy == "ddp"


def test_zero2_without_deepspeed_is_refused_before_anything_is_written(ask, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)  # as where it is not installed
    with pytest.raises(InputError, match="strategy zero2 needs DeepSpeed; it is not installed"):
        check(ask(tmp_path, "moelora", 2, strategy="zero2"))
    assert list(tmp_path.iterdir()) == []


def test_a_strategy_is_recorded_and_needs_processes_to_share_with(ask, tmp_path):
    found = [resolve(ask(tmp_path, "moelora", 2, strategy=strategy)).settings["strategy"] for strategy in STRATEGIES]
    assert found == ["ddp", "fsdp", "zero2"]
    with pytest.raises(InputError, match="strategy fsdp must have at least 2 processes; got 1"):
        resolve(ask(tmp_path, strategy="fsdp"))
    with pytest.raises(InputError, match=r"Unknown strategy 'fspd'\. Did you mean 'fsdp'"):
        ask(tmp_path, processes=2, strategy="fspd")


def test_a_method_that_does_not_say_it_works_on_cut_parameters_is_refused(ask, tmp_path, monkeypatch):
    monkeypatch.setattr(Lora, "shardable", False)
    with pytest.raises(InputError, match="must have a method that works on cut parameters; lora does not"):
        resolve(ask(tmp_path, "lora", 2, strategy="fsdp"))


def test_no_setting_of_a_method_or_backbone_hides_one_of_the_trainer():
    for package, base in (("same.methods", Method), ("same.backbones", Backbone)):
        for name in registry.names(package):
            config = registry.load_class(package, name, base).Config
            assert not set(config.__dataclass_fields__) & set(TrainConfig.__dataclass_fields__), name


def test_another_order_of_the_tasks_is_another_run_on_the_same_data(tmp_path):
    plain, other = (
        resolve(Request("mini-coin", "lora", runs=str(tmp_path), settings={"task_order": order})) for order in (0, 3)
    )
    assert other.benchmark.keys != plain.benchmark.keys
    assert [task["key"] for task in other.settings["tasks"]] == list(other.benchmark.keys)
    assert other.settings["data"] == plain.settings["data"]
    assert other.folder.path != plain.folder.path
    with pytest.raises(InputError, match="task_order"):
        resolve(Request("mini-coin", "lora", settings={"task_order": -1}))


def test_a_request_means_the_same_from_any_working_directory(ask, data, checkpoint, tmp_path, monkeypatch):
    there = resolve(ask(tmp_path))
    shutil.copytree(checkpoint, tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    settings = {"checkpoint": "copy", "batch_size": 4, "log_every": 1}
    shutil.copy(data / "colours.yaml", tmp_path)
    here = resolve(Request("colours.yaml", "lora", runs=str(tmp_path), settings=settings))
    assert here.folder.path == there.folder.path
    assert here.request.benchmark == str(tmp_path / "colours.yaml")
    assert here.request.settings["checkpoint"] == str(tmp_path / "copy")


def test_the_fingerprint_sees_a_changed_instruction_file(ask, data, tmp_path, monkeypatch):
    before = resolve(ask(tmp_path)).folder.path
    shutil.copytree(data, tmp_path / "data")
    monkeypatch.setenv("SAME_DATA", str(tmp_path / "data"))
    assert resolve(ask(tmp_path)).folder.path == before
    file = tmp_path / "data" / "colours" / "letter" / "train.json"
    file.write_text(json.dumps(json.loads(file.read_text())[1:]))
    assert resolve(ask(tmp_path)).folder.path != before
    file.unlink()
    with pytest.raises(DataError, match=r"letter/train\.json"):
        resolve(ask(tmp_path)).folder  # noqa: B018 - asking for it reads the files
