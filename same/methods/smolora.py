"""Two banks of low-rank experts, one chosen by the picture and one by the instruction.

    h = W0 x + α_I p_i B_i A_i x + α_T p_j B_j A_j x ,     i = argmax p(f_I),  j = argmax p(f_T)

with p the softmax of a linear gate of the row's image and instruction features, and α a learned softmax of two numbers;
gates and α are each layer's own.

Source: Wang et al., "Separable mixture of low-rank adaptation for continual visual instruction tuning", ICCV 2025. The
features are the backbone's own (projected patches, input embeddings of the words); the paper reads instructions with a
sentence encoder unless `encoder` names one. By default alpha is so many times larger as a bank has experts, so that an
expert that is chosen begins with LoRA's scale: with p alone it learns far more slowly than the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from same.errors import InputError, SnapshotError
from same.methods._base import Batch, Layout
from same.methods._features import FeatureConfig, FeatureMethod
from same.methods._lora import LoraConfig
from same.methods._slots import WeighedLora


class Gate(nn.Module):
    """The weights of a layer's experts from a row's two features."""

    def __init__(self, widths: Mapping[str, int], experts: int) -> None:
        super().__init__()
        self.image = nn.Linear(widths["image"], experts)
        self.instruction = nn.Linear(widths["instruction"], experts)
        self.balance = nn.Parameter(torch.zeros(2))

    def forward(self, image: Tensor, instruction: Tensor) -> Tensor:
        """[rows, 2 · experts]: of each bank one is not 0."""
        chosen = []
        for logits in (self.image(image), self.instruction(instruction)):
            shares = logits.softmax(-1)
            best = shares.argmax(-1, keepdim=True)
            chosen.append(torch.zeros_like(shares).scatter(-1, best, shares.gather(-1, best)))
        balance = self.balance.softmax(0)
        return torch.cat([balance[0] * chosen[0], balance[1] * chosen[1]], -1)


class SMoLora(FeatureMethod, WeighedLora):
    """SMoLoRA."""

    title = "SMoLoRA"
    paper = "Wang et al., Separable mixture of low-rank adaptation for continual visual instruction tuning, ICCV 2025"
    notes = "The experts of both banks and their gates together have the usual number of parameters."

    @dataclass(frozen=True)
    class Config(FeatureConfig, LoraConfig):
        """Size of all experts together, and their number.

        Args:
            experts: of each bank.
        """

        experts: int = 4

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.experts < 1:
                raise InputError(f"experts must be at least 1; got {self.experts}.")

    def attach(self, model: nn.Module, backbone: Layout) -> nn.Module:
        attached: Any = super().attach(model, backbone)
        rank = next(iter(self.layers.values())).r["default"]
        if rank < 2 * self.config.experts:
            raise InputError(f"rank must be at least 2 × experts = {2 * self.config.experts}; got {rank}.")
        self._part = torch.arange(rank) * 2 * self.config.experts // rank  # the expert of each rank-one part
        embeddings = attached.get_input_embeddings().weight
        widths = self.widths(attached)
        gates = (Gate(widths, self.config.experts) for _ in self.layers)
        self.gates = nn.ModuleList(gates).to(embeddings.device)
        attached.base_model.bank_gates = self.gates  # so that optimiser and devices find them
        return self.attached  # type: ignore[no-any-return]

    @property
    def scale(self) -> float:
        experts: int = self.config.experts
        return 2.0 * experts  # p is 1 / experts at first

    def beside(self, model: nn.Module) -> int:
        widths = self.widths(model)
        experts: int = self.config.experts
        return experts * sum(width + 1 for width in widths.values()) + len(widths)

    def _choose(self, batch: Batch) -> None:
        self.weigh({})
        features = self.features(batch)
        part = self._part.to(features["image"].device)
        pairs = zip(self.layers, self.gates, strict=True)
        self.weigh({name: gate(**features)[:, part] for name, gate in pairs})

    def forward_context(self, batch: Batch) -> AbstractContextManager[None]:
        self._choose(batch)
        return nullcontext()

    @torch.no_grad()
    def route(self, batch: Batch) -> None:
        self._choose(batch)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.gates.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        if not state:
            return
        try:
            self.gates.load_state_dict(dict(state))
        except RuntimeError as error:
            raise SnapshotError(
                f"the method's state must hold this model's gates; {error}. Use the snapshot of a run with the same "
                "method and settings."
            ) from None
