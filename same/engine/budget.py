"""How many parameters a method trains, beside the routed experts on the same layers."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

from torch import nn

from same import registry
from same.backbones import load_backbone
from same.methods._base import Layout, Method
from same.methods._experts import ExpertConfig, adapted_shapes, expert_parameters

TOLERANCE = 0.02
"""Methods whose parameters differ from the experts' by a larger share must say why."""


@dataclass(frozen=True)
class Budget:
    """Parameters trained.

    Args:
        trainable: by the method.
        experts: by the expert methods' default on the same layers.
    """

    trainable: int
    experts: int

    @property
    def share(self) -> float:
        """The method's parameters over the experts'."""
        return self.trainable / self.experts


def attach(method: Method, model: nn.Module, layout: Layout) -> tuple[nn.Module, Budget]:
    """Put a method's adapters into a model, and count what trains."""
    experts = expert_parameters(adapted_shapes(model, layout.targets), ExpertConfig())
    attached = method.attach(model, layout)
    trainable = sum(parameter.numel() for parameter in attached.parameters() if parameter.requires_grad)
    return attached, Budget(trainable, experts)


def tiny_budgets() -> dict[str, Budget]:
    """Of every method as it is by default, on the embedded backbone."""
    loaded = load_backbone("tiny")
    found = {}
    for name in registry.names("same.methods"):
        kind = registry.load_class("same.methods", name, Method)
        found[name] = attach(kind(), deepcopy(loaded.model), loaded.layout)[1]
    return found
