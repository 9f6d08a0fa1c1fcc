"""A LoRA that is merged into the backbone after each task, and held off the weights that earlier tasks changed most.

    loss + λ · mean_{M} |s B A| ,    M = ∪_{past tasks} the top share of |s B_t A_t|,    W ← W + s B_t A_t

and the answers of a share of a task's rows are asked for in five other styles, so that format is not learnt with it.

Source: Chen et al., "SEFE: superficial and essential forgetting eliminator for multimodal continual instruction
tuning", ICML 2025: RegLoRA and answer style diversification, which templates do here instead of a language model
(`same.data.styles`). Public code penalises BA without the adapter's scale s = alpha / rank, 2 by default: λ here counts
as s times theirs. What is kept of a task are its factors, from which merged weights and mask are made again.

Logged: `penalty`, what was added to the loss of the last step reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from same.data.styles import diversify
from same.errors import InputError, SnapshotError
from same.methods._base import Batch, Layout, Needs, TaskContext
from same.methods._lora import LoraConfig, LoraMethod

Factors = tuple[Tensor, Tensor]


class Sefe(LoraMethod):
    """SEFE."""

    title = "SEFE"
    paper = "Chen et al., SEFE: superficial and essential forgetting eliminator, ICML 2025"
    notes = "Each task's LoRA is merged into the backbone after it; a fifth of its rows is asked in another style."

    @dataclass(frozen=True)
    class Config(LoraConfig):
        """Size of the adapter, what is protected, and how much is rewritten.

        Args:
            strength: λ.
            top: share of each past change's entries that the mask holds.
            rewritten: share of a task's rows that are asked in another style.
        """

        strength: float = 2500.0
        top: float = 0.02
        rewritten: float = 0.2

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 <= self.strength < float("inf"):
                raise InputError(f"strength must be a finite number ≥ 0; got {self.strength}.")
            if not 0 < self.top <= 1:
                raise InputError(f"top must lie in (0, 1]; got {self.top}.")
            if not 0 <= self.rewritten <= 1:
                raise InputError(f"rewritten must lie in [0, 1]; got {self.rewritten}.")

    def attach(self, model: nn.Module, backbone: Layout) -> nn.Module:
        attached = super().attach(model, backbone)
        self.past: list[dict[str, Factors]] = []
        self._masks: dict[str, Tensor] = {}
        self._untouched: dict[str, Tensor] = {}
        self._penalty: Tensor | None = None
        return attached

    def rewrite(self, rows: Dataset, seed: int) -> Dataset:
        return diversify(rows, self.config.rewritten, seed)

    @torch.no_grad()
    def begin_task(self, task: TaskContext) -> None:
        if task.index:
            for layer in self.layers.values():
                layer.reset_lora_parameters("default", init_lora_weights=True)

    def loss(self, loss: Tensor, batch: Batch) -> Tensor:
        if not self.past:
            return loss
        means = [
            (_change(layer, *_factors(layer)).abs() * self._masks[name]).sum() / self._masks[name].sum()
            for name, layer in self.layers.items()
        ]
        penalty = self.config.strength * torch.stack(means).mean()
        self._penalty = penalty.detach()
        total: Tensor = loss + penalty
        return total

    @torch.no_grad()
    def end_task(self, task: TaskContext) -> None:
        found = {name: _factors(layer) for name, layer in self.layers.items()}
        self._merge({name: (a.clone(), b.clone()) for name, (a, b) in found.items()})
        for _, b in found.values():
            b.zero_()  # what it added is in the backbone now

    def _merge(self, task: Mapping[str, Factors]) -> None:
        self.past.append(dict(task))
        for name, layer in self.layers.items():
            weight = layer.get_base_layer().weight
            change = _change(layer, *task[name])
            self._untouched.setdefault(name, weight.detach().clone())
            weight += change.to(weight.dtype)
            count = max(1, round(self.config.top * change.numel()))
            least = change.abs().flatten().topk(count).values[-1]
            mask = change.abs() >= least
            self._masks[name] = self._masks[name] | mask if name in self._masks else mask

    def merged(self) -> frozenset[str]:
        return frozenset(f"{name}.base_layer.weight" for name in self.layers) if self.past else frozenset()

    def needs(self) -> Needs:
        """Masks, the weights as they were before the first merge, and each task's factors."""
        bases = [layer.get_base_layer().weight for layer in self.layers.values()]
        factors = sum(weight.nbytes for weight in self.weights.values())
        held = sum(base.nbytes + base.numel() for base in bases)
        return Needs(device=held, device_per_task=factors, snapshot_per_task=factors)

    def step_metrics(self) -> dict[str, Any]:
        return {} if self._penalty is None else {"penalty": float(self._penalty)}

    def state_dict(self) -> dict[str, Tensor]:
        return {
            f"{index}.{name}.{factor}": value
            for index, task in enumerate(self.past)
            for name, factors in task.items()
            for factor, value in zip("AB", factors, strict=True)
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        tasks, rest = divmod(len(state), 2 * len(self.layers))
        names = [f"{index}.{name}.{factor}" for index in range(tasks) for name in self.layers for factor in "AB"]
        if rest or not all(name in state for name in names):
            raise SnapshotError(
                f"the method's state must hold the factors of each past task's {len(self.layers)} layers; it holds "
                f"{len(state)} tensors that are others. Use the snapshot of a run with the same method and settings."
            )
        for name, weight in self._untouched.items():
            self.layers[name].get_base_layer().weight.copy_(weight)
        self.past, self._masks = [], {}
        place = next(iter(self.weights.values())).device
        for index in range(tasks):
            kept = {name: [state[f"{index}.{name}.{factor}"].to(place) for factor in "AB"] for name in self.layers}
            self._merge({name: (a, b) for name, (a, b) in kept.items()})


def _factors(layer: LoraLayer) -> Factors:
    return layer.lora_A["default"].weight, layer.lora_B["default"].weight


def _change(layer: LoraLayer, a: Tensor, b: Tensor) -> Tensor:
    """What the adapter adds to its layer's weight [outputs, inputs]."""
    change: Tensor = layer.scaling["default"] * (b @ a)
    return change
