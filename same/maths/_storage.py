"""What a covariance tracker asks of the place where it keeps Σ x xᵀ, and the place that keeps all of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from same.maths.spectrum import Spectrum

PIECE = 64  # rows converted at a time
BLOCK = 128  # columns of a symmetric product made at a time


@dataclass(frozen=True)
class Place:
    """Where sums live: their dtype and device, and whether the inputs' mean is kept to be removed."""

    dtype: torch.dtype = torch.float32
    device: torch.device | str | None = None
    centered: bool = False

    def zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def count(self) -> Tensor:
        """A number that grows, in float64 so that no token is lost."""
        return torch.zeros((), dtype=torch.float64, device=self.device)


def squared_norms(rows: Float[Tensor, "tokens d"], dtype: torch.dtype) -> Float[Tensor, " tokens"]:
    """‖x‖² of each row, computed in `dtype`."""
    if rows.dtype == dtype or rows.device.type != "cpu":
        norms: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=dtype)
        return norms.square()
    # A CPU would first convert all rows: piece by piece the copy stays in its cache.
    return torch.cat([torch.linalg.vector_norm(part.to(dtype), dim=1) for part in rows.split(PIECE)]).square()


def without_padding(rows: Float[Tensor, "tokens d"], valid: Bool[Tensor, " tokens"]) -> Float[Tensor, "rest d"]:
    """The valid rows; where counting them would wait for the device all rows, of which the others are 0."""
    if rows.device.type != "cpu":
        return torch.where(valid[:, None], rows, torch.zeros((), dtype=rows.dtype, device=rows.device))
    return rows if valid.all() else rows[valid]


@dataclass(frozen=True)
class Slots:
    """Which rows of a batch of streams count, found without waiting for the device.

    Args:
        index: of the row in each slot; None takes every row.
        there: False for slots that padding or the phase leaves empty.
        sampled: how many are filled.
        tokens: how many rows are valid.
    """

    index: Int64[Tensor, " slots"] | None
    there: Bool[Tensor, "slots 1"] | None
    sampled: Tensor
    tokens: Tensor


def find_slots(
    shape: Sequence[int],
    valid: Bool[Tensor, "streams tokens"] | None,
    phase: Int64[Tensor, " streams"],
    stride: int,
) -> Slots:
    """Every stride-th valid row of each stream, from the `phase`-th on.

    Of rows whose `shape` begins with streams and tokens: there are always ⌈tokens / stride⌉ slots a stream. Which
    rows are chosen depends on the stream's valid ones alone.
    """
    (streams, count), device = shape[:2], phase.device
    tokens = torch.full((), streams * count, dtype=torch.float64, device=device) if valid is None else valid.sum()
    if stride == 1 and valid is None:
        return Slots(None, None, tokens, tokens)
    position = torch.arange(1, count + 1, device=device).expand(streams, -1) if valid is None else valid.cumsum(1)
    wanted = phase[:, None] + 1 + stride * torch.arange(-(-count // stride), device=device)
    index = torch.searchsorted(position.contiguous(), wanted)
    there = index < count
    index = index.clamp_max(count - 1) + count * torch.arange(streams, device=device)[:, None]
    return Slots(index.flatten(), there.view(-1, 1), there.sum(dtype=torch.float64), tokens)


def every(rows: Float[Tensor, "streams tokens d"], slots: Slots) -> Float[Tensor, "slots d"]:
    """The rows in the slots; empty ones are zero."""
    rows = rows.flatten(0, 1)
    if slots.index is None or slots.there is None:
        return rows
    return torch.where(slots.there, rows.index_select(0, slots.index), rows.new_zeros(()))


class Storage(ABC):
    """Keeps Σ x xᵀ, whole or in part. The defaults suit one whose state is a sum over tokens.

    `sampled` is the number of tokens that it is of.
    """

    sampled: Tensor

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The live tensors that are its whole state, by name."""

    def shared(self, dtype: torch.dtype) -> Tensor | None:
        """What inputs of `dtype` are multiplied by, where all storages of this kind, size and device share that."""
        return None

    @abstractmethod
    def add(
        self,
        rows: Float[Tensor, "streams tokens d"],
        valid: Bool[Tensor, "streams tokens"] | None,
        slots: Slots,
        energy: Float[Tensor, " all_tokens"] | None = None,
    ) -> None:
        """Count the valid tokens, in order; what the others hold (it may be NaN) leaves no trace.

        Args:
            rows: inputs of any floating dtype.
            valid: None for all.
            slots: those that count.
            energy: ‖x‖² of each token where it is known already.
        """

    @abstractmethod
    def spectrum(self, tokens: float) -> Spectrum:
        """The spectrum of the covariance of all `tokens` inputs, in float64 (waits for the device)."""

    def merge(self, other: Storage) -> None:
        """Take in what another storage of the same kind and size counted."""
        for mine, theirs in zip(self.tensors().values(), other.tensors().values(), strict=True):
            mine.add_(theirs)

    def reduce(self, all_reduce: Callable[[Tensor], None], rank: int, world: int) -> None:
        """Merge over processes; every one then holds the same bits.

        Args:
            all_reduce: sums a tensor over processes, in place.
            rank: this process's number, 0 to world − 1.
            world: number of processes.
        """
        for tensor in self.tensors().values():
            all_reduce(tensor)


class ExactStorage(Storage):
    """Σ x xᵀ itself over every stride-th token, [d, d]: it has every direction, and sums add in any order.

    Below its diagonal the matrix is filled in when it is asked for.
    """

    def __init__(self, dim: int, stride: int, place: Place) -> None:
        self.stride, self.centered = stride, place.centered
        self.products = place.zeros(dim, dim)
        self.sums = place.zeros(dim if place.centered else 0)
        self.sampled = place.count()

    def tensors(self) -> dict[str, Tensor]:
        self.products.triu_().add_(self.products.triu(1).T)
        return {"products": self.products, "sums": self.sums, "sampled": self.sampled}

    def add(
        self,
        rows: Float[Tensor, "streams tokens d"],
        valid: Bool[Tensor, "streams tokens"] | None,
        slots: Slots,
        energy: Float[Tensor, " all_tokens"] | None = None,
    ) -> None:
        if self.stride == 1 and valid is not None:
            chosen, count = without_padding(rows.flatten(0, 1), valid.flatten()), slots.tokens
        else:
            chosen, count = every(rows, slots), slots.sampled
        self.sampled += count
        chosen = chosen.to(self.products.dtype)
        # Only what stands on and right of the diagonal, block by block: the rest mirrors it.
        for first in range(0, chosen.shape[1], BLOCK):
            block = slice(first, first + BLOCK)
            self.products[block, first:].addmm_(chosen[:, block].T, chosen[:, first:])
        if self.centered:
            self.sums += chosen.sum(0)

    def spectrum(self, tokens: float) -> Spectrum:
        sampled = float(self.sampled)
        covariance = self.tensors()["products"].double() / sampled
        if self.centered:
            mean = self.sums.double() / sampled
            covariance = covariance - torch.outer(mean, mean)
        covariance = (covariance + covariance.T) / 2
        values, vectors = torch.linalg.eigh(covariance)
        values = values.flip(0).clamp_min(0)
        return Spectrum(values, vectors.flip(1).contiguous(), tokens, float(covariance.trace()))
