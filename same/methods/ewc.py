"""A pull towards old weights, the stronger the more an old answer depends on a weight.

    loss + (λ/2) Σ_k F_k (θ_k − θ*_k)² ,     F ← γF + E[(∂ log p(answer | question) / ∂θ)²]

with the weights θ* at the end of the last task and squared gradients of single rows.

Source: Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017, Eq. 3, in the online
form of Schwarz et al., "Progress & compress", ICML 2018, Eq. 9: one anchor and one decaying F, whose size does not
grow with the tasks. The answers are the training rows' own (the empirical Fisher information).

Logged: `penalty`, what was added to the loss of the last step reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from same.errors import InputError, SnapshotError
from same.methods._base import Batch, Needs, TaskContext
from same.methods._lora import LoraConfig, LoraMethod
from same.methods._memory import flat


class Ewc(LoraMethod):
    """Elastic weight consolidation, online."""

    title = "EWC, online"
    paper = "Kirkpatrick et al., Overcoming catastrophic forgetting in neural networks, PNAS 2017"
    notes = (
        "One anchor and one Fisher information of the adapter's weights; rows are looked at once more at a task's end."
    )
    parity = "lora"

    @dataclass(frozen=True)
    class Config(LoraConfig):
        """Size of the adapter and strength of the pull.

        Args:
            strength: λ.
            decay: γ, what is left of the older tasks' Fisher information after each task.
            fisher_rows: training rows whose squared gradients are averaged at a task's end.
        """

        strength: float = 100.0
        decay: float = 0.9
        fisher_rows: int = 64

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 < self.strength < float("inf"):
                raise InputError(f"strength must be positive and finite; got {self.strength}.")
            if not 0 < self.decay <= 1:
                raise InputError(f"decay must lie in (0, 1]; got {self.decay}.")
            if self.fisher_rows < 1:
                raise InputError(f"fisher_rows must be at least 1; got {self.fisher_rows}.")

    anchor: Tensor | None = None
    fisher: Tensor | None = None
    _penalty: Tensor | None = None

    def loss(self, loss: Tensor, batch: Batch) -> Tensor:
        if self.anchor is None or self.fisher is None:
            return loss
        weights = torch.cat([weight.flatten() for weight in self.weights.values()])
        penalty = self.config.strength / 2 * (self.fisher * (weights - self.anchor).square()).sum()
        self._penalty = penalty.detach()
        total: Tensor = loss + penalty
        return total

    def end_task(self, task: TaskContext) -> None:
        parameters = list(self.weights.values())
        chance = np.random.default_rng(torch.initial_seed())
        rows = chance.permutation(task.rows.count(task.index))[: self.config.fisher_rows]
        found = torch.zeros(sum(map(torch.numel, parameters)), device=parameters[0].device)
        for row in rows[task.rank :: task.world]:
            logits, targets = task.rows.answers([(task.index, int(row))])
            loss = functional.cross_entropy(logits, targets, reduction="sum")
            found += flat(torch.autograd.grad(loss, parameters, allow_unused=True), parameters).square()
        task.reduce(found)
        found /= len(rows)
        self.fisher = found if self.fisher is None else self.config.decay * self.fisher + found
        self.anchor = torch.cat([weight.detach().flatten() for weight in parameters])

    def step_metrics(self) -> dict[str, Any]:
        return {} if self._penalty is None else {"penalty": float(self._penalty)}

    def needs(self) -> Needs:
        size = 8 * sum(map(torch.numel, self.weights.values()))
        return Needs(device=size, snapshot=size)

    def state_dict(self) -> dict[str, Tensor]:
        return {} if self.anchor is None or self.fisher is None else {"anchor": self.anchor, "fisher": self.fisher}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        size = sum(map(torch.numel, self.weights.values()))
        if state and [state[name].numel() for name in ("anchor", "fisher") if name in state] != [size, size]:
            raise SnapshotError(
                f"the method's state must hold an anchor and a Fisher information of {size} weights; it holds "
                f"{sorted(state)}. Use the snapshot of a run with the same method and settings."
            )
        place = next(iter(self.weights.values())).device
        self.anchor, self.fisher = (state[name].to(place) if state else None for name in ("anchor", "fisher"))
