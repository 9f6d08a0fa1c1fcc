"""Which rows of a task are its probe, and which tokens of those the audit keeps: the same for every run."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def choose_rows(count: int, wanted: int, seed: int) -> Tensor:
    """Up to `wanted` of `count` rows, ascending."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[:wanted].sort().values


def choose_tokens(lengths: Tensor, wanted: int, seed: int) -> Tensor:
    """Up to `wanted` places (row, column), ascending, among the first `lengths` tokens of each row [tokens, 2]."""
    valid = (torch.arange(int(lengths.amax())) < lengths[:, None]).nonzero()
    order = torch.randperm(len(valid), generator=torch.Generator().manual_seed(seed))
    return valid[order[:wanted].sort().values]


class ProbeTokens:
    """The probes' tokens in what layers read, batch by batch: chosen by row and column in text, by picture in a tower.

    Args:
        text: (row within the task's probe, column) of each chosen token, by task [tokens, 2].
        pictured: whether each row has a picture, by task.
        wanted: tokens of a task to keep of a vision tower, where every picture has equally many.
        is_padded: whether a layer reads the text.
    """

    def __init__(
        self, text: Sequence[Tensor], pictured: Sequence[list[bool]], wanted: int, is_padded: Callable[[str], bool]
    ) -> None:
        self._rows = [has for task in pictured for has in task]
        self._counts = [sum(task) for task in pictured]
        self._wanted, self._is_padded = wanted, is_padded
        self._text = _placed(text, [len(task) for task in pictured])
        self._pictures: list[Tensor] = []  # not before a picture's number of tokens is known
        self._first = (0, 0)

    def show(self, row: int) -> None:
        """Say that the batch that comes begins with this row of all probes."""
        self._first = (row, sum(self._rows[:row]))

    def take(self, name: str, inputs: Tensor) -> Tensor:
        """The chosen tokens of what a layer reads of the batch: [rows or pictures, tokens, d] to [chosen, d]."""
        padded = self._is_padded(name)
        if not padded and not self._pictures:
            self._pictures = self._choose_pictures(inputs.shape[1])
        places = torch.cat(self._text if padded else self._pictures)
        index = places[:, 0] - self._first[0 if padded else 1]
        here = (index >= 0) & (index < len(inputs))
        return inputs[index[here].to(inputs.device), places[here, 1].to(inputs.device)]

    def split(self, name: str, taken: Tensor) -> tuple[Tensor, ...]:
        """What was taken of all batches, by task."""
        places = self._text if self._is_padded(name) else self._pictures
        parts: tuple[Tensor, ...] = taken.split([len(here) for here in places])
        return parts

    def _choose_pictures(self, tokens: int) -> list[Tensor]:
        lengths = [torch.tensor([tokens] * count or [0]) for count in self._counts]
        chosen = [choose_tokens(length, self._wanted, task) for task, length in enumerate(lengths)]
        return _placed(chosen, self._counts)


def _placed(places: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
    """Places within each task as places over all tasks, which have so many rows (or pictures) each."""
    starts = torch.tensor([0, *counts]).cumsum(0)
    return [here + torch.stack([start, torch.zeros_like(start)]) for here, start in zip(places, starts, strict=False)]
