"""The rules at work on parameters: all layers that read one input, all their experts, in one product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer

from same.maths.curvature import output_scalings
from same.maths.scaling import Scaling
from same.methods._shards import local, local_gradients, local_rows, whole
from same.tuner import MoELoraLinear


@dataclass
class Rules:
    """What an input's spectrum asks of the layers that read it; None asks nothing.

    Args:
        router: scales changes of router weights.
        experts: scales changes of the experts' A; where it is the router's rule too, one object is both.
        root: V diag(√σ) of past inputs, for the rule on the experts' B.
        output_damping: relative damping of that rule.
    """

    router: Scaling | None = None
    experts: Scaling | None = None
    root: Tensor | None = None
    output_damping: float = 0.1


@dataclass
class InputGroup:
    """The layers that read one input, in the model's order."""

    layers: list[MoELoraLinear] = field(default_factory=list)
    rules: Rules = field(default_factory=Rules)
    resting: dict[int, Tensor] = field(default_factory=dict)  # layer position -> router rows here that rest
    _routers: list[Tensor] = field(default_factory=list)  # as they were, where experts rest
    _before: list[Tensor] = field(default_factory=list)  # weights before a step, for each rule
    _experts_b: list[Tensor] = field(default_factory=list)
    _moments: dict[int, dict[str, Tensor]] = field(default_factory=dict)  # of resting router rows, by layer position

    def set_active(self, position: int, mask: Tensor | None, *, keep: bool = False) -> None:
        """Let only the experts that `mask` marks train in one layer; None lets all of them."""
        layer = self.layers[position]
        layer.set_active(mask, keep=keep)
        self.resting.pop(position, None)
        if mask is not None and not bool(mask.all()):
            resting = (~mask).nonzero().flatten().to(layer.router.device)
            self.resting[position] = local_rows(layer.router, resting)

    def resting_factors(self) -> list[Tensor]:
        """A_i and B_i of the experts that rest."""
        found: list[Tensor] = []
        for position in self.resting:
            layer = self.layers[position]
            trained = set(layer.trained_experts)
            for expert, factors in enumerate(zip(layer.experts_a, layer.experts_b, strict=True)):
                found += factors if expert not in trained else ()
        return found

    def rest_gradients_(self) -> None:
        """Take the gradient from experts that rest, so that no optimiser moves them or their state."""
        for factor in self.resting_factors():
            factor.grad = None

    @torch.no_grad()
    def scale_gradients_(self, outputs: bool) -> None:
        """G ← G P for routers and A; and the r×r rule for B if `outputs`."""
        rules = self.rules
        for parameters, rule in self._ruled():
            _scale_gradients_(parameters, rule)
        if rules.root is None or not outputs:
            return
        factors = self._trained_b()
        gradients = [local_gradients(layer) for layer in factors]
        if [len(layer) for layer in gradients] != [len(layer) for layer in factors]:
            return
        scalings = self._output_scalings(rules.root)
        for layer, scaling in zip(gradients, scalings, strict=True):
            torch._foreach_copy_(layer, list((torch.stack(layer) @ scaling).unbind()))

    @torch.no_grad()
    def remember(self, optimizer: Optimizer, updates: bool) -> None:
        """Keep what a step is compared with: all weights under a rule, and routers whose experts rest.

        Of those also the optimiser's moments. A router is one parameter, so they can only be put back after the step:
        those kept number by number, as AdamW's and SGD's are. Moments quantised in blocks (8-bit optimisers) share
        their scale with neighbours and decay; the weights stay all the same. The count of steps is the router's.
        """
        rules = self.rules
        self._moments = {
            position: {name: value[rows] for name, value in _moments(optimizer, self.layers[position].router).items()}
            for position, rows in self.resting.items()
        }
        self._routers = [weight.clone() for weight in local(self._router_weights())] if self.resting else []
        self._before = [torch.cat(local(parameters)) for parameters, _ in self._ruled()] if updates else []
        self._experts_b = []
        if updates and rules.root is not None:
            self._experts_b = [torch.stack(local(layer)) for layer in self._trained_b()]

    @torch.no_grad()
    def scale_updates_(self, optimizer: Optimizer) -> None:
        """W ← W_old + (W − W_old) P, whatever the optimiser did; router rows of resting experts and their moments stay.

        Moments that began with this step are 0 in those rows.
        """
        rules = self.rules
        if self._before:
            for (parameters, rule), before in zip(self._ruled(), self._before, strict=True):
                _scale_update_(local(parameters), before, rule)
        if self._routers:
            weights = local(self._router_weights())
            for position, rows in self.resting.items():
                weights[position][rows] = self._routers[position][rows]
                for name, value in _moments(optimizer, self.layers[position].router).items():
                    value[rows] = self._moments[position].get(name, torch.zeros_like(value[rows]))
        if self._experts_b and rules.root is not None:
            scalings = self._output_scalings(rules.root)
            for layer, before, scaling in zip(self._trained_b(), self._experts_b, scalings, strict=True):
                factors = local(layer)
                scaled = torch.baddbmm(before, torch.stack(factors) - before, scaling)
                torch._foreach_copy_(factors, list(scaled.unbind()))
        self._routers, self._before, self._experts_b = [], [], []

    def _output_scalings(self, root: Tensor) -> list[Tensor]:
        """What each layer's ΔB are multiplied by [e, r, r], from one product and one factorisation for all layers."""
        factors = whole(self._trained_a())
        inputs = torch.cat(factors).unflatten(0, (len(factors), -1))
        counts = [len(layer.trained_experts) for layer in self.layers]
        return list(output_scalings(inputs, root, self.rules.output_damping).split(counts))

    def _ruled(self) -> list[tuple[list[Tensor], Scaling]]:
        """Parameters and the rule they are under: routers and A_i together where both rules are one."""
        router, experts = self.rules.router, self.rules.experts
        if router is not None and router is experts:
            return [(self._router_weights() + self._trained_a(), router)]
        pairs = [(self._router_weights, router), (self._trained_a, experts)]
        return [(parameters(), rule) for parameters, rule in pairs if rule is not None]

    def _router_weights(self) -> list[Tensor]:
        return [layer.router for layer in self.layers]

    def _trained_a(self) -> list[Tensor]:
        """A_i of the experts that train, of all layers."""
        pairs = [(layer.experts_a, layer.trained_experts) for layer in self.layers]
        return [factors[expert] for factors, trained in pairs for expert in trained]

    def _trained_b(self) -> list[list[Tensor]]:
        """B_i of the experts that train, layer by layer: their outputs may differ in width."""
        pairs = [(layer.experts_b, layer.trained_experts) for layer in self.layers]
        return [[factors[expert] for expert in trained] for factors, trained in pairs]


def _moments(optimizer: Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """What the optimiser keeps for each number of a parameter that this process holds."""
    kept = {
        name: value
        for name, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor) and value.shape == parameter.shape and value.is_floating_point()
    }
    return dict(zip(kept, local(kept.values()), strict=True))


def _scale_gradients_(parameters: Sequence[Tensor], rule: Scaling) -> None:
    gradients = local_gradients(parameters)
    if gradients:
        scaled = rule.apply(torch.cat(gradients))
        torch._foreach_copy_(gradients, list(scaled.split([len(gradient) for gradient in gradients])))


def _scale_update_(parameters: Sequence[Tensor], before: Tensor, rule: Scaling) -> None:
    scaled = before + rule.apply(torch.cat(list(parameters)) - before)
    torch._foreach_copy_(list(parameters), list(scaled.split([len(parameter) for parameter in parameters])))
