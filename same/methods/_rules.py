"""Settings of the three mechanisms, and the rules that a covariance becomes under them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from same.errors import InputError
from same.maths.covariance import CovarianceSettings, StorageName
from same.maths.curvature import CurvatureGain, curvature_scaling
from same.maths.routing import router_scaling
from same.maths.scaling import DirectionScaling, Scaling
from same.maths.spectrum import Energy, Spectrum
from same.methods._experts import ExpertConfig
from same.methods._groups import Rules


@dataclass(frozen=True)
class StabilisedConfig(ExpertConfig):
    """Settings of the three mechanisms; the values here are the paper's reading.

    Args:
        covariance: how Σ x xᵀ is stored above `exact_max_dim`; "exact" stores it in full at every width.
        exact_max_dim: widest input whose Σ x xᵀ is stored in full.
        sketch_size: directions that a sketch holds; 192 is cheap, 320 accurate.
        token_stride: one in so many valid tokens counts in the covariance; 1 counts all.
        centered: remove the mean from the covariance.
        energy_threshold: δ, share of the energy that the protected directions V∥ = V_k of both rules hold; 1 takes all
            that inputs used, and under damped gains all that are held, as the measured rule does.
        energy: "squared" sums σ²; "eigenvalue" sums σ, the fraction of variance.
        router_geometry: "history" C of past tasks, fixed in a task; "running" the current task included; "batch" only
            the inputs since the last refresh, for the experts as well, and nothing of earlier tasks is kept.
        refresh_steps: optimiser steps between two refreshes of the running or the batch geometry.
        gain: g of the protected directions; "none" leaves the router to the optimiser.
        window: ρ, eigenvalues averaged by the inverse gain.
        curvature_on: factors whose changes the past inputs' curvature scales.
        curvature_gain: "damped" μ/(σ+μ), or "root" μ/(√σ+μ).
        damping: μ, in units of the mean eigenvalue.
        damping_absolute: μ in the unit of the eigenvalues instead.
        output_damping: μ_z of the rule on B, in units of its own mean eigenvalue.
        normalise: scale the damped inverse by μ, so that unseen directions keep their full step.
        apply_to: the "gradient" before the step, the finished "update" after it (weight decay included), "both", or
            "coordinates": P^{1/2} on each side, for routers and A exactly the optimiser on Z, W = W_start + Z P^{1/2}.
            The rule on B moves with A at every step, so it has no coordinates: it acts on the finished update under
            "both" and "coordinates" alike. Where the geometry is refreshed, W_start is the weight then, Z begins at 0
            and the moments go on. Decoupled decay moves Z by −lr·decay·W: W itself decays, slowly where P is small.
            Gradients are clipped before any rule.
        importance: F from "past" tasks, or from the "recent" tokens of the current one, since the last score.
        freeze_threshold: τ, experts that score below it rest (scores lie in [−1, 1]).
        freeze_warmup: share of a task's steps before the first score.
        freeze_every: optimiser steps between two scores.
        frozen_forward: "skip" leaves resting experts out of the product; "keep" lets them contribute unchanged.
    """

    covariance: StorageName = CovarianceSettings.storage
    exact_max_dim: int = CovarianceSettings.exact_max_dim
    sketch_size: int = CovarianceSettings.sketch_size
    token_stride: int = CovarianceSettings.token_stride
    centered: bool = CovarianceSettings.centered
    energy_threshold: float = 0.95
    energy: Energy = "squared"
    router_geometry: Literal["history", "running", "batch"] = "running"
    refresh_steps: int = 50
    gain: Literal["inverse", "damped", "zero", "clamped", "none"] = "inverse"
    window: int = 3
    curvature_on: Literal["A", "AB", "none"] = "A"
    curvature_gain: CurvatureGain = "damped"
    damping: float = 1.0
    damping_absolute: bool = False
    output_damping: float = 0.1
    normalise: bool = True
    apply_to: Literal["gradient", "update", "both", "coordinates"] = "gradient"
    importance: Literal["past", "recent"] = "past"
    freeze_threshold: float = 0.0
    freeze_warmup: float = 0.1
    freeze_every: int = 50
    frozen_forward: Literal["skip", "keep"] = "skip"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("sketch_size", "token_stride", "refresh_steps", "window", "freeze_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if self.exact_max_dim < 0:
            raise InputError(f"exact_max_dim must be at least 0 (a sketch always); got {self.exact_max_dim}.")
        for name in ("damping", "output_damping"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be positive and finite; got {getattr(self, name)}.")
        if not 0 < self.energy_threshold <= 1:
            raise InputError(f"energy_threshold must lie in (0, 1]; got {self.energy_threshold}.")
        if not 0 <= self.freeze_warmup <= 1:
            raise InputError(f"freeze_warmup must lie in [0, 1]; got {self.freeze_warmup}.")
        if math.isnan(self.freeze_threshold):
            raise InputError("freeze_threshold must be a number; got nan. −1 freezes nothing.")

    def gradient_only(self) -> dict[str, Any]:
        wanted = {"apply_to": "gradient"} if self.apply_to != "gradient" else {}
        return wanted | ({"freeze_threshold": -1} if self.freeze_threshold > -1 else {})


def covariance_settings(config: StabilisedConfig) -> CovarianceSettings:
    """How the covariances are stored."""
    return CovarianceSettings(
        storage=config.covariance,
        exact_max_dim=config.exact_max_dim,
        sketch_size=config.sketch_size,
        token_stride=config.token_stride,
        centered=config.centered,
    )


def input_rules(config: StabilisedConfig, spectrum: Spectrum) -> Rules:
    """What the covariance of past inputs asks of the layers that read them."""
    rules = Rules(output_damping=config.output_damping)
    if config.gain != "none":
        rules.router = router_rule(config, spectrum)
    if config.curvature_on != "none" and _are_one(config):
        rules.experts = rules.router
    elif config.curvature_on != "none":
        scaling = curvature_scaling(
            spectrum,
            damping=config.damping,
            energy_threshold=config.energy_threshold,
            energy=config.energy,
            damping_absolute=config.damping_absolute,
            normalise=config.normalise,
            gain=config.curvature_gain,
        )
        rules.experts = _on_each_side(config, scaling)
    if config.curvature_on == "AB":
        rules.root = spectrum.eigenvectors * spectrum.eigenvalues.sqrt()
    return rules


def _are_one(config: StabilisedConfig) -> bool:
    """Whether routers and A_i are under one and the same rule."""
    return config.gain == config.curvature_gain == "damped" and config.normalise


def rule_numbers(config: StabilisedConfig, dim: int, held: int) -> int:
    """At most so many numbers do the rules of one input hold, with `held` directions of `dim`."""
    scaling = dim * min(held, dim) if 2 * held < dim else dim * dim
    scalings = (config.gain != "none") + (config.curvature_on != "none")
    if scalings == 2 and _are_one(config) and config.router_geometry == "history":
        scalings = 1
    return scalings * scaling + (dim * held if config.curvature_on == "AB" else 0)


def router_rule(config: StabilisedConfig, spectrum: Spectrum) -> Scaling:
    """What a covariance asks of the routers that read its inputs."""
    scaling = router_scaling(
        spectrum,
        gain=config.gain,
        energy_threshold=config.energy_threshold,
        energy=config.energy,
        window=config.window,
        damping=config.damping,
        damping_absolute=config.damping_absolute,
    )
    return _on_each_side(config, scaling)


def _on_each_side(config: StabilisedConfig, scaling: DirectionScaling) -> Scaling:
    return (scaling.root() if config.apply_to == "coordinates" else scaling).compile()
