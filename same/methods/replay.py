"""Old rows mixed into every batch.

A reservoir keeps some rows of all tasks (their numbers, not their content). From the second task on a share of the
task's rows gives way to rows drawn from it, so that batches, steps and samples are as many as every method's.

Source: Chaudhry et al., "On tiny episodic memories in continual learning", 2019. Public code often keeps the head of
the stream; here every row is as likely to be kept as any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from same.errors import InputError
from same.methods._base import ROWS, Batch, Reference
from same.methods._memory import MemoryConfig, MemoryMethod


class Replay(MemoryMethod):
    """Experience replay."""

    title = "Replay"
    paper = "Chaudhry et al., On tiny episodic memories in continual learning, 2019"
    notes = "Keeps rows of old tasks, which the other methods do not; a share of each batch is theirs, by chance."

    @dataclass(frozen=True)
    class Config(MemoryConfig):
        """Size of adapter and memory, and how much of a batch is old.

        Args:
            share: chance of each row to give way to an old one, from the second task on.
        """

        share: float = 0.25

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 < self.share < 1:
                raise InputError(f"share must lie in (0, 1); got {self.share}.")

    def batches(self, batches: Iterable[Batch]) -> Iterable[Batch]:
        return self._mixed(batches) if self.memory.seen else batches

    def _mixed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for place, batch in enumerate(batches):
            yield self.task.rows.batch([self._instead(place // self.task.parts, row) for row in batch[ROWS].tolist()])

    def _instead(self, step: int, row: int) -> Reference:
        """A row, or an old one: by the seed, the step and the row alone, on whichever process and in whichever part."""
        chance = np.random.default_rng([self.seed, step, row])
        if chance.random() >= self.config.share:
            return self.task.index, row
        task, old = self.memory.rows[chance.integers(len(self.memory.rows))]
        return int(task), int(old)
