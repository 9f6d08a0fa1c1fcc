"""The stream without task names and the text-only probe, on the small benchmark."""

import pytest
import torch

from same.engine.stream import shifts
from same.engine.text_probe import ALL_LAYERS, READINGS, _accuracy, probe_tasks
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
def test_a_run_without_experts_is_refused(finished):
    with pytest.raises(InputError, match="must be of a method with experts; lora has none"):
        probe_tasks(finished)


def test_the_nearest_mean_is_fitted_on_other_questions_than_it_is_tested_on():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    apart = torch.tensor([[0.0], [0.1], [0.0], [0.1], [1.0], [1.1], [1.0], [1.1]])
    swapped = apart[torch.tensor([0, 5, 2, 7, 4, 1, 6, 3])]
    assert _accuracy(apart, labels) == {"accuracy": 1.0, "tested": 4}
    assert _accuracy(swapped, labels)["accuracy"] == 0
