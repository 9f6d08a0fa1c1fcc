"""What shares one routing: each token, a sample, or the batch; and what a generation keeps of its prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

ROUTINGS = ("token", "sample", "batch")


def pooled_logits(logits: Tensor, valid: Tensor | None, routing: str) -> Tensor:
    """Mean of the valid tokens' logits (those of their mean input) in at least float32 [samples or 1, n].

    Args:
        logits: [samples, tokens, n]; without a dimension of samples it is one sample.
        valid: True for tokens that are not padding [samples, tokens]; None for all. Padding may hold anything.
        routing: "sample" or "batch".
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    groups = len(logits) if routing == "sample" and logits.dim() > 2 else 1
    logits = logits.reshape(groups, -1, logits.shape[-1])
    if valid is None:
        return logits.mean(1)
    valid = valid.reshape(groups, -1, 1)
    pooled: Tensor = logits.masked_fill(~valid, 0).sum(1) / valid.sum(1).clamp_min(1)
    return pooled


def spread(weights: Tensor, tokens: int) -> Tensor:
    """ω of each group [groups, n] as ω of each of its tokens [tokens, n]."""
    return weights if len(weights) == tokens else weights.repeat_interleave(tokens // len(weights), 0)


class Passes:
    """What the layers of one model know of the forward pass they are in.

    The mask stays until the model's next pass, so that a pass that activation checkpointing repeats during backward
    sees it again; backward must therefore come before the next pass.
    """

    def __init__(self) -> None:
        self._mask: Tensor | None = None
        self._kept: dict[int, Tensor] | None = None

    def see(self, _model: torch.nn.Module, _arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        """Note the pass's `attention_mask`, which must be given by name; a hook of the model, called before it."""
        self._mask = named.get("attention_mask")

    def valid(self, x: Tensor) -> Tensor | None:
        """True for the tokens of a layer's input that are not padding; None where no mask of its shape was given.

        So all tokens of an input of another shape count, such as the one new token of a cached step.
        """
        if self._mask is None or self._mask.shape != x.shape[:-1]:
            return None
        return self._mask.to(x.device).bool()

    @contextmanager
    def call(self) -> Iterator[None]:
        """One call of the model, a forward pass or a whole generation."""
        before, self._kept = self._kept, {}
        try:
            yield
        finally:
            self._kept = before

    def once(self, layer: object, make: Callable[[], Tensor]) -> Tensor:
        """What `make` gave for the layer in this call's first pass: in a generation, that of the prompt.

        Passes with gradient always make their own.
        """
        if self._kept is None or torch.is_grad_enabled():
            return make()
        if id(layer) not in self._kept:
            self._kept[id(layer)] = make()
        return self._kept[id(layer)]
