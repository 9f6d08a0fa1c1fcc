"""The Nyström sketch: one thin product a batch, and sums all the way."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from same.maths._sketch import Sketch, random_basis, shared_basis
from same.maths._storage import Place


class NystromSketch(Sketch):
    """Y = Σ x (xᵀΩ) [d, m] for a fixed random basis Ω, from which C ≈ Y (ΩᵀY)⁺ Yᵀ.

    Linear in the tokens' x xᵀ: batches, tasks and processes add, in any order, and equal sums give equal spectra.

    Source: Tropp, Yurtsever, Udell and Cevher, "Fixed-rank approximation of a positive-semidefinite matrix from
    streaming data", NeurIPS 2017: the sketch and its Algorithm 3, without the truncation of the rank.
    """

    def __init__(self, dim: int, size: int, stride: int, place: Place) -> None:
        super().__init__(dim, size, stride, place)
        self.sketch = place.zeros(dim, self.size)

    def shared(self, dtype: torch.dtype) -> Float[Tensor, "d size"]:
        dtype = dtype if dtype == torch.bfloat16 else self.dtype  # float16 would overflow
        return shared_basis(len(self.sketch), self.size, dtype, self.sketch.device)

    def tensors(self) -> dict[str, Tensor]:
        return {"sketch": self.sketch, **super().tensors()}

    def count(self, rows: Float[Tensor, "n d"]) -> None:
        omega = self.shared(rows.dtype)
        rows = rows.to(omega.dtype)
        if rows.dtype == self.dtype:
            self.sketch.addmm_(rows.T, rows @ omega)
        else:
            self.sketch += rows.T @ (rows @ omega)

    def eigenpairs(self, sampled: float) -> tuple[Float[Tensor, " k"], Float[Tensor, "d k"]]:
        """Factors of C + νI, less ν.

        ν covers the rounding of the products: ΩᵀY is symmetric but for it, so its skew part is the measure.
        """
        sketch = self.sketch.double() / sampled
        omega = random_basis(len(sketch), self.size).to(sketch)
        scale = float(torch.linalg.matrix_norm(sketch))
        if not math.isfinite(scale):
            raise ValueError("inputs must be finite to have a spectrum; got NaN or infinity. Look for a diverged loss.")
        if scale == 0:
            return omega.new_zeros(self.size), torch.linalg.qr(omega)[0]
        core = omega.T @ sketch
        rounding = float(torch.linalg.matrix_norm(core - core.T, ord=2))
        shift = rounding + len(sketch) ** 0.5 * torch.finfo(torch.float64).eps * scale
        gram = omega.T @ omega
        while True:
            factor, failed = torch.linalg.cholesky_ex((core + core.T) / 2 + shift * gram)
            if not failed:
                break
            shift *= 4
        root = torch.linalg.solve_triangular(factor, (sketch + shift * omega).T, upper=False)
        _, values, vectors = torch.linalg.svd(root, full_matrices=False)
        return (values.square() - shift).clamp_min(0), vectors.T
