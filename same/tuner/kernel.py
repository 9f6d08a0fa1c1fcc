"""The experts' weighted sum as one autograd function over stacked factors: no loop over experts or tokens.

Router rows stand on top of the experts' A rows, so that logits and projections come from one product; the result is
added into the base layer's output in place; only the input, the projections and ω are kept for backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from same.tuner.routing import spread


def routing_weights(logits: Tensor, top_k: int | None = None) -> Tensor:
    """ω = softmax over the last dimension in at least float32, of the `top_k` largest logits or of all."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if top_k is not None and top_k < logits.shape[-1]:
        kept = torch.zeros_like(logits, dtype=torch.bool).scatter_(-1, logits.topk(top_k, -1).indices, True)
        logits = logits.masked_fill(~kept, float("-inf"))
    return logits.softmax(-1)


def moe_lora(
    x: Tensor,
    base: Tensor,
    router: Tensor,
    factors_a: Sequence[Tensor],
    factors_b: Sequence[Tensor],
    *,
    scaling: float,
    top_k: int | None = None,
    experts: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Base + scaling · Σ_i ω_i(x) B_i A_i x, in the dtype of `base`, which is overwritten where that is safe.

    Args:
        x: inputs [..., d].
        base: the frozen layer's output [..., m].
        router: W_G [n, d].
        factors_a: A_i [r, d] of the experts that take part.
        factors_b: B_i [m, r] of the same experts.
        scaling: alpha / r.
        top_k: experts kept a token.
        experts: their row numbers in the router when fewer than n take part; ω is renormalised over them.
        weights: ω of those that take part, one row for each group of as many tokens in a row [groups, n], instead of
            what the router says of each token.
    """
    tracing = torch.compiler.is_compiling()  # a graph may not ask what a view is; compilers find what can be reused
    reusable = (
        not tracing and base.is_contiguous() and not base._is_view() and not (base.is_leaf and base.requires_grad)
    )
    output = base if reusable else base.clone()
    apply: Any = _MoELora.apply
    with torch.autocast(base.device.type, enabled=False):
        routing = (router, None) if weights is None else (None, weights)
        result: Tensor = apply(x.to(base.dtype), output, *routing, scaling, top_k, experts, *factors_a, *factors_b)
    return result


def _stack(router: Tensor | None, factors_a: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.cat([*factors_a] if router is None else [router, *factors_a]).to(dtype)


class _MoELora(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        base: Tensor,
        router: Tensor | None,
        weights: Tensor | None,
        scaling: float,
        top_k: int | None,
        experts: Tensor | None,
        *factors: Tensor,
    ) -> Tensor:
        count, n = len(factors) // 2, 0 if router is None else router.shape[0]
        factors_a, factors_b = factors[:count], factors[count:]
        stacked = _stack(router, factors_a, base.dtype)
        projected = x.reshape(-1, x.shape[-1]) @ stacked.T
        if weights is None:
            weights = routing_weights(projected[:, :n] if experts is None else projected[:, experts], top_k)
        z = projected[:, n:].unflatten(-1, (count, -1))
        mixed = (z * spread(weights.to(z.dtype), len(z)).unsqueeze(-1)).flatten(1)
        output = torch.cat(factors_b, dim=1).to(base.dtype)
        base.view(-1, base.shape[-1]).addmm_(mixed, output.T, alpha=scaling)
        ctx.mark_dirty(base)
        ctx.save_for_backward(x, z, weights, experts, router, *factors)
        ctx.scaling = scaling
        return base

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x, z, weights, experts, router, *factors = ctx.saved_tensors
        gradient = gradients[0]
        count, n = len(factors) // 2, 0 if router is None else router.shape[0]
        factors_a, factors_b = factors[:count], factors[count:]
        rows, out_rows = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
        dtype, master = rows.dtype, factors_a[0].dtype
        omega = spread(weights.to(dtype), len(rows)).unsqueeze(-1)
        d_mixed = (out_rows @ torch.cat(factors_b, dim=1).to(dtype)).mul_(ctx.scaling).unflatten(-1, (count, -1))
        d_b = (out_rows.T @ (z * omega).flatten(1)).mul_(ctx.scaling)
        d_weights = (d_mixed * z).sum(-1, dtype=weights.dtype)
        d_projected = (d_mixed * omega).flatten(1)
        if router is None:
            d_weights = d_weights.view(len(weights), -1, count).sum(1)
        else:
            d_logits = weights * (d_weights - (weights * d_weights).sum(-1, keepdim=True))
            if experts is not None:
                d_logits = d_logits.new_zeros(len(rows), n).index_copy_(1, experts, d_logits)
            d_projected = torch.cat([d_logits.to(dtype), d_projected], dim=1)
        d_stacked = (d_projected.T @ rows).to(master)
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = (d_projected @ _stack(router, factors_a, dtype)).view_as(x)
        ranks = [factor.shape[0] for factor in factors_a]
        d_router, *d_a = d_stacked.split([n, *ranks])
        routing = (None, d_weights) if router is None else (d_router, None)
        return d_x, gradient, *routing, None, None, None, *d_a, *d_b.to(master).split(ranks, dim=1)
