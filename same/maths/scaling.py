"""Scaling an update differently along the directions of a spectrum: the one form all rules share."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, eye


@dataclass(frozen=True)
class DirectionScaling:
    """P = scale · (V diag(g) Vᵀ + I − V Vᵀ), applied to rows from the right.

    `basis` [d, k] has orthonormal columns V; `gains` [k] are g; everything outside the basis keeps its full step.
    """

    basis: Float[Tensor, "d k"]
    gains: Float[Tensor, " k"]
    scale: float = 1.0

    def matrix(self) -> Float[Tensor, "d d"]:
        dim = self.basis.shape[0]
        identity = eye(dim, dtype=self.basis.dtype, device=self.basis.device)
        return self.scale * (identity + (self.basis * (self.gains - 1)) @ self.basis.T)

    def root(self) -> DirectionScaling:
        """P^{1/2}, symmetric as P is: applied twice it is P."""
        return DirectionScaling(self.basis, self.gains.sqrt(), math.sqrt(self.scale))

    def compile(self) -> DirectionScaling | DenseScaling:
        """The cheaper of two equal forms: two thin products, or one square product."""
        dim, rank = self.basis.shape
        return DenseScaling(self.matrix()) if 2 * rank >= dim else self

    def apply(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        scaled = rows + ((rows @ self.basis) * (self.gains - 1)) @ self.basis.T
        return scaled if self.scale == 1 else scaled * self.scale


@dataclass(frozen=True)
class DenseScaling:
    """A `DirectionScaling` written out as its d×d matrix."""

    square: Float[Tensor, "d d"]

    def matrix(self) -> Float[Tensor, "d d"]:
        return self.square

    def apply(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return rows @ self.square


Scaling = DirectionScaling | DenseScaling
