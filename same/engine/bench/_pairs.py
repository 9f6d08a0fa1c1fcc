"""Fair timing on a noisy machine: calls interleaved in one process, compared pair by pair."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from same.engine.allocator import keep_freed_memory
from same.engine.plan import Saved

Times = dict[str, list[float]]


def counts_own_seconds() -> bool:
    """On one thread of a CPU only the seconds that it worked count, not the turns that other processes take."""
    return torch.get_num_threads() == 1 and not torch.cuda.is_available()


def clock() -> float:
    """Seconds, of which differences are taken."""
    _settle()
    return time.thread_time() if counts_own_seconds() else time.perf_counter()


def interleaved(
    calls: Mapping[str, Callable[[], object]], repeats: int, *, note: str = "", again: bool = False
) -> Times:
    """Seconds of each call, `repeats` times; every round runs all calls, each round beginning with another one.

    Args:
        calls: by name.
        repeats: rounds.
        note: what the progress bar shows.
        again: time the second of two calls in a row, as training repeats itself: the first pays for memory that the
            call before it left in other pieces.
    """
    keep_freed_memory()
    names = list(calls)
    for name in names:
        calls[name]()  # caches, lazy initialisation
    times: Times = {name: [] for name in names}
    for number in tqdm(range(repeats), desc=note or "rounds", leave=False):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            if again:
                calls[name]()
            start = clock()
            calls[name]()
            times[name].append(clock() - start)
    return times


def _settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median of the ratios of paired times."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def overhead(times: Times, name: str, base: str) -> list[float]:
    """What a call takes beyond the base call of the same round, in seconds."""
    return [with_it - without for with_it, without in zip(times[name], times[base], strict=True)]


def saved_bytes(forward: Callable[[], Tensor], module: nn.Module) -> int:
    """Bytes that a forward pass keeps for its backward, each storage once, parameters left out."""
    saved = Saved(module)
    with saved:
        forward()
    return saved.bytes
