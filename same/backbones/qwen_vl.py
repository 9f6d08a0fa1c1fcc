"""Qwen2.5-VL and Qwen3-VL, e.g. ``Qwen/Qwen2.5-VL-7B-Instruct`` or a local copy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from transformers import PreTrainedConfig, ProcessorMixin, Qwen2_5_VLProcessor, Qwen3VLProcessor

from same.backbones._base import Backbone, Target
from same.backbones._layout import Group
from same.backbones._pictures import pictures_only
from same.errors import InputError

USUAL_SIDE = 448  # pixels of a square picture, where the planner is told no other
PROCESSORS = {"qwen2_5_vl": Qwen2_5_VLProcessor, "qwen3_vl": Qwen3VLProcessor}


def _rotary(theta: float, section: list[int], **more: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta, "mrope_section": section, **more}


def _tower(width: int) -> dict[str, Any]:
    """Qwen2.5-VL's vision tower, which is the same at all sizes but for its output."""
    return {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": width}


class QwenVL(Backbone):
    """A vision tower at the pictures' own resolution, a merger of 2 × 2 patches and Qwen; its checkpoint must be given.

    All pictures of a batch lie one after the other in one sequence of patches, without padding.
    """

    name = "qwen_vl"
    title = "Qwen2.5-VL, Qwen3-VL"
    MODEL_TYPES = tuple(PROCESSORS)
    GROUPS: ClassVar[Mapping[Target, Group]] = {
        **Backbone.LANGUAGE,
        "vision_ffn": Group(
            r".*visual\.blocks\.\d+\.mlp\.(gate_proj|up_proj|down_proj|linear_fc1|linear_fc2)",
            padded=False,
            packed=True,
        ),
        "vision_attention": Group(r".*visual\.blocks\.\d+\.attn\.(qkv|proj)", padded=False, packed=True),
    }
    SIZES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "qwen2.5-vl-3b": {
            "model_type": "qwen2_5_vl",
            "tie_word_embeddings": True,
            "text_config": {
                "vocab_size": 151936,
                "hidden_size": 2048,
                "intermediate_size": 11008,
                "num_hidden_layers": 36,
                "num_attention_heads": 16,
                "num_key_value_heads": 2,
                "rope_parameters": _rotary(1e6, [16, 24, 24]),
            },
            "vision_config": _tower(2048),
        },
        "qwen2.5-vl-7b": {
            "model_type": "qwen2_5_vl",
            "text_config": {
                "vocab_size": 152064,
                "hidden_size": 3584,
                "intermediate_size": 18944,
                "num_hidden_layers": 28,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
                "rope_parameters": _rotary(1e6, [16, 24, 24]),
            },
            "vision_config": _tower(3584),
        },
        "qwen3-vl-8b": {
            "model_type": "qwen3_vl",
            "text_config": {
                "vocab_size": 151936,
                "hidden_size": 4096,
                "intermediate_size": 12288,
                "num_hidden_layers": 36,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "rope_parameters": _rotary(5e6, [24, 20, 20], mrope_interleaved=True),
            },
            "vision_config": {
                "depth": 27,
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_heads": 16,
                "patch_size": 16,
                "out_hidden_size": 4096,
            },
        },
    }

    @dataclass(frozen=True)
    class Config(Backbone.Config):
        """How a backbone is loaded, and how finely it sees.

        Args:
            max_image_tokens: most tokens a picture may take in the language model; larger pictures are made smaller
                (none: as many as the checkpoint says, which is up to 16,384).
        """

        max_image_tokens: int | None = None

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.max_image_tokens is not None and self.max_image_tokens < 1:
                raise InputError(f"max_image_tokens must be at least 1; got {self.max_image_tokens}.")

    @classmethod
    def read_processor(cls, config: Backbone.Config, checkpoint: str, model_type: str) -> ProcessorMixin:
        processor = pictures_only(PROCESSORS[model_type], checkpoint)
        tokens = cast(QwenVL.Config, config).max_image_tokens
        if tokens is not None:
            pictures = processor.image_processor
            most = tokens * (pictures.patch_size * pictures.merge_size) ** 2
            least, was = pictures.size["shortest_edge"], pictures.size["longest_edge"]
            pictures.size = {"shortest_edge": min(least, most), "longest_edge": min(was, most)}
        return processor

    @classmethod
    def image_tokens(cls, config: PreTrainedConfig, side: int | None = None) -> int:
        vision = config.vision_config
        cell = vision.patch_size * vision.spatial_merge_size
        cells = max(1, round((side or USUAL_SIDE) / cell))
        return int(cells**2)
