"""Routed experts, weighed at inference by the token and by the task that a row is most like; merged after each task.

    h = W0 x + Σ_i (β G^I_i(x) + (1 − β) G^T_i) B_i A_i x

G^I is the router's softmax, G^T the mean of G^I over the training tokens of the task whose prototype (mean image and
instruction feature) is nearest to the row. Training routes by G^I alone. After a task its leading experts are compared
with those of earlier tasks, and with θ' the weights before the task and θ after it

    only earlier tasks':  θ ← γ θ' + (1 − γ) θ
    only this task's:     θ ← (1 − γ) θ' + γ θ
    both's:               θ ← (θ' + θ) / 2

Source: Huai et al., "CL-MoE: enhancing multimodal large language model with dual momentum mixture-of-experts for
continual visual question answering", CVPR 2025. Features are the backbone's own; in public code the merge matches no
parameter, here it acts on every expert of a class.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from same.errors import InputError, SnapshotError
from same.methods._base import Batch, Layout, Needs, TaskContext
from same.methods._experts import ExpertConfig, ExpertMethod
from same.methods._features import Anchors, FeatureConfig, FeatureMethod
from same.tuner import Observation
from same.tuner.observe import moe_layers


class ClMoe(FeatureMethod, ExpertMethod):
    """CL-MoE."""

    title = "CL-MoE"
    paper = "Huai et al., CL-MoE: dual momentum mixture-of-experts for continual visual question answering, CVPR 2025"
    notes = "The experts of moelora; prototypes choose a task's mean routing, not its number."
    weighs_rows = True
    parity = "moelora"

    @dataclass(frozen=True)
    class Config(FeatureConfig, ExpertConfig):
        """Experts, and how the two routers and the weights of two tasks are mixed.

        Args:
            balance: β, the weight of the token's own routing at inference.
            momentum: γ.
            leading: experts of each layer that count as a task's.
        """

        balance: float = 0.5
        momentum: float = 0.7
        leading: int = 2

        def __post_init__(self) -> None:
            super().__post_init__()
            for name in ("balance", "momentum"):
                if not 0 <= getattr(self, name) <= 1:
                    raise InputError(f"{name} must lie in [0, 1]; got {getattr(self, name)}.")
            if not 1 <= self.leading <= self.num_experts:
                raise InputError(f"leading must lie in 1..num_experts = {self.num_experts}; got {self.leading}.")

    def attach(self, model: nn.Module, backbone: Layout) -> nn.Module:
        attached = super().attach(model, backbone)
        self.layers = moe_layers(attached)
        self.prototypes = {kind: Anchors(width) for kind, width in self.widths(attached).items()}
        self.task_routing = torch.empty(0, len(self.layers), self.config.num_experts)  # G^T
        self._merged: frozenset[str] = frozenset()
        return attached

    def begin_task(self, task: TaskContext) -> None:
        self._listen(None)
        self.observation = Observation(self.attached, self.input_key)
        self._before = {name: self._weights(name) for name in self.layers} if task.index else {}

    def _weights(self, name: str) -> list[tuple[Tensor, Tensor]]:
        layer = self.layers[name]
        pairs = zip(layer.experts_a, layer.experts_b, strict=True)
        return [(a.detach().clone(), b.detach().clone()) for a, b in pairs]

    def forward_context(self, batch: Batch) -> AbstractContextManager[None]:
        for kind, found in self.features(batch).items():
            self.prototypes[kind].add(found)
        return self.observation.watching(batch["attention_mask"])

    @torch.no_grad()
    def end_task(self, task: TaskContext) -> None:
        self.observation.reduce(task.reduce, task.rank, task.world)
        for anchors in self.prototypes.values():
            anchors.close(task.reduce, next(iter(self.layers.values())).router.device)
        routing = self.observation.mean_weight().float()
        if task.index:
            self._merge(routing)
        self.task_routing = torch.cat([self.task_routing.to(routing), routing[None]])

    def _merge(self, routing: Tensor) -> None:
        """Mix the weights before and after the task, as an expert belongs to old tasks, to this one or to both."""
        new = torch.zeros_like(routing, dtype=torch.bool)
        new.scatter_(1, routing.topk(self.config.leading, 1).indices, True)
        past = self.task_routing.to(routing)
        old = torch.zeros_like(past, dtype=torch.bool)
        old = old.scatter_(2, past.topk(self.config.leading, 2).indices, True).any(0)
        gamma = self.config.momentum
        kept = torch.where(old & new, 0.5, torch.where(old, gamma, 1 - gamma))  # share of the weights before
        names = {id(parameter): name for name, parameter in self.attached.named_parameters()}
        touched = set()
        for row, (name, layer) in enumerate(self.layers.items()):
            pairs = zip(layer.experts_a, layer.experts_b, self._before[name], strict=True)
            for expert, (a, b, (old_a, old_b)) in enumerate(pairs):
                if old[row, expert] or new[row, expert]:
                    a.lerp_(old_a, float(kept[row, expert]))
                    b.lerp_(old_b, float(kept[row, expert]))
                    touched |= {names[id(a)], names[id(b)]}
        self._merged, self._before = frozenset(touched), {}

    def merged(self) -> frozenset[str]:
        return self._merged

    @torch.no_grad()
    def route(self, batch: Batch) -> None:
        self._listen(None)
        found = [self.prototypes[kind].similarity(each) for kind, each in self.features(batch).items()]
        nearest = torch.stack(found).mean(0).argmax(-1)
        self._listen(self.task_routing.to(nearest.device)[nearest])

    def _listen(self, of_rows: Tensor | None) -> None:
        """Weigh experts by tokens alone, or also by the task routing of each row [rows, layers, n]."""
        beta = self.config.balance
        for row, layer in enumerate(self.layers.values()):
            if of_rows is None:
                layer.reweigh = None
                continue
            mean = of_rows[:, row]

            def mix(weights: Tensor, mean: Tensor = mean) -> Tensor:
                each = mean.to(weights).repeat_interleave(len(weights) // len(mean), 0)
                mixed: Tensor = beta * weights + (1 - beta) * each
                return mixed

            layer.reweigh = mix

    def needs(self) -> Needs:
        """The experts as they were before the task."""
        pairs = (pair for layer in self.layers.values() for pair in zip(layer.experts_a, layer.experts_b, strict=True))
        return Needs(device=sum(a.nbytes + b.nbytes for a, b in pairs))

    def state_dict(self) -> dict[str, Tensor]:
        if not len(self.task_routing):
            return {}
        means = {f"prototypes.{kind}": anchors.means for kind, anchors in self.prototypes.items()}
        return {"task_routing": self.task_routing, **means}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        if not state:
            return
        wanted = {"task_routing", *(f"prototypes.{kind}" for kind in self.prototypes)}
        if set(state) != wanted or state["task_routing"].shape[1:] != self.task_routing.shape[1:]:
            raise SnapshotError(
                f"the method's state must hold {sorted(wanted)} of these layers; it holds {sorted(state)}. Use the "
                "snapshot of a run with the same method and settings."
            )
        place = next(iter(self.layers.values())).router.device
        self.task_routing = state["task_routing"].to(place)
        for kind, anchors in self.prototypes.items():
            anchors.means = state[f"prototypes.{kind}"].to(place)
