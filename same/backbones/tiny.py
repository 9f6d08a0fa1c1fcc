"""The embedded default: a LLaVA of 4 million parameters, shipped with the package and trained by ``same pretrain``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from same.backbones._base import Backbone, Loaded

FOLDER = Path(__file__).parent / "tiny_llava"


class Tiny(Backbone):
    """CLIP vision tower, two-layer projector and Llama, for 64-pixel pictures of a small closed world."""

    name = "tiny"
    title = "tiny-llava (embedded)"

    @classmethod
    def load(cls, config: Backbone.Config) -> Loaded:
        """Load the shipped checkpoint unless ``config`` names another."""
        return super().load(config if config.checkpoint else replace(config, checkpoint=str(FOLDER)))
