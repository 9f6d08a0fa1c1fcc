"""SAME as its paper writes it, and as its authors' published code does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from same.errors import InputError
from same.methods._reference import REFERENCE
from same.methods._rules import StabilisedConfig
from same.methods._stabilised import StabilisedMethod


class Same(StabilisedMethod):
    """Spectral-aware routing, curvature-aware scaling and adaptive expert activation, on gradients."""

    title = "SAME"
    paper = "Xie et al., SAME: stabilized mixture-of-experts for multimodal continual instruction tuning, ICML 2026"
    notes = "Router geometry from the running covariance, damped inverse on A, both applied to gradients."

    @dataclass(frozen=True)
    class Config(StabilisedConfig):
        """`preset` names the reading; its values are the defaults of the other settings.

        Args:
            preset: "paper"; or "reference", the published code's behaviour, only to compare with.
            layer: "experts", the paper's weighted sum; or "mixed_factors", the published code's (reference only).
            inference: routing outside of training "as_trained", or "flat_top_2": softmax(logits / n) of the best two.
        """

        preset: Literal["paper", "reference"] = "paper"
        layer: Literal["experts", "mixed_factors"] = "experts"
        inference: Literal["as_trained", "flat_top_2"] = "as_trained"

        PRESETS = {"reference": REFERENCE}  # noqa: RUF012 - annotated it would be a setting

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.layer == "mixed_factors" and self.preset != "reference":
                raise InputError(
                    "layer must be 'experts' but under preset 'reference'; got 'mixed_factors', which is not the "
                    "paper's equation. Use --set preset=reference to compare with it."
                )

    def form(self) -> dict[str, Any]:
        return {"layer": self.config.layer, "inference": self.config.inference}
