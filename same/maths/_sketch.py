"""What storages of fewer than d directions share: the tokens they count, the trace, the mean's removal."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import cache
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from same.maths._storage import Place, Slots, Storage, every, squared_norms
from same.maths.spectrum import Spectrum

SEED = 1706_05736
BLOCK = 256  # rows folded into a row sketch at a time, at least


@cache
def random_basis(dim: int, size: int) -> Float[Tensor, "d k"]:
    """Ω: the orthonormal basis of a Gaussian matrix's range, the same for every process, task and resumed run.

    The random bits are integers and the basis is rounded to bfloat16 (orthonormal to 2⁻⁸), so that the values are the
    same wherever they are computed, and in whatever precision they are used.
    """
    generator = torch.Generator().manual_seed(SEED)
    integers = torch.randint(2**24, (dim, size), generator=generator, device="cpu").double()
    gaussian = torch.erfinv((2 * integers + 1) / 2**24 - 1)
    basis, _ = torch.linalg.qr(gaussian)
    rounded: Tensor = basis.bfloat16()
    return rounded


@cache
def shared_basis(dim: int, size: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "d k"]:
    """Ω as products need it: one for all storages of a process, which read it and never write into it."""
    return random_basis(dim, size).to(device, dtype)


def without_mean(
    values: Float[Tensor, " k"], vectors: Float[Tensor, "d k"], mean: Float[Tensor, " d"]
) -> tuple[Float[Tensor, " l"], Float[Tensor, "d l"]]:
    """Eigenpairs of V diag(σ) Vᵀ − μ μᵀ, negative ones set to 0, as many as were given."""
    basis, corner = torch.linalg.qr(torch.cat([vectors * values.sqrt(), mean[:, None]], 1))
    held, last = corner[:, :-1], corner[:, -1]
    values, turn = torch.linalg.eigh(held @ held.T - torch.outer(last, last))
    kept = vectors.shape[1]
    return values.flip(0).clamp_min(0)[:kept], basis @ turn.flip(1)[:, :kept]


class Sketch(Storage):
    """A storage of a few directions: counts every stride-th token, and the trace over all of them.

    Args:
        dim: width d of the inputs.
        size: directions held; d of them hold everything.
        stride: one in so many valid tokens is counted.
    """

    def __init__(self, dim: int, size: int, stride: int, place: Place) -> None:
        self.size, self.stride, self.dtype, self.centered = min(size, dim), stride, place.dtype, place.centered
        self.sums = place.zeros(dim if place.centered else 0)
        self.sampled = place.count()
        self.trace = place.count()

    def tensors(self) -> dict[str, Tensor]:
        return {"sums": self.sums, "sampled": self.sampled, "trace": self.trace}

    def add(
        self,
        rows: Float[Tensor, "streams tokens d"],
        valid: Bool[Tensor, "streams tokens"] | None,
        slots: Slots,
        energy: Float[Tensor, " all_tokens"] | None = None,
    ) -> None:
        if energy is None:
            energy = squared_norms(rows.flatten(0, 1), torch.promote_types(rows.dtype, self.dtype))
        if valid is not None:
            energy = torch.where(valid.flatten(), energy, energy.new_zeros(()))
        self.trace += energy.sum(dtype=self.trace.dtype)
        chosen = every(rows, slots)
        self.sampled += slots.sampled
        if self.centered:
            self.sums += chosen.to(self.dtype).sum(0)
        self.count(chosen)

    @abstractmethod
    def count(self, rows: Float[Tensor, "n d"]) -> None:
        """Take in rows; zero rows change nothing."""

    @abstractmethod
    def eigenpairs(self, sampled: float) -> tuple[Float[Tensor, " k"], Float[Tensor, "d k"]]:
        """Eigenvalues (descending, ≥ 0) and eigenvectors of the mean of x xᵀ over the tokens counted, in float64."""

    def spectrum(self, tokens: float) -> Spectrum:
        sampled, trace = float(self.sampled), float(self.trace) / tokens
        values, vectors = self.eigenpairs(sampled)
        if self.centered:
            mean = self.sums.double() / sampled
            values, vectors = without_mean(values, vectors, mean)
            trace = max(0.0, trace - float(mean @ mean))
        return Spectrum(values, vectors.contiguous(), tokens, trace)


class RowSketch(Sketch):
    """A sketch of `size` rows R with RᵀR ≈ Σ x xᵀ; further rows are stacked under them and compressed together."""

    key: ClassVar[str]  # names the rows in a state

    def __init__(self, dim: int, size: int, stride: int, place: Place) -> None:
        super().__init__(dim, size, stride, place)
        self.rows = place.zeros(self.size, dim)

    def tensors(self) -> dict[str, Tensor]:
        return {self.key: self.rows, **super().tensors()}

    @abstractmethod
    def compress(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "size d"]:
        """As many rows as are held (fewer than n) whose products are close to those of the rows given."""

    def count(self, rows: Float[Tensor, "n d"]) -> None:
        for block in rows.to(self.dtype).split(max(BLOCK, self.size)):
            self.rows.copy_(self.compress(torch.cat([self.rows, block])))

    def eigenpairs(self, sampled: float) -> tuple[Float[Tensor, " k"], Float[Tensor, "d k"]]:
        _, values, vectors = torch.linalg.svd(self.rows.double(), full_matrices=False)
        return values.square() / sampled, vectors.T

    def merge(self, other: Storage) -> None:
        if not isinstance(other, RowSketch):
            raise TypeError(f"a row sketch merges with its like; got {type(other).__name__}.")
        self.rows.copy_(self.compress(torch.cat([self.rows, other.rows])))
        for name, mine in super().tensors().items():
            mine.add_(other.tensors()[name])

    def reduce(self, all_reduce: Callable[[Tensor], None], rank: int, world: int) -> None:
        """Each process sends its rows in turn (the others add zeros to them), and all merge them in rank order."""
        found = torch.ones_like(self.sampled)
        all_reduce(found)
        if round(float(found)) != world or not 0 <= rank < world:
            raise ValueError(
                f"rank and world must be those of the processes that all_reduce sums over; got {rank} and {world} of "
                f"{round(float(found))}. Give the task's rank and number of processes."
            )
        merged: Tensor | None = None
        for sender in range(world):
            sent = self.rows.clone() if sender == rank else torch.zeros_like(self.rows)
            all_reduce(sent)
            merged = sent if merged is None else self.compress(torch.cat([merged, sent])).to(self.dtype)
        if merged is not None:
            self.rows.copy_(merged)
        for tensor in super().tensors().values():
            all_reduce(tensor)
