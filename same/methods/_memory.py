"""Shared by the methods that look at old rows again: which rows, and what the model's weights have to do with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from same.errors import InputError, SnapshotError
from same.methods._base import Layout, Reference, TaskContext
from same.methods._lora import LoraConfig, LoraMethod


class Reservoir:
    """At most `size` rows of all tasks so far, every row as likely to be among them as any other.

    Source: Vitter, "Random sampling with a reservoir", ACM TOMS 1985, Algorithm R.

    Args:
        size: rows held.
    """

    def __init__(self, size: int) -> None:
        self.size, self.seen = size, 0
        self.rows = np.empty((0, 2), dtype=np.int64)

    def add(self, task: int, count: int, generator: np.random.Generator) -> None:
        """Let the rows of a task pass by, once each."""
        passing = np.stack([np.full(count, task), np.arange(count)], 1)
        room = self.size - len(self.rows)
        self.rows, rest = np.concatenate([self.rows, passing[:room]]), passing[max(0, room) :]
        places = generator.integers(0, self.seen + np.arange(count - len(rest), count) + 1)
        kept = places < self.size
        self.rows[places[kept]] = rest[kept]  # of several at one place the last stays, as one after the other
        self.seen += count

    def draw(self, count: int, generator: np.random.Generator) -> list[Reference]:
        """Different rows held, at random; all of them where there are fewer."""
        chosen = generator.permutation(len(self.rows))[:count]
        return [(int(task), int(row)) for task, row in self.rows[chosen]]

    def of_task(self, task: int) -> list[Reference]:
        """The rows of one task that are held."""
        return [(task, int(row)) for owner, row in self.rows if owner == task]

    def state_dict(self) -> dict[str, Tensor]:
        return {"memory.rows": torch.from_numpy(self.rows.copy()), "memory.seen": torch.tensor(self.seen)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` gave; nothing is the memory before the first task.

        Raises:
            SnapshotError: it is no such memory.
        """
        if not state:
            return
        rows = state.get("memory.rows")
        if rows is None or rows.shape[1:] != (2,) or len(rows) > self.size or "memory.seen" not in state:
            raise SnapshotError(
                f"the method's state must hold a memory of at most {self.size} rows; it holds "
                f"{sorted(state)}. Use the snapshot of a run with the same method and settings."
            )
        self.rows, self.seen = rows.numpy().copy(), int(state["memory.seen"])


@dataclass(frozen=True)
class MemoryConfig(LoraConfig):
    """Size of adapter and memory.

    Args:
        memory: training rows kept of all tasks together.
    """

    memory: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory < 1:
            raise InputError(f"memory must be at least 1 row; got {self.memory}.")


class MemoryMethod(LoraMethod):
    """One LoRA, and a reservoir of rows: the same on every process."""

    Config = MemoryConfig
    parity = "lora"

    def attach(self, model: nn.Module, backbone: Layout) -> nn.Module:
        self.memory = Reservoir(self.config.memory)
        return super().attach(model, backbone)

    def begin_task(self, task: TaskContext) -> None:
        self.task = task
        self.seed = torch.initial_seed()  # the engine has just seeded torch for this task, equally on all processes
        self.chance = np.random.default_rng(self.seed)

    def end_task(self, task: TaskContext) -> None:
        self.memory.add(task.index, task.rows.count(task.index), np.random.default_rng([self.seed, 1]))

    def state_dict(self) -> dict[str, Tensor]:
        return self.memory.state_dict() if self.memory.seen else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.memory.load_state_dict(state)


def flat(tensors: Sequence[Tensor | None], like: Sequence[Tensor]) -> Tensor:
    """Tensors end to end as one vector; one that is missing is 0."""
    given = zip(tensors, like, strict=True)
    return torch.cat([torch.zeros_like(own).flatten() if it is None else it.flatten() for it, own in given])


def gradients_of(parameters: Sequence[nn.Parameter]) -> Tensor:
    """The accumulated gradients as one vector [weights]."""
    return flat([parameter.grad for parameter in parameters], parameters)


@torch.no_grad()
def set_gradients_(parameters: Sequence[nn.Parameter], vector: Tensor) -> None:
    """Put a vector in place of the accumulated gradients."""
    parts = vector.split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter).clone()


def loss_gradient(task: TaskContext, references: Sequence[Reference], parameters: Sequence[nn.Parameter]) -> Tensor:
    """Gradient of the mean loss over the answer tokens of some rows, shared out over the processes [weights].

    It is made apart from the accumulated gradients, which stay as they are.
    """
    own = references[task.rank :: task.world]
    total = torch.zeros(sum(parameter.numel() for parameter in parameters) + 1, device=parameters[0].device)
    if own:
        logits, targets = task.rows.answers(own)
        loss = functional.cross_entropy(logits, targets, reduction="sum")
        total[:-1] = flat(torch.autograd.grad(loss, list(parameters), allow_unused=True), parameters)
        total[-1] = len(targets)
    task.reduce(total)
    return total[:-1] / total[-1].clamp_min(1)
