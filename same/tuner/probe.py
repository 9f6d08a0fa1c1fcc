"""What a model's MoE-LoRA layers see and how they route it: the raw material of the drift audit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from same.errors import SnapshotError
from same.tuner.layer import MoELoraLinear
from same.tuner.observe import moe_layers


@contextmanager
def recorded_inputs(
    model: nn.Module, input_key: Callable[[str], str], take: Callable[[str, Tensor], Tensor]
) -> Iterator[dict[str, Tensor]]:
    """Collect, by input key, some tokens of each distinct layer input in the forward pass inside [chosen, d].

    Args:
        model: holds MoE-LoRA layers.
        input_key: names the input a layer reads.
        take: gives the chosen tokens [chosen, d] of a layer, by its name, and its input [..., d].
    """
    found: dict[str, Tensor] = {}

    def recorder(key: str, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def record(_layer: nn.Module, arguments: tuple[Any, ...]) -> None:
            inputs: Tensor = arguments[0]
            found[key] = take(name, inputs.detach()).float()

        return record

    layers = moe_layers(model)
    readers: dict[str, str] = {}
    for name in layers:
        readers.setdefault(input_key(name), name)
    hooks = [layers[name].register_forward_pre_hook(recorder(key, name)) for key, name in readers.items()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def routing_of(layer: MoELoraLinear, inputs: Tensor) -> Tensor:
    """ω that the layer's router gives each token by itself, over all experts: inputs [tokens, d] to [tokens, n].

    Where the layer routes samples or batches this is not what the token's answer was made with, which a few chosen
    tokens cannot tell.
    """
    return layer.weigh(inputs.to(layer.router) @ layer.router.T)


@dataclass(frozen=True)
class LayerWeights:
    """One layer's router and experts in float64.

    Args:
        router: W_G [n, d].
        a: all A_i [n, r, d].
        b: all B_i [n, m, r].
    """

    router: Tensor
    a: Tensor
    b: Tensor

    @classmethod
    def of(cls, layer: MoELoraLinear) -> LayerWeights:
        """A layer's weights now."""
        a, b = (torch.stack([factor.detach() for factor in part]) for part in (layer.experts_a, layer.experts_b))
        return cls(*(weight.detach().double() for weight in (layer.router, a, b)))

    @classmethod
    def saved(cls, adapter: Mapping[str, Tensor], name: str, like: LayerWeights) -> LayerWeights:
        """A layer's weights in a saved adapter.

        Args:
            adapter: what adapter_model.safetensors holds.
            name: of the layer, as the model without adapters names it.
            like: the layer's weights now.

        Raises:
            SnapshotError: the adapter has no such layer, or one of another size.
        """
        prefix = f"base_model.model.{name}"
        try:
            router = adapter[f"{prefix}.lora_router"]
            a, b = (
                torch.stack([adapter[f"{prefix}.{part}.{expert}"] for expert in range(len(router))])
                for part in ("lora_A", "lora_B")
            )
        except KeyError as missing:
            raise SnapshotError(
                f"an adapter that is compared must hold {missing.args[0]}; it does not. Use the snapshots of one run."
            ) from None
        found = cls(*(weight.to(like.router) for weight in (router, a, b)))
        if (found.router.shape, found.a.shape, found.b.shape) != (like.router.shape, like.a.shape, like.b.shape):
            raise SnapshotError(
                f"adapters that are compared must be of one size; {name} has {tuple(found.a.shape)} and "
                f"{tuple(like.a.shape)} experts × rank × inputs. Use the snapshots of one run."
            )
        return found
