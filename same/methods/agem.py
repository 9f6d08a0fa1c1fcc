"""Gradients that may not raise the loss of old rows, on average.

Before each step, g_ref is the gradient over rows drawn from the memory; where gᵀg_ref < 0,

    g ← g − (gᵀg_ref / g_refᵀg_ref) g_ref .

Source: Chaudhry et al., "Efficient lifelong learning with A-GEM", ICLR 2019, Eq. 11. Rows are drawn from a reservoir;
the gradient is the clipped one of the global batch.

Logged: `projected`, the share of the steps so far in the task that were projected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from same.errors import InputError
from same.methods._base import Step, TaskContext
from same.methods._memory import MemoryConfig, MemoryMethod, gradients_of, loss_gradient, set_gradients_


class AGem(MemoryMethod):
    """Averaged gradient episodic memory."""

    title = "A-GEM"
    paper = "Chaudhry et al., Efficient lifelong learning with A-GEM, ICLR 2019"
    notes = "Keeps rows of old tasks and takes a second gradient on some of them at each step."

    @dataclass(frozen=True)
    class Config(MemoryConfig):
        """Size of adapter and memory.

        Args:
            drawn: rows of the memory whose gradient a step is compared with.
        """

        drawn: int = 16

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.drawn < 1:
                raise InputError(f"drawn must be at least 1 row; got {self.drawn}.")

    def begin_task(self, task: TaskContext) -> None:
        super().begin_task(task)
        self._projected, self._steps = torch.zeros(()), 0

    def before_step(self, step: Step) -> None:
        if not self.memory.seen:
            return
        parameters = list(self.weights.values())
        gradient = gradients_of(parameters)
        old = loss_gradient(self.task, self.memory.draw(self.config.drawn, self.chance), parameters)
        with torch.no_grad():
            along = (gradient @ old).clamp_max(0)
            set_gradients_(parameters, gradient - along / (old @ old).clamp_min(1e-30) * old)
            self._projected = self._projected.to(along.device) + (along < 0)
        self._steps += 1

    def step_metrics(self) -> dict[str, Any]:
        return {"projected": float(self._projected) / self._steps} if self._steps else {}
