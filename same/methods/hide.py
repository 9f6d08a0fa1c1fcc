"""A slot for each task: all of them below, a mix of them in the last block.

    lower blocks:  h = W0 x + Σ_t B_t A_t x ,     last block:  h = W0 x + Σ_t w_t B_t A_t x ,

w = softmax_t(s_t / τ), with s_t the mean cosine of a row's picture and instruction with the means of task t's. Each
slot is trained alone.

Source: Guo et al., "HiDe-LLaVA: hierarchical decoupling for continual instruction tuning of multimodal large language
model", ACL 2025, Eqs. 5–9. The features are the backbone's own (projected patches, input embeddings of the words), each
less the mean anchor, instead of CLIP's two encoders.
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from same.methods._anchored import AnchoredConfig, AnchoredSlots
from same.methods._base import Batch, Layout


class Hide(AnchoredSlots):
    """HiDe-LLaVA."""

    title = "HiDe"
    paper = "Guo et al., HiDe-LLaVA: hierarchical decoupling for continual instruction tuning, ACL 2025"
    notes = "The slots of all tasks together have the usual number of parameters; anchors choose, not a task's number."

    @dataclass(frozen=True)
    class Config(AnchoredConfig):
        """As for all anchored slots."""

    def attach(self, model: nn.Module, backbone: Layout) -> nn.Module:
        attached = super().attach(model, backbone)
        blocks = {name: int(found[-1]) for name in self.layers if (found := re.findall(r"\.(\d+)\.", name))}
        self.last = {name for name, block in blocks.items() if block == max(blocks.values())}
        return attached

    def route(self, batch: Batch) -> None:
        mixed: Tensor = self.likeness(batch)
        some, everything = self.spread(mixed), self.spread(torch.ones_like(mixed[:1]))
        self.weigh({name: some if name in self.last else everything for name in self.layers})
