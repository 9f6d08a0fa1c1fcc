"""Tables of one topic, drawn by the figures of the same topic; each function takes a `Store` and names of its runs.

Tables (pandas) and their columns; indices are 0-based, layers and inputs have short names, entropies are in bits:
    drift          run, label, after, layer, overlap, divergence, entropy, flips, router_drift, expert_drift, angle,
                   representation
    reroutings     kind says what experts were routed by: own, other (version), retrained, oracle, uniform, random, by
                   hand; run, label, id, task, task_index, router, experts, steps, learning_rate, items, seed,
                   layer, score, entropy, seconds
    rerouted       id, layer, expert, weight, entropy
    retraining     id, name, step, loss
    swap           router, experts, score (four rows); swap_effects: effect, value
    spectra        input, k (from 1), eigenvalue, kept
    ranks          after, input, rank, held, dim, tokens
    gains          input, k (from 1), eigenvalue, router, experts
    protection     input, rank, dim, router, experts: the share of an update's effect on past inputs that is left
    angles         first, second (task indices), min, mean, max (degrees)
    activation     after, step, layer, expert, utilization, importance, score, frozen; at_threshold adds rests,
                   relative_utilization and relative_importance
    freezing       after, threshold, share
    steps          run, label, task, step, position, loss, samples_per_second, memory_mb, active
    times          run, label, task_index, task, train_seconds, evaluate_seconds, memory_mb
    sizes          run, label, task_index, part (a file's name), megabytes
    planned        run, label, quantity, planned, measured; memory_parts: run, label, part, megabytes (2²⁰ bytes)
    tokens         layer, position, token ("" for a picture's), row, column, expert, weight; of_words and of_patches:
                   one layer's, or the mean over layers
"""

from workbench.tables._activation import (
    activation,
    at_threshold,
    freeze_threshold_of,
    freezing,
    last_scored,
    steps,
    times,
)
from workbench.tables._drift import drift
from workbench.tables._planned import memory_parts, planned
from workbench.tables._rerouting import rerouted, reroutings, retraining, swap, swap_effects
from workbench.tables._sizes import sizes
from workbench.tables._spectra import angles, gains, inputs, protection, ranks, rules_of, spectra, stages
from workbench.tables._tokens import of_patches, of_words, tokens, with_short_layers

__all__ = [
    "activation",
    "angles",
    "at_threshold",
    "drift",
    "freeze_threshold_of",
    "freezing",
    "gains",
    "inputs",
    "last_scored",
    "memory_parts",
    "of_patches",
    "of_words",
    "planned",
    "protection",
    "ranks",
    "rerouted",
    "reroutings",
    "retraining",
    "rules_of",
    "sizes",
    "spectra",
    "stages",
    "steps",
    "swap",
    "swap_effects",
    "times",
    "tokens",
    "with_short_layers",
]
