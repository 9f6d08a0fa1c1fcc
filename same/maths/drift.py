"""How far routing, experts and subspaces moved from where an earlier task left them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from same.maths.curvature import degradation
from same.maths.spectrum import Spectrum


def entropy(p: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """−Σ p log p in nats."""
    terms: Tensor = torch.special.entr(p)
    return terms.sum(-1)


def js_divergence(p: Float[Tensor, "*batch n"], q: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Jensen–Shannon divergence in bits: 0 for equal distributions, 1 for disjoint ones."""
    nats = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
    return nats.clamp_min(0) / torch.log(torch.tensor(2.0, dtype=p.dtype, device=p.device))


def overlap(p: Float[Tensor, "*batch n"], q: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Σ min(p, q): 1 for equal distributions, 0 for disjoint ones."""
    return torch.minimum(p, q).sum(-1)


def coefficient_of_variation(load: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Standard deviation of the experts' load over its mean: 0 is perfect balance."""
    return load.std(-1, correction=0) / load.mean(-1)


def principal_angles(first: Float[Tensor, "d k"], second: Float[Tensor, "d l"]) -> Float[Tensor, " a"]:
    """Angles in radians, ascending, between the spans of two orthonormal bases.

    Small angles come from their sines, where cosines lose half the digits.
    """
    if first.shape[1] < second.shape[1]:
        first, second = second, first
    cosines = torch.linalg.svdvals(first.mT @ second).clamp(0, 1)
    sines = torch.linalg.svdvals(second - first @ (first.mT @ second)).flip(0).clamp(0, 1)
    return torch.where(cosines**2 < 0.5, torch.acos(cosines), torch.asin(sines))


def functional_drift(
    delta: Float[Tensor, "*batch m d"], weight: Float[Tensor, "*batch m d"], covariance: Float[Tensor, "d d"]
) -> Float[Tensor, "*batch"]:
    """tr(ΔW C ΔWᵀ) / tr(W C Wᵀ): the share of a map's old output that changed."""
    return degradation(delta, covariance) / degradation(weight, covariance)


def split_drift(
    delta: Float[Tensor, "*batch m d"], spectrum: Spectrum, rank: int
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """tr(ΔW C ΔWᵀ) carried by the `rank` leading directions, and by the rest."""
    energy = (delta @ spectrum.eigenvectors).square().sum(-2) * spectrum.eigenvalues
    return energy[..., :rank].sum(-1), energy[..., rank:].sum(-1)


def input_spectrum(inputs: Float[Tensor, "tokens d"]) -> Spectrum:
    """Spectrum of C = (1/tokens) Σ x xᵀ of a few recorded inputs, without forming C: at most `tokens` directions.

    From the tokens' products XXᵀ = U S² Uᵀ, whose eigenvectors give those of C, V = Xᵀ U S⁻¹, in a third of the time of
    a singular value decomposition. Directions that hold less of the energy than the numbers can tell are zero.
    """
    tokens, width = inputs.shape
    energies, vectors = torch.linalg.eigh(inputs @ inputs.mT if tokens < width else inputs.mT @ inputs)
    energies, vectors = energies.flip(-1).clamp_min(0), vectors.flip(-1)
    if tokens < width:
        held = energies > energies.amax() * torch.finfo(inputs.dtype).eps * tokens
        energies = energies * held
        vectors = inputs.mT @ vectors * torch.where(held, energies, 1).rsqrt() * held
    trace = float(inputs.square().sum()) / tokens
    return Spectrum(energies / tokens, vectors.contiguous(), float(tokens), trace)


def factor_change(
    old: tuple[Float[Tensor, "*batch m r"], Float[Tensor, "*batch r d"]],
    new: tuple[Float[Tensor, "*batch m r"], Float[Tensor, "*batch r d"]],
) -> tuple[Float[Tensor, "*batch m q"], Float[Tensor, "*batch q d"]]:
    """ΔW = B′A′ − BA as two factors of rank q = 2r, [B′ − B, B′] and [A; A′ − A]: an exact zero where nothing moved.

    Args:
        old: B, A.
        new: B′, A′.
    """
    (old_b, old_a), (new_b, new_a) = old, new
    return torch.cat([new_b - old_b, new_b], -1), torch.cat([old_a, new_a - old_a], -2)


def split_factored(
    outputs: Float[Tensor, "*batch m q"], inputs: Float[Tensor, "*batch q d"], spectrum: Spectrum, rank: int
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """`split_drift` of W = outputs · inputs, which is never formed: tr(W C Wᵀ) = Σ_j σ_j ‖outputs · inputs v_j‖²."""
    projected = inputs @ spectrum.eigenvectors
    lengths = ((outputs.mT @ outputs @ projected) * projected).sum(-2).clamp_min(0)
    energy = lengths * spectrum.eigenvalues
    return energy[..., :rank].sum(-1), energy[..., rank:].sum(-1)


def relative(change: Float[Tensor, "*batch"], whole: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Change / whole, and 0 where nothing changed; infinite where something grew out of nothing."""
    return torch.where(change == 0, torch.zeros_like(change), change / whole)


def representation_drift(now: Float[Tensor, "tokens d"], then: Float[Tensor, "tokens d"]) -> Float[Tensor, ""]:
    """Σ‖x′ − x‖² / Σ‖x‖² over the same tokens: how far a layer's inputs moved, in units of their own energy."""
    return relative((now - then).square().sum(), then.square().sum())


def argmax_flips(p: Float[Tensor, "*batch n"], q: Float[Tensor, "*batch n"]) -> Float[Tensor, ""]:
    """Share of tokens whose largest weight belongs to another expert."""
    return (p.argmax(-1) != q.argmax(-1)).to(p.dtype).mean()
