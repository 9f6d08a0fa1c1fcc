"""SAME as its paper writes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from same.methods._stabilised import StabilisedConfig, StabilisedMethod


class Same(StabilisedMethod):
    """Spectral-aware routing, curvature-aware scaling and adaptive expert activation, on gradients."""

    title = "SAME"
    paper = "Xie et al., SAME: stabilized mixture-of-experts for multimodal continual instruction tuning, ICML 2026"
    notes = "Router geometry from the running covariance, damped inverse on A, both applied to gradients."

    @dataclass(frozen=True)
    class Config(StabilisedConfig):
        """`preset` names the reading; its values are the defaults of the other settings."""

        preset: Literal["paper"] = "paper"
