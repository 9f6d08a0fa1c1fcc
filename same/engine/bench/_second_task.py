"""A method in its second task, where all rules are at work, one training step at a time."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from same import registry
from same.methods._base import Batch, Method, Step, TaskContext
from same.methods._stabilised import StabilisedMethod

PLAIN = "moelora"  # routed experts and nothing else
FIRST = TaskContext(0, "first", 2, 1)


def stabilised() -> list[str]:
    """Names of the methods that are built of the three mechanisms."""
    kinds = {name: registry.load_class("same.methods", name, Method) for name in registry.names("same.methods")}
    return [name for name, kind in kinds.items() if issubclass(kind, StabilisedMethod)]


class SecondTask:
    """Trains a method as the trainer does: forward, backward, clipping, the optimiser with the method's hooks.

    Args:
        name: of the method.
        base: the model without adapters; its weights are shared, not copied.
        layout: answers for the backbone.
        batch: of every step.
        steps: that the task is said to take; scores and refreshes fall where they do in such a task.
        settings: of the method.
        precision: "fp32", or "bf16" under autocast.
    """

    def __init__(
        self,
        name: str,
        base: nn.Module,
        layout: Any,
        batch: Batch,
        *,
        steps: int,
        settings: Mapping[str, Any] | None = None,
        precision: str = "fp32",
    ) -> None:
        kind = registry.load_class("same.methods", name, Method)
        self.method: Any = kind(kind.Config(**(settings or {})))
        self.batch, self.steps, self.precision = batch, steps, precision
        own = copy.deepcopy(base, {id(parameter): parameter for parameter in base.parameters()})
        self.model = self.method.attach(own, layout).train()
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.method.begin_task(FIRST)
        self._start()
        self.step()
        self.method.end_task(FIRST)
        self.method.begin_task(TaskContext(1, "second", 2, steps))
        self._start()

    def _start(self) -> None:
        self.optimizer = AdamW(self.parameters, 1e-4)
        before, after = count(), count()
        self.optimizer.register_step_pre_hook(lambda *_: self.method.before_step(self._moment(next(before))))
        self.optimizer.register_step_post_hook(lambda *_: self.method.after_step(self._moment(next(after))))

    def _moment(self, index: int) -> Step:
        return Step(self.optimizer, index, self.steps)

    def forward(self) -> Tensor:
        """The loss, with the method watching."""
        lowered = torch.autocast(self.batch["input_ids"].device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with self.method.forward_context(self.batch), lowered:
            found: Tensor = self.method.loss(self.model(**self.batch).loss, self.batch)
        return found

    def step(self) -> None:
        """One step; its gradients are left in place."""
        self.optimizer.zero_grad(set_to_none=True)
        self.forward().backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()

    def gradient_bytes(self) -> int:
        return sum(parameter.grad.nbytes for parameter in self.parameters if parameter.grad is not None)

    def optimizer_bytes(self) -> int:
        kept = [value for state in self.optimizer.state.values() for value in state.values()]
        return sum(value.nbytes for value in kept if isinstance(value, Tensor))

    def end(self) -> None:
        """End the task."""
        self.method.end_task(TaskContext(1, "second", 2, self.steps))

    def kept_bytes(self) -> int:
        """Bytes that the method keeps from task to task beside the adapter."""
        return sum(tensor.nbytes for tensor in self.method.state_dict().values())


def random_batch(model: Any, rows: int, length: int) -> dict[str, Tensor]:
    """Random tokens without padding, all of which carry loss."""
    vocabulary = model.get_input_embeddings().num_embeddings
    ids = torch.randint(10, vocabulary, (rows, length))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}
