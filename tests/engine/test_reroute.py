"""Re-routing: what is answered is what was asked for, and nothing is made twice."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from same.cli import app
from same.engine.reroute import ORACLE_EPOCHS, Rerouter, Rerouting, versions
from same.engine.snapshot import ADAPTER
from same.engine.trainer import train
from same.errors import InputError, SnapshotError
from same.runs import RunFolder, write_table
from same.tuner.observe import moe_layers
from tests.engine.conftest import TRAIN

EXPERTS = 3
SETTINGS = {"method": "moelora", "num_experts": EXPERTS, "rank": 2}
LAYERS = ("layers.0.up", "layers.1.up")
ASKED = Rerouting("colour", "0", 1)


@pytest.fixture
def recorded(tmp_path):
    """A run of three finished tasks that holds what is looked at before a model is loaded, and no more."""
    tasks = [{"key": key} for key in ("colour", "letter", "length")]
    run = RunFolder.create(tmp_path, "colours", "moelora", 0, {"tasks": tasks, "train": {"learning_rate": 0.01}})
    rows = [(layer, expert) for layer in LAYERS for expert in range(EXPERTS)]
    table = {"layer": [layer for layer, _ in rows], "expert": [expert for _, expert in rows]}
    for index in range(3):
        run.write_snapshot(index, lambda path: write_table(path / "routing.parquet", table), task=tasks[index]["key"])
    return run


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"retrain_steps": -1}, "retrain_steps"),
        ({"items": 0}, "items"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"seed": -1}, "seed"),
        ({"layer": LAYERS[0]}, "layer and weights"),
        ({"weights": (1.0,)}, "layer and weights"),
        ({"layer": LAYERS[0], "weights": (1.0, -1.0, 0.0)}, "at least 0"),
        ({"layer": LAYERS[0], "weights": (0.0, 0.0, 0.0)}, "not all 0"),
    ],
)
def test_a_value_that_cannot_be_is_refused(wrong, said):
    with pytest.raises(InputError, match=said):
        Rerouting("colour", "0", 0, **wrong)


@pytest.mark.parametrize(
    ("wrong", "choices"),
    [
        ({"task": "color"}, ["color", "colour", "length"]),
        ({"router": "3"}, ["'3'", "2", "oracle"]),
        ({"router": "orakle"}, ["orakle", "Did you mean 'oracle'", "uniform"]),
        ({"experts": 3}, ["experts '3'", "0, 1, 2"]),
        ({"layer": "layers.0.down", "weights": (1.0, 0.0, 0.0)}, ["layers.0.down", *LAYERS]),
        ({"layer": LAYERS[0], "weights": (1.0,)}, ["one an expert, 3"]),
        ({"router": "oracle", "retrain_steps": 0}, ["oracle"]),
    ],
)
def test_a_name_that_is_not_there_is_refused_with_the_choices_and_nothing_is_written(recorded, wrong, choices):
    with pytest.raises(InputError) as refused:
        Rerouter(recorded).result(Rerouting(**{"task": "colour", "router": "0", "experts": 1, **wrong}))
    assert [word for word in choices if word not in str(refused.value)] == []
    assert not (recorded.path / "reroute").exists()


def test_versions_are_indices_names_or_all(recorded):
    assert versions(recorded, "all") == ["0", "1", "2"]
    assert versions(recorded, "2, own", ["own"]) == ["2", "own"]
    with pytest.raises(InputError, match="Choices: 0, 1, 2, all"):
        versions(recorded, "0,3")


def test_a_run_without_a_finished_task_routed_experts_or_adapters_is_refused(tmp_path):
    run = RunFolder.create(tmp_path, "colours", "lora", 0, {"tasks": [{"key": "colour"}], "train": {}})
    with pytest.raises(InputError, match="finished task"):
        Rerouter(run)
    run.write_snapshot(0, lambda path: (path / "adapter").touch(), task="colour")
    with pytest.raises(InputError, match=r"routes experts; lora does not"):
        Rerouter(run)
    run.write_snapshot(0, lambda path: write_table(path / "routing.parquet", {"layer": ["up"]}), pruned=True)
    with pytest.raises(InputError, match="pruned"):
        Rerouter(run)


def test_what_changes_nothing_is_no_other_question(recorded):
    rerouter = Rerouter(recorded)

    def key(**asked):
        return rerouter.key(Rerouting(**{"task": "colour", "router": "1", "experts": 1, **asked}))

    assert key() == key(router="own") == key(seed=3) == key(learning_rate=1.0) == key(retrain_steps=0)
    assert key(retrain_steps=2) == key(retrain_steps=2, learning_rate=0.01)
    by_hand = {"layer": LAYERS[0], "weights": (1.0, 1.0, 2.0)}
    assert key(**by_hand) == key(layer=LAYERS[0], weights=(0.25, 0.25, 0.5))
    trained = {key(retrain_steps=2, **more) for more in ({}, {"seed": 1}, {"learning_rate": 0.1}, {"items": 2})}
    assert len({key(), key(router="0"), key(experts=2), key(items=2), key(**by_hand), *trained}) == 9


def test_a_known_result_is_read_and_a_damaged_one_is_named(recorded):
    rerouter = Rerouter(recorded)
    key = rerouter.key(ASKED)
    recorded.write_rerouting(key, {"id": key, "scores": {"strict": 0.5}}, {"text": ["red"]})
    assert rerouter.result(ASKED)["scores"] == {"strict": 0.5}
    assert recorded.reroutings() == [key]
    assert list(recorded.rerouted_answers(key).table("answers")["text"]) == ["red"]
    path = recorded.rerouting(key)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scores": {"strict": 1.0}}))
    with pytest.raises(SnapshotError, match=rf"{path.name} is damaged.*Delete that file"):
        rerouter.result(ASKED)


def test_other_snapshots_are_another_question(recorded):
    before = Rerouter(recorded).key(ASKED)
    recorded.write_snapshot(1, lambda path: (path / "other").write_text("else"), task="letter")
    assert Rerouter(recorded).key(ASKED) != before


def test_the_command_prints_a_line_a_pair_or_json_lines(recorded):
    given = ["reroute", "--run", str(recorded.path), "--task", "colour", "--router", "own,0", "--experts", "1"]
    rerouter = Rerouter(recorded)
    for router in ("1", "0"):
        key = rerouter.key(Rerouting("colour", router, 1))
        result = {"id": key, "task": "colour", "router": router, "experts": 1, "layer": None, "retrained_steps": 0}
        result |= {"scores": {"strict": 0.5}, "routing_entropy": {"mean": 1.5}}
        recorded.write_rerouting(key, result, {"text": ["red"]})
    plain, lines = (CliRunner().invoke(app, [*given, *more]) for more in ([], ["--json"]))
    assert (plain.exit_code, lines.exit_code) == (0, 0)
    expected = "colour  router 1, experts 1:  strict 0.500  entropy 1.500 bits"
    assert plain.stdout.splitlines() == [expected, expected.replace("router 1", "router 0")]
    found = [json.loads(line) for line in lines.stdout.splitlines()]
    assert [(event["kind"], event["router"]) for event in found] == [("result", "1"), ("result", "0")]


# -- with a model ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab(ask, tmp_path_factory):
    """A run of routed experts, its re-router, and what that reported."""
    events = []
    run = train(ask(tmp_path_factory.mktemp("rerouted"), **SETTINGS))
    return run, Rerouter(run, events.append), events


@pytest.mark.slow
def test_the_runs_own_versions_give_the_runs_own_answers(lab):
    run, rerouter, _ = lab
    for stage in (0, 2):
        found = rerouter.result(Rerouting("colour", "own", stage))
        recorded = run.read_predictions(stage, "colour")
        assert run.rerouted_answers(found["id"]).table("answers").equals(recorded)
        assert found["scores"]["strict"] == run.scores()["variants"]["strict"][stage][0]
        table = run.snapshot(stage).table("routing").query("probe_index == 0")
        for layer, shares in found["routing"].items():
            assert shares == pytest.approx(list(table[table["layer"] == layer]["weight"]), abs=1e-6)


@pytest.mark.slow
def test_each_kind_of_router_is_what_it_says(lab):
    run, rerouter, events = lab
    first = load_file(run.snapshot(0).file(ADAPTER))
    last = load_file(run.snapshot(2).file(ADAPTER))

    def weights():
        return {name: [layer.router.clone(), *layer.experts_a] for name, layer in moe_layers(model).items()}

    uniform = rerouter.result(Rerouting("colour", "uniform", 2))
    model = rerouter._session.model
    assert uniform["routing_entropy"]["mean"] == pytest.approx(math.log2(EXPERTS), abs=1e-5)
    mixed = rerouter.result(Rerouting("colour", "0", 2))
    for name, (router, *experts) in weights().items():
        assert torch.equal(router, first[f"base_model.model.{name}.lora_router"])
        assert all(torch.equal(a, last[f"base_model.model.{name}.lora_A.{i}"]) for i, a in enumerate(experts))
    assert 0 < mixed["routing_entropy"]["mean"] < math.log2(EXPERTS)
    drawn = [rerouter.result(Rerouting("colour", "random", 2, seed=seed))["routing"] for seed in (0, 1)]
    assert drawn[0] != drawn[1]
    layer = next(iter(mixed["routing"]))
    by_hand = rerouter.result(Rerouting("colour", "0", 2, items=2, layer=layer, weights=(0, 0, 1)))
    assert by_hand["items"] == 2
    assert by_hand["routing"][layer] == [0, 0, 1]
    assert by_hand["routing_entropy"]["layers"][layer] == 0
    assert all(entropy > 0 for name, entropy in by_hand["routing_entropy"]["layers"].items() if name != layer)
    assert [event["kind"] for event in events].count("load") == 1
    answered = [event for event in events if event["kind"] == "answer"][-1]
    assert answered == {"kind": "answer", "answered": 2, "total": 2}
    with pytest.raises(InputError, match="at most the 5 test rows"):
        rerouter.result(Rerouting("colour", "0", 2, items=6))


@pytest.mark.slow
def test_retraining_moves_the_routers_alone_and_lowers_the_loss(lab):
    run, rerouter, events = lab
    for router, steps in (("own", 12), ("oracle", ORACLE_EPOCHS * (TRAIN // 4))):
        asked = Rerouting("letter", router, 2, steps if router == "own" else None, learning_rate=0.1)
        found = rerouter.result(asked)
        assert [row["step"] for row in found["curve"]] == list(range(1, steps + 1))
        assert found["retrained_steps"] == steps
        last = load_file(run.snapshot(2).file(ADAPTER))
        for name, layer in moe_layers(rerouter._session.model).items():
            assert not torch.equal(layer.router, last[f"base_model.model.{name}.lora_router"])
            for part, factors in (("A", layer.experts_a), ("B", layer.experts_b)):
                for i, factor in enumerate(factors):
                    assert torch.equal(factor, last[f"base_model.model.{name}.lora_{part}.{i}"])
        assert found["curve"][-1]["loss"] < found["curve"][0]["loss"]
    assert [event["step"] for event in events if event["kind"] == "retrain"][:3] == [1, 2, 3]
    count = len(events)
    again = Rerouter(run, events.append).result(Rerouting("letter", "2", 2, 12, learning_rate=0.1))
    assert again["curve"] == rerouter.result(Rerouting("letter", "own", 2, 12, learning_rate=0.1))["curve"]
    assert len(events) == count
