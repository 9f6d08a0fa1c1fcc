"""The stream without task names and the text-only probe, on the small benchmark."""

import json

import pytest
import torch
from typer.testing import CliRunner

from same.cli import app
from same.engine.stream import shifts
from same.engine.text_probe import ALL_LAYERS, READINGS, _accuracy, probe_tasks
from same.engine.token_routing import picture_of, token_routing
from same.engine.trainer import train
from same.errors import InputError
from tests.engine.conftest import TASKS


@pytest.fixture(scope="module")
def experts(ask, tmp_path_factory):
    return train(ask(tmp_path_factory.mktemp("experts"), "moelora", num_experts=2, rank=2))


@pytest.mark.slow
def test_a_stream_has_a_row_a_window_and_its_boundaries_where_tasks_begin(ask, tmp_path):
    request = ask(tmp_path)
    given = {"checkpoint": request.settings["checkpoint"]}
    rows = shifts(request.benchmark, items=10, window=3, settings=given)
    assert [row["window"] for row in rows] == list(range(9))
    assert [row["window"] for row in rows if row["boundary"]] == [3, 6]
    assert all(0 <= row["shift"] <= 1 for row in rows)
    turned = shifts(request.benchmark, items=10, window=3, settings={**given, "task_order": 2})
    assert [row["task"] for row in turned] != [row["task"] for row in rows]


@pytest.mark.slow
def test_the_probe_says_for_each_layer_how_often_the_task_is_told(experts):
    rows = probe_tasks(experts, items=4)
    layers = {row["layer"] for row in rows}
    assert ALL_LAYERS in layers
    assert len(rows) == len(READINGS) * len(layers)
    assert {row["tested"] for row in rows} == {2 * len(TASKS)}
    text = next(row for row in rows if row["layer"] == ALL_LAYERS and row["tokens"] == "text alone")
    assert text["accuracy"] == 1, "each task asks one question of its own, so the text tells the task"


@pytest.mark.slow
def test_the_routing_of_a_questions_tokens_is_theirs_alone_and_sums_to_one(experts):
    rows = token_routing(experts, 2, "colour", "colour-0")
    shares: dict[tuple[str, int], float] = {}
    for row in rows:
        shares[row["layer"], row["position"]] = shares.get((row["layer"], row["position"]), 0) + row["weight"]
    assert all(share == pytest.approx(1, abs=1e-5) for share in shares.values())
    patches = {(row["row"], row["column"]) for row in rows if row["row"] is not None}
    assert patches == {(line, column) for line in range(8) for column in range(8)}
    words = {row["position"]: row["token"] for row in rows if row["token"]}
    assert "What colour is it?" in " ".join("".join(words.values()).split())
    assert rows == token_routing(experts, 2, "colour", "colour-0")
    assert rows != token_routing(experts, 0, "colour", "colour-0")
    assert picture_of(experts, "colour", "colour-0").name == "red.png"
    with pytest.raises(InputError, match="must have the test question asked for; got 'nothing'"):
        picture_of(experts, "colour", "nothing")
    given = ["route", "--run", str(experts.path), "--after", "2", "--task", "colour", "--question", "colour-0"]
    plain, lines = (CliRunner().invoke(app, [*given, *more]) for more in ([], ["--json"]))
    kept = experts.routed_tokens(2, "colour", "colour-0")
    assert kept.table("tokens")["weight"].tolist() == [row["weight"] for row in rows]
    assert [line.partition(" ")[0] for line in plain.stdout.splitlines()[-2:]] == ['":"', "64"]
    (found,) = [json.loads(line) for line in lines.stdout.splitlines()]
    assert (found["kind"], found["id"], found["tokens"]) == ("result", kept.path.name, len(shares) // found["layers"])
    for wrong, said in ((["--after", "3"], "Unknown stage '3'"), (["--question", "colour-9"], "colour-9")):
        refused = CliRunner().invoke(app, [*given, *wrong])
        assert said in str(refused.exception)
        assert not refused.output, "it is refused before anything is loaded"
    assert len(list((experts.path / "tokens").iterdir())) == 1


@pytest.mark.slow
def test_a_run_without_experts_is_refused(finished):
    with pytest.raises(InputError, match="must be of a method with experts; lora has none"):
        probe_tasks(finished)


def test_the_nearest_mean_is_fitted_on_other_questions_than_it_is_tested_on():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    apart = torch.tensor([[0.0], [0.1], [0.0], [0.1], [1.0], [1.1], [1.0], [1.1]])
    swapped = apart[torch.tensor([0, 5, 2, 7, 4, 1, 6, 3])]
    assert _accuracy(apart, labels) == {"accuracy": 1.0, "tested": 4}
    assert _accuracy(swapped, labels)["accuracy"] == 0
