"""Shared by the methods that train one LoRA: its size, its place, its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peft import LoraConfig as PeftConfig
from peft import get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from same.errors import InputError
from same.methods._base import Layout, Method, MethodConfig
from same.methods._experts import ExpertConfig, adapted_shapes, expert_parameters


@dataclass(frozen=True)
class LoraConfig(MethodConfig):
    """Size of the adapter; published runs on this field's first benchmark, CoIN, have rank 128 and alpha 256.

    Args:
        rank: of the adapter (none: as many parameters as the expert methods train by default).
        alpha: the adapter's output is scaled by alpha / rank (none: twice the rank, times
            the experts of a bank where there are banks).
    """

    rank: int | None = None
    alpha: float | None = None

    PAPER = {"rank": 128, "alpha": 256.0}  # noqa: RUF012 - annotated it would be a setting

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rank", "alpha"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} must be positive or none; got {value}.")


class LoraMethod(Method):
    """One LoRA, PEFT's own, beside every target layer."""

    Config = LoraConfig

    def attach(self, model: nn.Module, backbone: Layout) -> nn.Module:
        rank = self.config.rank or matched_rank(model, backbone.targets, self.beside(model))
        alpha = self.config.alpha or self.scale * rank
        config = PeftConfig(r=rank, lora_alpha=alpha, target_modules=backbone.targets, bias="none")
        self.model = get_peft_model(model, config)
        return self.model

    @property
    def scale(self) -> float:
        """Of what the adapter adds, where alpha is not given."""
        return 2.0

    def beside(self, model: nn.Module) -> int:
        """Parameters that train beside the two factors of each layer."""
        return 0

    @property
    def attached(self) -> Any:
        """The model with its adapter."""
        if self.model is None:
            raise RuntimeError("attach(model, backbone) must be called first.")
        return self.model

    @property
    def layers(self) -> dict[str, LoraLayer]:
        """The adapted layers by name."""
        return {name: module for name, module in self.attached.named_modules() if isinstance(module, LoraLayer)}

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The adapter's parameters by name, in the model's order."""
        return {name: parameter for name, parameter in self.attached.named_parameters() if parameter.requires_grad}


def matched_rank(model: nn.Module, targets: str, beside: int = 0) -> int:
    """The LoRA rank whose parameter count is nearest to the expert methods' default on the same layers.

    Args:
        beside: parameters that train beside the two factors of each layer.
    """
    shapes = adapted_shapes(model, targets)
    wanted = expert_parameters(shapes, ExpertConfig()) - beside * len(shapes)
    return max(1, round(wanted / sum(map(sum, shapes))))
