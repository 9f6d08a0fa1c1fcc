"""A fresh LoRA for each task, and an oracle that says which one answers.

Nothing is forgotten because nothing is shared; the task's number is needed at inference. A task that is still to come
is answered by the adapter trained last.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from same.errors import SnapshotError
from same.methods._base import Layout, Needs, TaskContext
from same.methods._lora import LoraMethod


class Individual(LoraMethod):
    """Individual fine-tuning, an upper reference."""

    title = "Individual fine-tuning"
    paper = "Hu et al., LoRA: low-rank adaptation of large language models, ICLR 2022"
    notes = "One adapter of the usual size for each task, chosen by the task's number; never to be beaten fairly."
    task_id_at_inference = True
    parity = "lora"
    budget_reason = "trains a LoRA of the usual size for each task, as the upper reference it is"

    def attach(self, model: nn.Module, backbone: Layout) -> nn.Module:
        self.done: list[dict[str, Tensor]] = []
        return super().attach(model, backbone)

    @torch.no_grad()
    def begin_task(self, task: TaskContext) -> None:
        if task.index:
            for layer in self.layers.values():
                for adapter in layer.lora_A:
                    layer.reset_lora_parameters(adapter, init_lora_weights=True)

    def end_task(self, task: TaskContext) -> None:
        self.done.append({name: weight.detach().clone() for name, weight in self.weights.items()})

    @torch.no_grad()
    def reveal_task(self, index: int) -> None:
        chosen = self.done[min(index, len(self.done) - 1)]
        for name, weight in self.weights.items():
            weight.copy_(chosen[name])

    def needs(self) -> Needs:
        size = sum(weight.nbytes for weight in self.weights.values())
        return Needs(device_per_task=size, snapshot_per_task=size)

    def state_dict(self) -> dict[str, Tensor]:
        return {f"{index}.{name}": value for index, done in enumerate(self.done) for name, value in done.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        names = list(self.weights)
        tasks, rest = divmod(len(state), len(names))
        if rest or not all(f"{index}.{name}" in state for index in range(tasks) for name in names):
            raise SnapshotError(
                f"the method's state must hold the {len(names)} weights of each task's adapter; it holds {len(state)} "
                "others. Use the snapshot of a run with the same method and settings."
            )
        place = next(iter(self.weights.values())).device
        self.done = [{name: state[f"{index}.{name}"].to(place) for name in names} for index in range(tasks)]
