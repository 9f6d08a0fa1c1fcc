"""The behaviour of the authors' published code, as far as it can be set beside the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REFERENCE: Mapping[str, Any] = {
    # one routing for the whole batch, (Σ ω_i B_i)(Σ ω_j A_j x), and at inference softmax(logits / n) of the best two
    "routing": "batch",
    "layer": "mixed_factors",
    "inference": "flat_top_2",
    # a centred, randomised spectrum of 64 directions of the batch alone (the start of ours is fixed, and processes
    # share it, so that their weights do not part), of which the fraction of variance counts
    "covariance": "incremental",
    "exact_max_dim": 0,
    "sketch_size": 64,
    "token_stride": 1,
    "centered": True,
    "energy": "eigenvalue",
    "router_geometry": "batch",
    "refresh_steps": 1,
    # mean σ̂ / σ̂_j in [0.8, 1.2] for the router; 1 / (√σ + 0.9) for A; both on gradients
    "gain": "clamped",
    "curvature_on": "A",
    "curvature_gain": "root",
    "damping": 0.9,
    "damping_absolute": True,
    "normalise": False,
    "apply_to": "gradient",
    # scores from two running means of the same task, so near 0 that almost all experts rest from the start; what
    # rests is masked, but still computed
    "importance": "recent",
    "freeze_threshold": 0.1,
    "freeze_warmup": 0.0,
    "freeze_every": 10,
    "frozen_forward": "keep",
}
