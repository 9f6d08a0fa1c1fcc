"""Changes that leave the subspace of past inputs alone.

    ΔA ← ΔA (I − M Mᵀ)

M [d, k], one for each distinct input, grows at each task's end by the leading directions of what the task's inputs
have outside of it, until it holds the share ε of their energy.

Source: Saha, Garg and Roy, "Gradient projection memory for continual learning", ICLR 2021, Eqs. 6–9; applied to the
factor of a LoRA that reads the inputs, on the gradient and again on AdamW's finished update, which would leave the
complement otherwise. ε is the same for all layers and tasks (the paper raises it a little from task to task).

Logged: `directions`, the mean share of each input's directions that are held.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from same.errors import InputError, SnapshotError
from same.maths.subspace import grow_basis, without_directions
from same.methods._shaped import ShapedConfig, ShapedLayer, ShapedMethod


class Gpm(ShapedMethod):
    """Gradient projection memory."""

    title = "GPM"
    paper = "Saha et al., Gradient projection memory for continual learning, ICLR 2021"
    notes = "Keeps a basis of each distinct input, nothing of the rows."

    @dataclass(frozen=True)
    class Config(ShapedConfig):
        """Size of the adapter, covariances, and how much of the past is held.

        Args:
            threshold: ε, share of a task's input energy that the basis holds after it.
        """

        threshold: float = 0.97

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 < self.threshold <= 1:
                raise InputError(f"threshold must lie in (0, 1]; got {self.threshold}.")

    def prepare(self) -> None:
        self.bases: dict[str, Tensor] = getattr(self, "bases", {})

    def consolidate(self) -> None:
        for key, tracker in self.current.items():
            if tracker.counted:
                spectrum = tracker.spectrum()
                self.bases[key] = grow_basis(self.bases.get(key), spectrum, self.config.threshold).to(tracker.dtype)

    def shape(self, name: str, layer: ShapedLayer, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        basis = self.bases.get(layer.key)
        return (a if basis is None else without_directions(a, basis)), b

    def step_metrics(self) -> dict[str, Any]:
        held = [basis.shape[1] / basis.shape[0] for basis in self.bases.values()]
        return {"directions": sum(held) / len(held)} if held else {}

    def state_dict(self) -> dict[str, Tensor]:
        return {f"basis.{key}": basis for key, basis in getattr(self, "bases", {}).items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        found = {name.removeprefix("basis."): tensor for name, tensor in state.items()}
        wrong = [key for key, tensor in found.items() if key not in self._widths or len(tensor) != self._widths[key]]
        if wrong:
            raise SnapshotError(
                f"the method's state must hold bases of this model's inputs; {wrong[0]} is none of them or of another "
                "width. Use the snapshot of a run with the same method and settings."
            )
        place = next(iter(self.weights.values())).device
        self.bases = {key: tensor.to(place) for key, tensor in found.items()}
