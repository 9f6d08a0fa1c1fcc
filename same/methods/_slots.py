"""Shared by the methods with a low-rank slot for each task.

One LoRA is cut by rows of A and columns of B into as many slots as there are tasks, so the slots of all tasks together
have the parameters of one LoRA. Task t trains slot t alone: the others are put back after each step, bit for bit,
whatever the optimiser does. A slot that was not trained yet has B = 0 and adds nothing. What each slot adds can be
weighed for each row of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from same.errors import InputError
from same.methods._base import Batch, Layout, Step, TaskContext
from same.methods._lora import LoraMethod


class SlotMethod(LoraMethod):
    """One LoRA cut into slots."""

    factors: list[tuple[nn.Parameter, nn.Parameter]]  # A [R, d] and B [m, R] of each layer
    slot = slice(0, 0)  # of the task that trains

    def attach(self, model: nn.Module, backbone: Layout) -> nn.Module:
        attached = super().attach(model, backbone)
        self.factors = [(it.lora_A["default"].weight, it.lora_B["default"].weight) for it in self.layers.values()]
        self.tasks = 0
        self._before: list[tuple[Tensor, Tensor]] = []
        return attached

    @property
    def rank(self) -> int:
        """R, of all slots together."""
        return len(self.factors[0][0])

    def slot_of(self, task: int) -> slice:
        """The rows of A, and columns of B, of a task."""
        return slice(task * self.rank // self.tasks, (task + 1) * self.rank // self.tasks)

    def begin_task(self, task: TaskContext) -> None:
        self.tasks = task.total_tasks
        if self.rank < self.tasks:
            raise InputError(f"rank must be at least the number of tasks, {self.tasks}; got {self.rank}.")
        self.slot = self.slot_of(task.index)
        self._before = [(a.detach().clone(), b.detach().clone()) for a, b in self.factors]

    @torch.no_grad()
    def before_step(self, step: Step) -> None:
        for a, b in self.factors:
            for gradient in (a.grad, None if b.grad is None else b.grad.T):
                if gradient is not None:
                    gradient[: self.slot.start] = 0
                    gradient[self.slot.stop :] = 0

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        for (a, b), (old_a, old_b) in zip(self.factors, self._before, strict=True):
            old_a[self.slot], old_b[:, self.slot] = a[self.slot], b[:, self.slot]
            a.copy_(old_a)
            b.copy_(old_b)

    def end_task(self, task: TaskContext) -> None:
        self._before = []


class WeighedLora(LoraMethod):
    """One LoRA whose rank-one parts are weighed for each row of a batch."""

    weighs_rows = True

    def attach(self, model: nn.Module, backbone: Layout) -> nn.Module:
        attached = super().attach(model, backbone)
        self._weights: dict[str, Tensor] = {}  # layer -> [rows or 1, R]
        for name, layer in self.layers.items():
            layer.lora_A["default"].register_forward_hook(lambda _, __, z, name=name: self._weigh(name, z))
        return attached

    def _weigh(self, name: str, z: Tensor) -> Tensor:
        weights = self._weights.get(name)
        return z if weights is None else z * weights.to(z.dtype).unsqueeze(1)

    def weigh(self, weights: Mapping[str, Tensor]) -> None:
        """Weigh the parts in the forward passes to come, by layer [rows or 1, R]; a block run again sees the same."""
        self._weights = dict(weights)


class WeighedSlots(SlotMethod, WeighedLora):
    """Slots whose parts are weighed for each row: one in training, by a rule at inference."""

    def spread(self, weights: Tensor) -> Tensor:
        """Weights of the first slots [rows, slots] for each rank-one part of them [rows, R]; later slots get 0."""
        found = weights.new_zeros(len(weights), self.rank)
        for task in range(weights.shape[1]):
            found[:, self.slot_of(task)] = weights[:, task, None]
        return found

    def forward_context(self, batch: Batch) -> AbstractContextManager[None]:
        """The slot that trains, and nothing of the others."""
        alone = torch.zeros(1, self.rank, device=self.factors[0][0].device)
        alone[:, self.slot] = 1
        self.weigh(dict.fromkeys(self.layers, alone))
        return nullcontext()
