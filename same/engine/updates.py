"""From loss to changed weights: how gradients are summed over the processes, and when a method may edit them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from same.engine.processes import Processes

Moment = Callable[[], None]


class Updates(Protocol):
    """A model and its optimiser under one strategy, for one task."""

    model: nn.Module

    def part(self, last: bool) -> AbstractContextManager[None]:
        """Entered around a part of a batch, forward and backward; gradients may be summed after the last alone."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a part."""

    def step(self, clip: float) -> None:
        """Clip to a norm (0: do not), let the method edit gradients, change the weights, let it edit the change."""

    def close(self) -> None:
        """Take everything off the model again."""


class PlainUpdates:
    """The optimiser's own step on one process, under DDP, or on FSDP2's shards, which sum gradients themselves.

    Args:
        model: with its adapters; cut already where the strategy asks for it.
        before: what the method does before a step.
        after: what it does after it.
    """

    def __init__(
        self, processes: Processes, model: nn.Module, optimizer: Optimizer, before: Moment, after: Moment
    ) -> None:
        self._accelerator, self._optimizer = processes.accelerator, optimizer
        self.model: nn.Module = model if processes.shards else self._accelerator.prepare_model(model)
        self._hooks = (
            optimizer.register_step_pre_hook(lambda *_: before()),
            optimizer.register_step_post_hook(lambda *_: after()),
        )

    def part(self, last: bool) -> AbstractContextManager[None]:
        if last:
            return nullcontext()
        # Does nothing on FSDP2's shards: there the gradients of every part are summed and cut, which costs no memory.
        waiting: AbstractContextManager[None] = self._accelerator.no_sync(self.model)
        return waiting

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, clip: float) -> None:
        if clip:
            self._accelerator.clip_grad_norm_(self._optimizer.param_groups[0]["params"], clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._accelerator.free_memory()


def updates_for(
    processes: Processes,
    model: nn.Module,
    optimizer: Optimizer,
    before: Moment,
    after: Moment,
    rows: int,
    precision: str,
) -> Updates:
    """The strategy's way of updating.

    Args:
        rows: of a part of a batch, on one process.
        precision: of the products; what runs under the trainer's autocast needs no telling, DeepSpeed does.
    """
    if processes.strategy == "zero2" and processes.count > 1:
        from same.engine.zero import ZeroUpdates, engine_config

        return ZeroUpdates(model, optimizer, before, after, engine_config(rows, precision))
    return PlainUpdates(processes, model, optimizer, before, after)
