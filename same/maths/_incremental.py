"""Incremental merging by randomised SVD: the most accurate of the small storages, and one that depends on order."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from same.maths._sketch import RowSketch, random_basis
from same.maths._storage import Place

POWER_STEPS = 1


class IncrementalSketch(RowSketch):
    """ℓ rows R with RᵀR = Q Qᵀ MᵀM Q Qᵀ: rows M projected onto ℓ directions Q that a randomised range finder gives.

    Only QR decompositions, so nothing waits for the device. The start of the range finder is fixed; equal streams
    give equal bits. What falls outside Q is lost, so the result depends on the order of the tokens.

    Source: Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 2011, Algorithms 4.4 (range
    finder by subspace iteration) and 5.1 (the projected factorisation), with the oversampling among the ℓ directions.
    """

    key = "factor"

    def __init__(self, dim: int, size: int, stride: int, place: Place) -> None:
        super().__init__(dim, size, stride, place)
        self.omega = random_basis(dim, self.size).to(self.rows)

    def compress(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "size d"]:
        basis = self.omega
        for _ in range(1 + POWER_STEPS):
            basis, _ = torch.linalg.qr(rows.T @ (rows @ basis))
        _, corner = torch.linalg.qr(rows @ basis, mode="r")
        projected: Tensor = corner @ basis.T
        return projected
