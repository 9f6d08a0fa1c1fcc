"""Memories and the gradients that are compared with them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from same.methods._base import ROWS
from same.methods._memory import MemoryMethod, Reservoir, gradients_of, loss_gradient
from same.methods.gem import nearest
from tests.methods.conftest import InMemory


def test_every_row_is_as_likely_to_be_kept():
    counts, size, runs = [30, 10, 20], 12, 4000
    kept = [np.zeros(count) for count in counts]
    for run in range(runs):
        memory = Reservoir(size)
        for task, count in enumerate(counts):
            memory.add(task, count, np.random.default_rng([run, task]))
        assert len(memory.rows) == size == len({tuple(row) for row in memory.rows})
        for task, row in memory.rows:
            kept[task][row] += 1
    share = np.concatenate(kept) / runs
    expected = size / sum(counts)
    assert abs(share - expected).max() < 5 * (expected * (1 - expected) / runs) ** 0.5


def test_a_small_stream_is_kept_whole():
    memory = Reservoir(100)
    memory.add(0, 7, np.random.default_rng(0))
    memory.add(1, 5, np.random.default_rng(0))
    assert memory.of_task(1) == [(1, row) for row in range(5)]
    assert sorted(memory.draw(100, np.random.default_rng(1))) == sorted([(0, r) for r in range(7)] + memory.of_task(1))


def test_a_memory_goes_on_where_it_was_saved():
    through, before, after = Reservoir(5), Reservoir(5), Reservoir(5)
    through.add(0, 9, np.random.default_rng(0))
    before.add(0, 9, np.random.default_rng(0))
    after.load_state_dict(before.state_dict())
    for memory in (through, after):
        memory.add(1, 9, np.random.default_rng(1))
    assert (through.rows == after.rows).all()


@pytest.mark.parametrize("seed", range(8))
def test_gem_finds_the_nearest_gradient_that_no_old_task_opposes(seed):
    generator = torch.Generator().manual_seed(seed)
    memory, gradient = (torch.randn(n, 6, dtype=torch.float64, generator=generator) for n in (3, 1))
    gradient = -memory[0] + 0.1 * gradient[0]
    change = nearest(memory, gradient, 0.0)
    assert (memory @ (gradient + change) >= -1e-8).all()
    # Optimal: the change is made of old gradients alone, of those that it only just satisfies.
    shares = torch.linalg.lstsq(memory.T, change[:, None]).solution[:, 0]
    assert (shares >= -1e-8).all()
    assert ((shares * (memory @ (gradient + change))).abs() < 1e-7).all()


def test_gem_leaves_a_gradient_that_nothing_opposes():
    assert nearest(torch.eye(3), torch.ones(3), 0.5) is None


@pytest.fixture
def second_task(make_method, train):
    """A method in its second task, and each step's gradient: before it, as it is used, and that of all old rows
    where rows are kept.
    """

    def make(name, **settings):
        method = make_method(name, **settings)
        train(method, 0)
        seen = []
        before_step = method.before_step

        def spy(step):
            parameters = list(method.weights.values())
            kept = [(0, row) for row in range(6)]
            old = [loss_gradient(method.task, kept, parameters)] if isinstance(method, MemoryMethod) else []
            before = gradients_of(parameters)
            before_step(step)
            seen.append([before, gradients_of(parameters), *old])

        method.before_step = spy
        train(method, 1, 6)
        return method, seen

    return make


@pytest.mark.parametrize(("name", "settings"), [("agem", {}), ("gem", {"margin": 0.0})])
def test_no_step_opposes_the_memory(name, settings, second_task):
    """All old rows are kept and drawn, so that theirs is the gradient that a step is compared with."""
    method, seen = second_task(name, drawn=200, **settings)
    projected = [(before, after, old) for before, after, old in seen if not torch.equal(before, after)]
    assert len(projected) == sum(bool(before @ old < 0) for before, _, old in seen) > 0
    assert method.step_metrics()["projected"] == pytest.approx(len(projected) / 6)
    for before, after, old in projected:
        assert abs(after @ old) < 1e-4 * before.norm() * old.norm()
        torch.testing.assert_close(after, before - (before @ old) / (old @ old) * old, atol=1e-6, rtol=1e-3)


def test_ogd_leaves_nothing_along_old_gradients(second_task):
    method, seen = second_task("ogd", directions=3)
    assert method.basis.shape[1] == 6
    old = method.basis[:, :3]
    for before, after in seen:
        assert (old.T @ after).norm() < 1e-5 * before.norm()
        assert not torch.equal(before, after)


def test_which_rows_are_replayed_does_not_depend_on_how_a_batch_is_cut(make_method, train):
    found = []
    for parts in (1, 2):
        method, drawn = make_method("replay", share=0.5), []
        train(method, 0)
        method.begin_task(replace(method.task, index=1, parts=parts))
        method.task.examples.batch = drawn.extend  # ours to watch: these rows need no tokens
        rows = [torch.arange(6 * step, 6 * step + 6) for step in range(4)]
        cut = [part for step in rows for part in step.chunk(parts)]
        list(method.batches([{ROWS: part} for part in cut]))
        found.append(drawn)
    assert found[0] == found[1]
    assert {task for task, _ in found[0]} == {0, 1}


def test_the_memorys_gradient_is_that_of_its_mean_loss_over_all_processes(make_method, train, make_batch):
    method = make_method("agem")
    train(method, 0, end=False)
    parameters = list(method.weights.values())
    references = [(0, 0), (0, 1), (0, 2)]
    whole = loss_gradient(method.task, references, parameters)
    loss = method.model(**method.task.rows.batch(references)).loss
    expected = torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, parameters)])
    torch.testing.assert_close(whole, expected, atol=1e-6, rtol=1e-4)


def test_ewc_pulls_by_the_mean_squared_gradients_of_single_rows(make_method, make_batch, train):
    method = make_method("ewc", fisher_rows=100, strength=3.0)
    train(method, 0, 4)
    parameters = list(method.weights.values())
    rows = row_gradients(InMemory(method, make_batch, 4), parameters)
    squares = torch.stack([row.square() for row in rows]).mean(0)
    torch.testing.assert_close(method.fisher, squares, atol=1e-9, rtol=1e-3)
    with torch.no_grad():
        parameters[0].add_(0.1)
    moved = torch.cat([p.detach().flatten() for p in parameters]) - method.anchor
    expected = 1.5 * (method.fisher * moved.square()).sum()
    torch.testing.assert_close(method.loss(torch.zeros(()), {}).detach(), expected)


def row_gradients(examples, parameters):
    """Gradients of the answers' log-likelihood, row by row."""
    found = []
    for row in range(examples.count(0)):
        logits, targets = examples.answers([(0, row)])
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
        found.append(torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, parameters)]))
    return found
