"""InternVL3 in the transformers format, e.g. ``OpenGVLab/InternVL3-8B-hf`` or a local copy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from transformers import InternVLProcessor, PreTrainedConfig, ProcessorMixin
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from same.backbones._base import Backbone, Target
from same.backbones._layout import Group
from same.backbones._pictures import pictures_only
from same.errors import InputError

MAX_TILES = 12  # of a picture, where the checkpoint says no other


class InternVL(Backbone):
    """InternViT on tiles of a picture (and on the whole of it, made small), a projector and Qwen2.5; its checkpoint
    must be given.
    """

    name = "internvl"
    title = "InternVL3"
    MODEL_TYPES = ("internvl",)
    GROUPS: ClassVar[Mapping[Target, Group]] = {
        **Backbone.LANGUAGE,
        "vision_ffn": Group(r".*vision_tower\.encoder\.layer\.\d+\.mlp\.(fc1|fc2)", padded=False),
        "vision_attention": Group(
            r".*vision_tower\.encoder\.layer\.\d+\.attention\.(q_proj|k_proj|v_proj|projection_layer)", padded=False
        ),
    }
    SIZES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "internvl3-8b": {
            "model_type": "internvl",
            "tie_word_embeddings": False,
            "text_config": {
                "model_type": "qwen2",
                "vocab_size": 151674,
                "hidden_size": 3584,
                "intermediate_size": 18944,
                "num_hidden_layers": 28,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
            },
            "vision_config": {"attention_bias": True},
        }
    }

    @dataclass(frozen=True)
    class Config(Backbone.Config):
        """How a backbone is loaded, and how finely it sees.

        Args:
            max_tiles: most tiles a picture may be cut into (none: as many as the checkpoint says, which is 12).
        """

        max_tiles: int | None = None

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.max_tiles is not None and self.max_tiles < 1:
                raise InputError(f"max_tiles must be at least 1; got {self.max_tiles}.")

    @classmethod
    def read_processor(cls, config: Backbone.Config, checkpoint: str, model_type: str) -> ProcessorMixin:
        processor = pictures_only(InternVLProcessor, checkpoint)
        tiles = cast(InternVL.Config, config).max_tiles
        if tiles is not None:
            processor.image_processor.max_patches = tiles
        return processor

    @classmethod
    def image_tokens(cls, config: PreTrainedConfig, side: int | None = None) -> int:
        tile = config.vision_config.image_size[0]
        columns, rows = get_optimal_tiled_canvas((side or tile,) * 2, (tile, tile), 1, MAX_TILES)
        tiles = columns * rows
        return int(config.image_seq_length * (tiles + (tiles > 1)))
