"""The embedded benchmarks' tasks: one file a task, drawn from real data of installed packages."""

from __future__ import annotations

import zlib
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from same import registry

if TYPE_CHECKING:
    from same.data.mini._world import Sample, Split

VERSION = "3"
REVISED = {"arxivqa": 1}
"""Task files whose items changed since VERSION was, and how often: the other tasks' benchmarks stay as they are."""


def sample(task: str, split: Split, index: int, seed: int, stream: int = 0) -> Sample:
    """Item ``index`` of a task's split; the same for the same arguments.

    Args:
        task: stem of a file in this package.
        split: training or test sources.
        index: number of the item.
        seed: of the benchmark.
        stream: other numbers give other items of the same seed, for a benchmark that has another one's task.

    Raises:
        InputError: no task file of that name.
    """
    name = f"{task}/{split}/{stream}" if stream else f"{task}/{split}"
    drawn: Sample = _draw(task)(np.random.default_rng([zlib.crc32(name.encode()), seed, index]), split)
    return drawn


@cache
def _draw(task: str):  # type: ignore[no-untyped-def]
    return registry.load("same.data.mini", task).draw
