"""The layer of the authors' published code, which mixes the factors of different experts; for comparison only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from same.tuner.kernel import at_full_precision
from same.tuner.routing import spread


def mixed_factors(
    x: Tensor,
    base: Tensor,
    weights: Tensor,
    factors_a: Sequence[Tensor],
    factors_b: Sequence[Tensor],
    *,
    scaling: float,
) -> Tensor:
    """Base + scaling · (Σ_i ω_i B_i)(Σ_j ω_j A_j x): each expert's B also meets the other experts' A.

    Args:
        x: inputs [..., d].
        base: the frozen layer's output [..., m].
        weights: ω of each group of tokens [groups, n].
        factors_a: A_i [r, d].
        factors_b: B_i [m, r].
        scaling: alpha / r.
    """
    rows = x.reshape(-1, x.shape[-1]).to(base.dtype)
    with at_full_precision(base):
        omega = spread(weights, len(rows)).to(base.dtype).unsqueeze(-1)
        projected = (rows @ torch.cat(list(factors_a)).to(base.dtype).T).unflatten(-1, (len(factors_a), -1))
        mean = (projected * omega).sum(1, keepdim=True)
        added: Tensor = (mean * omega).flatten(1) @ torch.cat(list(factors_b), 1).to(base.dtype).T
    result: Tensor = base + scaling * added.view_as(base)
    return result
