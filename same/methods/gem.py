"""Gradients that may not raise the loss of any old task.

G holds the gradients over the rows kept of each old task. Where Gg has a negative entry, g becomes the nearest
gradient that has none: with v ≥ 0 the solution of the dual

    min_v ½ vᵀGGᵀv + (Gg)ᵀv ,     g ← Gᵀ(v + margin) + g ,

a non-negative least-squares problem in the factor of GGᵀ, which SciPy solves.

Source: Lopez-Paz and Ranzato, "Gradient episodic memory for continual learning", NeurIPS 2017, Eqs. 11–13; the margin
is added to the solution, as the paper has it, where their code solves for v ≥ margin. v is a ratio, so the margin has
no unit. g is clipped before, as in every method here, and the rows of G are not: the harder g was clipped, the more
the margin weighs, and where it is much, a step is for the most part one on the old rows. margin=0 is the projection
alone.

Logged: `projected`, the share of the steps so far in the task that were projected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls  # type: ignore[import-untyped]

from same.errors import InputError
from same.methods._base import Step, TaskContext
from same.methods._memory import MemoryConfig, MemoryMethod, gradients_of, loss_gradient, set_gradients_


class Gem(MemoryMethod):
    """Gradient episodic memory."""

    title = "GEM"
    paper = "Lopez-Paz and Ranzato, Gradient episodic memory for continual learning, NeurIPS 2017"
    notes = "Keeps rows of old tasks and takes a gradient for each old task at each step."

    @dataclass(frozen=True)
    class Config(MemoryConfig):
        """Size of adapter and memory.

        Args:
            drawn: rows of each old task whose gradient a step is compared with.
            margin: added to v; more lowers old tasks' losses further.
        """

        drawn: int = 8
        margin: float = 0.5

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.drawn < 1:
                raise InputError(f"drawn must be at least 1 row; got {self.drawn}.")
            if not self.margin >= 0:
                raise InputError(f"margin must be at least 0; got {self.margin}.")

    def begin_task(self, task: TaskContext) -> None:
        super().begin_task(task)
        self._projected, self._steps = 0, 0

    def before_step(self, step: Step) -> None:
        if not self.memory.seen:
            return
        parameters = list(self.weights.values())
        gradient = gradients_of(parameters)
        kept = [rows for old in range(self.task.index) if (rows := self.memory.of_task(old))]
        drawn = [[rows[i] for i in self.chance.permutation(len(rows))[: self.config.drawn]] for rows in kept]
        memory = torch.stack([loss_gradient(self.task, rows, parameters) for rows in drawn])
        length = gradient.norm().clamp_min(1e-30)  # numbers of one size for the solver
        change = nearest(memory / length, gradient / length, self.config.margin)
        self._steps += 1
        if change is not None:
            set_gradients_(parameters, gradient + length * change)
            self._projected += 1

    def step_metrics(self) -> dict[str, Any]:
        return {"projected": self._projected / self._steps} if self._steps else {}


def nearest(memory: torch.Tensor, gradient: torch.Tensor, margin: float) -> torch.Tensor | None:
    """What to add to a gradient [w] so that no row of `memory` [tasks, w] points against it; None: nothing."""
    along = (memory @ gradient).double().cpu().numpy()
    if (along >= 0).all():
        return None
    products = (memory @ memory.T).double().cpu().numpy()
    values, vectors = np.linalg.eigh(products)
    kept = values > 1e-10 * values.max()
    root = (vectors[:, kept] * np.sqrt(values[kept])).T  # rootᵀ root = G Gᵀ
    target = -(vectors[:, kept] / np.sqrt(values[kept])).T @ along
    solution, _ = nnls(root, target)
    return torch.from_numpy(solution + margin).to(memory) @ memory
