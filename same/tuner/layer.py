"""A linear layer with a router and low-rank experts beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from same.errors import InputError
from same.tuner.config import MoELoraConfig
from same.tuner.kernel import at_full_precision, mix, project, routing_weights
from same.tuner.mixed import mixed_factors
from same.tuner.observe import current_observation
from same.tuner.routing import Passes, pooled_logits


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which a linear layer would multiply these inputs now."""
    kind = x.device.type
    lowered = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind) and x.dtype != torch.float64
    return torch.get_autocast_dtype(kind) if lowered else x.dtype


class MoELoraLinear(nn.Module, BaseTunerLayer):
    """h = W0 x + (alpha/r) Σ_i ω_i(x) B_i A_i x with one Parameter for each A_i and B_i.

    `lora_A[adapter][i]` is [r, d], `lora_B[adapter][i]` is [m, r], `lora_router[adapter]` is [n, d]; they are at least
    float32 whatever the base layer's dtype.
    """

    adapter_layer_names = ("lora_A", "lora_B", "lora_router")
    other_param_names = ("settings",)
    kernel: Any = (project, mix)  # compiled ones in their place where asked for
    reweigh: Callable[[Tensor], Tensor] | None = None  # changes ω [groups, experts that take part] where a method asks

    get_base_layer: Any  # from PEFT
    set_adapter: Any
    active_adapters: Any
    disable_adapters: bool

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: MoELoraConfig,
        passes: Passes | None = None,
        padded: bool = True,
    ) -> None:
        super().__init__()
        self.passes, self.padded = passes or Passes(), padded
        self.base_layer = base_layer
        base: Any = self.get_base_layer()
        self.in_features, self.out_features = int(base.in_features), int(base.out_features)
        self.lora_A = nn.ModuleDict()
        self.lora_B = nn.ModuleDict()
        self.lora_router = nn.ParameterDict()
        self.settings: dict[str, MoELoraConfig] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._experts: tuple[int, ...] | None = None  # the ones that take part; None: all
        self._rest: frozenset[int] = frozenset()  # take part without gradient
        self._rows: Tensor | None = None
        self._set: Tensor | None = None  # ω [1, n] in place of the router's
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: MoELoraConfig) -> None:
        """Create an adapter's router and experts; it starts as an exact zero (B = 0)."""
        weight = self.get_base_layer().weight
        dtype = weight.dtype if weight.dtype.is_floating_point else torch.float32
        place = {"device": weight.device, "dtype": torch.promote_types(dtype, torch.float32)}

        def uniform(rows: int) -> nn.Parameter:
            values = torch.empty(rows, self.in_features, **place)
            return nn.Parameter(nn.init.kaiming_uniform_(values, a=math.sqrt(5)))

        self.settings[adapter_name] = config
        self.lora_router[adapter_name] = uniform(config.num_experts)
        self.lora_A[adapter_name] = nn.ParameterList(uniform(config.r) for _ in range(config.num_experts))
        zeros = [nn.Parameter(torch.zeros(self.out_features, config.r, **place)) for _ in range(config.num_experts)]
        self.lora_B[adapter_name] = nn.ParameterList(zeros)
        self.set_adapter(self.active_adapters)

    @property
    def adapter(self) -> str:
        """The one adapter in use."""
        names: list[str] = [name for name in self.active_adapters if name in self.settings]
        if len(names) != 1:
            raise InputError(f"exactly one adapter must be active; got {names or 'none'}. Use set_adapter(name).")
        return names[0]

    @property
    def num_experts(self) -> int:
        return self.settings[self.adapter].num_experts

    @property
    def router(self) -> nn.Parameter:
        weight: nn.Parameter = self.lora_router[self.adapter]
        return weight

    @property
    def experts_a(self) -> list[nn.Parameter]:
        """All A_i of the adapter in use."""
        return list(self.lora_A[self.adapter].parameters())

    @property
    def experts_b(self) -> list[nn.Parameter]:
        """All B_i of the adapter in use."""
        return list(self.lora_B[self.adapter].parameters())

    @property
    def trained_experts(self) -> tuple[int, ...]:
        """Numbers of the experts that take part with gradient."""
        everyone = self._experts if self._experts is not None else tuple(range(self.num_experts))
        return tuple(expert for expert in everyone if expert not in self._rest)

    def set_active(self, mask: Tensor | None, *, keep: bool = False) -> None:
        """Choose the experts that train from now on; None or all True lifts it.

        Args:
            mask: True for the experts that train [n].
            keep: the others still contribute to the forward pass, without gradient; else they are left out of the
                product and ω is renormalised over those that train.
        """
        self._experts, self._rest, self._rows = None, frozenset(), None
        if mask is None or bool(mask.all()):
            return
        if mask.shape != (self.num_experts,) or not bool(mask.any()):
            raise InputError(f"mask must hold {self.num_experts} flags, at least one of them set; got {mask.tolist()}.")
        active = tuple(mask.nonzero().flatten().tolist())
        if keep:
            self._rest = frozenset(range(self.num_experts)) - frozenset(active)
        else:
            self._experts = active
            self._rows = torch.tensor(active, device=self.router.device)

    def set_routing(self, weights: Tensor | None) -> None:
        """Give every token the same ω in place of the router's; None lifts it.

        Args:
            weights: of the experts, of any sum [n].
        """
        if weights is not None and weights.shape != (self.num_experts,):
            raise InputError(f"weights must hold {self.num_experts} numbers, one an expert; got {weights.tolist()}.")
        self._set = None if weights is None else weights.to(self.router)[None]

    def weigh(self, logits: Tensor) -> Tensor:
        """ω of logits [..., n], by the rule of training or of inference."""
        config = self.settings[self.adapter]
        if config.inference == "flat_top_2" and not self.training:
            return routing_weights(logits / config.num_experts, 2)
        return routing_weights(logits, config.top_k)

    def group(self, logits: Tensor, valid: Tensor | None = None) -> Tensor:
        """ω [groups, n] of logits [..., n]: a row for each token, each sample, or one for the batch.

        Args:
            logits: of the experts to choose among.
            valid: True for tokens that are not padding [...]; None for all.
        """
        routing = self.settings[self.adapter].routing
        return self.weigh(logits.flatten(0, -2) if routing == "token" else pooled_logits(logits, valid, routing))

    def _given_weights(self, x: Tensor, logits: Tensor) -> Tensor | None:
        """ω of the experts that take part where it is not simply each token's own; None leaves it to the kernel."""
        config = self.settings[self.adapter]
        if self._set is not None:
            return self._set if self._rows is None else self._set[:, self._rows]
        plain = config.layer == "experts" and config.inference == "as_trained" and self.reweigh is None
        if config.routing == "token" and plain:
            return None

        def make() -> Tensor:
            chosen = logits if self._rows is None else logits[..., self._rows]
            with at_full_precision(x):
                weights = self.group(chosen, self.passes.valid(x) if self.padded else None)
                return weights if self.reweigh is None else self.reweigh(weights)

        return make() if config.routing == "token" else self.passes.once(self, make)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if kwargs.pop("adapter_names", None) is not None:
            raise InputError("adapter_names must be left out: all rows of a batch use one adapter.")
        if self.disable_adapters:
            return self._base(x, *args, **kwargs)
        config, (factors_a, factors_b) = self.settings[self.adapter], self._factors()
        project_inputs, mix_outputs = self.kernel
        passed, projected = project_inputs(x, self.router, factors_a, compute_dtype(x))
        logits = projected[:, : config.num_experts].unflatten(0, x.shape[:-1])
        scaling, weights = config.lora_alpha / config.r, self._given_weights(x, logits)
        base = self._base(passed, *args, **kwargs)
        if weights is not None and config.layer == "mixed_factors":
            result, omega = mixed_factors(x, base, weights, factors_a, factors_b, scaling=scaling), weights
        else:
            rules = {"scaling": scaling, "top_k": config.top_k, "experts": self._rows, "weights": weights}
            result, omega = mix_outputs(base, projected, factors_b, **rules)
        observation = current_observation()
        if observation is not None:
            if self._experts is not None:  # of all experts, also of those that rest
                omega = self.group(logits.detach(), self.passes.valid(x) if self.padded else None)
            observation.record(self, x, omega.detach())
        return result

    def _base(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        result: Tensor = self.base_layer(x, *args, **kwargs)
        return result

    def _factors(self) -> tuple[list[Tensor], list[Tensor]]:
        """A_i and B_i of the experts that take part, without gradient where they rest."""
        chosen = range(self.num_experts) if self._experts is None else self._experts
        a, b = self.experts_a, self.experts_b
        return (
            [a[i].detach() if i in self._rest else a[i] for i in chosen],
            [b[i].detach() if i in self._rest else b[i] for i in chosen],
        )

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        raise InputError("routed experts cannot be merged into one weight: what they add depends on each input.")

    def unmerge(self) -> None:
        raise InputError("routed experts are never merged, so there is nothing to unmerge.")

    def __repr__(self) -> str:
        return "moe." + super().__repr__()
