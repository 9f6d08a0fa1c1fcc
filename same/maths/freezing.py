"""Adaptive expert activation: which experts rest while a task trains."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def minmax(values: Float[Tensor, "*layers n"]) -> Float[Tensor, "*layers n"]:
    """Each layer's experts mapped onto [0, 1]; all 0 where they are equal."""
    low, high = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    spread = high - low
    return torch.where(spread > 0, (values - low) / spread.clamp_min(torch.finfo(values.dtype).tiny), 0.0)


def expert_scores(
    utilization: Float[Tensor, "*layers n"], importance: Float[Tensor, "*layers n"]
) -> Float[Tensor, "*layers n"]:
    """Score(i) = minmax(U)(i) − minmax(F)(i), in [−1, 1].

    Source: SAME, adaptive expert activation.

    Args:
        utilization: U, mean routing weight over the current task.
        importance: F, token-weighted mean over past tasks of ω_i(x)·‖x‖².
    """
    return minmax(utilization) - minmax(importance)


def active_experts(scores: Float[Tensor, "*layers n"], freeze_threshold: float) -> Bool[Tensor, "*layers n"]:
    """True for experts that train: score ≥ τ, and always the best of each layer."""
    best = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, scores.argmax(-1, keepdim=True), True)
    return (scores >= freeze_threshold) | best
