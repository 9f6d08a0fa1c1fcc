"""A backbone, and the trainer's order of calls in a few lines."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from same import registry
from same.backbones._base import Backbone
from same.backbones._layout import Layers
from same.methods._base import ROWS, Method, Step, TaskContext, reduce_nothing


@pytest.fixture
def layout() -> Layers:
    """What is adapted unless a test says otherwise."""
    return Backbone.layout(Backbone.Config())


@pytest.fixture
def make_method(make_llava, layout) -> Callable[..., Method]:
    """A factory of attached methods; equal seeds give equal adapters."""

    def make(name: str, **settings: Any) -> Method:
        kind = registry.load_class("same.methods", name, Method)
        if name in ("moelora", "clmoe", "same", "same_plus"):
            settings = {"num_experts": 4, "rank": 2, **settings}
        method = kind(kind.Config(**settings))
        model = make_llava()
        torch.manual_seed(3)
        method.attach(model, layout).train()
        return method

    return make


def asked(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch with two tokens of each row as a question, which carries no loss."""
    batch["labels"][:, :2] = -100
    return batch


class InMemory:
    """Training rows as `train` shows them: row r of task t is the first row of one of its batches."""

    def __init__(self, method: Method, make_batch: Callable[..., dict[str, torch.Tensor]], rows: int) -> None:
        self.method, self.make_batch, self.rows = method, make_batch, rows

    def count(self, task: int) -> int:
        return self.rows

    def batch(self, references: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
        found = [self.make_batch(1000 * task + 10 * row, rows=1) for task, row in references]
        return {key: torch.cat([batch[key] for batch in found]) for key in found[0]}

    def answers(self, references: Sequence[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        batch = self.batch(references)
        targets = batch.pop("labels")[:, 1:]
        logits = self.method.model(**batch).logits[:, :-1]
        return logits[targets != -100], targets[targets != -100]


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
        place = (reduce, rank if world > 1 else 0, world)
        task = TaskContext(index, f"task{index}", 3, steps, *place, examples=InMemory(method, make_batch, steps))
        torch.manual_seed(index)
        method.begin_task(task)
        device = next(method.model.parameters()).device
        parameters = [p for p in method.model.parameters() if p.requires_grad]
        make = optimizer or (lambda these: torch.optim.AdamW(these, lr=0.05, weight_decay=0.1))
        if parameters:
            batches = [asked(make_batch(1000 * index + 10 * i + rank)) for i in range(steps)]
            for batch in batches:
                batch[ROWS] = torch.arange(len(batch["input_ids"]))
            batches = [{key: value.to(device) for key, value in batch.items()} for batch in batches]
            _steps(method, make(parameters), batches, each)
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
            inputs = {key: value for key, value in batch.items() if key != ROWS}
            loss = method.loss(method.model(**inputs).loss, batch)
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
