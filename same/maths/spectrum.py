"""The spectrum of a covariance: what the rules of routing and curvature are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
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

    @property
    def used(self) -> int:
        """Number of directions that inputs used: σ_j > d · eps · σ_1, so that rounding is none; 0 without energy."""
        least = self.eigenvalues[:1] * (self.dim * torch.finfo(self.eigenvalues.dtype).eps)
        return int((self.eigenvalues > least).sum())

    def rank(self, energy_threshold: float, energy: Energy = "squared") -> int:
        """Smallest k whose leading directions hold `energy_threshold` of the energy; all where there is none.

        Source: SAME, the energy rule; "squared" sums σ², "eigenvalue" sums σ (the fraction of variance, so its whole
        is the trace, also where fewer than d directions are held). The whole of either is in the directions `used`.
        """
        if not 0 < energy_threshold <= 1:
            raise ValueError(
                f"energy_threshold must be in (0, 1]; got {energy_threshold}. Choose 0.95 for the paper's."
            )
        values = self.eigenvalues.double()
        if energy == "squared":
            values = values.square()
        total = float(values.sum())
        if energy == "eigenvalue" and len(values) < self.dim:
            total = max(total, self.trace)
        if total == 0:
            return len(values)
        if energy_threshold == 1:
            return self.used
        below = values.cumsum(0) < energy_threshold * total * (1 - 1e-12)
        return min(int(below.sum()) + 1, len(values))

    def matrix(self) -> Float[Tensor, "d d"]:
        """The covariance that the held directions make."""
        return (self.eigenvectors * self.eigenvalues) @ self.eigenvectors.T

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Spectrum:
        values = self.eigenvalues.to(device=device, dtype=dtype)
        return Spectrum(values, self.eigenvectors.to(device=device, dtype=dtype), self.tokens, self.trace)
