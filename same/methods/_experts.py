"""Shared by the methods that train routed experts: the adapter, its size, and how its routing is probed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

from peft import get_peft_model
from torch import nn

from same.errors import InputError
from same.methods._base import Batch, Layout, Method, MethodConfig, Reduce, reduce_nothing
from same.tuner import MoELoraConfig, Observation


@dataclass(frozen=True)
class ExpertConfig(MethodConfig):
    """Size and routing of the experts beside each adapted layer; CoIN's published runs have 8 experts of rank 16.

    Args:
        num_experts: experts a layer.
        rank: of each expert.
        alpha: the experts' weighted sum is scaled by alpha / rank.
        routing: what the experts are weighed for: each token, the mean of a sample's valid tokens, or that of the
            batch (an answer then depends on its batch mates: for comparison).
        top_k: experts kept for each of those (none: all).
    """

    num_experts: int = 8
    rank: int = 8
    alpha: float = 16.0
    routing: Literal["token", "sample", "batch"] = "token"
    top_k: int | None = None

    PAPER = {"num_experts": 8, "rank": 16, "alpha": 32.0}  # noqa: RUF012 - annotated it would be a setting

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_experts", "rank", "alpha"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive; got {getattr(self, name)}.")
        if self.top_k is not None and not 1 <= self.top_k <= self.num_experts:
            raise InputError(f"top_k must lie in 1..num_experts = {self.num_experts}; got {self.top_k}.")


def adapted_shapes(model: nn.Module, targets: str) -> list[tuple[int, int]]:
    """Outputs and inputs of the layers whose names a regular expression matches in full; there must be some."""
    layers: list[Any] = [module for name, module in model.named_modules() if re.fullmatch(targets, name)]
    if not layers:
        raise InputError(f"the backbone's targets must match layers of the model; {targets!r} matches none.")
    return [(int(layer.out_features), int(layer.in_features)) for layer in layers]


def expert_parameters(shapes: Iterable[tuple[int, int]], config: ExpertConfig) -> int:
    """Trainable parameters of routers and experts beside layers of shape (outputs, inputs)."""
    n, r = config.num_experts, config.rank
    return sum(n * r * (outputs + inputs) + n * inputs for outputs, inputs in shapes)


class ExpertProbe:
    """Counts in an observation how a model's routers weigh the tokens it is shown; `rows` ends it."""

    def __init__(self, observation: Observation) -> None:
        self.observation = observation

    def watching(self, batch: Batch) -> AbstractContextManager[None]:
        return self.observation.watching(batch["attention_mask"])

    def rows(self, reduce: Reduce = reduce_nothing) -> list[dict[str, Any]]:
        self.observation.reduce(reduce)
        return self.observation.rows()


class ExpertMethod(Method):
    """Routed low-rank experts beside every target layer, trained by the loss alone."""

    Config = ExpertConfig
    layout: Layout
    input_key: Callable[[str], str]

    def attach(self, model: nn.Module, backbone: Layout) -> nn.Module:
        config = MoELoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.alpha,
            num_experts=self.config.num_experts,
            routing=self.config.routing,
            top_k=self.config.top_k,
            target_modules=backbone.targets,
            unpadded=backbone.unpadded,
            **self.form(),
        )
        self.layout, self.input_key = backbone, backbone.input_key
        self.model = get_peft_model(model, config)
        return self.model

    def form(self) -> dict[str, Any]:
        """Settings of the adapter where a layer is not the weighted sum of experts."""
        return {}

    @property
    def attached(self) -> nn.Module:
        """The model with its adapters."""
        if self.model is None:
            raise RuntimeError("attach(model, backbone) must be called first.")
        return self.model

    def routing_probe(self) -> ExpertProbe:
        return ExpertProbe(Observation(self.attached, self.input_key))
