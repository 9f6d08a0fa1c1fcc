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

    Towers read pictures [pictures, tokens, d], tiles of them [tiles, tokens, d], or the patches of all of them in one
    sequence [patches, d]. In each, a picture's tokens lie together, and there are as many of them for each token that
    the picture takes in the text.

    Args:
        text: (row within the task's probe, column) of each chosen token, by task [tokens, 2].
        drawn: how many tokens each row's picture takes in the text, by task [rows].
        wanted: tokens of a task to keep of a vision tower.
        is_padded: whether a layer reads the text.
    """

    def __init__(
        self, text: Sequence[Tensor], drawn: Sequence[Tensor], wanted: int, is_padded: Callable[[str], bool]
    ) -> None:
        starts = torch.tensor([0, *map(len, drawn)]).cumsum(0)
        self._text = [here + torch.stack([first, 0 * first]) for here, first in zip(text, starts, strict=False)]
        self._drawn, self._wanted, self._is_padded = drawn, wanted, is_padded
        self._pictures: list[Tensor] = []  # not before it is known how many tokens a picture has in the tower
        self._before = torch.zeros(0)
        self._rows = slice(0)

    def show(self, row: int, count: int) -> None:
        """Say that the batch that comes has so many rows of all probes, from this one on."""
        self._rows = slice(row, row + count)

    def take(self, name: str, inputs: Tensor) -> Tensor:
        """The chosen tokens of what a layer reads of the batch: [rows, tokens, d], or a tower's, to [chosen, d]."""
        if self._is_padded(name):
            places = torch.cat(self._text)
            index = places[:, 0] - self._rows.start
            here = (index >= 0) & (index < len(inputs))
            return inputs[index[here].to(inputs.device), places[here, 1].to(inputs.device)]
        tokens = inputs.flatten(0, -2)
        if not self._pictures:
            self._choose_pictures(len(tokens))
        index = torch.cat(self._pictures) - self._before[self._rows.start]
        here = (index >= 0) & (index < len(tokens))
        return tokens[index[here].to(inputs.device)]

    def split(self, name: str, taken: Tensor) -> tuple[Tensor, ...]:
        """What was taken of all batches, by task."""
        places = self._text if self._is_padded(name) else self._pictures
        parts: tuple[Tensor, ...] = taken.split([len(here) for here in places])
        return parts

    def _choose_pictures(self, tokens: int) -> None:
        """Choose places among the tower's tokens of all probes, given how many there are of the batch."""
        drawn = torch.cat([*self._drawn])
        lengths = drawn * tokens // drawn[self._rows].sum()
        self._before = lengths.cumsum(0) - lengths
        parts = [len(task) for task in self._drawn]
        for task, (own, before) in enumerate(zip(lengths.split(parts), self._before.split(parts), strict=True)):
            picture, column = choose_tokens(own, self._wanted, task).T
            self._pictures.append(before[picture] + column)
