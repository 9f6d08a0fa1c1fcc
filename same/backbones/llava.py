"""LLaVA-1.5 (7B, 13B) in the transformers format, e.g. ``llava-hf/llava-1.5-7b-hf`` or a local copy."""

from __future__ import annotations

from same.backbones._base import Backbone


class Llava(Backbone):
    """CLIP ViT-L/336, two-layer projector and Vicuna; its checkpoint must be given."""

    name = "llava"
    title = "LLaVA-1.5"
