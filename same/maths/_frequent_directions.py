"""Frequent Directions: a deterministic sketch with a proven bound."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from same.maths._sketch import RowSketch


class FrequentDirections(RowSketch):
    """ℓ rows R with 0 ≼ Σ x xᵀ − RᵀR and ‖Σ x xᵀ − RᵀR‖ ≤ ‖X − X_k‖_F² / (ℓ − k) for every k < ℓ.

    What is merged later shrinks what was merged before: the oldest tasks erode most. On CUDA each compression waits
    for the device, since eigendecompositions do; the other storages never wait while they count.

    Source: Liberty, "Simple and deterministic matrix sketching", KDD 2013; bound and merging: Ghashami, Liberty,
    Phillips and Woodruff, "Frequent Directions", SIAM J. Comput. 2016, Theorem 1.1 and Section 3.
    """

    key = "directions"

    def compress(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "size d"]:
        """Subtract the (ℓ + 1)-th squared singular value from all: at most ℓ directions are left, the rest vanish."""
        wide = rows.double()
        values, left = torch.linalg.eigh(wide @ wide.T)
        values, left = values.flip(0).clamp_min(0), left.flip(1)
        kept, shrink = values[: self.size], values[self.size]
        gains = ((kept - shrink) / kept.clamp_min(torch.finfo(torch.float64).tiny)).sqrt()
        shrunk: Tensor = gains[:, None] * (left[:, : self.size].T @ wide)
        return shrunk
