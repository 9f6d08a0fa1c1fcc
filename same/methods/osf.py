"""Training in the weak singular directions of the weights themselves, with PEFT's own tuner.

    W = U_high S_high V_high + U_low S_low V_low

U_low, S_low and V_low are trained, with gradients outside of U_high and V_high,
and at the next task's beginning the weights reached are decomposed again, so that what was learnt stands among the
strong directions where it is strong.

Source: Nayak et al., "Sculpting subspaces: constrained full fine-tuning in LLMs for continual learning", 2025, and
PEFT's `OSFConfig`. The paper keeps more of the directions from task to task and of some layers; here as many are
trained in every layer and task as match the other methods' number of parameters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft import OSFConfig, get_peft_model
from peft.tuners.osf.layer import OSFLayer
from torch import Tensor, nn

from same.errors import InputError, SnapshotError
from same.methods._base import Layout, Method, MethodConfig, Needs, TaskContext
from same.methods._lora import matched_rank


class Osf(Method):
    """Orthogonal subspace fine-tuning."""

    title = "OSF"
    paper = "Nayak et al., Sculpting subspaces: constrained full fine-tuning in LLMs for continual learning, 2025"
    notes = "Changes the backbone's own weights, which its snapshots therefore hold, and decomposes them at each task."
    rate = 2.5  # the weak directions add little each; more of it and what they held is lost

    @dataclass(frozen=True)
    class Config(MethodConfig):
        """How much is trained.

        Args:
            rank: singular directions of each weight that are trained (none: as many parameters as the expert methods
                train by default, but no more than half of the narrowest weight's).
        """

        rank: int | None = None

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.rank is not None and self.rank < 1:
                raise InputError(f"rank must be at least 1, or none; got {self.rank}.")

    def attach(self, model: nn.Module, backbone: Layout) -> nn.Module:
        found: list[tuple[str, Any]] = [it for it in model.named_modules() if re.fullmatch(backbone.targets, it[0])]
        sides = {name: min(layer.weight.shape) for name, layer in found}
        narrow = min(sides.values(), default=0)
        rank = self.config.rank or min(matched_rank(model, backbone.targets), narrow // 2)
        if rank >= narrow:
            raise InputError(f"rank must be below the narrowest layer's {narrow}; got {rank}.")
        pattern = {re.escape(name): side - rank for name, side in sides.items()}
        self._form = OSFConfig(target_modules=backbone.targets, effective_rank=narrow - rank, rank_pattern=pattern)
        self.model = get_peft_model(model, self._form)
        self._changed = False
        return self.model

    @property
    def layers(self) -> dict[str, Any]:
        """The adapted layers by name."""
        modules = () if self.model is None else self.model.named_modules()
        return {name: module for name, module in modules if isinstance(module, OSFLayer)}

    @torch.no_grad()
    def begin_task(self, task: TaskContext) -> None:
        if task.index:
            for layer in self.layers.values():
                layer.get_base_layer().weight += layer.get_delta_weight("default").to(
                    layer.get_base_layer().weight.dtype
                )
            self._decompose()

    def _decompose(self) -> None:
        """Take the weights apart anew; what was to be added to them is in them already."""
        self._changed = True
        for layer in self.layers.values():
            layer._detach_hooks()
            layer.update_layer("default", layer.effective_rank["default"], self._form)

    def merged(self) -> frozenset[str]:
        return frozenset(f"{name}.base_layer.weight" for name in self.layers) if self._changed else frozenset()

    def needs(self) -> Needs:
        kept = sum(layer.get_base_layer().weight.nbytes for layer in self.layers.values())
        return Needs(device=kept, snapshot=kept)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: layer.get_base_layer().weight for name, layer in self.layers.items()} if self._changed else {}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        if not state:
            return
        if state.keys() != self.layers.keys():
            raise SnapshotError(
                f"the method's state must hold the weights of the {len(self.layers)} adapted layers; it holds "
                f"{len(state)} that are others. Use the snapshot of a run with the same method and settings."
            )
        trained = {name: parameter.detach().clone() for name, parameter in self._trained()}
        for name, layer in self.layers.items():
            layer.get_base_layer().weight.copy_(state[name])
        self._decompose()
        for name, parameter in self._trained():
            parameter.copy_(trained[name])

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        parameters = () if self.model is None else self.model.named_parameters()
        return [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
