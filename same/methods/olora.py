"""A low-rank slot for each task, kept orthogonal to those before it.

    loss + λ Σ_{i<t} Σ |A_i A_tᵀ| ;     at inference every slot adds its part, Σ_i B_i A_i x .

Task t trains slot t alone. The sum runs over all pairs of ranks, and AdamW takes no notice of a gradient's size: where
the penalty's exceeds that of the loss in most numbers, as at the paper's λ on narrow layers, A_t learns little else.

Source: Wang et al., "Orthogonal subspace learning for language model continual learning", Findings of EMNLP 2023,
Eqs. 7–8. Public code restores the first slot alone at inference; here all of them act.

Logged: `penalty`, what was added to the loss of the last step reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from same.errors import InputError
from same.methods._base import Batch
from same.methods._lora import LoraConfig
from same.methods._slots import SlotMethod


class OLora(SlotMethod):
    """O-LoRA."""

    title = "O-LoRA"
    paper = "Wang et al., Orthogonal subspace learning for language model continual learning, EMNLP Findings 2023"
    notes = "The slots of all tasks together have the usual number of parameters; the number of tasks must be known."

    @dataclass(frozen=True)
    class Config(LoraConfig):
        """Size of all slots together, and how orthogonal they are kept.

        Args:
            strength: λ.
        """

        strength: float = 0.5

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 <= self.strength < float("inf"):
                raise InputError(f"strength must be a finite number ≥ 0; got {self.strength}.")

    _penalty: Tensor | None = None

    def loss(self, loss: Tensor, batch: Batch) -> Tensor:
        done = self.slot.start
        if not done:
            return loss
        overlap = [(a[:done].detach() @ a[self.slot].T).abs().sum() for a, _ in self.factors]
        penalty = self.config.strength * torch.stack(overlap).sum()
        self._penalty = penalty.detach()
        total: Tensor = loss + penalty
        return total

    def step_metrics(self) -> dict[str, Any]:
        return {} if self._penalty is None else {"penalty": float(self._penalty)}
