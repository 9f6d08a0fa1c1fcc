"""The uncentred covariance of a layer's inputs over all past tasks, and its spectrum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Energy = Literal["squared", "eigenvalue"]


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues (descending, ≥ 0) and eigenvectors (columns) of a covariance over `tokens` inputs.

    `trace` is the covariance's own, so that it stays exact when fewer than d directions are held.
    """

    eigenvalues: Float[Tensor, " k"]
    eigenvectors: Float[Tensor, "d k"]
    tokens: float
    trace: float

    @property
    def dim(self) -> int:
        return self.eigenvectors.shape[0]

    @property
    def mean_eigenvalue(self) -> float:
        """Mean over all d directions, the scale that a relative damping refers to."""
        return self.trace / self.dim

    def rank(self, energy_threshold: float, energy: Energy = "squared") -> int:
        """Smallest k whose leading directions hold `energy_threshold` of the energy (1 holds all directions).

        Source: SAME, the energy rule; "squared" sums σ², "eigenvalue" sums σ (the fraction of variance).
        """
        if not 0 < energy_threshold <= 1:
            raise ValueError(
                f"energy_threshold must be in (0, 1]; got {energy_threshold}. Choose 0.95 for the paper's."
            )
        values = self.eigenvalues.double()
        if energy == "squared":
            values = values.square()
        total = float(values.sum())
        if energy_threshold == 1 or total == 0:
            return len(values)
        below = values.cumsum(0) < energy_threshold * total * (1 - 1e-12)
        return min(int(below.sum()) + 1, len(values))

    def matrix(self) -> Float[Tensor, "d d"]:
        """The covariance that the held directions make."""
        return (self.eigenvectors * self.eigenvalues) @ self.eigenvectors.T

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Spectrum:
        values = self.eigenvalues.to(device=device, dtype=dtype)
        return Spectrum(values, self.eigenvectors.to(device=device, dtype=dtype), self.tokens, self.trace)


class CovarianceTracker:
    """Sums Σ x xᵀ and the number of tokens; every operation is a sum, so order and grouping do not matter.

    Source: SAME, C^t = (α_{t-1} C^{t-1} + n_t Ĉ^t) / α_t, kept as the sums α_t C^t and α_t.

    Args:
        dim: width d of the inputs.
        centered: remove the mean (for comparison; the paper's covariance is not centred).
        dtype: of the sums; at least float32.
    """

    def __init__(
        self,
        dim: int,
        *,
        centered: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype of the sums must be float32 or float64; got {dtype}. Inputs may be of any dtype.")
        self.dim, self.centered = dim, centered
        self.products = torch.zeros(dim, dim, dtype=dtype, device=device)
        self.sums = torch.zeros(dim if centered else 0, dtype=dtype, device=device)
        self.tokens = torch.zeros((), dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, inputs: Float[Tensor, "*batch d"], valid: Bool[Tensor, "*batch"] | None = None) -> None:
        """Count a batch of tokens; those where `valid` is False leave no trace. Never waits for the device."""
        if inputs.shape[-1] != self.dim:
            raise ValueError(f"inputs must be {self.dim} wide; got shape {tuple(inputs.shape)}.")
        rows = inputs.detach().reshape(-1, self.dim).to(self.products.dtype)
        if valid is None:
            self.tokens += len(rows)
        else:
            flat = valid.reshape(-1, 1)
            rows = torch.where(flat, rows, torch.zeros((), dtype=rows.dtype, device=rows.device))
            self.tokens += flat.sum()
        self.products.addmm_(rows.T, rows)
        if self.centered:
            self.sums += rows.sum(0)

    def merge(self, other: CovarianceTracker) -> None:
        """Add what another tracker counted."""
        for mine, theirs in zip(self._tensors(), other._tensors(), strict=True):
            mine.add_(theirs)

    def reduce(self, all_reduce: Callable[[Tensor], None]) -> None:
        """Sum over processes, in place: every process then holds the same bits."""
        for tensor in self._tensors():
            all_reduce(tensor)

    def clone(self) -> CovarianceTracker:
        copy = CovarianceTracker(
            self.dim, centered=self.centered, dtype=self.products.dtype, device=self.products.device
        )
        copy.merge(self)
        return copy

    def spectrum(self) -> Spectrum:
        """Eigendecomposition in float64 (waits for the device)."""
        tokens = float(self.tokens)
        if tokens == 0:
            raise ValueError("a spectrum needs at least one token; got none. Update the tracker first.")
        covariance = self.products.double() / tokens
        if self.centered:
            mean = self.sums.double() / tokens
            covariance = covariance - torch.outer(mean, mean)
        covariance = (covariance + covariance.T) / 2
        values, vectors = torch.linalg.eigh(covariance)
        values = values.flip(0).clamp_min(0)
        return Spectrum(values, vectors.flip(1).contiguous(), tokens, float(covariance.trace()))

    def state_dict(self) -> dict[str, Tensor]:
        return {"products": self.products.clone(), "sums": self.sums.clone(), "tokens": self.tokens.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for mine, name in zip(self._tensors(), ("products", "sums", "tokens"), strict=True):
            if mine.shape != state[name].shape:
                raise ValueError(f"{name} must have shape {tuple(mine.shape)}; got {tuple(state[name].shape)}.")
            mine.copy_(state[name])

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.products, self.sums, self.tokens
