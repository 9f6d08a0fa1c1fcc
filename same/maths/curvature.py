"""Curvature-aware scaling: the damped inverse of past inputs' covariance, and what it protects."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from same.maths.scaling import DirectionScaling
from same.maths.spectrum import Energy, Spectrum

CurvatureGain = Literal["damped", "root"]


def damping_value(spectrum: Spectrum, damping: float, *, absolute: bool = False) -> float:
    """μ in the unit of the eigenvalues: `damping` times their mean, or `damping` itself."""
    if not damping > 0:
        raise ValueError(f"damping must be positive; got {damping}. Larger protects less; 1 is the mean eigenvalue.")
    if absolute:
        return damping
    least = math.sqrt(torch.finfo(spectrum.eigenvalues.dtype).tiny)  # of no energy, so that μ has an inverse
    return damping * max(spectrum.mean_eigenvalue, least)


def damped_gains(eigenvalues: Float[Tensor, " k"], damping: float) -> Float[Tensor, " k"]:
    """μ / (σ + μ): 1 where nothing was seen, small where past inputs are strong."""
    return damping / (eigenvalues + damping)


def damped_rank(spectrum: Spectrum, energy_threshold: float, energy: Energy) -> int:
    """Number of directions under a damped gain: at δ = 1 all that are held, as it is 1 by itself where σ_j is 0."""
    return len(spectrum.eigenvalues) if energy_threshold == 1 else spectrum.rank(energy_threshold, energy)


def curvature_scaling(
    spectrum: Spectrum,
    *,
    damping: float,
    energy_threshold: float,
    energy: Energy = "squared",
    damping_absolute: bool = False,
    normalise: bool = True,
    gain: CurvatureGain = "damped",
) -> DirectionScaling:
    """P of ΔA ← ΔA P.

    Source: SAME, curvature-aware scaling: (Σ_k + μI)^{-1} on the k leading directions and 1/μ elsewhere; `normalise`
    multiplies it by μ, so that unseen directions keep their full step. "root" has √σ for σ, as published code, and a
    relative μ then is in units of √(mean σ).
    """
    rank = damped_rank(spectrum, energy_threshold, energy)
    mu = damping_value(spectrum, damping, absolute=damping_absolute)
    values = spectrum.eigenvalues[:rank]
    if gain == "root":
        values, mu = values.sqrt(), mu if damping_absolute else damping * math.sqrt(mu / damping)
    gains = damped_gains(values, mu)
    return DirectionScaling(spectrum.eigenvectors[:, :rank], gains, 1.0 if normalise else 1.0 / mu)


def output_scalings(
    inputs: Float[Tensor, "e r d"], root: Float[Tensor, "d k"], damping: float
) -> Float[Tensor, "e r r"]:
    """(C_z/μ_z + I)^{-1} with C_z = A_i C A_iᵀ and μ_z = damping · tr(C_z)/r: what ΔB_i is multiplied by.

    Args:
        inputs: the input factors A_i, of all layers that read this input.
        root: V diag(√σ), so that C = root rootᵀ.
        damping: relative μ_z; larger protects less.
    """
    projected = inputs @ root
    curvature = projected @ projected.mT
    rank = curvature.shape[-1]
    trace = curvature.diagonal(dim1=-2, dim2=-1).sum(-1)
    mu = (damping * trace / rank).clamp_min(torch.finfo(curvature.dtype).tiny)
    identity = torch.eye(rank, dtype=curvature.dtype, device=curvature.device)
    factor, _ = torch.linalg.cholesky_ex(curvature / mu[:, None, None] + identity)
    inverse: Tensor = torch.cholesky_inverse(factor)
    return inverse


def scale_output_factors(
    deltas: Float[Tensor, "e m r"],
    inputs: Float[Tensor, "e r d"],
    root: Float[Tensor, "d k"],
    damping: float,
) -> Float[Tensor, "e m r"]:
    """ΔB_i ← ΔB_i (C_z/μ_z + I)^{-1} for all experts at once; see `output_scalings`.

    Args:
        deltas: changes of the output factors B_i.
        inputs: the input factors A_i.
        root: V diag(√σ), so that C = root rootᵀ.
        damping: relative μ_z; larger protects less.
    """
    return deltas @ output_scalings(inputs, root, damping)


def degradation(delta: Float[Tensor, "*batch m d"], covariance: Float[Tensor, "d d"]) -> Float[Tensor, "*batch"]:
    """tr(ΔW C ΔWᵀ) = E‖ΔW x‖² over the inputs that made C."""
    return ((delta @ covariance) * delta).sum((-2, -1))
