"""A damped natural-gradient step for past tasks: both covariances of K-FAC, where SAME keeps the inputs' alone.

With C the covariance of past inputs and S that of past gradients of a layer's outputs, a change ΔW of the layer costs
about tr(S ΔW C ΔWᵀ) of the past. K-FAC's step is ΔW ← S⁻¹ ΔW C⁻¹, damped; through the factors of a LoRA, W = BA:

    ΔA ← (BᵀSB/μ_r + I)⁻¹ ΔA (C/μ + I)⁻¹ ,     ΔB ← (S/μ + I)⁻¹ ΔB (ACAᵀ/μ_r + I)⁻¹

each μ relative to the mean eigenvalue of what stands beside it, so that unseen directions keep their full step.

Source: Martens and Grosse, "Optimizing neural networks with Kronecker-factored approximate curvature", ICML 2015,
Section 6.3 for the damping, which is theirs but for its unit. Applied to gradients and again to AdamW's finished
updates. The gradients are those of the loss of training, not of sampled answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from same.errors import InputError, SnapshotError
from same.maths.covariance import CovarianceTracker
from same.maths.curvature import curvature_scaling, output_scalings
from same.maths.scaling import Scaling
from same.methods._shaped import ShapedConfig, ShapedLayer, ShapedMethod


@dataclass(frozen=True)
class Side:
    """One covariance as a rule: its damped inverse, and V diag(√σ)."""

    scaling: Scaling
    root: Tensor


class Natural(ShapedMethod):
    """Plain damped natural gradient of the past."""

    title = "Natural gradient (K-FAC)"
    paper = "Martens and Grosse, Optimizing neural networks with Kronecker-factored approximate curvature, ICML 2015"
    notes = "Keeps the covariance of each distinct input and of each layer's output gradients."
    outputs = True

    @dataclass(frozen=True)
    class Config(ShapedConfig):
        """Size of the adapter, covariances, and damping.

        Args:
            damping: μ, in units of a covariance's mean eigenvalue.
        """

        damping: float = 1.0

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 < self.damping < float("inf"):
                raise InputError(f"damping must be positive and finite; got {self.damping}.")

    def prepare(self) -> None:
        self.past: dict[str, CovarianceTracker] = getattr(self, "past", {})
        self._sides = {key: self._side(tracker) for key, tracker in self.past.items() if tracker.counted}

    def _side(self, tracker: CovarianceTracker) -> Side:
        device = next(iter(self.weights.values())).device
        spectrum = tracker.spectrum().to(device, tracker.dtype)
        scaling = curvature_scaling(spectrum, damping=self.config.damping, energy_threshold=1.0).compile()
        return Side(scaling, spectrum.eigenvectors * spectrum.eigenvalues.sqrt())

    def consolidate(self) -> None:
        for key, tracker in self.current.items():
            if key in self.past:
                self.past[key].merge(tracker)
            else:
                self.past[key] = tracker

    def shape(self, name: str, layer: ShapedLayer, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        read, said = self._sides.get(layer.key), self._sides.get(name)
        damping = self.config.damping
        if read is not None:
            b = b @ output_scalings(layer.a.detach()[None], read.root, damping)[0]
            a = read.scaling.apply(a)
        if said is not None:
            a = output_scalings(layer.b.detach().T[None], said.root, damping)[0] @ a
            b = said.scaling.apply(b.T).T
        return a, b

    def state_dict(self) -> dict[str, Tensor]:
        past = getattr(self, "past", {})
        return {f"{key}.{name}": value for key, each in past.items() for name, value in each.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.past = self.trackers() if state else {}
        try:
            for key, tracker in self.past.items():
                tracker.load_state_dict({name: state[f"{key}.{name}"] for name in tracker.state_dict()})
        except (KeyError, ValueError) as error:
            raise SnapshotError(
                f"the method's state must hold the covariances of this model's layers; got {error}. "
                "Use the snapshot of a run with the same method and settings."
            ) from None
