"""Incremental merging by randomised SVD: the most accurate of the small storages, and one that depends on order."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from same.maths._sketch import RowSketch, shared_basis

POWER_STEPS = 1


class IncrementalSketch(RowSketch):
    """ℓ rows R with RᵀR = Q Qᵀ MᵀM Q Qᵀ: rows M projected onto ℓ directions Q that a randomised range finder gives.

    Only QR decompositions, so nothing waits for the device. The start of the range finder is fixed; equal streams
    give equal bits. What falls outside Q is lost, so the result depends on the order of the tokens.

    Source: Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 2011, Algorithms 4.4 (range
    finder by subspace iteration) and 5.1 (the projected factorisation), with the oversampling among the ℓ directions.
    """

    key = "factor"

    def shared(self, dtype: torch.dtype) -> Float[Tensor, "d size"]:
        return shared_basis(self.rows.shape[1], self.size, self.dtype, self.rows.device)

    def compress(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "size d"]:
        basis = self.shared(rows.dtype)
        for _ in range(1 + POWER_STEPS):
            basis, _ = torch.linalg.qr(rows.T @ (rows @ basis))
        _, corner = torch.linalg.qr(rows @ basis, mode="r")
        projected: Tensor = corner @ basis.T
        return projected
