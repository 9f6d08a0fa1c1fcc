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


def sample(task: str, split: Split, index: int, seed: int) -> Sample:
    """Item ``index`` of a task's split; the same for the same arguments.

    Raises:
        InputError: no task file of that name.
    """
    stream = zlib.crc32(f"{task}/{split}".encode())
    drawn: Sample = _draw(task)(np.random.default_rng([stream, seed, index]), split)
    return drawn


@cache
def _draw(task: str):  # type: ignore[no-untyped-def]
    return registry.load("same.data.mini", task).draw
