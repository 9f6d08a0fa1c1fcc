"""A slot for each task, all weighed by how much an instruction is like each task's.

    h = W0 x + Σ_t w_t B_t A_t x ,     w = softmax_t(cos(e(instruction), e_t) / τ)

in every layer, with e_t the mean feature of task t's instructions. Each slot is trained alone.

Source: Guo et al., "Federated continual instruction tuning", ICCV 2025 (DISCO): its subspace-selective activation, in
the centralised setting that MCITlib compares. The feature is the mean input embedding of the instruction's words
instead of a sentence encoder's, less the mean anchor.
"""

from dataclasses import dataclass

from same.methods._anchored import AnchoredConfig, AnchoredSlots
from same.methods._base import Batch


class Disco(AnchoredSlots):
    """DISCO."""

    title = "DISCO"
    paper = "Guo et al., Federated continual instruction tuning, ICCV 2025"
    notes = "The slots of all tasks together have the usual number of parameters; anchors choose, not a task's number."
    kinds = ("instruction",)

    @dataclass(frozen=True)
    class Config(AnchoredConfig):
        """As for all anchored slots, chosen more sharply."""

        temperature: float = 0.05

    def route(self, batch: Batch) -> None:
        self.weigh(dict.fromkeys(self.layers, self.spread(self.likeness(batch))))
