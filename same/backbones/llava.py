"""LLaVA-1.5 (7B, 13B) in the transformers format, e.g. ``llava-hf/llava-1.5-7b-hf`` or a local copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from same.backbones._base import Backbone

TOWER = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}


class Llava(Backbone):
    """CLIP ViT-L/336, two-layer projector and Vicuna; its checkpoint must be given."""

    name = "llava"
    title = "LLaVA-1.5"
    SIZES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "llava-1.5-7b": {
            "model_type": "llava",
            "text_config": {"model_type": "llama", "vocab_size": 32064},
            "vision_config": TOWER,
        },
        "llava-1.5-13b": {
            "model_type": "llava",
            "text_config": {
                "model_type": "llama",
                "vocab_size": 32064,
                "hidden_size": 5120,
                "intermediate_size": 13824,
                "num_hidden_layers": 40,
                "num_attention_heads": 40,
                "num_key_value_heads": 40,
            },
            "vision_config": TOWER,
        },
    }
