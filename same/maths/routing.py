"""Spectral-aware routing: how far a router may move along the directions that past inputs use."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from same.maths.curvature import damped_gains, damped_rank, damping_value
from same.maths.scaling import DirectionScaling
from same.maths.spectrum import Energy, Spectrum

GAINS = ("inverse", "damped", "zero", "clamped")
CLAMP = (0.8, 1.2)


def sliding_mean(values: Float[Tensor, " k"], window: int) -> Float[Tensor, " k"]:
    """σ̂_j: mean of the last `window` values up to and including j (fewer at the start).

    Its error relative to σ̂_j is some √eps of the dtype at most, however far the values spread.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1; got {window}. The paper's examples use 3.")
    window = min(window, len(values))
    running = values.cumsum(0)
    sums = torch.cat([running[:window], running[window:] - running[:-window]])
    # A difference carries the rounding of all that came before; where that could show, the window is summed by itself.
    alone = functional.pad(values, (window - 1, 0)).unfold(0, window, 1).sum(1)
    sums = torch.where(sums > running * torch.finfo(values.dtype).eps ** 0.5, sums, alone)
    counts = torch.arange(1, len(values) + 1, device=values.device).clamp_max(window)
    return sums / counts


def router_gains(
    eigenvalues: Float[Tensor, " k"], gain: str, *, window: int = 3, damping: float = 1.0
) -> Float[Tensor, " k"]:
    """g_j for the k leading directions.

    Source: SAME, spectral-aware routing.

    Args:
        eigenvalues: σ_1 ≥ … ≥ σ_k.
        gain: "inverse" min_l σ̂_l / σ̂_j; "damped" μ/(σ+μ); "zero" blocks them; "clamped" mean_l σ̂_l / σ̂_j in [0.8, 1.2].
        window: ρ, values averaged for σ̂.
        damping: μ, in the unit of the eigenvalues.
    """
    if gain not in GAINS:
        raise ValueError(f"gain must be one of {', '.join(GAINS)}; got {gain!r}.")
    if gain == "zero" or not len(eigenvalues):
        return torch.zeros_like(eigenvalues)
    if gain == "damped":
        return damped_gains(eigenvalues, damping)
    smooth = sliding_mean(eigenvalues, window)
    least = torch.finfo(torch.float64).eps * smooth.max()  # of no energy beside the strongest, whatever the dtype
    smooth = smooth.clamp_min(least.clamp_min(torch.finfo(smooth.dtype).tiny))
    if gain == "inverse":
        return smooth.min() / smooth
    return (smooth.mean() / smooth).clamp(*CLAMP)


def router_scaling(
    spectrum: Spectrum,
    *,
    gain: str,
    energy_threshold: float,
    energy: Energy = "squared",
    window: int = 3,
    damping: float = 1.0,
    damping_absolute: bool = False,
) -> DirectionScaling:
    """ΔW_G ← ΔW_G V∥ g(Σ) V∥ᵀ + ΔW_G (I − V∥V∥ᵀ) for a spectrum, with V∥ its leading directions by energy.

    Directions that no input used keep their full step under every gain.
    """
    if gain == "damped":
        rank = damped_rank(spectrum, energy_threshold, energy)
    else:
        rank = min(spectrum.rank(energy_threshold, energy), spectrum.used)
    values = spectrum.eigenvalues[:rank]
    mu = damping_value(spectrum, damping, absolute=damping_absolute)
    return DirectionScaling(spectrum.eigenvectors[:, :rank], router_gains(values, gain, window=window, damping=mu))
