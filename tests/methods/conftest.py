"""A backbone, and the trainer's order of calls in a few lines."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from same import registry
from same.backbones._base import Backbone
from same.backbones._layout import Layers
from same.methods._base import Method, Step, TaskContext, reduce_nothing


@pytest.fixture
def layout() -> Layers:
    """What is adapted unless a test says otherwise."""
    return Backbone.layout(Backbone.Config())


@pytest.fixture
def make_method(make_llava, layout) -> Callable[..., Method]:
    """A factory of attached methods; equal seeds give equal adapters."""

    def make(name: str, **settings: Any) -> Method:
        kind = registry.load_class("same.methods", name, Method)
        if name in ("moelora", "same", "same_plus"):
            settings = {"num_experts": 4, "rank": 2, **settings}
        method = kind(kind.Config(**settings))
        model = make_llava()
        torch.manual_seed(3)
        method.attach(model, layout).train()
        return method

    return make


@pytest.fixture
def train(make_batch) -> Callable[..., None]:
    """Train one task as the engine does, with AdamW (momentum and weight decay) and fresh moments."""

    def run(
        method: Method,
        index: int,
        steps: int = 6,
        *,
        reduce: Callable[[torch.Tensor], None] = reduce_nothing,
        rank: int = 0,
        world: int = 1,
        each: Callable[[int], None] | None = None,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        end: bool = True,
    ) -> None:
        task = TaskContext(index, f"task{index}", 3, steps, reduce, rank if world > 1 else 0, world)
        method.begin_task(task)
        parameters = [p for p in method.model.parameters() if p.requires_grad]
        make = optimizer or (lambda these: torch.optim.AdamW(these, lr=0.05, weight_decay=0.1))
        if parameters:
            _steps(method, make(parameters), [make_batch(1000 * index + 10 * i + rank) for i in range(steps)], each)
        if end:
            method.end_task(task)

    return run


def _steps(method, optimizer, batches, each):
    total = len(batches)
    index = 0
    optimizer.register_step_pre_hook(lambda *_: method.before_step(Step(optimizer, index, total)))
    optimizer.register_step_post_hook(lambda *_: method.after_step(Step(optimizer, index, total)))
    for index, batch in enumerate(method.batches(batches)):
        optimizer.zero_grad()
        with method.forward_context(batch):
            loss = method.loss(method.model(**batch).loss, batch)
        loss.backward()
        optimizer.step()
        if each is not None:
            each(index)


@pytest.fixture
def weights() -> Callable[[Method], dict[str, torch.Tensor]]:
    """Copies of a method's trainable weights by name."""

    def of(method: Method) -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in method.model.named_parameters() if p.requires_grad}

    return of
