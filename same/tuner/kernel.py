"""The experts' weighted sum as two autograd functions around the base layer: no loop over experts or tokens.

Router rows stand on top of the experts' A rows, so that logits and projections come from one product; the result is
added into the base layer's output in place, and the gradient of the input into the base layer's own; only the input,
the projections and ω are kept for backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from same.tuner.routing import spread


def at_full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Entered where products keep the dtype of their factors, autocast or not."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def routing_weights(logits: Tensor, top_k: int | None = None) -> Tensor:
    """ω = softmax over the last dimension in at least float32, of the `top_k` largest logits or of all."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if top_k is not None and top_k < logits.shape[-1]:
        kept = torch.zeros_like(logits, dtype=torch.bool).scatter_(-1, logits.topk(top_k, -1).indices, True)
        logits = logits.masked_fill(~kept, float("-inf"))
    return logits.softmax(-1)


def project(
    x: Tensor, router: Tensor, factors_a: Sequence[Tensor], dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """The inputs again, for the base layer to read, and x [W_G; A_1; …]ᵀ, from one product.

    The base layer must read the inputs returned: their gradient then comes by here, and the experts' part is added to
    it in place instead of being made and summed apart. That gradient must be a tensor of its own, as a linear layer's
    is.

    Args:
        x: inputs [..., d].
        router: W_G [n, d].
        factors_a: A_i [r, d] of the experts that take part.
        dtype: of the product; x's by default.

    Returns:
        The inputs, and logits and projections [tokens, n + experts · r].
    """
    apply: Any = _Project.apply
    with at_full_precision(x):
        result: tuple[Tensor, Tensor] = apply(x, dtype or x.dtype, router, *factors_a)
    return result


def mix(
    base: Tensor,
    projected: Tensor,
    factors_b: Sequence[Tensor],
    *,
    scaling: float,
    top_k: int | None = None,
    experts: Tensor | None = None,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Base + scaling · Σ_i ω_i(x) B_i A_i x, in the dtype of `base`, which is overwritten where that is safe.

    Args:
        base: the frozen layer's output [..., m].
        projected: logits of all n experts beside the projections of those that take part, from `project`.
        factors_b: B_i [m, r] of the experts that take part.
        scaling: alpha / r.
        top_k: experts kept a token.
        experts: their row numbers in the router when fewer than n take part; ω is renormalised over them.
        weights: ω of those that take part, one row for each group of as many tokens in a row [groups, experts], instead
            of what the logits say of each token.

    Returns:
        The sum, and the ω it was made with, without gradient.
    """
    tracing = torch.compiler.is_compiling()  # a graph may not ask what a view is; compilers find what can be reused
    reusable = (
        not tracing and base.is_contiguous() and not base._is_view() and not (base.is_leaf and base.requires_grad)
    )
    output = base if reusable else base.clone()
    apply: Any = _Mix.apply
    with at_full_precision(base):
        result: tuple[Tensor, Tensor] = apply(
            output, projected.to(base.dtype), weights, scaling, top_k, experts, *factors_b
        )
    return result


def _stack(router: Tensor, factors_a: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.cat([router, *factors_a]).to(dtype)


def _each(weights: Tensor, tokens: int, rank: int) -> Tensor:
    """ω as often as its expert has projections, for each token [tokens, experts · r].

    Written out, since processors multiply long rows faster than they repeat numbers in short ones.
    """
    return spread(weights, tokens).repeat_interleave(rank, 1)


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype, router: Tensor, *factors_a: Tensor) -> tuple[Tensor, Tensor]:
        rows = x.reshape(-1, x.shape[-1]).to(dtype)
        passed = x.view_as(x)
        if not ctx.needs_input_grad[0]:
            ctx.mark_non_differentiable(passed)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(rows, router, *factors_a)
        ctx.shape, ctx.dtype = x.shape, x.dtype
        return passed, rows @ _stack(router, factors_a, dtype).T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        rows, router, *factors_a = ctx.saved_tensors
        d_x, d_projected = gradients
        if d_projected is None:
            return d_x, None, None, *([None] * len(factors_a))
        d_stacked = (d_projected.T @ rows).to(router.dtype)
        if ctx.needs_input_grad[0]:
            stacked = _stack(router, factors_a, rows.dtype)
            if d_x is not None and d_x.dtype == rows.dtype and d_x.is_contiguous():
                d_x.view(rows.shape).addmm_(d_projected, stacked)
            else:
                ours = (d_projected @ stacked).view(ctx.shape).to(ctx.dtype)
                d_x = ours if d_x is None else d_x + ours
        return d_x, None, *d_stacked.split([len(router), *(len(factor) for factor in factors_a)])


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        base: Tensor,
        projected: Tensor,
        given: Tensor | None,
        scaling: float,
        top_k: int | None,
        experts: Tensor | None,
        *factors_b: Tensor,
    ) -> tuple[Tensor, Tensor]:
        count, rank = len(factors_b), factors_b[0].shape[1]
        every, z = projected.tensor_split([projected.shape[1] - count * rank], dim=1)
        weights = routing_weights(every if experts is None else every[:, experts], top_k) if given is None else given
        mixed = (z * _each(weights.to(z.dtype), len(z), rank)).mul_(scaling)
        z = z.unflatten(1, (count, rank))
        base.view(-1, base.shape[-1]).addmm_(mixed, torch.cat(factors_b, dim=1).to(base.dtype).T)
        ctx.mark_dirty(base)
        ctx.save_for_backward(z, weights, experts, *factors_b)
        ctx.scaling, ctx.width, ctx.given = scaling, every.shape[1], given is not None
        shown = weights.detach() if given is None else weights.detach().clone()  # no output may be an input
        ctx.mark_non_differentiable(shown)
        return base, shown

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        z, weights, experts, *factors_b = ctx.saved_tensors
        gradient, (count, rank) = gradients[0], z.shape[1:]
        rows, dtype = gradient.reshape(-1, gradient.shape[-1]), z.dtype
        omega = _each((weights * ctx.scaling).to(dtype), len(rows), rank)
        d_mixed = rows @ torch.cat(factors_b, dim=1).to(dtype)
        d_b = (z.flatten(1) * omega).T @ rows  # this way round the long side stays contiguous
        d_weights = (d_mixed.view_as(z) * z).sum(-1, dtype=weights.dtype).mul_(ctx.scaling)
        d_given = None
        if ctx.given:
            d_given = d_weights.view(len(weights), -1, count).sum(1)
            d_logits = d_weights.new_zeros(len(rows), ctx.width)
        else:
            d_logits = weights * (d_weights - (weights * d_weights).sum(-1, keepdim=True))
            if experts is not None:
                d_logits = d_logits.new_zeros(len(rows), ctx.width).index_copy_(1, experts, d_logits)
        d_projected = torch.cat([d_logits.to(dtype), d_mixed.mul_(omega)], dim=1)
        # One copy puts each expert's gradient into the layout of its parameter.
        d_factors = d_b.unflatten(0, (count, rank)).mT
        d_factors = d_factors.to(factors_b[0].dtype, memory_format=torch.contiguous_format)
        return gradient, d_projected, d_given, None, None, None, *d_factors.contiguous().unbind()
