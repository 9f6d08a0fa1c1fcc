"""What the library's rules make of saved statistics, in numpy: for a process that does not load torch.

The formulas are those of `same.maths`; a test compares them.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Energy = Literal["squared", "eigenvalue"]
CLAMP = (0.8, 1.2)


@dataclass(frozen=True)
class Rules:
    """Settings that say what is protected of past inputs; the values here are the paper's.

    Args:
        energy_threshold: δ, share of the energy that the protected directions hold.
        energy: "squared" sums σ²; "eigenvalue" sums σ.
        gain: g of the router's protected directions: inverse, damped, zero, clamped or none.
        window: ρ, eigenvalues averaged by the inverse gain.
        damping: μ, in units of the mean eigenvalue.
        damping_absolute: μ in the unit of the eigenvalues instead.
        curvature_on: "none" leaves the experts to the optimiser.
        curvature_gain: "damped" μ/(σ+μ), or "root" μ/(√σ+μ).
    """

    energy_threshold: float = 0.95
    energy: Energy = "squared"
    gain: str = "inverse"
    window: int = 3
    damping: float = 1.0
    damping_absolute: bool = False
    curvature_on: str = "A"
    curvature_gain: str = "damped"


@dataclass(frozen=True)
class Eigenvalues:
    """σ_1 ≥ … of a covariance over `tokens` inputs of width `dim`; `trace` is the whole one's, not of those held."""

    values: Array
    dim: int
    trace: float
    tokens: float

    def kept(self, energy: Energy = "squared") -> Array:
        """Share of the energy that the first k directions hold, for k = 1, 2, …; see `same.maths.spectrum`."""
        parts = self.values**2 if energy == "squared" else self.values
        total = float(parts.sum())
        if energy == "eigenvalue" and len(parts) < self.dim:
            total = max(total, self.trace)
        return parts.cumsum() / total if total else np.ones(len(parts))

    @property
    def used(self) -> int:
        """Number of directions that inputs used, so that rounding is none."""
        least = self.values[:1] * (self.dim * np.finfo(self.values.dtype).eps)
        return int((self.values > least).sum())

    def rank(self, energy_threshold: float, energy: Energy = "squared") -> int:
        """Smallest k whose leading directions hold δ of the energy; all where there is none."""
        if not self.values.any():
            return len(self.values)
        if energy_threshold == 1:
            return self.used
        below = self.kept(energy) < energy_threshold * (1 - 1e-12)
        return min(int(below.sum()) + 1, len(self.values))

    def damping(self, rules: Rules) -> float:
        """μ in the unit of the eigenvalues."""
        mean = max(self.trace / self.dim, math.sqrt(np.finfo(np.float64).tiny))
        return rules.damping if rules.damping_absolute else rules.damping * mean

    def router_gains(self, rules: Rules) -> Array:
        """How much of a router's change along each protected direction is let through: g."""
        if rules.gain == "damped":
            values, mu = self.values[: self._damped_rank(rules)], self.damping(rules)
            return mu / (values + mu)
        values = self.values[: min(self.rank(rules.energy_threshold, rules.energy), self.used)]
        if rules.gain == "none":
            return np.ones(len(values))
        if rules.gain == "zero" or not len(values):
            return np.zeros(len(values))
        smooth = sliding_mean(values, rules.window)
        floor = np.finfo(np.float64)
        smooth = np.maximum(smooth, floor.eps * max(float(smooth.max()), floor.tiny))
        return smooth.min() / smooth if rules.gain == "inverse" else np.clip(smooth.mean() / smooth, *CLAMP)

    def expert_gains(self, rules: Rules) -> Array:
        """The same for changes of the experts' A: the diagonal of P, scaled so that the rest is 1."""
        values = self.values[: self._damped_rank(rules)]
        if rules.curvature_on == "none":
            return np.ones(len(values))
        mu = self.damping(rules)
        if rules.curvature_gain == "root":
            values, mu = (
                np.sqrt(values),
                mu if rules.damping_absolute else rules.damping * math.sqrt(mu / rules.damping),
            )
        return mu / (values + mu)

    def _damped_rank(self, rules: Rules) -> int:
        """Number of directions under a damped gain: at δ = 1 all that are held."""
        return len(self.values) if rules.energy_threshold == 1 else self.rank(rules.energy_threshold, rules.energy)

    def left(self, gains: Array) -> float:
        """E‖ΔW P x‖² / E‖ΔW x‖² over past inputs, for a change without preferred direction: 1 protects nothing.

        Args:
            gains: of the leading directions; all others keep 1.
        """
        inside = self.values[: len(gains)]
        rest = max(self.trace - float(inside.sum()), 0.0)
        return (float((gains**2 * inside).sum()) + rest) / self.trace if self.trace else 1.0


def sliding_mean(values: Array, window: int) -> Array:
    """Mean of the last `window` values up to and including each (fewer at the start)."""
    sums = values.cumsum()
    sums = np.concatenate([sums[:window], sums[window:] - sums[:-window]])
    return sums / np.minimum(np.arange(1, len(values) + 1), window)


def directions(inputs: Array) -> tuple[Eigenvalues, Array]:
    """Spectrum of a few recorded inputs [tokens, d], and its directions as columns [d, tokens or d]."""
    _, lengths, vectors = np.linalg.svd(inputs, full_matrices=False)
    values = lengths**2 / len(inputs)
    return Eigenvalues(values, inputs.shape[1], float(values.sum()), len(inputs)), np.asarray(vectors.T)


def principal_angles(products: Array) -> Array:
    """Angles in radians, ascending, between the spans of two orthonormal bases, from V₁ᵀ V₂ [k, l]; exact to 1e-7."""
    return np.arccos(np.clip(np.linalg.svd(products, compute_uv=False), 0, 1))


def resting(scores: Array, freeze_threshold: float) -> NDArray[np.bool_]:
    """Experts that rest at τ: score < τ, but never the best of a layer [layers, n]."""
    best = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(best, scores.argmax(-1, keepdims=True), True, axis=-1)
    return (scores < freeze_threshold) & ~best


def minmax(values: Array) -> Array:
    """Each layer's experts mapped onto [0, 1]; all 0 where they are equal [layers, n]."""
    low, high = values.min(-1, keepdims=True), values.max(-1, keepdims=True)
    return np.divide(values - low, high - low, out=np.zeros_like(values), where=high > low)
