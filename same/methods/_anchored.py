"""Shared by the methods that choose among slots by how much a row is like the rows of each task."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from same.errors import InputError, SnapshotError
from same.methods._base import Batch, Layout, TaskContext
from same.methods._features import Anchors, FeatureConfig, FeatureMethod
from same.methods._lora import LoraConfig
from same.methods._slots import WeighedSlots


@dataclass(frozen=True)
class AnchoredConfig(FeatureConfig, LoraConfig):
    """Size of all slots together, and how they are chosen.

    Args:
        temperature: of the softmax over cosines.
        centre: take the mean anchor away before comparing.
    """

    temperature: float = 0.1
    centre: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"temperature must be positive and finite; got {self.temperature}.")


class AnchoredSlots(FeatureMethod, WeighedSlots):
    """A slot for each task, trained alone, and the mean features of each task's rows."""

    Config = AnchoredConfig

    def attach(self, model: nn.Module, backbone: Layout) -> nn.Module:
        self.anchors = {kind: Anchors(width, self.config.centre) for kind, width in self.widths(model).items()}
        return super().attach(model, backbone)

    def forward_context(self, batch: Batch) -> AbstractContextManager[None]:
        for kind, found in self.features(batch).items():
            self.anchors[kind].add(found)
        return super().forward_context(batch)

    def end_task(self, task: TaskContext) -> None:
        super().end_task(task)
        for anchors in self.anchors.values():
            anchors.close(task.reduce, self.factors[0][0].device)

    def likeness(self, batch: Batch) -> Tensor:
        """Softmax over the tasks so far of the mean cosine of a row's features with theirs [rows, tasks]."""
        found = [self.anchors[kind].similarity(each) for kind, each in self.features(batch).items()]
        likeness: Tensor = (torch.stack(found).mean(0) / self.config.temperature).softmax(-1)
        return likeness

    def state_dict(self) -> dict[str, Tensor]:
        means = {f"anchors.{kind}": anchors.means for kind, anchors in self.anchors.items()}
        return {**means, "tasks": torch.tensor(self.tasks)} if self.tasks else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        if not state:
            return
        wanted = {f"anchors.{kind}" for kind in self.anchors} | {"tasks"}
        if set(state) != wanted:
            raise SnapshotError(
                f"the method's state must hold {sorted(wanted)}; it holds {sorted(state)}. Use the snapshot of a run "
                "with the same method and settings."
            )
        for kind, anchors in self.anchors.items():
            anchors.means = state[f"anchors.{kind}"].to(self.factors[0][0].device)
        self.tasks = int(state["tasks"])
