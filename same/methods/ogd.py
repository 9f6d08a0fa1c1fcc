"""Gradients without what would change old answers, to first order.

At a task's end the gradients of what the model says of some of its rows (the sum of the right tokens' logits) join an
orthonormal basis U; later gradients become g − UUᵀg.

Source: Farajtabar et al., "Orthogonal gradient descent for continual learning", AISTATS 2020, Algorithm 1 with the
gradient of the ground-truth logit (OGD-GTL). The optimiser is AdamW, as for all, so updates leave the complement
somewhat; the paper uses SGD.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from same.errors import InputError, SnapshotError
from same.maths.subspace import extend_basis
from same.methods._base import Needs, Step, TaskContext
from same.methods._lora import LoraConfig, LoraMethod
from same.methods._memory import flat, gradients_of, set_gradients_


class Ogd(LoraMethod):
    """Orthogonal gradient descent."""

    title = "OGD"
    paper = "Farajtabar et al., Orthogonal gradient descent for continual learning, AISTATS 2020"
    notes = "Keeps gradients of old rows, each as large as the adapter."
    parity = "lora"

    @dataclass(frozen=True)
    class Config(LoraConfig):
        """Size of the adapter and of the basis.

        Args:
            directions: rows of each task whose gradients are kept.
        """

        directions: int = 8

        PAPER = {**LoraConfig.PAPER, "directions": 200}  # noqa: RUF012 - annotated it would be a setting

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.directions < 1:
                raise InputError(f"directions must be at least 1; got {self.directions}.")

    basis: Tensor | None = None

    def before_step(self, step: Step) -> None:
        if self.basis is None:
            return
        parameters = list(self.weights.values())
        with torch.no_grad():
            gradient = gradients_of(parameters)
            set_gradients_(parameters, gradient - self.basis @ (self.basis.T @ gradient))

    def end_task(self, task: TaskContext) -> None:
        parameters = list(self.weights.values())
        chance = np.random.default_rng(torch.initial_seed())
        rows = chance.permutation(task.rows.count(task.index))[: self.config.directions]
        found = torch.zeros(len(rows), sum(map(torch.numel, parameters)), device=parameters[0].device)
        for place in range(task.rank, len(rows), task.world):
            logits, targets = task.rows.answers([(task.index, int(rows[place]))])
            said = logits.gather(1, targets[:, None]).sum()
            found[place] = flat(torch.autograd.grad(said, parameters, allow_unused=True), parameters)
        task.reduce(found)
        self.basis = extend_basis(self.basis, found.T)

    def needs(self) -> Needs:
        size = 4 * self.config.directions * sum(map(torch.numel, self.weights.values()))
        return Needs(device_per_task=size, snapshot_per_task=size)

    def state_dict(self) -> dict[str, Tensor]:
        return {} if self.basis is None else {"basis": self.basis}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        size = sum(map(torch.numel, self.weights.values()))
        if state and ("basis" not in state or len(state["basis"]) != size):
            raise SnapshotError(
                f"the method's state must hold a basis of {size} weights; it holds {sorted(state)}. "
                "Use the snapshot of a run with the same method and settings."
            )
        self.basis = state["basis"].to(next(iter(self.weights.values())).device) if state else None
