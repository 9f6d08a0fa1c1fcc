"""Subspaces of past inputs, and changes that leave them alone."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from same.maths.spectrum import Spectrum


def grow_basis(basis: Float[Tensor, "d k"] | None, spectrum: Spectrum, threshold: float) -> Float[Tensor, "d l"]:
    """The smallest orthonormal basis beyond `basis` that holds `threshold` of the inputs' energy.

    Source: Saha, Garg and Roy, "Gradient projection memory for continual learning", ICLR 2021, Eqs. 8–9: the leading
    directions of what the inputs have outside the basis are added until ‖projection‖² ≥ ε ‖inputs‖².

    Args:
        basis: directions held so far; None for none.
        spectrum: of the inputs' covariance.
        threshold: ε in (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1]; got {threshold}. Choose 0.97.")
    root = spectrum.eigenvectors * spectrum.eigenvalues.sqrt()
    total = float(root.square().sum())
    held = 0.0
    if basis is not None:
        inside = basis.to(root).T @ root
        root, held = root - basis.to(root) @ inside, float(inside.square().sum())
    vectors, values, _ = torch.linalg.svd(root, full_matrices=False)
    energies = held + values.square().cumsum(0)
    missing = energies < threshold * total * (1 - 1e-12)
    count = 0 if held >= threshold * total else min(int(missing.sum()) + 1, len(values))
    added = vectors[:, :count].contiguous()  # as it is when it was saved: products then have the same last bits
    return added if basis is None else torch.cat([basis.to(added), added], 1)


def extend_basis(basis: Float[Tensor, "d k"] | None, vectors: Float[Tensor, "d n"]) -> Float[Tensor, "d l"]:
    """The orthonormal basis with what some vectors span outside of it; vectors that repeat one another add nothing.

    Args:
        basis: its columns stay as they are; None for none.
        vectors: as columns.
    """
    outside = vectors.double()
    largest = outside.square().sum(0).max()
    if basis is not None:
        held = basis.double()
        for _ in range(2):  # the second time for what rounding left
            outside = outside - held @ (held.T @ outside)
    energies, mixes = torch.linalg.eigh(outside.T @ outside)
    kept = energies > 1e-8 * largest
    added = (outside @ (mixes[:, kept] / energies[kept].sqrt())).to(vectors.dtype).contiguous()
    return added if basis is None else torch.cat([basis, added], 1)


def without_directions(rows: Float[Tensor, "n d"], basis: Float[Tensor, "d k"]) -> Float[Tensor, "n d"]:
    """ΔA ← ΔA (I − M Mᵀ) for an orthonormal basis M."""
    return rows - (rows @ basis) @ basis.T
