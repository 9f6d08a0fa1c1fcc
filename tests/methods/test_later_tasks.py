"""What is protected must still be able to learn."""

import pytest
import torch

from tests.methods.checks import methods_for
from tests.methods.conftest import asked

STEPS = 12
LEAST = 0.95
"""Most that may stay of the loss: plain LoRA leaves .55, strongest protection 0.85 and ten prompt tokens 0.90."""


@pytest.fixture
def make_batch(make_batch):
    """The same rows in every batch of a task, so that they can be learnt in a few steps."""
    return lambda seed=0, rows=3, length=10: make_batch(seed // 1000, rows, length)


def loss_of_task(method, index, make_batch):
    """Loss on a task's rows, as they are asked after training."""
    batch = asked(make_batch(1000 * index))
    labels = batch.pop("labels")
    method.model.eval()
    method.route(batch)
    with torch.no_grad():
        found = method.model(**batch, labels=labels).loss
    method.model.train()
    return float(found)


@pytest.mark.parametrize("name", methods_for("later"))
def test_a_third_task_is_still_learnt(name, make_method, train, make_batch):
    method = make_method(name)
    train(method, 0, STEPS)
    train(method, 1, STEPS)
    before = loss_of_task(method, 2, make_batch)
    train(method, 2, STEPS)
    assert loss_of_task(method, 2, make_batch) < LEAST * before
